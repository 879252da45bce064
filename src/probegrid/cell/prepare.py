"""A cell that was found possible, before anything of it is read: its checkpoint, its plan, its examples, its key.

Knows where each of these comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid import data
from probegrid.cell.plan import PackPlan, plan_cell
from probegrid.compose import compose_dataset
from probegrid.data.example import QuestionSet, StatementSet
from probegrid.errors import ConfigError, UnknownArchitecture
from probegrid.models.checkpoint import Checkpoint, find_checkpoint
from probegrid.models.classifier import find_classifier
from probegrid.planning.describe import describe
from probegrid.probes import ActivationProbe, AnswerProbe, TrainedProbe
from probegrid.readings.identity import describe_answers, describe_model
from probegrid.readings.identity import template_identity as _template
from probegrid.readings.store import key_of
from probegrid.schema import CellSpec, Choices, Config, ProbeConfig

if TYPE_CHECKING:
    from probegrid.planning.plan import Plan


@dataclass(frozen=True)
class Cell:
    """A cell that was found possible: what was composed, its checkpoint, its plan, its examples."""

    spec: CellSpec
    checkpoint: Checkpoint
    plan: Plan | None
    """None where nothing is known of the model's architecture: it is loaded where transformers puts it."""
    examples: QuestionSet | StatementSet
    transfer: Mapping[str, StatementSet] = field(default_factory=dict)
    """Statements that a trained probe is tested on besides its own, by name."""
    classifier: Checkpoint | None = None
    """The entailment model of an answer probe that has one."""

    @classmethod
    def find(cls, spec: CellSpec, pack: PackPlan | None = None) -> Cell:
        """Look up the checkpoint, plan (where the pack's model lies, if it belongs to one), and load the examples.

        No weight is read.

        Raises:
            UserError: the checkpoint, the plan or the dataset is not possible as asked.
        """
        config = spec.config
        checkpoint = find_checkpoint(config.model)
        try:
            plan = plan_cell(spec, checkpoint, pack=pack)
        except UnknownArchitecture:
            plan = None
        classifier = probe_classifier(config.probe)
        examples = data.load(config.dataset)
        return cls(spec, checkpoint, plan, examples, transfer_sets(config.probe), classifier)

    def counted(self, pack: PackPlan | None) -> Cell:
        """The same with a plan for the tokens that its own texts have.

        Raises:
            UserError: the texts cannot be written for this model, or do not fit.
        """
        if self.plan is None:
            return self
        from probegrid.cell.plan import lengths_of

        lengths = lengths_of(self.config, self.checkpoint, self.examples)
        plan = plan_cell(self.spec, self.checkpoint, pack=pack, lengths=lengths)
        return replace(self, plan=plan)

    @property
    def config(self) -> Config:
        """Every value."""
        return self.spec.config

    @property
    def choices(self) -> Choices:
        """The names it was composed from."""
        return self.spec.choices

    @property
    def questions(self) -> QuestionSet:
        """The examples of an answer probe.

        Raises:
            ConfigError: the dataset holds statements.
        """
        if not isinstance(self.examples, QuestionSet):
            raise ConfigError(
                f"probe={self.choices.probe} scores answers to questions, but dataset={self.choices.dataset} holds "
                "statements; choose a question-answer dataset (facts, squad, trivia_qa, jsonl)."
            )
        return self.examples

    def describe(self) -> str:
        """What a person should know before the cell runs: its name, notes on the data, and the plan."""
        plan = "no plan: the architecture is not known" if self.plan is None else describe(self.plan)
        return "\n".join([self.choices.name, *self.examples.notes, plan])

    @property
    def key(self) -> str:
        """A hash of everything that determines the result, and of nothing that does not."""
        others = [other.fingerprint for other in self.transfer.values()]
        if self.classifier is not None:
            others.append(self.classifier.fingerprint)
        return cell_key(self.config, self.checkpoint, self.examples, others)


def probe_classifier(probe: ProbeConfig) -> Checkpoint | None:
    """The checkpoint of a probe's entailment model, if it has one.

    Raises:
        CheckpointError: it is missing, or no entailment model.
    """
    path = probe.classifier if isinstance(probe, AnswerProbe) else None
    return None if path is None else find_classifier(path)


def transfer_sets(probe: ProbeConfig) -> dict[str, StatementSet]:
    """The datasets of ``probe.test_on``, by the stem of their path or by their name."""
    if not isinstance(probe, TrainedProbe) or not probe.test_on:
        return {}
    if not isinstance(probe, ActivationProbe):
        raise ConfigError(
            "probe.test_on tests activation probes (logistic, mass_mean); drop it for this probe."
        )
    sets: dict[str, StatementSet] = {}
    for name in probe.test_on:
        loaded = data.load(compose_dataset(name))
        if not isinstance(loaded, StatementSet):
            raise ConfigError(f"probe.test_on={name} holds questions; name datasets of statements.")
        stem = Path(name.partition(":")[2] or name).stem
        if stem in sets:
            raise ConfigError(f"probe.test_on names two datasets '{stem}'; give their files different names.")
        sets[stem] = loaded
    return sets


def cell_key(
    config: Config, checkpoint: Checkpoint, examples: QuestionSet | StatementSet, others: Sequence[str] = ()
) -> str:
    """Name of a cell's folder: a hash of everything that determines its result.

    Args:
        config: the cell.
        checkpoint: its checkpoint.
        examples: what is read.
        others: fingerprints of what a trained probe is tested on besides, or of a probe's second model.
    """
    probe = config.probe
    if isinstance(examples, QuestionSet):
        probe = probe.on_answers() if isinstance(probe, ActivationProbe) else probe
        reading = describe_answers(config, checkpoint, examples) | {"rule": examples.rule}
    else:
        reading = {
            **describe_model(checkpoint, config.model, config.quantization.method),
            "chat_template": _template(config.model.chat_template),
            "dataset": examples.fingerprint,
        }
    described = {"probe": type(probe).__name__, **asdict(probe)}
    del described["from_cell"]
    return key_of({"reading": reading, "probe": described, "seed": config.seed, "others": list(others)})
