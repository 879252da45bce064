"""The middle of a cell whose probe scores the model's own answers: prompts, answers, verdicts, scores, numbers.

Knows questions, prompts, answers, correctness and evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.cell.outcome import Outcome
from probegrid.data.example import Question, QuestionSet
from probegrid.evaluation.correctness import Judgement, Rule, judge
from probegrid.evaluation.figures import png, reliability_figure, risk_coverage_figure, roc_figure
from probegrid.evaluation.summary import Summary, evaluate_answers
from probegrid.probes import AnswerProbe, Scores, Scoring
from probegrid.probes.likelihood import mean_logprob, perplexity, sum_logprob
from probegrid.readings.answers import AnswerReading
from probegrid.readings.session import Respondent

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class JudgedAnswers:
    """The model's answers to a set of questions, each with its verdict."""

    data: QuestionSet
    reading: AnswerReading
    verdicts: Sequence[Judgement]

    @property
    def correct(self) -> list[bool]:
        """Whether each answer is correct."""
        return [verdict.correct for verdict in self.verdicts]


def read_judged_answers(respondent: Respondent, data: QuestionSet) -> JudgedAnswers:
    """Read (or fetch from the store) the answers and hold them against their references."""
    reading = respondent.answer(data)
    rule = Rule(data.rule)
    verdicts = [
        judge(answer.text, question.references, rule)
        for question, answer in zip(data.questions, reading.greedy, strict=True)
    ]
    return JudgedAnswers(data, reading, verdicts)


def answer_outcome(probe: AnswerProbe, respondent: Respondent, data: QuestionSet, *, seed: int) -> Outcome:
    """Read the answers, score them and evaluate the scores.

    Args:
        probe: gives the scores.
        respondent: gives the answers.
        data: the questions.
        seed: of the intervals.
    """
    probe.check(respondent)
    answers = read_judged_answers(respondent, data)
    scores = probe.score(Scoring(data, answers.reading, respondent))
    for note in scores.notes:
        respondent.progress.say(note)
    table = ScoreTable(data.questions, answers.correct, scores.own, scores.others)
    summary = evaluate_answers(
        table.labels,
        table.scores,
        table.groups,
        seed=seed,
        probability=probe.is_probability,
        others=table.others,
    )
    return Outcome(
        metrics=summary.metrics | _reading_metrics(answers, scores),
        notes=dict(summary.notes) | ({"scores": "; ".join(scores.notes)} if scores.notes else {}),
        tables={**table.to_tables(), **answer_tables(answers)},
        figures=_figures(table, summary, seed),
    )


def answer_tables(answers: JudgedAnswers) -> dict[str, pa.Table]:
    """``answers.parquet``, and ``samples.parquet`` where there are samples."""
    tables = {"answers": answers_table(answers.reading, answers.verdicts)}
    if len(answers.reading.generations[0]) > 1:
        tables["samples"] = samples_table(answers.reading)
    return tables


@dataclass(frozen=True)
class ScoreTable:
    """What a probe says of each example, beside the truth."""

    questions: Sequence[Question]
    labels: Sequence[bool]
    scores: Sequence[float]
    others: Mapping[str, Sequence[float]]

    @property
    def groups(self) -> list[str]:
        """Group of each example; one without a group stands alone."""
        return [question.group or question.id for question in self.questions]

    def to_tables(self) -> dict[str, pa.Table]:
        """``scores.parquet`` of the probe's own score, and ``other_scores.parquet`` where there are others.

        Answers are never trained on, so that the split of all is ``test``.
        """
        import pyarrow as pa

        ids = pa.array([question.id for question in self.questions], pa.string())
        scores = {
            "example_id": ids,
            "group": pa.array(self.groups, pa.string()),
            "split": pa.array(["test"] * len(self.questions), pa.string()),
            "label": pa.array(self.labels, pa.bool_()),
            "score": pa.array(self.scores, pa.float64()),
        }
        others = {name: pa.array(values, pa.float64()) for name, values in self.others.items()}
        tables = {"scores": pa.table(scores)}
        return tables | ({"other_scores": pa.table({"example_id": ids, **others})} if others else {})


def answers_table(reading: AnswerReading, verdicts: Sequence[Judgement]) -> pa.Table:
    """``answers.parquet``: a row a question, its greedy answer."""
    import pyarrow as pa

    asked, answers = [prompt.question for prompt in reading.prompts], reading.greedy
    return pa.table(
        {
            "example_id": pa.array([question.id for question in asked], pa.string()),
            "prompt": pa.array([prompt.text for prompt in reading.prompts], pa.string()),
            "answer": pa.array([answer.text for answer in answers], pa.string()),
            "token_ids": pa.array([answer.token_ids for answer in answers], pa.list_(pa.int32())),
            "token_logprobs": pa.array([answer.token_logprobs for answer in answers], pa.list_(pa.float32())),
            "n_tokens": pa.array([len(answer.token_ids) for answer in answers], pa.int32()),
            "references": pa.array([question.references for question in asked], pa.list_(pa.string())),
            "em": pa.array([verdict.em for verdict in verdicts], pa.float64()),
            "f1": pa.array([verdict.f1 for verdict in verdicts], pa.float64()),
            "correct": pa.array([verdict.correct for verdict in verdicts], pa.bool_()),
        }
    )


def samples_table(reading: AnswerReading) -> pa.Table:
    """``samples.parquet``: a row a sample, under ``decoding=sample``."""
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
            "token_logprobs": pa.array(
                [sample.token_logprobs for _, _, sample in rows], pa.list_(pa.float32())
            ),
            "n_tokens": pa.array([len(sample.token_ids) for _, _, sample in rows], pa.int32()),
        }
    )


def _reading_metrics(answers: JudgedAnswers, scores: Scores) -> dict[str, float]:
    reading, n = answers.reading, len(answers.verdicts)
    return {
        "f1": sum(verdict.f1 for verdict in answers.verdicts) / n,
        "nll_mean": -sum(map(sum_logprob, reading.greedy)) / n,
        "mean_nll_mean": -sum(map(mean_logprob, reading.greedy)) / n,
        "perplexity_mean": sum(map(perplexity, reading.greedy)) / n,
        "n_tokens_mean": sum(len(answer.token_ids) for answer in reading.greedy) / n,
        "tokens_per_s": reading.generated_tokens / reading.read_s,
        "examples_per_s": n / reading.read_s,
        "read_s": reading.read_s + scores.read_s,
    }


def _figures(table: ScoreTable, summary: Summary, seed: int) -> dict[str, bytes]:
    labels, scores, estimates = table.labels, table.scores, summary.estimates
    figures = {
        "risk_coverage": risk_coverage_figure(
            labels, scores, estimates["aurc"], table.groups, title="Risk and coverage", seed=seed
        )
    }
    if 0 < summary.n_correct < summary.n:
        figures["roc"] = roc_figure(labels, scores, estimates["auroc"], title="Correct against wrong")
    if "ece" in estimates:
        figures["reliability"] = reliability_figure(labels, scores, estimates["ece"], title="Reliability")
    return {name: png(figure) for name, figure in figures.items()}
