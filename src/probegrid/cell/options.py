"""What the model makes of a question's options: which it finds most likely, in all and by their length.

Knows prepared cells, the reading of options, and how lm-evaluation-harness scores them: ``acc`` by the sum of an
option's log-probabilities, ``acc_norm`` by that sum over the length of its text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probegrid.data.example import Question, QuestionSet
from probegrid.data.options import LETTERS
from probegrid.errors import ConfigError
from probegrid.evaluation.summary import evaluate_answers, flat, mean_estimate
from probegrid.readings.options import Continuations, check_fit, continuations_of
from probegrid.schema import OptionScores, PromptConfig

if TYPE_CHECKING:
    import pyarrow as pa

    from probegrid.readings.options import OptionReading
    from probegrid.readings.prompts import Prompt
    from probegrid.readings.templates import ChatTemplate


def written_options(question: Question, scores: OptionScores) -> tuple[str, ...]:
    """The options of a question as they are put behind the prompt: letters, or texts and those that have no letter."""
    if scores is OptionScores.letters:
        return tuple(LETTERS[: len(question.options)])
    return question.options + tuple(text for text, _ in question.more_options)


def options_to_read(
    data: QuestionSet,
    prompts: Sequence[Prompt],
    config: PromptConfig,
    template: ChatTemplate,
    context: int | None,
) -> tuple[Continuations, ...]:
    """The tokens of every option, where they are asked for; else none.

    Raises:
        ConfigError: a question has no options, the tokenizer joins one with its prompt, or the model cannot hold both.
    """
    if config.score_options is OptionScores.none:
        return ()
    if without := next((one for one in data.questions if not one.options), None):
        raise ConfigError(
            f"prompt.score_options={config.score_options.name} scores options, and question {without.id} has none; set "
            "prompt.score_options=none, or name them with dataset.options_column."
        )
    options = continuations_of(
        prompts,
        lambda prompt: written_options(prompt.question, config.score_options),
        template,
        begins_turn=template.source is not None and config.prefill is None,
    )
    check_fit(prompts, options, context)
    return options


@dataclass(frozen=True)
class ScoredOptions:
    """The options of every question with their log-probabilities."""

    questions: Sequence[Question]
    scores: OptionScores
    reading: OptionReading

    @property
    def sums(self) -> list[list[float]]:
        """Log-probability of each option in nats, those without a letter last."""
        return [[math.fsum(tokens) for tokens in options] for options in self.reading.logprobs]

    def by_length(self) -> list[list[float]]:
        """The same by each character of the option's text, of those with a letter and those without."""
        return [
            [
                value / len(text)
                for value, text in zip(found, written_options(question, self.scores), strict=True)
            ]
            for question, found in zip(self.questions, self.sums, strict=True)
        ]

    def metrics(self, seed: int) -> dict[str, float]:
        """How often the most likely option is the right one, with intervals, and the mass on the letters."""
        found = _accuracy("option_accuracy", self.questions, self.sums, seed)
        if self.scores is OptionScores.texts:
            found |= _accuracy("option_accuracy_norm", self.questions, self.by_length(), seed)
            return found | (self._true_mass() if any(one.more_options for one in self.questions) else {})
        masses = [min(_mass(each), 1.0) for each in self.sums]
        return found | flat({"letter_mass": mean_estimate(masses, self._groups(), is_share=True)})

    def are_true(self) -> list[list[bool]]:
        """Whether each scored option is true."""
        return [
            [letter == question.references[0] for letter in LETTERS[: len(question.options)]]
            + [true for _, true in question.more_options if self.scores is OptionScores.texts]
            for question in self.questions
        ]

    def table(self) -> pa.Table:
        """``options.parquet``: a row a question, its options, their log-probabilities, and which is right.

        Options without a letter stand behind the lettered ones where they were scored; ``true`` says which are true.
        """
        import pyarrow as pa

        return pa.table(
            {
                "example_id": pa.array([one.id for one in self.questions], pa.string()),
                "options": pa.array(self._texts(), pa.list_(pa.string())),
                "true": pa.array(self.are_true(), pa.list_(pa.bool_())),
                "logprobs": pa.array(self.sums, pa.list_(pa.float64())),
                "n_tokens": pa.array(
                    [[len(tokens) for tokens in found] for found in self.reading.logprobs],
                    pa.list_(pa.int32()),
                ),
                "right": pa.array([one.references[0] for one in self.questions], pa.string()),
            }
        )

    def _texts(self) -> list[tuple[str, ...]]:
        return [
            question.options
            if self.scores is OptionScores.letters
            else written_options(question, self.scores)
            for question in self.questions
        ]

    def _true_mass(self) -> dict[str, float]:
        """Probability of the true options among all, a mean over questions (TruthfulQA's mc2, Lin et al. 2022)."""
        shares = [_share(found, true) for found, true in zip(self.sums, self.are_true(), strict=True)]
        return flat({"option_true_mass": mean_estimate(shares, self._groups(), is_share=True)})

    def _groups(self) -> list[str] | None:
        groups = [question.group or question.id for question in self.questions]
        return None if len({*groups}) == len(groups) else groups


def _share(logprobs: Sequence[float], true: Sequence[bool]) -> float:
    """What the true ones have of the probability of all; by the largest, since none may be above what a float holds."""
    most = max(logprobs)
    masses = [math.exp(each - most) for each in logprobs]
    return math.fsum(mass for mass, is_true in zip(masses, true, strict=True) if is_true) / math.fsum(masses)


def _mass(logprobs: Sequence[float]) -> float:
    return math.fsum(map(math.exp, logprobs))


def _accuracy(
    name: str, questions: Sequence[Question], scores: Sequence[Sequence[float]], seed: int
) -> dict[str, float]:
    """The share of questions whose highest score is the right option's; the first of equal ones counts."""
    right = [
        LETTERS[max(range(len(question.options)), key=found.__getitem__)] == question.references[0]
        for question, found in zip(questions, scores, strict=True)
    ]
    groups = [question.group or question.id for question in questions]
    whole = evaluate_answers(right, [0.0] * len(right), groups, seed=seed).metrics
    return {f"{name}{end}": whole[f"accuracy{end}"] for end in ("", "_ci_low", "_ci_high")}
