"""The flow of a cell, top to bottom: prepare, plan, read, score, evaluate, record, send.

Knows the order of the steps.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.cell.cell import Cell
from probegrid.cell.look import look_at, notes_of
from probegrid.cell.lookup import Lookup
from probegrid.cell.outcome import with_reasons
from probegrid.cell.pack import Pack
from probegrid.cell.read_along import Jobs, ReadAlong
from probegrid.cell.result import Result
from probegrid.cell.send import say_obstacle, send_recorded
from probegrid.disk import refuse_unwritable
from probegrid.errors import PlanError, UserError
from probegrid.hardware.machine import has_unmeasured_gpu
from probegrid.hardware.threads import share_cores
from probegrid.planning.describe import describe
from probegrid.probes import TrainedProbe
from probegrid.progress import Progress
from probegrid.report.example_rows import CellTables
from probegrid.report.examples_page import EXAMPLES_FILE, examples_page
from probegrid.report.summary import ALL_METRICS, numbers
from probegrid.schema import (
    CellSpec,
    DeviceMapConfig,
    PlacementStrategy,
    to_plain,
)
from probegrid.tracking import record
from probegrid.tracking.integrity import damage_of, said, set_aside
from probegrid.tracking.provenance import provenance, versions
from probegrid.tracking.record import CellError, CellRecord, Status

if TYPE_CHECKING:
    from probegrid.cell.outcome import Outcome
    from probegrid.planning.plan import Plan


def run_cell(
    spec: CellSpec,
    *,
    pack: Pack | None = None,
    sweep: str | None = None,
    since: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a cell to its end, or recognise that it was done before.

    Args:
        spec: what was composed.
        pack: the cells it shares its model with; None: it is alone.
        sweep: id of the sweep the cell belongs to, if any.
        since: under ``force=true``, what was read before (seconds since the epoch) is read again; None: before now.
        progress: told how far the cell is; None: shown on stderr.

    Raises:
        UserError: the input asks for what cannot be; outside a sweep nothing is written.
        RunError: something else went wrong; the cell is recorded as failed.
    """
    result = share_cell(spec, pack=pack, sweep=sweep, since=since, progress=progress)
    assert result is not None
    return result


def share_cell(
    spec: CellSpec,
    jobs: Jobs | None = None,
    *,
    pack: Pack | None = None,
    sweep: str | None = None,
    since: float | None = None,
    progress: Progress | None = None,
    key: str | None = None,
) -> Result | None:
    """Run a cell that other jobs may run too: all share its readings, and one of them evaluates and records it.

    Args:
        spec, pack, sweep, since, progress: as `run_cell` takes them.
        jobs: who they are; None: there are none.
        key: of the cell where it was submitted.

    Returns:
        None where another job has it from here.
    """
    share_cores()  # of use to those who call from Python before they import torch
    started, since = datetime.now(UTC), since or time.time()
    config = spec.config
    with progress or Progress() as progress, _own(pack, spec, progress) as pack:
        measure_gpus(config.device_map, progress)
        cell = pack.prepare(spec)
        _check_submitted(cell, spec, key)
        folder = Path(config.results_dir) / cell.key
        recorded = None if config.force else _recorded(folder, progress)
        if recorded is not None and recorded.status is Status.done:
            recorded = _with_new_judges(cell, recorded, folder, pack, progress)
            progress.say(f"{cell.name} is done already, nothing is computed again")
            progress.say(summarize(recorded, folder))
            unsent = send_recorded(folder, config.tracking, progress)
            return Result(folder.name, folder, recorded.metrics, recorded.notes, was_done=True, unsent=unsent)
        refuse_unwritable(folder.parent)
        plan = pack.plan(cell)
        progress.say(introduce(cell, plan))
        if sweep is None:  # whoever starts a sweep has asked already
            say_obstacle(config.tracking, progress)
        if jobs is not None:
            started = datetime.fromtimestamp(jobs.began, UTC)
        with _failures_recorded(cell, plan, started, sweep, jobs):
            along = ReadAlong(cell, plan, pack, since if config.force else None, jobs)
            outcome = _compute(cell, plan, pack, along, progress)
        if outcome is None:
            return None
        outcome = replace(outcome, notes={**outcome.notes, **notes_of(cell.examples, cell.config.prompt)})
        outcome = with_reasons(outcome)
        written = CellRecord(**_identity(cell, plan, started, sweep), **_found(outcome), status=Status.done)
        _write(cell, folder, written, outcome)
        progress.say(summarize(written, folder))
        unsent = send_recorded(folder, config.tracking, progress)
        return Result(folder.name, folder, written.metrics, written.notes, was_done=False, unsent=unsent)


