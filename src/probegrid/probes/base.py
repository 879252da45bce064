"""What every probe is: its configuration, what it needs of a model, and how it scores or learns.

Knows needs as data and what readings hold; nothing of the store, the engine or devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from probegrid.errors import ConfigError, closest
from probegrid.readings.identity import not_default
from probegrid.readings.needs import ITSELF, Ask, HiddenStates, Kind, Needs, Of, Similarity, resolve_layers
from probegrid.schema import ProbeConfig
from probegrid.schema.ranges import number_field, seed_field

if TYPE_CHECKING:
    from torch import Tensor

    from probegrid.data.example import QuestionSet
    from probegrid.evaluation.checks import BoolArray, FloatArray
    from probegrid.probes.fitting.features import Features
    from probegrid.probes.fitting.fitted import FittedByLayer
    from probegrid.readings.answers import AnswerReading
    from probegrid.readings.asks import Replies
    from probegrid.readings.token_steps import TokenSteps

__all__ = [
    "ITSELF",
    "POSITIONS",
    "ActivationProbe",
    "AnswerProbe",
    "Ask",
    "Fitted",
    "HiddenStates",
    "Kind",
    "Needs",
    "Of",
    "Probe",
    "Scores",
    "Scoring",
    "Similarity",
    "TrainedProbe",
    "resolve_layers",
]

POSITIONS = (
    "statement_end",
    "statement_mean",
    "next_token",
    "prompt_last",
    "answer_first",
    "answer_before_last",
    "answer_last",
    "answer_mean",
    "last",
)
"""Where in a conversation an activation is read."""

_OF_ANSWERS = {"statement_end": "answer_last", "statement_mean": "answer_mean"}
"""What positions of statements are called where answers are read."""

_NOT_ITS_OWN = ("from_cell", "test_on")
"""Fields that name what a probe is used on, not what it is."""

Pair = tuple[str, str]
Entails = Callable[[Sequence[Pair]], Sequence[bool]]
"""Whether, in each pair, the first text entails the second."""


@dataclass(frozen=True)
class Scoring:
    """What an answer probe scores: the questions, and everything that its needs named."""

    data: QuestionSet
    """The n questions; their references are not for the probe."""
    reading: AnswerReading
    """The answers to them, in their order: the greedy one of each, then its samples."""
    asked: Mapping[str, Replies] = field(default_factory=dict)
    """What the model said to the probe's own prompts, by their names in its needs."""
    hidden: Tensor | None = None
    """Hidden states [n, generations, layers, d] bfloat16: of the samples, or (one generation) of the greedy answers."""
    entails: Entails | None = None
    """The second model of its needs; it answers many pairs at once, and each pair once a reading."""
    steps: Sequence[TokenSteps] = ()
    """What was kept of the distributions of each greedy answer's tokens, under ``Needs.distributions``."""


@dataclass(frozen=True)
class Scores:
    """What an answer probe says of n questions; a score is larger where correct is more likely."""

    own: Sequence[float]
    """The probe's score of each question, finite; not a number where it has none, which is counted and left out."""
    others: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Scores of the probe's own that the same readings give, by name; those of every judge in `probegrid.judges` that
    the readings allow stand beside them anyway."""
    notes: Sequence[str] = ()
    """What the user should know of how the scores came about."""
    clusters: Sequence[Sequence[int]] | None = None
    """Cluster of meaning of each sample of each question, the greedy answer left out; None where none are made."""


@dataclass
class Probe(ProbeConfig, ABC):
    """Whatever reads a model on a dataset and gives every example a score."""

    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)
    """Of what examples it can be a probe."""
    choice: ClassVar[str | None] = None
    """Name of its choice in the group ``probe``; None: its module's."""
    learns: ClassVar[bool] = False
    """Whether it is fitted on labelled examples (`TrainedProbe`) or scores by itself (`AnswerProbe`)."""

    def needs(self, kind: Kind) -> Needs:
        """What it needs of a model, for examples of this kind."""
        return Needs(samples=self.fewest_samples)

    @classmethod
    def declared_name(cls) -> str:
        """Name of its choice in the group ``probe``, by which its results are known."""
        return cls.__dict__.get("choice") or cls.__module__.rpartition(".")[2]

    def described(self) -> dict[str, Any]:
        """The fields that differ from their defaults and decide its result besides its needs."""
        return not_default(self, without=_NOT_ITS_OWN)


