"""One run for each cell, on a real SQLite file and a real server, whatever dies or comes twice."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from other_user import another_user, only_root

from probegrid.errors import TrackingError
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_session import ServerUnreachable
from probegrid.tracking.mlflow_sink import MARKER_FILE, send, sweep_run
from probegrid.tracking.record import CellError, Status

SEND_AND_DIE = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_sink import send

MlflowClient.log_artifact = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
send(Path(sys.argv[1]), TrackingConfig(uri=sys.argv[2]))
"""
SEND_EACH_IN_A_PROCESS = """
import os, sys
from pathlib import Path
import mlflow.store.tracking.sqlalchemy_store  # once, so that the processes open the file at the same moment
from probegrid.schema import TrackingConfig
from probegrid.tracking.mlflow_sink import send

for folder in sys.argv[2:]:
    if os.fork() == 0:
        send(Path(folder), TrackingConfig(uri=sys.argv[1]))
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in sys.argv[2:]))
"""


def runs(tracking: TrackingConfig) -> list[Run]:
    """The active runs of the experiment."""
    client = MlflowClient(tracking_uri=tracking.uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.fixture(params=["sqlite", pytest.param("server", marks=[pytest.mark.server, pytest.mark.slow])])
def tracking(request: pytest.FixtureRequest) -> TrackingConfig:
    """Each kind of store in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, TrackingConfig)
    return found


def test_a_run_has_everything(
    tracking: TrackingConfig,
    write_cell: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.INFO)
    run_id = send(write_cell(), tracking)
    assert capfd.readouterr() == ("", "")
    assert caplog.text == ""

    client = MlflowClient(tracking_uri=tracking.uri)
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("tiny-none-facts-gnll", "FINISHED")
    assert (run.info.start_time, run.info.end_time) == (1772359200000, 1772359212500)
    assert run.data.params["model"] == "tiny"
    assert run.data.params["dataset.num_samples"] == "400"
    assert math.isnan(run.data.metrics["ece"])
    assert {name: value for name, value in run.data.metrics.items() if name != "ece"} == {
        "accuracy": 0.625,
        "auroc": 0.875,
        "n": 400.0,
        "peak_gpu_gb_0": 1.5,
        "train_loss": 0.5,
        "layer_auroc": 0.9,
    }
    losses = client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in losses] == [(0, 0.7), (1, 0.5)]
    tags = run.data.tags
    assert tags["probegrid.cell"] == "0123456789abcdef"
    assert tags["probegrid.git_dirty"] == "true"
    assert tags["probegrid.host"] == "node-1"
    assert tags["probegrid.gpus"] == "NVIDIA H200, NVIDIA H200"
    assert tags["probegrid.slurm_job_id"] == "42_1"
    assert tags["probegrid.note.ece"] == "the score is no probability"
    assert tags["mlflow.source.name"] == "probegrid"
    assert tags["mlflow.source.git.commit"].startswith("c0ffee")
    assert "| auroc |" in tags["mlflow.note.content"]
    experiment = client.get_experiment(run.info.experiment_id)
    assert "| brier |" in experiment.tags["mlflow.note.content"]
    artifacts = {item.path for item in client.list_artifacts(run_id)}
    assert artifacts == {"config.yaml", "examples.json", "figures", "result.json", "scores.parquet"}
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "examples.json", "type": "table"}]
    table = Path(client.download_artifacts(run_id, "examples.json", str(tmp_path)))
    assert json.loads(table.read_text()) == {
        "columns": ["example_id", "score"],
        "data": [["a", 0.5], ["b", -1.0]],
    }
    (read,) = run.inputs.dataset_inputs
    assert (read.dataset.name, json.loads(read.dataset.source)) == ("facts", {"num_samples": 400})
    assert (len(read.dataset.digest), json.loads(read.dataset.profile)) == (36, {"num_rows": 2})
    downloaded = client.download_artifacts(run_id, "figures/roc.png", str(tmp_path))
    assert Path(downloaded).read_bytes() == b"\x89PNG figure"


def test_a_folder_of_any_letters_is_the_one_that_is_written_to(
    tmp_path: Path, write_cell: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "josé" / "日本 [c]* 100% #"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    send(write_cell(), TrackingConfig(uri="sqlite:///mlflow.db"))
    assert sorted(path.name for path in folder.iterdir()) == [".mlflow.db.lock", "mlflow.db", "mlruns"]
    assert [path.name for path in (tmp_path / "josé").iterdir()] == [folder.name]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("jos")] == ["josé"]


def test_a_folder_named_like_an_address_is_written_to(
    tmp_path: Path, write_cell: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a%20b?"
    folder.mkdir()
    monkeypatch.chdir(folder)
    send(write_cell(), TrackingConfig(uri="sqlite:///mlflow.db"))
    assert (folder / "mlflow.db").stat().st_size > 0


@only_root
def test_where_nothing_may_be_written_is_said_in_one_sentence(
    tmp_path: Path, write_cell: Callable[..., Path], sqlite: TrackingConfig
) -> None:
    folder = write_cell()
    lock = tmp_path / ".mlflow.db.lock"
    send(folder, sqlite)  # which imports what the other user may not
    (tmp_path / "own").mkdir(mode=0o777)
    (tmp_path / "own").chmod(0o777)
    with another_user(folder):
        with pytest.raises(
            TrackingError, match=rf"{tmp_path}: no permission, it belongs to root; have it changed"
        ):
            send(folder, sqlite)
        with pytest.raises(
            TrackingError, match=r"results/\.locks cannot be written: no permission, .* from a copy"
        ):
            send(folder, TrackingConfig(uri=f"sqlite:///{tmp_path}/own/mlflow.db"))
    tmp_path.chmod(0o777)
    with (
        another_user(folder),
        pytest.raises(TrackingError, match=f"{lock}: no permission, it belongs to root"),
    ):
        send(folder, sqlite)


def test_sending_again_makes_no_second_run(
    tracking: TrackingConfig, write_cell: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_cell()
    run_id = send(folder, tracking)
    marker = json.loads((folder / MARKER_FILE).read_text())
    assert (marker["uri"], marker["experiment"], marker["run_id"]) == (
        tracking.uri,
        tracking.experiment,
        run_id,
    )
    assert send(folder, tracking) == run_id
    (folder / MARKER_FILE).unlink()
    assert send(folder, tracking) == run_id
    assert [run.info.run_id for run in runs(tracking)] == [run_id]


def test_a_cell_that_failed_first_has_one_run_in_the_end(
    tracking: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    send(write_cell(status=Status.failed, error=CellError("ValueError", "too wide", "Traceback")), tracking)
    (failed,) = runs(tracking)
    assert failed.info.status == "FAILED"
    assert failed.data.tags["probegrid.error"] == "ValueError: too wide"
    run_id = send(write_cell(), tracking)
    (done,) = runs(tracking)
    assert (done.info.run_id, done.info.status) == (run_id, "FINISHED")
    assert "probegrid.error" not in done.data.tags


@pytest.mark.parametrize("method", ["log_batch", "set_terminated", "set_tag"])
def test_a_send_that_breaks_off_leaves_one_run_in_the_end(
    sqlite: TrackingConfig,
    write_cell: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    def break_off(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    folder = write_cell()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, break_off)
        with pytest.raises(KeyboardInterrupt):
            send(folder, sqlite)
    assert len(runs(sqlite)) == 1
    check_that_sending_again_leaves_one_run(folder, sqlite)


def test_a_killed_sender_leaves_one_run_in_the_end(
    sqlite: TrackingConfig,
    write_cell: Callable[..., Path],
    start_python: Callable[..., subprocess.Popen[str]],
) -> None:
    folder = write_cell()
    sender = start_python(SEND_AND_DIE, folder, sqlite.uri)
    sender.communicate()
    assert sender.returncode == -signal.SIGKILL
    assert len(runs(sqlite)) == 1
    check_that_sending_again_leaves_one_run(folder, sqlite)


def check_that_sending_again_leaves_one_run(folder: Path, tracking: TrackingConfig) -> None:
    assert not (folder / MARKER_FILE).exists()
    run_id = send(folder, tracking)
    (run,) = runs(tracking)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert len(run.data.metrics) == 7


def test_a_run_deleted_by_hand_stays_deleted_and_a_lost_database_is_filled_again(
    sqlite: TrackingConfig, write_cell: Callable[..., Path], migrated: Path, tmp_path: Path
) -> None:
    folder = write_cell()
    run_id = send(folder, sqlite)
    MlflowClient(tracking_uri=sqlite.uri).delete_run(run_id)
    assert send(folder, sqlite) == run_id
    assert runs(sqlite) == []
    marker = json.loads((folder / MARKER_FILE).read_text())
    (folder / MARKER_FILE).write_text(json.dumps(marker | {"run_id": "0" * 32}))
    assert send(folder, sqlite) != run_id
    assert len(runs(sqlite)) == 1


def test_many_metrics_and_params_are_divided(sqlite: TrackingConfig, write_cell: Callable[..., Path]) -> None:
    steps = {"train_loss": [(epoch, float(epoch)) for epoch in range(1500)]}
    folder = write_cell(steps=steps)
    (folder / "config.yaml").write_text(json.dumps({f"key {number}": number for number in range(250)}))
    run_id = send(folder, sqlite)
    client = MlflowClient(tracking_uri=sqlite.uri)
    assert len(client.get_metric_history(run_id, "train_loss")) == 1500
    assert len(client.get_run(run_id).data.params) == 250 + 5


def test_a_sweep_has_one_parent(tracking: TrackingConfig, write_cell: Callable[..., Path]) -> None:
    folders = [write_cell(cell=key, sweep="friday") for key in ("a", "b")]
    children = [send(folder, tracking) for folder in folders]
    parent = sweep_run(folders[0].parent, "friday", tracking)
    found = {run.info.run_id: run.data.tags for run in runs(tracking)}
    assert set(found) == {parent, *children}
    assert {found[child]["mlflow.parentRunId"] for child in children} == {parent}
    chosen = send(write_cell(cell="c", sweep="friday"), tracking, parent_run_id=children[0])
    assert (
        MlflowClient(tracking_uri=tracking.uri).get_run(chosen).data.tags["mlflow.parentRunId"] == children[0]
    )


def test_eight_processes_share_one_fresh_database(
    tmp_path: Path, write_cell: Callable[..., Path], start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    fresh = TrackingConfig(uri="sqlite:///new/mlflow.db")  # relative to the processes' working directory
    folders = [write_cell(cell=f"cell{number}") for number in range(8)]
    senders = start_python(SEND_EACH_IN_A_PROCESS, fresh.uri, *folders)
    out, err = senders.communicate(timeout=120)
    assert (senders.returncode, out, err) == (0, "", "")
    found = runs(replace(fresh, uri=f"sqlite:///{tmp_path}/new/mlflow.db"))
    assert sorted(run.data.tags["probegrid.cell"] for run in found) == sorted(
        folder.name for folder in folders
    )
    assert all(len(run.data.metrics) == 7 and run.info.status == "FINISHED" for run in found)
    assert (tmp_path / "new" / "mlruns").is_dir()


def test_a_server_that_is_not_there_is_noticed_at_once(write_cell: Callable[..., Path], port: int) -> None:
    start = monotonic()
    with pytest.raises(ServerUnreachable, match=r"^MLflow at tracking.uri=http://joe:\*\*\*@127[^\n]*\.$"):
        send(write_cell(), TrackingConfig(uri=f"http://joe:secret@127.0.0.1:{port}"))
    assert monotonic() - start < 5


@pytest.mark.slow
def test_a_server_that_hangs_is_given_up_on(write_cell: Callable[..., Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never answers
        start = monotonic()
        with pytest.raises(ServerUnreachable):
            send(write_cell(), TrackingConfig(uri=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    assert monotonic() - start < 12


@pytest.mark.parametrize(
    ("uri", "experiment", "message"),
    [
        ("foo://host", "x", "is nothing MLflow can write to"),
        ("mlruns", "x", "database backend"),
        ("http:/host", "x", "Invalid url"),
        ("sqlite:///{folder}/mlflow.db", "", "Invalid experiment name"),
        ("sqlite:///{folder}/not-a-database", "x", "file is not a database"),
        ("sqlite:////proc/nowhere/mlflow.db", "x", "No such file"),
        ("sqlite:mlflow.db", "x", "Could not parse"),
        ("postgresql://joe:secret@127.0.0.1/x", "x", "psycopg"),
    ],
)
def test_a_wrong_address_is_one_sentence(
    sqlite: TrackingConfig,
    write_cell: Callable[..., Path],
    tmp_path: Path,
    uri: str,
    experiment: str,
    message: str,
) -> None:
    (tmp_path / "not-a-database").write_text("hello " * 1000)
    before = dict(os.environ)
    with pytest.raises(TrackingError, match=message) as raised:
        send(write_cell(), TrackingConfig(uri=uri.format(folder=tmp_path), experiment=experiment))
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert dict(os.environ) == before


def test_a_wrong_experiment_name_on_a_server_is_one_sentence(
    server: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    with pytest.raises(TrackingError, match="experiment"):
        send(write_cell(), replace(server, experiment=""))


def test_a_deleted_experiment_is_one_sentence(
    tracking: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    folder = write_cell()
    send(folder, tracking)
    client = MlflowClient(tracking_uri=tracking.uri)
    client.delete_experiment(runs(tracking)[0].info.experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted; restore it \(mlflow experiments restore"):
        send(folder, tracking)


def test_a_folder_without_a_record_is_refused(sqlite: TrackingConfig, tmp_path: Path) -> None:
    (tmp_path / "results" / "cell").mkdir(parents=True)
    with pytest.raises(TrackingError, match="holds no recorded cell"):
        send(tmp_path / "results" / "cell", sqlite)


def test_a_run_that_is_active_around_the_cell_is_its_parent(
    sqlite: TrackingConfig, write_cell: Callable[..., Path]
) -> None:
    import mlflow

    first = send(write_cell(), sqlite)
    client = MlflowClient(tracking_uri=sqlite.uri)
    assert "mlflow.parentRunId" not in client.get_run(first).data.tags
    before = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri(sqlite.uri)
        with mlflow.start_run(experiment_id=client.get_run(first).info.experiment_id) as outer:
            inside = send(write_cell(cell="fedcba9876543210"), sqlite)
        assert client.get_run(inside).data.tags["mlflow.parentRunId"] == outer.info.run_id
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