def _write(cell: Cell, folder: Path, written: CellRecord, outcome: Outcome) -> None:
    """Write all that a cell leaves behind, with the page of its examples."""
    page = examples_page(CellTables(written, outcome.tables)).encode()
    record.write(
        folder.parent,
        written,
        to_plain(cell.config),
        tables=outcome.tables,
        figures=outcome.figures,
        files={**outcome.files, EXAMPLES_FILE: page},
    )


def _with_new_judges(
    cell: Cell, recorded: CellRecord, folder: Path, pack: Pack, progress: Progress
) -> CellRecord:
    """The record of a done cell, scored anew from the store where there are judges that it knows nothing of."""
    from probegrid.cell.others import new_judges

    new = new_judges(folder)
    if not new:
        return recorded
    from probegrid.readings.session import NotStored

    try:
        outcome = _compute(
            cell, pack.plan(cell), pack, ReadAlong(cell, None, pack, None, None), progress, may_open=False
        )
    except NotStored:
        progress.say(
            f"{cell.name} has no scores by {', '.join(new)}: its readings are not in the store any more; force=true "
            "makes them again"
        )
        return recorded
    assert outcome is not None
    outcome = with_reasons(outcome)
    took = {name: value for name, value in recorded.metrics.items() if name.startswith(("load_s", "peak_"))}
    written = replace(
        recorded,
        metrics={**outcome.metrics, **took},
        notes={**recorded.notes, **outcome.notes},
        steps={**outcome.steps, **recorded.steps},
    )
    _write(cell, folder, written, outcome)
    progress.say(f"{cell.name} is scored by {', '.join(new)} too")
    return written


def _check_submitted(cell: Cell, spec: CellSpec, key: str | None) -> None:
    """Refuse cards whose type makes another cell of the one that was submitted.

    Raises:
        PlanError: they do.
    """
    dtype = cell.config.model.dtype
    if key not in (None, cell.key) and dtype is not spec.config.model.dtype:
        raise PlanError(
            f"the cards of this node compute in {dtype.value}, which was not known where the sweep was submitted; name "
            "them there (`device_map.gpu=T4`), or choose others."
        )


def _recorded(folder: Path, progress: Progress) -> CellRecord | None:
    """The record of a cell, every file of it as it was written; a damaged cell is set aside and has none.

    Raises:
        StoreError: a file may not be read.
    """
    damage = damage_of(folder)
    if damage:
        kept = set_aside(folder)
        progress.say(f"{said(damage)}; the cell is kept as {kept} and made again")
        return None
    return record.read(folder.parent, folder.name)


@contextmanager
def _own(pack: Pack | None, spec: CellSpec, progress: Progress) -> Iterator[Pack]:
    """The pack of the cell, which is let go at the end where it is the cell's own."""
    with nullcontext(pack) if pack is not None else Pack([spec], Lookup(say=progress.say)) as held:
        yield held


def measure_gpus(device_map: DeviceMapConfig, progress: Progress) -> None:
    """Measure the GPUs of this machine that were not yet, so that the plan counts on what they reach."""
    if device_map.strategy is PlacementStrategy.cpu or not has_unmeasured_gpu():
        return
    from probegrid.hardware.rates import measure_unknown

    for sentence in measure_unknown():
        progress.say(sentence)


def introduce(cell: Cell, plan: Plan | None) -> str:
    """What a person should know before the cell runs: its name, notes on the data, and the plan."""
    reads = "no plan: the architecture is not known" if cell.model is not None else "no model is read"
    return "\n".join(
        [
            cell.name,
            *look_at(cell.examples, cell.config.prompt).lines(),
            reads if plan is None else describe(plan),
        ]
    )


