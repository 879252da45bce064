"""A recorded cell as one MLflow run: exactly one for each cell, tracking URI and experiment.

The run is found again by its tag ``probegrid.cell``. Its last tag, `COMPLETE_TAG`, is set when everything
else is there and names the record that was sent; a run without it, or with another record's, is deleted and
made again. Then `MARKER_FILE` is put into the cell's folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.disk import atomic, files_in, locked, no_permission
from probegrid.errors import RunError, StoreError, TrackingError
from probegrid.progress import say
from probegrid.schema import TrackingConfig
from probegrid.tracking import mlflow_content as content
from probegrid.tracking import mlflow_tables as tables
from probegrid.tracking.mlflow_session import (
    LOCK_TIMEOUT_S,
    OpenExperiment,
    ServerUnreachable,
    open_experiment,
    without_retries,
)
from probegrid.tracking.record import (
    RESULT_FILE,
    CellRecord,
    Status,
    own_keys,
    read,
    read_config,
    refuse_copy,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MARKER_FILE = "mlflow.json"
COMPLETE_TAG = "probegrid.complete"

_LOCKS_FOLDER = ".locks"
_KIND_TAG = "probegrid.kind"
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class Delivery:
    """What became of a cell that was to be sent."""

    run_id: str
    """MLflow's id of the cell's run."""
    is_new: bool
    """Whether the run was made now; false where it was there already."""
    is_refilled: bool = False
    """Whether MLflow's database was broken and has just been made again, so that it lacks what was sent before."""


@dataclass(frozen=True)
class Marker:
    """Says where a record was sent; ``mlflow.json`` of a cell's folder."""

    uri: str
    """Tracking URI, without its password."""
    experiment: str
    """Name of the experiment."""
    record: str
    """SHA-256 of the ``result.json`` that was sent."""
    run_id: str
    """MLflow's id of the run."""


def send(folder: Path, tracking: TrackingConfig, *, parent_run_id: str | None = None) -> str:
    """Make the MLflow run of a recorded cell, or find the one that is there; return its id.

    Where MLflow's database was broken and had to be made again, everything recorded beside the cell is sent again.

    Args:
        folder: the cell's folder.
        tracking: where to send it.
        parent_run_id: run to put it under; by default the run of the record's sweep, if it has one.

    Raises:
        ServerUnreachable: nothing answers at the tracking URI.
        TrackingError: MLflow refuses, or the folder holds no record.
        StoreError: the record is damaged.
    """
    delivery = deliver(folder, tracking, parent_run_id=parent_run_id)
    if delivery.is_refilled:
        send_again(folder.parent, tracking)
    return delivery.run_id


def send_again(results_dir: Path, tracking: TrackingConfig) -> None:
    """Send everything that is recorded to a database that was made again; what cannot be sent is said and no more.

    Raises:
        ServerUnreachable: nothing answers at the tracking URI.
    """
    keys = own_keys(results_dir)
    say(f"what is recorded in {results_dir} is sent to it again ({len(keys)} cells).")
    for key in keys:
        try:
            deliver(results_dir / key, tracking)
        except ServerUnreachable:
            raise
        except RunError as error:
            say(f"{key} was not sent again: {error}")


def deliver(folder: Path, tracking: TrackingConfig, *, parent_run_id: str | None = None) -> Delivery:
    """Do as `send`, and tell whether the run is new."""
    with open_experiment(tracking) as experiment, _lock(folder.parent, folder.name):
        record = read(folder.parent, folder.name)
        if record is None:
            raise TrackingError(f"{folder} holds no recorded cell.")
        refuse_copy(folder, record)  # whose run it would take the place of
        digest = hashlib.sha256((folder / RESULT_FILE).read_bytes()).hexdigest()
        run_id = _marked_run(experiment, folder, digest)
        if run_id is not None:
            return Delivery(run_id, is_new=False, is_refilled=experiment.is_refilled)
        run_id = _complete_run(experiment, record, digest)
        is_new = run_id is None
        if run_id is None:
            if parent_run_id is None and record.sweep is not None:
                parent_run_id = _sweep_run(experiment, folder.parent, record.sweep)
            elif parent_run_id is None:
                parent_run_id = _active_run(experiment)
            run_id = _make_run(experiment, folder, record, digest, parent_run_id)
        _write_marker(folder, Marker(experiment.uri, experiment.name, digest, run_id))
        return Delivery(run_id, is_new, experiment.is_refilled)


def sweep_run(results_dir: Path, sweep: str, tracking: TrackingConfig) -> str:
    """Return the id of a sweep's parent run, made if it is not there.

    A new one is already finished: nothing has to end it, and children may join all the same.

    Raises:
        ServerUnreachable: nothing answers at the tracking URI.
        TrackingError: MLflow refuses.
    """
    with open_experiment(tracking) as experiment:
        run_id = _sweep_run(experiment, results_dir, sweep)
    if experiment.is_refilled:
        send_again(results_dir, tracking)
    return run_id


