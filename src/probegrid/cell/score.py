"""A saved probe on statements it was not trained on: ``action=score``, and the transfer of ``probe.test_on``.

Knows saved probes, statements and their activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from probegrid import data
from probegrid.cell.plan import plan_cell
from probegrid.cell.transfer import Scored, score_statements
from probegrid.data.example import StatementSet
from probegrid.errors import CheckpointError, ConfigError
from probegrid.models.checkpoint import find_checkpoint
from probegrid.models.pool import ModelPool
from probegrid.probes.saved import DESCRIPTION_FILE, TENSORS_FILE, SavedProbe
from probegrid.progress import Progress
from probegrid.readings.identity import describe_model
from probegrid.readings.session import Meter, Source, ready
from probegrid.readings.store import key_of
from probegrid.schema import CellSpec, Config, ModelConfig, QuantizationConfig, to_plain
from probegrid.tracking import record
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellRecord, Status

if TYPE_CHECKING:
    pass


def score_cell(spec: CellSpec) -> Path:
    """Score ``dataset`` with the probe that the cell in ``probe.from`` saved, on the model it was trained on.

    Returns:
        The folder that was written: ``result.json``, ``scores.parquet`` and ``statements.parquet``.

    Raises:
        ConfigError: no saved probe is named, the folder holds none, or the dataset holds no statements.
        CheckpointError: the model is not the one the probe was trained on any more.
    """
    started = datetime.now(UTC)
    config, choices = spec.config, spec.choices
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
    plan = plan_cell(replace(spec, config=config), checkpoint, deepest_layer=saved.layer)
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
