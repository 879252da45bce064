"""A cell that can work: what it is made of, before a weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probegrid.cell.examples import Divided
    from probegrid.data.example import QuestionSet, StatementSet
    from probegrid.models.checkpoint import Checkpoint
    from probegrid.models.load import Tokenizer
    from probegrid.probes import Needs, Probe
    from probegrid.readings.options import Continuations
    from probegrid.readings.prompts import Prompt
    from probegrid.readings.spans import Passage
    from probegrid.schema import CellSpec, Config


@dataclass(frozen=True)
class Model:
    """The model that a cell reads, known by its files: no weight was read."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Statements:
    """Statements as a model reads them."""

    data: StatementSet
    passages: tuple[Passage, ...] = ()
    """One a conversation; none where no model reads them."""


@dataclass(frozen=True)
class Cell:
    """A cell that can work."""

    spec: CellSpec
    probe: Probe
    needs: Needs
    examples: QuestionSet | StatementSet
    model: Model | None = None
    """None where no model is read: a text baseline on statements."""
    prompts: tuple[Prompt, ...] = ()
    """One a question."""
    worked: Mapping[str, tuple[Prompt, ...]] = field(default_factory=dict)
    """The prompts of the questions in the worked examples of each of the probe's own prompts, by its name."""
    options: tuple[Continuations, ...] = ()
    """The tokens of each question's options, where ``prompt.score_options`` asks for them."""
    statements: Statements | None = None
    """The examples where they are statements."""
    transfer: Mapping[str, Statements] = field(default_factory=dict)
    """Statements that a trained probe is tested on besides its own, by name."""
    layers: tuple[int, ...] = ()
    """Layers of the residual stream that are read."""
    classifier: Checkpoint | None = None
    """The second model."""
    cross_encoder: Checkpoint | None = None
    """The model that says how alike texts are."""
    judge: Model | None = None
    """The second model that says whether answers are correct, under ``dataset.rule=judge``."""
    divided: Divided | None = None
    """The examples as a trained probe divides them, where their labels are known before anything is read."""
    key: str = ""
    """Name of its folder: a hash of everything that determines its result, and of nothing that does not."""

    @property
    def config(self) -> Config:
        """Every value."""
        return self.spec.config

    @property
    def name(self) -> str:
        """Name for people: its choices, and what else tells it apart."""
        return self.spec.name
