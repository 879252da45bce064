"""What could not be sent is sent later, each cell once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from probegrid.schema import TrackingConfig
from probegrid.sweep.close import sweep_run
from probegrid.tracking.mlflow_session import ServerUnreachable
from probegrid.tracking.mlflow_sink import send
from probegrid.tracking.sweep_folder import SweepFolder
from probegrid.tracking.sync import SyncReport, sync

TWO_SYNCS = """
import os, sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store  # once, so that both begin at the same moment
from probegrid.schema import TrackingConfig
from probegrid.tracking.sync import sync

child = os.fork()
report = sync(Path(sys.argv[1]), TrackingConfig(uri=sys.argv[2]))
print(len(report.sent), len(report.already), len(report.failed), flush=True)
if child:
    os.waitpid(child, 0)
"""


def cells(tracking: TrackingConfig) -> list[str]:
    """The cells of the experiment's active runs that have all metrics, sorted."""
    client = MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert all(len(run.data.metrics) == 7 for run in found)
    return sorted(run.data.tags["probegrid.cell"] for run in found)


def test_a_server_that_was_down_gets_everything_once(
    write_cell: Callable[..., Path],
    port: int,
    start_server: Callable[[int], AbstractContextManager[str]],
) -> None:
    tracking = TrackingConfig(uri=f"http://127.0.0.1:{port}")
    first, second = write_cell(cell="a"), write_cell(cell="b")
    with pytest.raises(ServerUnreachable):
        send(first, tracking)
    down = sync(first.parent, tracking)
    assert (down.sent, down.already, set(down.failed)) == ((), (), {"a", "b"})
    with start_server(port):
        assert sync(first.parent, tracking) == SyncReport(sent=("a", "b"), already=(), failed={})
        assert sync(first.parent, tracking) == SyncReport(sent=(), already=("a", "b"), failed={})
        assert send(second, tracking)
        assert cells(tracking) == ["a", "b"]


def test_two_syncs_at_once_send_each_cell_once(
    sqlite: TrackingConfig,
    write_cell: Callable[..., Path],
    start_python: Callable[..., subprocess.Popen[str]],
) -> None:
    folders = [write_cell(cell=f"cell{number}") for number in range(6)]
    process = start_python(TWO_SYNCS, folders[0].parent, sqlite.uri)
    out, err = process.communicate(timeout=60)
    assert err == ""
    counts = [[int(count) for count in line.split()] for line in out.splitlines()]
    assert [sum(column) for column in zip(*counts, strict=True)] == [6, 6, 0]
    assert cells(sqlite) == [folder.name for folder in folders]


def test_a_damaged_record_does_not_hold_up_the_others(
    sqlite: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    damaged, whole = write_cell(cell="a"), write_cell(cell="b")
    (damaged / "result.json").write_text("{")
    sweep = SweepFolder(whole.parent, "friday")
    sweep.write_text(sweep.manifest_file, "{")
    report = sync(whole.parent, sqlite, {sweep.id: partial(sweep_run, sweep)})
    assert report.sent == ("b",)
    assert "damaged" in report.failed["a"]
    assert "damaged" in report.failed["sweep friday"]


def test_a_copy_does_not_take_the_place_of_its_cell(
    sqlite: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    folder = write_cell()
    shutil.copytree(folder, folder.with_name("before"))
    folder = write_cell(metrics={"accuracy": 0.75, **dict.fromkeys("abcdef", 1.0)})
    report = sync(folder.parent, sqlite)
    assert report.sent == (folder.name,)
    assert "before is another record of the cell" in report.failed["before"]
    client = MlflowClient(tracking_uri=sqlite.uri)
    experiment = client.get_experiment_by_name(sqlite.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["accuracy"] == 0.75


def test_nothing_recorded_is_nothing_to_do(tmp_path: Path, port: int) -> None:
    nothing = SyncReport(sent=(), already=(), failed={})
    assert sync(tmp_path / "nowhere", TrackingConfig(uri=f"http://127.0.0.1:{port}")) == nothing


def test_no_link_is_followed_out_of_the_folder(
    write_cell: Callable[..., Path], sqlite: TrackingConfig, tmp_path: Path
) -> None:
    """Not to a cell that lies elsewhere, and not from a cell to what is nobody else's business."""
    folder = write_cell()
    elsewhere = tmp_path / "elsewhere"
    write_cell(cell="fedcba9876543210").rename(elsewhere)
    (folder.parent / "fedcba9876543210").symlink_to(elsewhere)
    (tmp_path / "secret").write_text("mine")
    (folder / "secret.txt").symlink_to(tmp_path / "secret")
    (folder / "all").symlink_to(tmp_path)
    report = sync(folder.parent, sqlite)
    assert (report.sent, report.already, report.failed) == ((folder.name,), (), {})
    assert cells(sqlite) == [folder.name]
    client = MlflowClient(tracking_uri=sqlite.uri)
    experiment = client.get_experiment_by_name(sqlite.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.yaml", "examples.json", "figures", "result.json", "scores.parquet"}
