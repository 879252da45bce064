"""The flow of a cell, top to bottom: find, plan, read, score, evaluate, record, send.

Knows the order of the steps.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.cell.plan import PackPlan
from probegrid.cell.prepare import Cell
from probegrid.errors import ConfigError, TrackingError, UserError
from probegrid.hardware.machine import has_unmeasured_gpu
from probegrid.probes import AnswerProbe, TrainedProbe
from probegrid.progress import Progress
from probegrid.schema import (
    CellSpec,
    DeviceMapConfig,
    PlacementStrategy,
    TrackingBackend,
    TrackingConfig,
    to_plain,
)
from probegrid.tracking import record
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellError, CellRecord, Status

if TYPE_CHECKING:
    import pandas as pd

    from probegrid.cell.outcome import Outcome
    from probegrid.models.pool import ModelPool
    from probegrid.readings.session import Meter


@dataclass(frozen=True)
class Result:
    """A recorded cell."""

    key: str
    """Name of its folder, a hash of everything that determines the result."""
    folder: Path
    """``results_dir/<key>``."""
    metrics: Mapping[str, float]
    """Value of each metric; names, units and directions are in ``evaluation.metrics``."""
    notes: Mapping[str, str]
    """By metric name, why its value is not a number or needs care."""
    was_done: bool
    """Whether the cell was recorded before, so that nothing was computed."""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the cell by name, read from its folder: ``scores``, ``answers``."""
        import pandas as pd

        return {file.stem: pd.read_parquet(file) for file in sorted(self.folder.glob("*.parquet"))}


