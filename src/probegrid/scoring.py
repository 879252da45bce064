"""A saved probe on statements it was not trained on: ``action=score``, and the transfer of ``probe.test_on``.

Knows saved probes, statements and their activations; must not know how the probe was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from probegrid import data
from probegrid.composition import Choices, to_plain
from probegrid.data.example import StatementSet
from probegrid.errors import CheckpointError, ConfigError, DataError
from probegrid.evaluation.classification import evaluate_classification
from probegrid.identity import describe_model
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.meter import Meter
from probegrid.models.pool import ModelPool
from probegrid.models.ready import ready
from probegrid.planning import plan_cell
from probegrid.probes.saved import DESCRIPTION_FILE, TENSORS_FILE, SavedProbe
from probegrid.progress import Progress
from probegrid.readings.spans import Position
from probegrid.readings.store import key_of
from probegrid.schema import Config, ModelConfig, QuantizationConfig
from probegrid.tracking import record
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellRecord, Status
from probegrid.trained_cell import Source, examples_of, passages_of, read_layers
from probegrid.training import Examples

if TYPE_CHECKING:
    import pyarrow as pa

    from probegrid.evaluation.checks import FloatArray
    from probegrid.evaluation.summary import Summary
    from probegrid.outcome import Outcome


@dataclass(frozen=True)
class Scored:
    """What a saved probe says of n statements.

    Attributes:
        examples: the statements.
        scores: float64[n], larger where true is more likely.
        probabilities: float64[n], of true.
        threshold: a score above it is called true.
        labelled: whether the labels are known.
    """

    examples: Examples
    scores: FloatArray
    probabilities: FloatArray
    threshold: float
    labelled: bool

    def summary(self, *, seed: int) -> Summary | None:
        """All numbers of a labelled set, each with its interval clustered by conversation; None without labels."""
        if not self.labelled:
            return None
        examples = self.examples
        return evaluate_classification(
            examples.labels,
            self.scores,
            self.probabilities,
            examples.conversations,
            examples.conversations,
            self.threshold,
            seed=seed,
        )

    def tables(self) -> dict[str, pa.Table]:
        """``scores.parquet`` as of every cell, and ``statements.parquet`` with the texts."""
        import pyarrow as pa

        examples, n = self.examples, len(self.scores)
        labels = examples.labels if self.labelled else [None] * n
        scores = {
            "example_id": pa.array(examples.ids, pa.string()),
            "group": pa.array(examples.conversations, pa.string()),
            "split": pa.array(["test"] * n, pa.string()),
            "label": pa.array(labels, pa.bool_()),
            "score": pa.array(self.scores, pa.float64()),
        }
        statements = {
            "example_id": scores["example_id"],
            "text": pa.array(examples.texts, pa.string()),
            "score": scores["score"],
            "probability": pa.array(self.probabilities, pa.float64()),
            "called_true": pa.array(self.scores > self.threshold, pa.bool_()),
        }
        return {"scores": pa.table(scores), "statements": pa.table(statements)}


def score_statements(source: Source, saved: SavedProbe, statements: StatementSet) -> Scored:
    """Read the saved probe's layer on a set of statements and score each."""
    passages = passages_of(statements, Position(saved.positions), source.checkpoint, source.config.model)
    reading = read_layers(source, passages, [saved.layer])
    scores = saved.scores(reading.values(saved.layer))
    return Scored(
        examples_of(passages), scores, saved.probabilities(scores), saved.threshold, statements.labelled
    )


def with_transfer(
    outcome: Outcome, source: Source, others: Mapping[str, StatementSet], trained_on: str, *, seed: int
) -> Outcome:
    """Test the probe that was just trained on other datasets: a row of the matrix train set x test set.

    Args:
        outcome: of the training, with the saved probe.
        source: the model.
        others: labelled statements by name.
        trained_on: name of the dataset that was trained on.
        seed: of the intervals.

    Returns:
        The outcome with ``transfer_auroc_<name>`` of each dataset, and ``transfer.parquet``. The probe's own dataset,
        named among the others or not, is a row of the table by its test split.

    Raises:
        DataError: one of the others has no labels.
        ConfigError: one of the others has the name of the dataset that was trained on but other content.
    """
    import pyarrow as pa

    own = others.get(trained_on)
    if own is not None and own.fingerprint != source.data.fingerprint:
        raise ConfigError(
            f"probe.test_on names another {trained_on} (file or draw) than the dataset that is trained on, so that "
            "examples of both could be the same; drop it, or rename its file if it has nothing in common."
        )
    saved = SavedProbe.from_files(outcome.files)
    rows, metrics = [], dict(outcome.metrics)
    for name in dict.fromkeys([trained_on, *others]):
        if name == trained_on:  # by the test split, as in the cell's own numbers
            values = outcome.metrics
        else:
            summary = score_statements(source, saved, others[name]).summary(seed=seed)
            if summary is None:
                raise DataError(f"probe.test_on={name} has no labels to test on.")
            values = summary.metrics
            metrics |= {
                f"transfer_auroc_{name}{end}": values[f"auroc{end}"] for end in ("", "_ci_low", "_ci_high")
            }
        kept = ("n", "auroc", "auroc_ci_low", "auroc_ci_high", "accuracy")
        rows.append(
            {"trained_on": trained_on, "tested_on": name, **{metric: values[metric] for metric in kept}}
        )
    return replace(
        outcome, metrics=metrics, tables={**outcome.tables, "transfer": pa.Table.from_pylist(rows)}
    )