def _compute(
    cell: Cell, plan: Plan | None, pack: Pack, along: ReadAlong, progress: Progress, *, may_open: bool = True
) -> Outcome | None:
    """Read, score and evaluate, model and machine metered; torch is imported here and not before.

    Args:
        cell, plan, pack, along, progress: of the cell.
        may_open: whether a model may be loaded for what the store lacks.

    Returns:
        None where another job evaluates it.
    """
    along.get_ready()  # what this process imports now they import meanwhile
    from probegrid.cell.gather import Gathered, gather
    from probegrid.cell.trained_probe import outcome_of_trained
    from probegrid.hardware.telemetry import Telemetry

    if cell.model is None:
        assert isinstance(cell.probe, TrainedProbe)
        if not along.may_evaluate({}):
            return None
        outcome = outcome_of_trained(cell, cell.probe, Gathered(), None)
        return replace(outcome, metrics={**outcome.metrics, "load_s": 0.0})
    from probegrid.cell.answer_probe import answer_outcome, score_answers
    from probegrid.probes import AnswerProbe
    from probegrid.readings.session import ModelSession

    checkpoint, tokenizer = cell.model.checkpoint, cell.model.tokenizer
    sharing = along.sharing(progress)
    session = ModelSession(
        cell.config, checkpoint, tokenizer, plan, pack.pool, progress, along.since, sharing, may_open=may_open
    )
    with Telemetry(progress.show_usage) as telemetry:
        gathered = gather(cell, session)
        if isinstance(cell.probe, TrainedProbe):
            if not along.may_evaluate(session.metrics()):
                return None
            outcome = outcome_of_trained(cell, cell.probe, gathered, session)
        else:
            assert isinstance(cell.probe, AnswerProbe)
            scored = score_answers(cell, cell.probe, gathered, session)
            if not along.may_evaluate(session.metrics()):
                return None
            outcome = answer_outcome(cell, cell.probe, scored, session)
    for sentence in pack.replicas.ended():
        progress.say(sentence)
    metrics, readers = along.took(session.metrics())
    return replace(
        outcome,
        metrics={**outcome.metrics, **metrics},
        readers=readers,
        engine=session.ways,
        notes={**outcome.notes, **_found_before(session.found_s)},
        steps={**outcome.steps, **telemetry.series()},
    )


def _found_before(seconds: float) -> dict[str, str]:
    """A note on the seconds of a reading that no run of this cell's took now."""
    return (
        {"read_s": f"{seconds:.1f} s of it in earlier runs, whose readings were in the store"}
        if seconds
        else {}
    )


@contextmanager
def _failures_recorded(
    cell: Cell, plan: Plan | None, started: datetime, sweep: str | None, jobs: Jobs | None
) -> Iterator[None]:
    """The boundary of a cell: whatever goes wrong inside is recorded, sent, and raised again.

    Where other jobs go on with the cell, it has not failed.
    """
    try:
        yield
    except Exception as error:
        if jobs is not None and jobs.others_go_on():
            raise
        if sweep is not None or not isinstance(error, UserError):
            failure = CellError(type(error).__name__, str(error), "".join(traceback.format_exception(error)))
            failed = CellRecord(**_identity(cell, plan, started, sweep), status=Status.failed, error=failure)
            folder = record.write(Path(cell.config.results_dir), failed, to_plain(cell.config))
            with Progress() as progress:
                send_recorded(folder, cell.config.tracking, progress)
        raise


def _identity(cell: Cell, plan: Plan | None, started: datetime, sweep: str | None) -> dict[str, Any]:
    """The part of a record that is known whether or not the cell ended well."""
    return {
        "cell": cell.key,
        "name": cell.spec.name,
        "choices": asdict(cell.spec.choices),
        "plan": {} if plan is None else plan.as_dict(),
        "versions": versions(),
        "provenance": provenance(started),
        "sweep": sweep,
    }


def _found(outcome: Outcome) -> dict[str, Any]:
    """The part of a record that a cell found out."""
    return {
        "metrics": outcome.metrics,
        "notes": outcome.notes,
        "steps": outcome.steps,
        "readers": outcome.readers,
        "engine": outcome.engine,
    }


def summarize(written: CellRecord, folder: Path) -> str:
    """The numbers of a cell in a few lines."""
    size, *found = numbers(written, ALL_METRICS, with_notes=True)
    return "\n".join([f"{written.name}: {size}", *(f"  {text}" for text in found), f"  {folder}"])
