"""What is known of a store before a cell runs: whether anything answers, whether a file can be written."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import free_port

from probegrid.schema import TrackingBackend, TrackingConfig
from probegrid.tracking.preflight import obstacle


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers, and lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:password@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_answers_is_no_obstacle_whatever_it_says(refusing: str) -> None:
    assert obstacle(TrackingConfig(uri=refusing)) is None


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