def score_cell(config: Config, choices: Choices) -> Path:
    """Score ``dataset`` with the probe that the cell in ``probe.from`` saved, on the model it was trained on.

    Returns:
        The folder that was written: ``result.json``, ``scores.parquet`` and ``statements.parquet``.

    Raises:
        ConfigError: no saved probe is named, the folder holds none, or the dataset holds no statements.
        CheckpointError: the model is not the one the probe was trained on any more.
    """
    started = datetime.now(UTC)
    folder = _probe_folder(config)
    saved = SavedProbe.from_files(
        {name: (folder / name).read_bytes() for name in (TENSORS_FILE, DESCRIPTION_FILE)}
    )
    config = _on_its_model(config, folder)
    checkpoint = find_checkpoint(config.model)
    described = describe_model(checkpoint, config.model, config.quantization.method)
    if described != saved.model:
        raise CheckpointError(
            f"the probe in {folder} was trained on {dict(saved.model)}, but {config.model.path} is {described} now; "
            "score with that checkpoint, or train the probe again."
        )
    statements = data.load(config.dataset)
    if not isinstance(statements, StatementSet):
        raise ConfigError(f"action=score scores statements, but dataset={choices.dataset} holds questions.")
    plan = plan_cell(config, choices, checkpoint, deepest_layer=saved.layer)
    with Progress() as progress, ModelPool() as pool:
        request, notes = ready(config, checkpoint, plan, pool)
        for note in notes:
            progress.say(note)
        meter = Meter(pool, request, plan.limits)
        scored = score_statements(
            Source(config, checkpoint, statements, meter.open_model, progress), saved, statements
        )
        summary = scored.summary(seed=config.seed)
        written = CellRecord(
            cell=key_of(
                {"probe": folder.name, **described, "dataset": statements.fingerprint, "seed": config.seed}
            ),
            name=f"{folder.name}-on-{choices.dataset}",
            status=Status.done,
            choices=asdict(choices),
            provenance=provenance(started),
            metrics=(summary.metrics if summary else {"n": len(scored.scores)}) | meter.metrics(),
            notes=dict(summary.notes) if summary else {},
            plan=plan.as_dict(),
            versions=versions(),
        )
        target = record.write(Path(config.results_dir), written, to_plain(config), tables=scored.tables())
        for text, score, probability in _shown(scored):
            progress.say(f"  {score:9.3f}  {probability:5.3f}  {text}")
        progress.say(f"scored {len(scored.scores)} statements (score, p(true), statement): {target}")
    return target


def _probe_folder(config: Config) -> Path:
    if config.probe.from_cell is None:
        raise ConfigError("action=score needs probe.from=<folder of a cell with a saved probe>.")
    folder = Path(config.probe.from_cell)
    missing = [name for name in (TENSORS_FILE, DESCRIPTION_FILE) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"probe.from={folder} holds no {missing[0]}; give the folder of a done cell with probe=logistic or "
            "probe=mass_mean."
        )
    return folder


def _on_its_model(config: Config, folder: Path) -> Config:
    """The config with the model and the quantization of the cell that saved the probe."""
    stored = record.read_config(folder.parent, folder.name)
    return replace(
        config,
        model=_typed(ModelConfig, stored["model"]),
        quantization=_typed(QuantizationConfig, stored["quantization"]),
    )


def _typed(schema: type, values: Mapping[str, Any]) -> Any:
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), values))


def _shown(scored: Scored, most: int = 20) -> list[tuple[str, float, float]]:
    rows = np.arange(min(most, len(scored.scores)))
    return [
        (scored.examples.texts[row], float(scored.scores[row]), float(scored.probabilities[row]))
        for row in rows
    ]