@contextmanager
def _lock(results_dir: Path, name: str) -> Iterator[None]:
    locks = results_dir / _LOCKS_FOLDER
    with ExitStack() as held:
        try:
            locks.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(locks / f"{name}.lock", LOCK_TIMEOUT_S))
        except OSError as error:
            place = Path(error.filename or locks)
            denied = no_permission(error, place)
            if denied is None:
                raise
            raise TrackingError(
                f"{place} cannot be written: {denied}; have it changed, or send from a copy of your own, named by "
                "results_dir."
            ) from error
        yield


def _marked_run(experiment: OpenExperiment, folder: Path, digest: str) -> str | None:
    """The run the marker names, if it holds this record and MLflow knows it, deleted by hand or not."""
    from mlflow.exceptions import MlflowException

    try:
        marker = Marker(**json.loads((folder / MARKER_FILE).read_bytes()))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    if (marker.uri, marker.experiment, marker.record) != (experiment.uri, experiment.name, digest):
        return None
    try:
        experiment.client.get_run(marker.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return marker.run_id


def _complete_run(experiment: OpenExperiment, record: CellRecord, digest: str) -> str | None:
    """The run that has all of this record; the cell's others, half sent or outdated, are deleted."""
    complete: str | None = None
    for run in _runs_tagged(experiment, {content.CELL_TAG: record.cell}):
        if complete is None and run.data.tags.get(COMPLETE_TAG) == digest:
            complete = run.info.run_id
        else:
            experiment.client.delete_run(run.info.run_id)
    return complete


def _runs_tagged(experiment: OpenExperiment, tags: Mapping[str, str]) -> list[Run]:
    condition = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    return list(experiment.client.search_runs([experiment.id], condition))


def _make_run(
    experiment: OpenExperiment, folder: Path, record: CellRecord, digest: str, parent_run_id: str | None
) -> str:
    from mlflow.entities import Metric, Param

    client = experiment.client
    config = read_config(folder.parent, folder.name)
    start_ms, end_ms = content.times_ms(record)
    tags = content.tags(record) | ({_PARENT_TAG: parent_run_id} if parent_run_id else {})
    with without_retries():
        run_id = str(client.create_run(experiment.id, start_ms, tags, record.name).info.run_id)
    for points, params in content.calls(content.points(record), content.params(record, config)):
        client.log_batch(
            run_id,
            metrics=[Metric(point.name, point.value, end_ms, point.step) for point in points],
            params=[Param(name, value) for name, value in params.items()],
        )
    for path in files_in(folder):  # a link may name a file that is nobody else's business
        if path.name != MARKER_FILE:
            parent = path.parent.relative_to(folder).as_posix()
            client.log_artifact(run_id, str(path), None if parent == "." else parent)
    _log_examples(client, run_id, folder, record, config)
    client.set_terminated(run_id, "FINISHED" if record.status is Status.done else "FAILED", end_ms)
    client.set_tag(run_id, COMPLETE_TAG, digest)
    return run_id


def _log_examples(
    client: MlflowClient, run_id: str, folder: Path, record: CellRecord, config: dict[str, Any]
) -> None:
    """What MLflow's own pages show: a table of examples, and the dataset among the inputs of the run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    table = tables.examples_table(folder)
    if table is not None:
        client.log_text(run_id, table, tables.EXAMPLES_TABLE)
        client.set_tag(run_id, tables.TABLES_TAG, tables.tables_tag([tables.EXAMPLES_TABLE]))
    found = tables.dataset_of(folder, record, config)
    if found is not None:
        dataset = Dataset(found.name, found.digest, "probegrid", found.source, profile=found.profile)
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")])])


def _active_run(experiment: OpenExperiment) -> str | None:
    """The run that is active in whoever calls us from Python, if it is of the same experiment: ours belong under it."""
    import mlflow

    run = mlflow.active_run()
    if run is None or run.info.experiment_id != experiment.id:
        return None
    same = mlflow.get_tracking_uri() == experiment.client.tracking_uri
    return str(run.info.run_id) if same else None


def _sweep_run(experiment: OpenExperiment, results_dir: Path, sweep: str) -> str:
    client, tags = experiment.client, {_KIND_TAG: "sweep", content.SWEEP_TAG: sweep}
    with _lock(results_dir, f"sweep-{sweep}"):
        found = _runs_tagged(experiment, tags)
        if found:
            return str(found[0].info.run_id)
        around = _active_run(experiment)
        tags |= {_PARENT_TAG: around} if around else {}
        with without_retries():
            run_id = str(client.create_run(experiment.id, tags=tags, run_name=f"sweep {sweep}").info.run_id)
        client.set_terminated(run_id)
        return run_id


def _write_marker(folder: Path, marker: Marker) -> None:
    # without it the run is found again by its tag: a folder that cannot be written costs a look-up and no more
    with suppress(StoreError), atomic(folder / MARKER_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(marker), indent=2) + "\n")
