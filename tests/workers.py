"""``pytest --workers N``: spread tests over processes that are forked once all tests are collected.

Importing what the tests import and collecting them takes 10 s of CPU, which pytest-xdist pays in each of its
processes; here it is paid once. A file of tests runs in one process, in the order of collection, and whoever is done
with one gets the next, so that what a file makes once is made once. A process that dies fails the test it was in, and
another one goes on with the rest of the file. Fixtures of the session are those of a process; `number` tells which.

Not for machines with GPUs: what has asked CUDA for something cannot be forked.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import random
import signal
import tempfile
import time
import warnings
from collections import deque
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest
from _pytest.capture import FDCapture

NUMBER = "PYTEST_WORKER"
"""The variable that holds the number of a process of a run that is spread."""
_GRACE_S = 30.0
"""How long processes may take to end their services once a run is interrupted."""


def number() -> str | None:
    """Which process of a run this is; None where the run is not spread in this way."""
    return os.environ.get(NUMBER)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--workers``."""
    parser.addoption("--workers", type=int, default=0, help="fork so many processes once tests are collected")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run all tests in forked processes; None leaves it to pytest."""
    count = session.config.getoption("workers")
    is_failed = session.testsfailed and not session.config.option.continue_on_collection_errors
    if not count or is_failed or session.config.option.collectonly:
        return None
    _Run(session, count).run()
    return True


@dataclass
class _Worker:
    """A process, as the one that forked it sees it."""

    pid: int
    ended: int
    """A descriptor that can be read once it has ended."""
    connection: Connection
    left: deque[int]
    """Which of the session's tests it was given and has not ended."""


class _Run:
    """Hands files of tests to processes, and hands on what they report."""

    def __init__(self, session: pytest.Session, count: int) -> None:
        self._session, self._hook, self._count = session, session.config.hook, count
        files = itertools.groupby(enumerate(session.items), key=lambda pair: pair[1].path)
        self._files = deque(deque(index for index, _ in pairs) for _, pairs in files)
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()

    def run(self) -> None:
        """Run all; raises as pytest's own loop does where a run is to stop."""
        _temporary_folders(self._session.config).getbasetemp()  # one for all
        try:
            for _ in range(min(self._count, len(self._files))):
                self._start()
            while self._workers:
                ready = wait([each for one in self._workers for each in (one.connection, one.ended)])
                for worker in list(self._workers):
                    if worker.connection in ready:
                        self._hear(worker)
                    elif worker.ended in ready:
                        self._bury(worker)
                    if self._session.shouldfail:
                        raise self._session.Failed(self._session.shouldfail)
                    if self._session.shouldstop:
                        raise self._session.Interrupted(self._session.shouldstop)
        finally:
            self._end()

    def _start(self) -> None:
        """Fork a process and give it the next file."""
        ours, its = Pipe()
        name = f"{next(self._numbers)}"
        pid = os.fork()
        if pid == 0:
            for each in (ours, *(worker.connection for worker in self._workers)):
                each.close()
            _work(self._session, its, name)
        its.close()
        worker = _Worker(pid, os.pidfd_open(pid), ours, deque())
        self._workers.append(worker)
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        """Give a process the next file, or let it end."""
        worker.left = self._files.popleft() if self._files else deque()
        with contextlib.suppress(ConnectionError):  # it died, which is seen next
            worker.connection.send([*worker.left])

    def _hear(self, worker: _Worker) -> None:
        what, told = "", {}
        with contextlib.suppress(EOFError, ConnectionError):
            what, told = worker.connection.recv()
        if not what:
            self._bury(worker)
        elif what == "report":
            report = self._hook.pytest_report_from_serializable(config=self._session.config, data=told)
            self._hook.pytest_runtest_logreport(report=report)
        elif what == "warning":
            warning = warnings.WarningMessage(**told.pop("warning"))
            self._hook.pytest_warning_recorded.call_historic(kwargs={"warning_message": warning, **told})
        elif what == "start":
            self._hook.pytest_runtest_logstart(**told)
        else:
            self._hook.pytest_runtest_logfinish(**told)
            worker.left.popleft()
            if not worker.left:
                self._give(worker)

    def _bury(self, worker: _Worker) -> None:
        """A process has ended: as it should, or in a test, which has failed; another one then goes on."""
        self._workers.remove(worker)
        status = _status(worker)
        if worker.left:
            item = self._session.items[worker.left.popleft()]
            said = f"the process that ran {item.nodeid} ended in it, with status {status}"
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", said, "call")
            self._hook.pytest_runtest_logreport(report=report)
            self._hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        elif status:
            self._session.shouldfail = f"what tests share was not ended: a process has status {status}"
        if worker.left:
            self._files.appendleft(worker.left)
        if self._files:
            self._start()

    def _end(self) -> None:
        """Have the processes that are left end what they started, and wait for them."""
        for worker in self._workers:
            worker.connection.close()
        deadline = time.monotonic() + _GRACE_S
        for worker in self._workers:
            if not wait([worker.ended], max(0, deadline - time.monotonic())):
                os.kill(worker.pid, signal.SIGKILL)
            _status(worker)


def _status(worker: _Worker) -> int:
    worker.connection.close()
    os.close(worker.ended)
    return os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])


def _temporary_folders(config: pytest.Config) -> pytest.TempPathFactory:
    folders: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return folders


def _work(session: pytest.Session, connection: Connection, name: str) -> NoReturn:
    """In a forked process: run the files that are given, and end."""
    status = 1
    config = session.config
    try:
        atexit._clear()  # what is registered is for the end of the other process
        os.environ[NUMBER] = name
        random.seed()
        _separate(config, name)
        config.pluginmanager.register(_Reporter(config, connection))
        with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
            while indices := connection.recv():
                items = [session.items[index] for index in indices]
                # after a file's last test the session stays, and what is of the session
                for item, following in itertools.pairwise([*items, session]):
                    config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        session._setupstate.teardown_exact(None)
        atexit._run_exitfuncs()
        status = 0
    except BaseException:  # noqa: BLE001  # a copy must not go on as the run itself
        config.notify_exception(pytest.ExceptionInfo.from_current())
    finally:
        os._exit(status)


def _separate(config: pytest.Config, name: str) -> None:
    """Give this process folders and captured streams of its own, and leave the terminal to the other one."""
    folders = _temporary_folders(config)
    folders._basetemp = folders.getbasetemp() / f"worker{name}"
    folders._basetemp.mkdir(mode=0o700)
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    # Copies of an open file have its place in common; and loggers keep the streams that were there when they were made.
    for stream in (capture._global_capturing.out, capture._global_capturing.err):
        if isinstance(stream, FDCapture):
            with tempfile.TemporaryFile() as own:
                os.dup2(own.fileno(), stream.tmpfile.fileno())
    config.pluginmanager.unregister(name="terminalreporter")


class _Reporter:
    """Tells the process that forked this one what happens here."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self._config, self._connection = config, connection

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        """A test begins."""
        self._connection.send(("start", {"nodeid": nodeid, "location": location}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test has ended."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._connection.send(("report", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        """A test has ended."""
        self._connection.send(("finish", {"nodeid": nodeid, "location": location}))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        """A warning that is no error."""
        warning = {
            "message": f"{warning_message.category.__name__}: {warning_message.message}",
            "category": UserWarning,  # a category of one's own may not be sent
            "filename": warning_message.filename,
            "lineno": warning_message.lineno,
        }
        told = {"warning": warning, "when": when, "nodeid": nodeid, "location": location}
        self._connection.send(("warning", told))