@dataclass
class AnswerProbe(Probe, ABC):
    """Scores the model's own answers; an example's label is whether its answer was correct."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({Kind.questions})
    is_probability: ClassVar[bool] = False
    """Whether a score is a probability of being correct, so that its calibration can be measured."""

    @abstractmethod
    def score(self, scoring: Scoring) -> Scores:
        """Score each question of the reading."""


class Fitted(Protocol):
    """A probe that was fitted: it scores examples, in one way or in several (a column a layer)."""

    @property
    def threshold(self) -> float | None:
        """A score above it is called true; None: one is chosen on validation."""

    @property
    def scales(self) -> Any:
        """float64[columns], positive: the log-odds of true are ``scale * score``."""

    def score(self, features: Features) -> FloatArray:
        """Score the n examples: float64[n, columns], larger where true is more likely."""


@dataclass
class TrainedProbe(Probe, ABC):
    """Learns from labelled examples; an example's label is a statement's truth, or an answer's correctness."""

    learns: ClassVar[bool] = True
    split: str = "leakfree"
    """How the examples are divided into train, validation and test: ``leakfree``, ``by_conversation``, ``prune``,
    ``leave_one_source_out`` or ``random``."""
    folds: int = number_field(1, least=1, most=1000, hint="1 is one division 60/20/20; try 5")
    """Parts of the examples, each of which is tested by a probe fitted on the others; 1: one test split."""
    repeats: int = number_field(1, least=1, most=1000, hint="1 is one division; try 10")
    """Divisions by further seeds, from the same activations, that show how much a number depends on the split."""
    seed: int = seed_field()
    """Seed of the division, of the order of training and of the control's labels, each with a generator of its own."""
    test_on: list[str] = field(default_factory=list)
    """Names of datasets the trained probe is tested on besides its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from probegrid.evaluation.splits import METHODS

        if self.split not in METHODS:
            raise ConfigError(f"probe.split={self.split} is not known; {closest(self.split, METHODS)}.")
        if self.split == "leave_one_source_out" and self.folds > 1:
            raise ConfigError(
                f"probe.folds={self.folds} with probe.split=leave_one_source_out, whose folds are sources; drop one."
            )

    def target(self, features: Features) -> BoolArray | None:
        """What it learns of each example in place of its label, bool[n]; None: the label."""
        return None

    @abstractmethod
    def fit(self, features: Features) -> Fitted:
        """Fit on the train split; what is chosen, is chosen on the validation split. The test split must not matter."""


@dataclass
class ActivationProbe(TrainedProbe, ABC):
    """Learns to score the residual stream, one layer at a time or all of some layers at once."""

    layers: Any = "all"
    """Layers that are read: a list (``[22]``, ``[0,16,22]``), or ``all``. Layer L is the residual stream after L
    blocks; 0 is the embeddings."""
    positions: str = "statement_end"
    """Where an activation is read: ``statement_end`` (last token of the statement; of a question, of the model's own
    answer, as ``answer_last``), ``statement_mean`` (of all its tokens; of an answer, as ``answer_mean``),
    ``next_token`` (the one after it), ``last`` (of the whole conversation); of answers ``prompt_last`` (the token
    before the answer), ``answer_first``, ``answer_last``, ``answer_before_last``, ``answer_mean``."""
    joined: bool = False
    """Whether all ``layers`` make one probe, a layer's activations behind the other's; else each layer has its own, and
    the best on validation is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layers = _check_layers(self.layers)
        if self.positions not in POSITIONS:
            raise ConfigError(
                f"probe.positions={self.positions} is not known; {closest(self.positions, POSITIONS)}."
            )

    def needs(self, kind: Kind) -> Needs:
        """Hidden states of the statements, or of the model's own answers."""
        of = Of.answers if kind is Kind.questions else Of.statements
        return Needs(hidden=HiddenStates(of, self.layers, self.position(kind)))

    def position(self, kind: Kind) -> str:
        """Where it is read: a statement's end and mean are an answer's where answers are read."""
        return _OF_ANSWERS.get(self.positions, self.positions) if kind is Kind.questions else self.positions

    def described(self) -> dict[str, Any]:
        """As of every probe; layers and positions are known by what was read."""
        return not_default(self, without=(*_NOT_ITS_OWN, "layers", "positions"))

    @abstractmethod
    def fit(self, features: Features) -> FittedByLayer:
        """Fit one for every layer on the train split; what is chosen, is chosen on the validation split.

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
