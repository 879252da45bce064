"""What every probe is: its configuration, what it needs, and how it scores.

Knows scores and layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from probegrid.errors import ConfigError, closest
from probegrid.schema import ProbeConfig

if TYPE_CHECKING:
    from probegrid.data.example import QuestionSet
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedProbe
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.session import Respondent

POSITIONS = ("statement_end", "statement_mean", "next_token", "answer_first", "answer_last", "last")
"""Where in a conversation an activation is read."""


@dataclass(frozen=True)
class Scoring:
    """What an answer probe scores, and whom it may ask besides."""

    data: QuestionSet
    """The n questions; their references are not for the probe."""
    reading: AnswerReading
    """The answers to them, in their order."""
    respondent: Respondent
    """The model that gave the answers: it can be asked more."""


@dataclass(frozen=True)
class Scores:
    """What an answer probe says of n questions; every score is finite, and larger where correct is more likely."""

    own: Sequence[float]
    """The probe's score of each question."""
    others: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Scores that the same reading gives at no further cost, by name (``evaluation.metrics.OTHER_SCORES``)."""
    read_s: float = 0.0
    """Seconds of what was read besides the answers, those of earlier runs included."""
    notes: Sequence[str] = ()
    """What the user should know of how the scores came about."""


@dataclass
class AnswerProbe(ProbeConfig, ABC):
    """Scores the model's own answers; an example's label is whether its answer was correct."""

    is_probability: ClassVar[bool] = False
    """Whether a score is a probability of being correct, so that its calibration can be measured."""

    @property
    def classifier(self) -> str | None:
        """Hub id or folder of an entailment model that the scores depend on; None: there is none."""
        return None

    def check(self, respondent: Respondent) -> None:
        """Refuse a model that cannot be scored, before it is asked anything, which may take hours.

        Raises:
            ConfigError: it cannot.
        """

    @abstractmethod
    def score(self, scoring: Scoring) -> Scores:
        """Score each question of the reading."""


@dataclass
class TrainedProbe(ProbeConfig, ABC):
    """Learns from labelled examples; an example's label is a statement's truth, or an answer's correctness."""

    split: str = "leakfree"
    """How the examples are divided into train, validation and test: ``leakfree``, ``by_conversation``,
    ``leave_one_source_out`` or ``random``."""
    seed: int = 0
    """Seed of the division, of the order of training and of the control's labels, each with a generator of its own."""
    test_on: list[str] = field(default_factory=list)
    """Names of datasets the trained probe is tested on besides its own."""

    def __post_init__(self) -> None:
        from probegrid.evaluation.splits import METHODS

        if self.split not in METHODS:
            raise ConfigError(f"probe.split={self.split} is not known; {closest(self.split, METHODS)}.")
        if self.seed < 0:
            raise ConfigError(f"probe.seed={self.seed} is negative; give 0 or more.")


@dataclass
class ActivationProbe(TrainedProbe, ABC):
    """Learns a direction in the residual stream, one a layer."""

    layers: Any = "all"
    """Layers that are read: a list (``[22]``, ``[0,16,22]``), or ``all``. Layer L is the residual stream after L
    blocks; 0 is the embeddings."""
    positions: str = "statement_end"
    """Where an activation is read: ``statement_end`` (last token of the statement; of a question, of the model's own
    answer, as ``answer_last``), ``statement_mean``, ``next_token`` (the one after it), ``answer_first``,
    ``answer_last``, ``last`` (of the whole conversation)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers = _check_layers(self.layers)
        if self.positions not in POSITIONS:
            raise ConfigError(
                f"probe.positions={self.positions} is not known; {closest(self.positions, POSITIONS)}."
            )

    def on_answers(self) -> Self:
        """The same probe for a model's own answers: ``statement_end`` is called ``answer_last`` there."""
        return replace(self, positions="answer_last") if self.positions == "statement_end" else self

    @abstractmethod
    def fit(self, features: Features) -> FittedProbe:
        """Fit a direction for every layer on the train split; what is chosen, is chosen on the validation split.

        The test split must not matter.
        """


def _check_layers(layers: object) -> str | list[int]:
    """Sort the layers and drop repeats, so that one choice is written in one way.

    Raises:
        ConfigError: neither ``all`` nor one or more whole numbers of at least 0.
    """
    if layers == "all":
        return "all"
    numbers = layers if isinstance(layers, list) else [layers]
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        raise ConfigError(
            f"probe.layers={layers} is neither 'all' nor a list of layers; give, for example, probe.layers=[22]."
        )
    return sorted(set(numbers))


def resolve_layers(layers: str | list[int], blocks: int) -> tuple[int, ...]:
    """The layers a probe asks for, of a model of so many blocks, rising.

    Raises:
        ConfigError: the model has no such layer.
    """
    if isinstance(layers, str):
        return tuple(range(blocks + 1))
    if beyond := [layer for layer in layers if layer > blocks]:
        raise ConfigError(
            f"probe.layers asks for layer {beyond[0]} and the model has {blocks} blocks; layers go from 0 (the "
            f"embeddings) to {blocks}."
        )
    return tuple(layers)
