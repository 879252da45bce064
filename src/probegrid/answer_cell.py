"""The middle of a cell whose probe scores the model's own answers: prompts, answers, verdicts, scores, numbers.

Knows questions, prompts, answers, correctness and evaluation; must not know how a cell is recorded or tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.evaluation.correctness import Judgement, Rule, judge
from probegrid.evaluation.figures import png, risk_coverage_figure, roc_figure
from probegrid.evaluation.summary import Summary, evaluate_answers
from probegrid.identity import describe_answers
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.load import LoadedModel, load_tokenizer
from probegrid.outcome import Outcome
from probegrid.probes import AnswerProbe
from probegrid.progress import Progress
from probegrid.readings.answers import AnswerReading, read_answers
from probegrid.readings.prompts import build_prompts, check_lengths
from probegrid.schema import Config

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


def read_judged_answers(
    config: Config,
    checkpoint: Checkpoint,
    data: QuestionSet,
    open_model: Callable[[], LoadedModel],
    progress: Progress,
) -> JudgedAnswers:
    """Read (or fetch from the store) the answers and hold them against their references.

    Args:
        config: the cell.
        checkpoint: where the tokenizer is.
        data: the questions.
        open_model: loads the model; called only if an answer is missing.
        progress: told how far the reading is.
    """
    tokenizer = load_tokenizer(checkpoint, config.model)
    prompts = build_prompts(data, config.prompt, tokenizer, config.model.chat_template)
    check_lengths(prompts, config.decoding.max_new_tokens, checkpoint.context)
    reading = read_answers(
        prompts,
        config.decoding,
        config.prompt.stop,
        description=describe_answers(config, checkpoint, data),
        store_dir=config.store_dir,
        tokenizer=tokenizer,
        open_model=open_model,
        progress=progress,
    )
    rule = Rule(data.rule)
    verdicts = [
        judge(answer.text, question.references, rule)
        for question, answer in zip(data.questions, reading.greedy, strict=True)
    ]
    return JudgedAnswers(data, reading, verdicts)


def answer_outcome(probe: AnswerProbe, answers: JudgedAnswers, *, seed: int) -> Outcome:
    """Score the answers and evaluate the scores.

    Args:
        probe: gives the scores.
        answers: what is scored.
        seed: of the intervals.
    """
    reading, verdicts = answers.reading, answers.verdicts
    table = ScoreTable(answers.data.questions, answers.correct, probe.score(reading))
    summary = evaluate_answers(
        table.labels, table.scores, table.groups, seed=seed, probability=probe.is_probability
    )
    tables = {"scores": table.to_arrow(), **answer_tables(answers)}
    return Outcome(
        metrics=summary.metrics | _reading_metrics(reading, verdicts),
        notes=dict(summary.notes),
        tables=tables,
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
    """``scores.parquet``: what a probe says of each example, beside the truth."""

    questions: Sequence[Question]
    labels: Sequence[bool]
    scores: Sequence[float]

    @property
    def groups(self) -> list[str]:
        """Group of each example; one without a group stands alone."""
        return [question.group or question.id for question in self.questions]

    def to_arrow(self) -> pa.Table:
        """Columns example_id, group, split, label, score; answers are never trained on, so that all are ``test``."""
        import pyarrow as pa

        return pa.table(
            {
                "example_id": pa.array([question.id for question in self.questions], pa.string()),
                "group": pa.array(self.groups, pa.string()),
                "split": pa.array(["test"] * len(self.questions), pa.string()),
                "label": pa.array(self.labels, pa.bool_()),
                "score": pa.array(self.scores, pa.float64()),
            }
        )


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


def _reading_metrics(reading: AnswerReading, verdicts: Sequence[Judgement]) -> dict[str, float]:
    n = len(verdicts)
    return {
        "f1": sum(verdict.f1 for verdict in verdicts) / n,
        "nll_mean": -sum(sum(answer.token_logprobs) for answer in reading.greedy) / n,
        "tokens_per_s": reading.generated_tokens / reading.read_s,
        "examples_per_s": n / reading.read_s,
        "read_s": reading.read_s,
    }


def _figures(table: ScoreTable, summary: Summary, seed: int) -> dict[str, bytes]:
    figures = {
        "risk_coverage": risk_coverage_figure(
            table.labels,
            table.scores,
            summary.estimates["aurc"],
            table.groups,
            title="Risk and coverage",
            seed=seed,
        )
    }
    if 0 < summary.n_correct < summary.n:
        figures["roc"] = roc_figure(
            table.labels, table.scores, summary.estimates["auroc"], title="Correct against wrong"
        )
    return {name: png(figure) for name, figure in figures.items()}
