"""What a cell finds whose probe scores the model's own answers: scores, numbers, tables, pictures.

Knows questions, judged answers and evaluation.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from probegrid.cell.answer_notes import notes_on_answers, thought_metrics
from probegrid.cell.evidence import Asked
from probegrid.cell.gather import Gathered, JudgedAnswers, entailments_of, similarities_of
from probegrid.cell.others import Others, other_scores
from probegrid.cell.outcome import Outcome
from probegrid.data.example import Question
from probegrid.errors import ConfigError
from probegrid.evaluation.checks import as_score
from probegrid.evaluation.correctness import Judgement
from probegrid.evaluation.extraction import Extracted
from probegrid.evaluation.figures import image_files, reliability_figure, risk_coverage_figure, roc_figure
from probegrid.evaluation.summary import (
    NO_ANSWERS,
    NO_OWN_SCORES,
    NO_SCORES,
    OF_SOME,
    Summary,
    evaluate_answers,
    flat,
    mean_estimate,
)
from probegrid.judges.likelihood import logprobs, mean_logprob, perplexity, sum_logprob
from probegrid.probes import AnswerProbe, Of, Scores, Scoring
from probegrid.readings.answers import AnswerReading
from probegrid.readings.spans import token_texts

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from probegrid.cell.cell import Cell
    from probegrid.inference.generation import Generation
    from probegrid.probes.base import Entails
    from probegrid.readings.session import ModelSession


_ENDS = ("", "_ci_low", "_ci_high")
_LEAST = {"nll_mean": 0.0, "mean_nll_mean": 0.0, "perplexity_mean": 1.0, "n_tokens_mean": 0.0}
"""What no answer's can be below."""
_OF_ALL = ("accuracy", "accuracy_ci_low", "accuracy_ci_high", "n", "n_correct")
"""How often the model is right, which is of all answers, those without a score included."""


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of a cell with their scores: all that is read is read."""

    answers: JudgedAnswers
    scores: Scores
    notes: Sequence[str]
    read_s: float
    """Seconds of all readings, those of earlier runs included."""
    others: Others
    """What the judges say that the readings allow."""


def score_answers(cell: Cell, probe: AnswerProbe, gathered: Gathered, session: ModelSession) -> ScoredAnswers:
    """Score the answers, which may ask for entailments.

    Args:
        cell: what was read.
        probe: gives the scores.
        gathered: everything that its needs named.
        session: the model.
    """
    answers = gathered.answers
    assert answers is not None
    with (
        entailments_of(cell, session, answers) as entailments,
        similarities_of(cell, session, answers) as similarities,
    ):
        scores = checked(
            probe.score(scoring_of(cell, gathered, entailments)),
            f"probe={type(probe).declared_name()}",
            answers.data.questions,
        )
        others = other_scores(cell, gathered, Asked(entailments, similarities))
    notes = [*scores.notes, *(note for replies in gathered.asked.values() for note in replies.notes)]
    read_s = gathered.read_s
    for asked in (entailments, similarities):
        if asked is not None and asked.read_s:
            notes, read_s = [*notes, *asked.notes], read_s + asked.read_s
    scores = replace(scores, own=_of_given(scores.own, answers.reading, samples=cell.needs.samples > 0))
    others = others.of_given(answers.reading)
    return ScoredAnswers(answers, scores, notes, read_s, others)


def checked(scores: Scores, of: str, questions: Sequence[Question]) -> Scores:
    """The scores as floats, one a question; a probe may be somebody's own.

    Raises:
        ConfigError: another number of them, or one that is no number, or infinite.
    """

    def column(given: Sequence[float]) -> list[float]:
        if len(given) != len(questions):
            raise ConfigError(
                f"{of} gives {len(given)} scores of {len(questions)} answers; one an answer is needed."
            )
        return [as_score(value, of, question.text) for value, question in zip(given, questions, strict=True)]

    others = {name: column(given) for name, given in scores.others.items()}
    return replace(scores, own=column(scores.own), others=others)


def _of_given(scores: Sequence[float], reading: AnswerReading, *, samples: bool) -> list[float]:
    """The scores, none of a question without an answer: a thought that did not end says nothing of one.

    Args:
        scores: of the questions.
        reading: their answers.
        samples: whether the score is of the samples too.
    """
    return [
        score if all(each.is_given for each in (found if samples else found[:1])) else math.nan
        for score, found in zip(scores, reading.generations, strict=True)
    ]


def answer_outcome(cell: Cell, probe: AnswerProbe, scored: ScoredAnswers, session: ModelSession) -> Outcome:
    """Evaluate the scores."""
    about = notes_on_answers(scored.answers.reading.greedy, scored.answers.verdicts).get("answers")
    for note in (*scored.notes, *([about] if about else [])):
        session.progress.say(note)
    return _evaluated(cell, probe, scored)


def scoring_of(cell: Cell, gathered: Gathered, entails: Entails | None) -> Scoring:
    """What the probe of a cell is handed: everything that its needs named."""
    answers = gathered.answers
    assert answers is not None
    steps = () if gathered.steps is None else gathered.steps.steps
    return Scoring(answers.data, answers.reading, gathered.asked, _states(cell, gathered), entails, steps)


def _states(cell: Cell, gathered: Gathered) -> Tensor | None:
    """Hidden states [n, generations, layers, d] as `Scoring` has them."""
    if gathered.hidden is None or gathered.answers is None or cell.needs.hidden is None:
        return None
    reading = gathered.answers.reading
    each = len(reading.generations[0]) - 1 if cell.needs.hidden.of is Of.samples else 1
    stacked = gathered.hidden.stack()
    return stacked.reshape(len(reading.prompts), each, *stacked.shape[1:])


def _evaluated(cell: Cell, probe: AnswerProbe, scored: ScoredAnswers) -> Outcome:
    answers, scores, notes, read_s = scored.answers, scored.scores, scored.notes, scored.read_s
    beside = {**scored.others.columns, **scores.others}
    beside.pop(type(probe).declared_name(), None)  # the probe's own
    grades = {"f1": [verdict.f1 for verdict in answers.verdicts]}
    table = ScoreTable(answers.data.questions, answers.correct, scores.own, beside, grades)
    held, seed = table.scored(), cell.config.seed
    summary = evaluate_answers(
        held.labels,
        held.scores,
        held.groups,
        seed=seed,
        probability=probe.is_probability,
        grades=held.grades,
    )
    said = dict(summary.notes) | ({"scores": "; ".join(notes)} if notes else {})
    metrics = summary.metrics | reading_metrics(answers, seed) | {"read_s": read_s}
    found, lacking = area_metrics(held, seed)
    metrics, said = found | metrics, said | lacking
    of_all = summary
    if len(held.labels) < len(table.labels):
        of_all = evaluate_answers(table.labels, [0.0] * len(table.labels), table.groups, seed=seed)
        metrics = metrics | {name: of_all.metrics[name] for name in _OF_ALL} | _unscored(held, table)
        said = _of_scored(said, found)
    if few := of_all.notes.get("accuracy"):
        said |= {"accuracy": few, "f1": few}  # the same answers and groups stand behind both
    if missing := metrics.get("n_not_extracted"):
        said["n_not_extracted"] = (
            f"in {missing:.0f} of {len(table.labels)} answers nothing was found to judge, and they count as wrong"
        )
    said |= notes_on_answers(answers.reading.greedy, answers.verdicts)
    return Outcome(
        metrics=metrics,
        notes=said,
        tables={
            **table.to_tables(),
            **answer_tables(cell, answers, scores.clusters),
            "judges": scored.others.table(),
        },
        figures=_figures(held, summary, seed),
    )


def area_metrics(table: ScoreTable, seed: int) -> tuple[dict[str, float], dict[str, str]]:
    """AUROC with its interval of each of the other scores, on the examples that have it; a note where some lack it."""
    metrics: dict[str, float] = {}
    notes: dict[str, str] = {}
    whole = {name: values for name, values in table.others.items() if not any(map(math.isnan, values))}
    found = evaluate_answers(table.labels, table.scores, table.groups, seed=seed, others=whole)
    names = [f"{name}_auroc" for name in whole]
    metrics |= {f"{name}{end}": found.metrics[f"{name}{end}"] for name in names for end in _ENDS}
    notes |= {name: found.notes[name] for name in names if name in found.notes}
    for name in table.others.keys() - whole.keys():
        values = table.others[name]
        rows = [row for row, value in enumerate(values) if not math.isnan(value)]
        held = [table.labels[row] for row in rows], [values[row] for row in rows]
        of_rows = evaluate_answers(*held, [table.groups[row] for row in rows], seed=seed).metrics
        metrics |= {f"{name}_auroc{end}": of_rows[f"auroc{end}"] for end in _ENDS}
        share = 1 - len(rows) / len(values)
        notes[f"{name}_auroc"] = (
            f"of the {len(rows)} of {len(values)} {OF_SOME} ({share:.0%} have none)" if rows else NO_SCORES
        )
    return metrics, notes


def _unscored(held: ScoreTable, table: ScoreTable) -> dict[str, float]:
    """How many answers have no score, and the share that they are."""
    lacks = [math.isnan(score) for score in table.scores]
    groups = table.groups if len({*table.groups}) < len(lacks) else None
    share = mean_estimate(lacks, groups, is_share=True)
    return {"n_unscored": len(lacks) - len(held.labels), **flat({"unscored_share": share})}


def _of_scored(notes: Mapping[str, str], beside: Collection[str]) -> dict[str, str]:
    """The notes, where some answers have no score: accuracy is of all, and what none has is not for lack of answers.

    Args:
        notes: of the answers that have one.
        beside: metrics of other scores, which are of the same answers.
    """
    kept = {name: note for name, note in notes.items() if name != "accuracy"}
    return {
        name: re.sub(r"^(all \d+ answers) ", r"\1 that have a score ", note).replace(
            NO_ANSWERS, NO_OWN_SCORES if name in beside else NO_SCORES
        )
        for name, note in kept.items()
    }


def answer_tables(
    cell: Cell, answers: JudgedAnswers, clusters: Sequence[Sequence[int]] | None = None
) -> dict[str, pa.Table]:
    """``answers.parquet``, and ``samples.parquet`` where there are samples.

    Args:
        cell: its tokenizer shows what each token says.
        answers: with their verdicts.
        clusters: of the samples of each question; None where none are made.
    """
    assert cell.model is not None
    pieces = [token_texts(answer.token_ids, cell.model.tokenizer) for answer in answers.reading.greedy]
    table = answers_table(answers.reading, answers.verdicts, pieces)
    table = _with_thoughts(table, answers.reading.greedy)
    if answers.extracted is not None:
        table = _with_extracted(table, answers.extracted)
    if answers.judged is not None:
        table = _with_judged(table, answers)
    tables = {"answers": table}
    if answers.options is not None:
        tables["options"] = answers.options.table()
    if len(answers.reading.generations[0]) > 1:
        samples = [sample for found in answers.reading.generations for sample in found[1:]]
        tables["samples"] = _with_thoughts(samples_table(answers.reading, clusters), samples)
    return tables


def _with_thoughts(table: pa.Table, answers: Sequence[Generation]) -> pa.Table:
    """``thinking`` and ``n_thinking_tokens``, where any answer was thought about; null: one was not."""
    import pyarrow as pa

    if all(answer.thinking is None for answer in answers):
        return table
    lengths = [None if answer.thinking is None else len(answer.thinking_ids) for answer in answers]
    table = table.append_column("thinking", pa.array([answer.thinking for answer in answers], pa.string()))
    return table.append_column("n_thinking_tokens", pa.array(lengths, pa.int32()))


def _with_extracted(table: pa.Table, extracted: Sequence[Extracted | None]) -> pa.Table:
    """``extracted`` and ``extracted_by``: what of each answer was judged, and by what it was found; null: nothing."""
    import pyarrow as pa

    texts = [None if found is None else found.text for found in extracted]
    ways = [None if found is None else found.by for found in extracted]
    table = table.append_column("extracted", pa.array(texts, pa.string()))
    return table.append_column("extracted_by", pa.array(ways, pa.string()))


def _asking(answers: JudgedAnswers) -> dict[str, float]:
    """What asking a second model took; nothing where there is none."""
    if answers.judged is None:
        return {}
    return {"n_judged": len(answers.judged), "judge_s": answers.judge_s}


def _with_judged(table: pa.Table, answers: JudgedAnswers) -> pa.Table:
    """``judge_p``: the second model's share of yes; null where it was not asked."""
    import pyarrow as pa

    assert answers.judged is not None
    parts = answers.extracted or [None] * len(answers.reading.greedy)
    shares = [
        answers.judged.get((question.id, answer.text if part is None else part.text))
        for question, answer, part in zip(answers.data.questions, answers.reading.greedy, parts, strict=True)
    ]
    return table.append_column("judge_p", pa.array(shares, pa.float64()))


