"""What is known of a store before a cell runs: whether anything answers, whether a file can be written."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import free_port

from probegrid.errors import TrackingError
from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.tracking.mlflow_session import open_experiment
from probegrid.tracking.preflight import obstacle


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers, and lets nobody in."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


class Other(Refusing):
    """Another program's server, which knows none of MLflow's pages."""

    status = 404


@pytest.fixture(params=[Refusing])
def refusing(request: pytest.FixtureRequest) -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), request.param)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:password@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_answers_is_no_obstacle_whatever_it_says(refusing: str) -> None:
    assert obstacle(TrackingConfig(uri=refusing)) is None


@pytest.mark.parametrize("refusing", [Other], indirect=True)
def test_a_server_that_is_not_mlflow_is_told(refusing: str) -> None:
    found = obstacle(TrackingConfig(uri=refusing))
    assert found is not None
    assert "no MLflow server" in found
    assert "password" not in found


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "foo://x/y"])
def test_what_mlflow_does_not_take_is_told(uri: str) -> None:
    """MLflow's own refusal comes once the cell has run."""
    found = obstacle(TrackingConfig(uri=uri))
    assert found is not None
    assert "sqlite:///mlflow.db" in found
    with pytest.raises(TrackingError), open_experiment(TrackingConfig(uri=uri)):
        pass


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not SQLite's")
    for place, said in ((file, "is no database"), (tmp_path, f"{tmp_path}/mlflow.db")):
        found = obstacle(TrackingConfig(uri=f"sqlite:///{place}"))
        assert found is not None
        assert said in found


def test_a_driver_that_is_not_there_is_named() -> None:
    found = obstacle(TrackingConfig(uri="mysql+no_such_driver://user:hidden@127.0.0.1/x"))
    assert found is not None
    assert "no_such_driver" in found
    assert "hidden" not in found


@pytest.mark.parametrize("scheme", ["http", "postgresql+psycopg"])
def test_where_nothing_answers_one_sentence_says_so_without_the_password(scheme: str) -> None:
    found = obstacle(TrackingConfig(uri=f"{scheme}://user:hidden@127.0.0.1:{free_port()}/x"))
    assert found is not None
    assert "answer" in found
    assert "hidden" not in found


def test_a_file_may_be_made_where_its_folder_may_be_written(tmp_path: Path) -> None:
    assert obstacle(TrackingConfig(uri=f"sqlite:///{tmp_path}/new/mlflow.db")) is None
    assert obstacle(TrackingConfig(uri="sqlite:///mlflow.db")) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    found = obstacle(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    tmp_path.chmod(0o700)
    assert found is not None
    assert str(tmp_path) in found


def test_nothing_is_asked_where_nothing_is_sent() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert obstacle(TrackingConfig(TrackingBackend.none, uri=nowhere)) is None
