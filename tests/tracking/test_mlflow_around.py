"""A cell goes where MLflow, as it is set up around it, says: by environment variables, by calls, by an active run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import forked
import pytest
from mlflow import MlflowClient

import probegrid
from probegrid.compose import compose_cell
from probegrid.schema import TrackingConfig

FEW = ("dataset.num_samples=8", "prompt.num_few_shot=0", "decoding.max_new_tokens=2")
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")


@pytest.fixture
def mlflow_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's global state, put back."""
    import mlflow
    from mlflow.tracking import fluent

    before = mlflow.get_tracking_uri()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield
    mlflow.end_run()
    mlflow.set_tracking_uri(before)
    fluent._active_experiment_id = None
    for name in VARIABLES:
        os.environ.pop(name, None)


def only_run(tracking: TrackingConfig, experiment: str) -> str:
    """The id of the one cell in an experiment."""
    client = MlflowClient(tracking_uri=tracking.uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    (run,) = client.search_runs([found.experiment_id], "tags.`probegrid.cell` != ''")
    return str(run.info.run_id)


@pytest.mark.slow
@pytest.mark.usefixtures("mlflow_as_it_was", "workdir")
def test_a_cell_is_a_child_of_the_run_that_is_active_in_python(sqlite: TrackingConfig) -> None:
    import mlflow

    mlflow.set_tracking_uri(sqlite.uri)
    mlflow.set_experiment("mine")
    with mlflow.start_run() as outer:
        probegrid.run(FEW)
    data = MlflowClient(sqlite.uri).get_run(only_run(sqlite, "mine")).data
    assert data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert "MLFLOW_EXPERIMENT_NAME" not in os.environ
    probegrid.run([*FEW, "tracking.experiment=typed"])  # what is typed wins
    only_run(sqlite, "typed")


@pytest.mark.slow
def test_a_command_sends_where_the_environment_says(
    server: TrackingConfig, workdir: Path, probegrid_command: Sequence[str]
) -> None:
    named = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_EXPERIMENT_NAME": server.experiment}
    done = forked.run(
        [*probegrid_command, *FEW], cwd=workdir, env=os.environ | named, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    only_run(server, server.experiment)


def test_what_is_typed_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    tracking = compose_cell([]).config.tracking
    assert (tracking.uri, tracking.experiment) == ("http://elsewhere:5000", "elsewhere")
    typed = compose_cell(["tracking.uri=sqlite:///mine.db", "tracking.experiment=mine"]).config.tracking
    assert (typed.uri, typed.experiment) == ("sqlite:///mine.db", "mine")