def run_cell(
    spec: CellSpec,
    *,
    pool: ModelPool | None = None,
    pack: PackPlan | None = None,
    sweep: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a cell to its end, or recognise that it was done before.

    Args:
        spec: what was composed.
        pool: holds the model between the cells of a pack; None: a pool of the cell's own.
        pack: where the model of the cell's pack lies; None: the cell has a plan of its own.
        sweep: id of the sweep the cell belongs to, if any.
        progress: told how far the cell is; None: shown on stderr.

    Raises:
        UserError: the input asks for what cannot be; outside a sweep nothing is written.
        RunError: something else went wrong; the cell is recorded as failed.
    """
    started = datetime.now(UTC)
    config, choices = spec.config, spec.choices
    with progress or Progress() as progress:
        measure_gpus(config.device_map, progress)
        cell = Cell.find(spec, pack)
        folder = Path(config.results_dir) / cell.key
        recorded = record.read(folder.parent, folder.name)
        if recorded is not None and recorded.status is Status.done:
            progress.say(f"{choices.name} is done already, nothing is computed again: {folder}")
            _send(folder, config.tracking, progress)
            return Result(folder.name, folder, recorded.metrics, recorded.notes, was_done=True)
        cell = cell.counted(pack)
        progress.say(cell.describe())
        with _failures_recorded(cell, started, sweep):
            outcome = _compute(cell, pool, progress)
        written = CellRecord(**_identity(cell, started, sweep), **_found(outcome), status=Status.done)
        record.write(
            folder.parent,
            written,
            to_plain(config),
            tables=outcome.tables,
            figures=outcome.figures,
            files=outcome.files,
        )
        _send(folder, config.tracking, progress)
        progress.say(summarize(written, folder))
        return Result(folder.name, folder, written.metrics, written.notes, was_done=False)


def measure_gpus(device_map: DeviceMapConfig, progress: Progress) -> None:
    """Measure the GPUs of this machine that were not yet, so that the plan counts on what they reach."""
    if device_map.strategy is PlacementStrategy.cpu or not has_unmeasured_gpu():
        return
    from probegrid.hardware.rates import measure_unknown

    for sentence in measure_unknown():
        progress.say(sentence)


def _compute(cell: Cell, pool: ModelPool | None, progress: Progress) -> Outcome:
    """Read, score and evaluate, model and machine metered; torch is imported here and not before."""
    from probegrid.hardware.telemetry import Telemetry
    from probegrid.models.pool import ModelPool
    from probegrid.readings.session import Meter, ready

    with nullcontext(pool) if pool is not None else ModelPool() as held:
        request, notes = ready(cell.config, cell.checkpoint, cell.plan, held)
        for note in notes:
            progress.say(note)
        meter = Meter(held, request, None if cell.plan is None else cell.plan.limits)
        with Telemetry(progress.show_usage) as telemetry:
            outcome = _outcome(cell, meter, progress)
    return replace(
        outcome,
        metrics={**outcome.metrics, **meter.metrics()},
        steps={**outcome.steps, **telemetry.series()},
    )


def _outcome(cell: Cell, meter: Meter, progress: Progress) -> Outcome:
    """What the probe finds."""
    config, checkpoint, examples = cell.config, cell.checkpoint, cell.examples
    match config.probe:
        case AnswerProbe() as probe:
            from probegrid.cell.answer_probe import answer_outcome
            from probegrid.readings.session import Respondent

            respondent = Respondent(config, checkpoint, meter.open_model, progress, meter.make_room)
            return answer_outcome(probe, respondent, cell.questions, seed=config.seed)
        case TrainedProbe() as probe:
            from probegrid.cell.trained_probe import trained_outcome
            from probegrid.cell.transfer import with_transfer
            from probegrid.readings.session import Source

            source = Source(config, checkpoint, examples, meter.open_model, progress)
            outcome = trained_outcome(source, probe)
            if not cell.transfer:
                return outcome
            return with_transfer(outcome, source, cell.transfer, cell.choices.dataset, seed=config.seed)
        case _:
            raise ConfigError(f"probe={cell.choices.probe} is neither an answer probe nor a trained one.")


@contextmanager
def _failures_recorded(cell: Cell, started: datetime, sweep: str | None) -> Iterator[None]:
    """The boundary of a cell: whatever goes wrong inside is recorded, sent, and raised again."""
    try:
        yield
    except Exception as error:
        if sweep is not None or not isinstance(error, UserError):
            failure = CellError(type(error).__name__, str(error), "".join(traceback.format_exception(error)))
            failed = CellRecord(**_identity(cell, started, sweep), status=Status.failed, error=failure)
            folder = record.write(Path(cell.config.results_dir), failed, to_plain(cell.config))
            with Progress() as progress:
                _send(folder, cell.config.tracking, progress)
        raise


def _identity(cell: Cell, started: datetime, sweep: str | None) -> dict[str, Any]:
    """The part of a record that is known whether or not the cell ended well."""
    return {
        "cell": cell.key,
        "name": cell.spec.name,
        "choices": asdict(cell.choices),
        "plan": {} if cell.plan is None else cell.plan.as_dict(),
        "versions": versions(),
        "provenance": provenance(started),
        "sweep": sweep,
    }


def _found(outcome: Outcome) -> dict[str, Any]:
    """The part of a record that a cell found out."""
    return {"metrics": outcome.metrics, "notes": outcome.notes, "steps": outcome.steps}


def _send(folder: Path, tracking: TrackingConfig, progress: Progress) -> None:
    """Send a recorded cell to MLflow; where that fails, the cell stands and ``action=sync`` sends it later."""
    if tracking.backend is TrackingBackend.none:
        return
    from probegrid.tracking.mlflow_sink import send

    try:
        send(folder, tracking)
    except TrackingError as error:
        progress.say(
            f"not sent to MLflow: {error} The result is in {folder}; `probegrid action=sync` sends it later."
        )


SUMMARY_METRICS = (
    "accuracy",
    "f1",
    "auroc",
    "auprc",
    "aurc",
    "within_conversation_auroc",
    "text_auroc",
    "control_auroc",
)


def summarize(written: CellRecord, folder: Path) -> str:
    """The numbers of a cell in a few lines."""
    metrics, notes = written.metrics, dict(written.notes)
    lines = [f"{written.name}: n {metrics['n']:.0f}"]
    if "layer" in metrics:
        lines[0] += f", layer {metrics['layer']:.0f}"
    for name in (name for name in SUMMARY_METRICS if name in metrics):
        ends = [metrics.get(f"{name}_ci_{end}") for end in ("low", "high")]
        interval = "" if None in ends else f"  [{ends[0]:.3f}, {ends[1]:.3f}]"
        note = f"  ({notes[name]})" if name in notes else ""
        lines.append(f"  {name.replace('_', ' '):<26}{metrics[name]:.3f}{interval}{note}")
    if "leakage" in notes:
        lines.append(f"  leakage: {notes['leakage']}")
    if "read_s" in metrics:
        times = f"load {metrics['load_s']:.1f} s, read {metrics['read_s']:.1f} s"
        lines.append(f"  {times}, {metrics['tokens_per_s']:.0f} tokens/s")
    return "\n".join([*lines, f"  {folder}"])
