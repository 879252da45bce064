"""What a probe needs of a model, as data: whoever runs the probe sees that it is read.

Knows the readings there are and what can be chosen about each; nothing of how they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from probegrid.errors import ConfigError

if TYPE_CHECKING:
    from probegrid.data.example import Question
    from probegrid.inference.generation import Generation

ITSELF = "model"
"""In place of a second model's name: the language model is asked itself."""
Layers = str | list[int]
"""``all``, ``middle``, or a list; layer L is the residual stream after L blocks."""


class Kind(StrEnum):
    """What the examples of a dataset are."""

    questions = "questions"
    """Questions with references; an example's label is whether the model's own greedy answer was correct."""
    statements = "statements"
    """Statements with labels."""


class Of(StrEnum):
    """Whose hidden states are read."""

    statements = "statements"
    answers = "answers"
    """The greedy answer to each question, behind its prompt."""
    samples = "samples"
    """Each sample of each question, behind its prompt."""


class Similarity(StrEnum):
    """What says how alike two answers are."""

    rouge_l = "rouge_l"
    """The words they share in order; no model."""
    entailment = "entailment"
    """The mean of how surely each entails the other."""
    cross_encoder = "cross_encoder"
    """A third model."""


@dataclass(frozen=True)
class HiddenStates:
    """The residual stream at some layers and one place."""

    of: Of
    layers: Layers
    position: str
    """One of `spans.Position`."""


@dataclass(frozen=True)
class Ask:
    """A prompt of a probe's own about each question, after the question was answered."""

    write: Callable[[Question, Sequence[Generation]], str]
    """The prompt, by the question and its generations: the greedy answer, then the samples."""
    choices: tuple[str, ...] = ()
    """Continuations, each one token, whose log-probabilities are read; empty: a reply is generated."""
    max_new_tokens: int = 32
    """Longest reply in tokens."""
    stop: tuple[str, ...] = ("\n",)
    """Strings that end a reply."""
    show: Callable[[Question, Sequence[Generation], bool], str] | None = None
    """A worked example before the prompt, by a question of the few-shot pool, its generations and whether the greedy
    one was correct; None: there are none."""
    worked_examples: int = 0
    """Worked examples; fewer where the pool or the context has no more."""
    seed: int = 0
    """Seed of their draw."""
    drawn_as: str = ""
    """The prompt that is shown the same worked examples; empty: the prompt draws by its own name."""


@dataclass(frozen=True)
class Needs:
    """Everything that a probe needs besides the examples; the greedy answers to questions are always read."""

    samples: int = 0
    """Samples of each question at least, which ``decoding=sample`` draws beside the greedy answer."""
    hidden: HiddenStates | None = None
    """Hidden states; None: none are read."""
    asks: Mapping[str, Ask] = field(default_factory=dict)
    """Prompts of its own, by name."""
    classifier: str | None = None
    """Hub id or folder of a second model, which tells whether one text entails another; or `ITSELF`."""
    relations: bool = False
    """Whether every two answers to a question are held against each other, and not only those that clusters take."""
    distributions: bool = False
    """Whether the greedy answers are read again for their tokens' distributions and the attention between them."""
    similarity: Similarity = Similarity.rouge_l
    """What says how alike two answers are."""
    cross_encoder: str | None = None
    """Hub id or folder of the model that says it, under ``Similarity.cross_encoder``."""


def resolve_layers(layers: Layers, blocks: int) -> tuple[int, ...]:
    """The layers that are asked for, of a model of so many blocks, rising.

    Raises:
        ConfigError: the model has no such layer.
    """
    if layers == "all":
        return tuple(range(blocks + 1))
    if layers == "middle":
        return ((blocks + 1) // 2,)
    assert not isinstance(layers, str)
    if beyond := [layer for layer in layers if layer > blocks]:
        raise ConfigError(
            f"probe.layers asks for layer {beyond[0]} and the model has {blocks} blocks; layers go from 0 (the "
            f"embeddings) to {blocks}."
        )
    return tuple(sorted(set(layers)))