@dataclass(frozen=True)
class ScoreTable:
    """What a probe says of each example, beside the truth."""

    questions: Sequence[Question]
    labels: Sequence[bool]
    scores: Sequence[float]
    others: Mapping[str, Sequence[float]]
    grades: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """Group of each example; one without a group stands alone."""
        return [question.group or question.id for question in self.questions]

    def scored(self) -> ScoreTable:
        """The examples that have a score."""
        return self.only([row for row, score in enumerate(self.scores) if not math.isnan(score)])

    def only(self, rows: Sequence[int]) -> ScoreTable:
        """Some of the examples."""
        return ScoreTable(
            [self.questions[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.scores[row] for row in rows],
            *(
                {name: [values[row] for row in rows] for name, values in columns.items()}
                for columns in (self.others, self.grades)
            ),
        )

    def to_tables(self) -> dict[str, pa.Table]:
        """``scores.parquet`` of the probe's own score, and ``other_scores.parquet`` where there are others.

        Answers are never trained on, so that the split of all is ``test``; an example without a score has a null.
        """
        import pyarrow as pa

        ids = pa.array([question.id for question in self.questions], pa.string())
        scores = {
            "example_id": ids,
            "group": pa.array(self.groups, pa.string()),
            "split": pa.array(["test"] * len(self.questions), pa.string()),
            "label": pa.array(self.labels, pa.bool_()),
            "score": pa.array(np.asarray(self.scores, dtype=float), pa.float64(), from_pandas=True),
        }
        others = {
            name: pa.array(np.asarray(values, dtype=float), pa.float64(), from_pandas=True)
            for name, values in self.others.items()
        }
        tables = {"scores": pa.table(scores)}
        return tables | ({"other_scores": pa.table({"example_id": ids, **others})} if others else {})


def answers_table(
    reading: AnswerReading, verdicts: Sequence[Judgement], pieces: Sequence[Sequence[str]]
) -> pa.Table:
    """``answers.parquet``: a row a question, its greedy answer; ``token_logprobs`` as the scores have them.

    Args:
        reading: the answers.
        verdicts: on each of them.
        pieces: what each token of each answer says.
    """
    import pyarrow as pa

    asked, answers = [prompt.question for prompt in reading.prompts], reading.greedy
    return pa.table(
        {
            "example_id": pa.array([question.id for question in asked], pa.string()),
            "question": pa.array([question.text for question in asked], pa.string()),
            "prompt": pa.array([prompt.text for prompt in reading.prompts], pa.string()),
            "answer": pa.array([answer.text for answer in answers], pa.string()),
            "token_ids": pa.array([answer.token_ids for answer in answers], pa.list_(pa.int32())),
            "token_texts": pa.array(pieces, pa.list_(pa.string())),
            "token_logprobs": pa.array([logprobs(answer) for answer in answers], pa.list_(pa.float32())),
            "n_tokens": pa.array([len(answer.token_ids) for answer in answers], pa.int32()),
            "ended": pa.array([answer.ended for answer in answers], pa.string()),
            "references": pa.array([question.references for question in asked], pa.list_(pa.string())),
            "em": pa.array([verdict.em for verdict in verdicts], pa.float64()),
            "f1": pa.array([verdict.f1 for verdict in verdicts], pa.float64()),
            "correct": pa.array([verdict.correct for verdict in verdicts], pa.bool_()),
        }
    )


def samples_table(reading: AnswerReading, clusters: Sequence[Sequence[int]] | None = None) -> pa.Table:
    """``samples.parquet``: a row a sample, with its cluster of meaning where the probe made clusters."""
    import pyarrow as pa

    rows = [
        (prompt.question.id, number, sample)
        for prompt, found in zip(reading.prompts, reading.generations, strict=True)
        for number, sample in enumerate(found[1:])
    ]
    return pa.table(
        {
            "example_id": pa.array([example for example, _, _ in rows], pa.string()),
            "sample": pa.array([number for _, number, _ in rows], pa.int32()),
            "answer": pa.array([sample.text for _, _, sample in rows], pa.string()),
            "token_ids": pa.array([sample.token_ids for _, _, sample in rows], pa.list_(pa.int32())),
            "token_logprobs": pa.array([logprobs(sample) for _, _, sample in rows], pa.list_(pa.float32())),
            "n_tokens": pa.array([len(sample.token_ids) for _, _, sample in rows], pa.int32()),
            "ended": pa.array([sample.ended for _, _, sample in rows], pa.string()),
            **(
                {"cluster": pa.array([one for found in clusters for one in found], pa.int32())}
                if clusters is not None
                else {}
            ),
        }
    )


def reading_metrics(answers: JudgedAnswers, seed: int) -> dict[str, float]:
    """What the answers themselves are like, whatever is said of them, and what reading them took."""
    reading, n = answers.reading, len(answers.verdicts)
    seconds = max(reading.read_s, 1e-9)
    alone = _groups_of(answers)
    ended = Counter(str(answer.ended) for answer in reading.greedy)
    f1 = mean_estimate([verdict.f1 for verdict in answers.verdicts], alone, is_share=True)
    given = [answer for answer in reading.greedy if answer.is_given]
    if alone is not None:
        alone = [group for group, answer in zip(alone, reading.greedy, strict=True) if answer.is_given]
    means = {
        "nll_mean": [-sum_logprob(answer) for answer in given],
        "mean_nll_mean": [-mean_logprob(answer) for answer in given],
        "perplexity_mean": [perplexity(answer) for answer in given],
        "n_tokens_mean": [float(len(answer.token_ids)) for answer in given],
    }
    scored = {} if answers.options is None else answers.options.metrics(seed)
    return {
        **extraction_metrics(answers),
        **_asking(answers),
        **scored,
        **flat({"f1": f1}),
        **(
            flat({name: mean_estimate(values, alone, least=_LEAST[name]) for name, values in means.items()})
            if given
            else {}
        ),
        **thought_metrics(reading.greedy),
        "n_empty": ended["empty"],
        "n_ended_stop": ended["stop"],
        "n_ended_eos": ended["eos"],
        "n_ended_length": ended["length"],
        "tokens_per_s": reading.generated_tokens / seconds,
        "examples_per_s": n / seconds,
    }


def extraction_metrics(answers: JudgedAnswers) -> dict[str, float]:
    """How often an answer was found in what was said; nothing where all of it is judged."""
    if answers.extracted is None:
        return {}
    found = [one is not None for one in answers.extracted]
    share = mean_estimate(found, _groups_of(answers), is_share=True)
    return flat({"extraction_share": share}) | {"n_not_extracted": found.count(False)}


def _groups_of(answers: JudgedAnswers) -> list[str] | None:
    """Group of each answer; None where each stands alone."""
    groups = [question.group or question.id for question in answers.data.questions]
    return None if len({*groups}) == len(groups) else groups


def _figures(table: ScoreTable, summary: Summary, seed: int) -> dict[str, bytes]:
    labels, scores, estimates = table.labels, table.scores, summary.estimates
    if not labels:
        return {}
    figures = {
        "risk_coverage": risk_coverage_figure(
            labels, scores, estimates["aurc"], table.groups, title="Risk and coverage", seed=seed
        )
    }
    if 0 < summary.n_correct < summary.n:
        figures["roc"] = roc_figure(labels, scores, estimates["auroc"], title="Correct against wrong")
    if "ece" in estimates:
        figures["reliability"] = reliability_figure(labels, scores, estimates["ece"], title="Reliability")
    return image_files(figures)
