"""A program: start Python programs by forking a process that has imported what they will import.

``python fork_server.py LIGHT HEAVY PUBLIC``: descriptors of two sockets on which whoever started it asks for programs,
and of one that listens to all others. Importing torch, transformers and MLflow takes 5 s of CPU a program, which
is more than most of the tests' cells compute. The light server knows neither torch nor what transformers is with it,
as the commands that hand cells to jobs; the heavy one is for whatever computes. A forked program differs from one that
was started in its imports, and what they have read, alone: arguments, folder, environment, streams, signals and session
are its own, its parent is the process that asked, and it ends as Python ends. `forked.Forked` is how to ask.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import forked

COMMON = (
    "hydra.main",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "PIL.PngImagePlugin",
    "probegrid.actions",
    "probegrid.door.arguments",
    "probegrid.judges.greedy",
    "probegrid.judges.graphs",
    "probegrid.judges.meanings",
    "probegrid.judges.registry",
    "probegrid.judges.relevance",
    "probegrid.judges.samples",
    "probegrid.judges.tokens",
    "probegrid.report.report",
    "probegrid.sweep.check",
    "probegrid.sweep.launch",
    "probegrid.sweep.table",
    "probegrid.tracking.mlflow_sink",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "submitit",
)
HEAVY = (
    "bitsandbytes",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "probegrid.cell.answer_probe",
    "probegrid.cell.run",
    "probegrid.cell.trained_probe",
    "probegrid.hardware.telemetry",
    "probegrid.inference.engine",
    "probegrid.models.load",
    "probegrid.models.load_whole",
    "probegrid.models.pool",
    "probegrid.readings.session",
    "sklearn.linear_model",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
)
_PR_SET_NAME = 15
_HEADER = struct.Struct("!I")


def main() -> None:
    """Import what both need, and become the two servers."""
    light, heavy, public = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
    address = public.getsockname()
    import_all(COMMON)
    read_configs()
    read_world_and_migrations()
    if os.fork() == 0:
        light.close()
        import_all(HEAVY)
        make_tables()
        Server(heavy, None, public).serve()
    heavy.close()
    public.close()
    from probegrid.models import torchless

    torchless.own_this_process()
    torchless.import_without_torch()
    torchless._owners.clear()  # each command says so itself
    import_all(["transformers.models.auto.tokenization_auto"])
    assert "torch" not in sys.modules
    Server(light, address).serve()


def import_all(names: Sequence[str]) -> None:
    """Import modules; what bitsandbytes says of its kernels then is not for whichever test is running."""
    with contextlib.redirect_stderr(io.StringIO()):
        for name in names:
            importlib.import_module(name)


def prepare_for_copies() -> None:
    """Leave all that exists out of every search for garbage, and let what is forked from here compute in many threads.

    torch replaces a copy's pool of threads when the copy first asks for it; of two threads that ask at once, as
    transformers' do that load, one finds none and fails ("Invalid thread pool").
    """
    os.register_at_fork(after_in_child=_ask_for_threads)
    gc.collect()
    gc.freeze()
    if (pool := sys.modules.get("probegrid.models.pool")) is not None:
        pool.frozen_by_another()


def _ask_for_threads() -> None:
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(torch.get_num_threads())


def read_configs() -> None:
    """Import datasets, probes and Hydra's plugins, and read the YAML files, which are read again once they change."""
    from hydra.core.utils import JobRuntime

    from probegrid.compose import compose_cell

    JobRuntime.instance().set("name", "probegrid")  # as the command does
    compose_cell([])
    words = ("model=custom", "model.path=none/here", "dataset.num_samples=4", "decoding.batch_size='2'")
    compose_cell(words)  # Hydra's parser keeps what it learns of its grammar


def read_world_and_migrations() -> None:
    """Make the embedded facts, and have MLflow's tables known to SQLAlchemy and its migrations read."""
    from sqlalchemy.orm import configure_mappers

    from probegrid.embedded import world
    from probegrid.tracking import mlflow_database

    world.facts()
    configure_mappers()
    mlflow_database._migrations().get_current_head()


def make_tables() -> None:
    """Have transformers make what it keeps of how checkpoints name their weights, a thousand patterns."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")


@dataclass
class Child:
    """A program whose end somebody waits to hear of, if it is not this server's alone."""

    pid: int
    ended: int
    """A descriptor that can be read once it has ended."""
    asker: socket.socket | None


class Server:
    """Forks programs for its owner, who becomes their parent, and for any who ask at its address."""

    def __init__(self, owner: socket.socket, heavy: str | None, public: socket.socket | None = None) -> None:
        """Begin to listen; ``heavy`` is where the heavy server listens, None: this is a heavy one."""
        self._owner, self._heavy, self._public = owner, heavy, public
        self._selector = selectors.DefaultSelector()
        self._selector.register(owner, selectors.EVENT_READ, self._on_owner)
        if public is not None:
            self._selector.register(public, selectors.EVENT_READ, self._on_public)
        self._children: list[Child] = []
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal's is for who uses us; the owner's end is ours
        prepare_for_copies()

    def serve(self) -> NoReturn:
        """Serve until the owner ends."""
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)

    def _on_owner(self, owner: socket.socket) -> None:
        asked = forked.receive(owner)
        if asked is None:
            for child in self._children:
                os.kill(child.pid, signal.SIGKILL)
            os._exit(0)
        program, streams = asked
        forked.send(owner, self._fork_for_owner(program, streams))
        for stream in streams:
            os.close(stream)

    def _fork_for_owner(self, program: dict[str, Any], streams: list[int]) -> int:
        """Start a program by way of a process that ends at once: so the owner, who sees to that, is its parent."""
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            parent = os.getpid()
            child = os.fork()
            if child == 0:
                os.close(reading)
                os.close(writing)
                self._become(program, streams, parent)
            os.write(writing, _HEADER.pack(child))
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            (child,) = _HEADER.unpack(pipe.read())
        os.waitpid(between, 0)
        return child

    def _on_public(self, public: socket.socket) -> None:
        asker, _ = public.accept()
        asked = forked.receive(asker)
        if asked is None:
            asker.close()
            return
        program, streams = asked
        pid = os.fork()
        if pid == 0:
            asker.close()
            self._become(program, streams, None)
        for stream in streams:
            os.close(stream)
        child = Child(pid, os.pidfd_open(pid), asker if program["waits"] else None)
        self._children.append(child)
        self._selector.register(child.ended, selectors.EVENT_READ, lambda _: self._on_end(child))
        _tell(asker, pid)
        if child.asker is None:
            asker.close()
        else:
            self._selector.register(asker, selectors.EVENT_READ, lambda _: self._on_asker_gone(child))

    def _on_end(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        self._selector.unregister(child.ended)
        os.close(child.ended)
        self._children.remove(child)
        if child.asker is not None:
            _tell(child.asker, os.waitstatus_to_exitcode(status))
            self._on_asker_gone(child)

    def _on_asker_gone(self, child: Child) -> None:
        """Whoever asked and waits was killed, or has its answer: it takes its program along."""
        assert child.asker is not None
        self._selector.unregister(child.asker)
        child.asker.close()
        child.asker = None
        if child in self._children:
            os.kill(child.pid, signal.SIGKILL)

    def _become(self, program: Mapping[str, Any], streams: list[int], parent: int | None) -> NoReturn:
        """In a child: run a program as if it were started now, and end."""
        for child in self._children:
            os.close(child.ended)
            if child.asker is not None:
                child.asker.close()
        self._selector.close()
        for each in (self._owner, self._public):
            if each is not None:
                each.close()
        status = 1
        try:
            forked.fork_what_is_started(self._heavy or server_of_its_own(streams))
            while parent is not None and os.getppid() == parent:
                time.sleep(0.0005)
            take_over(program, streams)
            status = run(program["words"])
        finally:
            os._exit(status)


def server_of_its_own(streams: Sequence[int] = ()) -> socket.socket:
    """Fork a server for what a program will start itself, before it changes anything."""
    ours, its = socket.socketpair()
    if os.fork() == 0:
        for stream in streams:
            os.close(stream)
        ours.close()
        ctypes.CDLL(None).prctl(_PR_SET_NAME, forked.SERVER.encode(), 0, 0, 0)
        Server(its, None).serve()
    its.close()
    return ours


def _tell(asker: socket.socket, number: int) -> None:
    """Answer one who may have been killed while this server was still importing; its socket then says so."""
    with contextlib.suppress(ConnectionError):
        forked.send(asker, number)


def take_over(program: Mapping[str, Any], streams: Sequence[int]) -> None:
    """Take over what a process inherits where it is started."""
    if program["new_session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.umask(program["umask"])
    os.chdir(program["folder"])
    path = [each for each in sys.path[1:] if each not in forked.path_of(os.environ)]
    os.environ.clear()
    os.environ.update(program["environment"])
    sys.path[:] = ["", *forked.path_of(os.environ), *path]  # the program's own folder comes first
    if not os.environ.get("PYTHONWARNINGS"):
        _warn_as_python_does()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in program["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    modules = os.environ.get("HF_MODULES_CACHE")
    for name in ("transformers.utils.hub", "transformers.dynamic_module_utils"):
        if modules is not None and name in sys.modules:
            sys.modules[name].HF_MODULES_CACHE = modules  # type: ignore[attr-defined]  # read where it was imported
    tempfile.tempdir = None
    unbuffered = program["unbuffered"]
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    for number, name, errors in ((1, "stdout", "strict"), (2, "stderr", "backslashreplace")):
        raw = io.FileIO(number, "w", closefd=False)
        text = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw),  # type: ignore[arg-type]
            encoding="utf-8",
            errors=errors,
            line_buffering=not unbuffered and (number == 2 or raw.isatty()),
            write_through=unbuffered,
        )
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)


def _warn_as_python_does() -> None:
    sys.warnoptions.clear()
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def run(words: Sequence[str]) -> int:
    """Do as ``python WORDS`` does; its exit status."""
    status = 0
    try:
        _execute(words)
    except SystemExit as end:
        if isinstance(end.code, int) or end.code is None:
            status = end.code or 0
        else:
            print(end.code, file=sys.stderr)
            status = 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = -signal.SIGINT
    except BaseException:  # noqa: BLE001  # as Python does at its end
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = 120
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _execute(words: Sequence[str]) -> None:
    first, *others = words
    if first == "-c":
        sys.argv = ["-c", *others[1:]]
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        exec(compile(others[0], "<string>", "exec"), module.__dict__)  # as Python does
    elif first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = ["-m", *others[1:]]
        is_package = hasattr(sys.modules.get(others[0]), "__path__")
        sys.modules.pop(f"{others[0]}.__main__" if is_package else others[0], None)  # as if never imported
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(first).resolve().parent)
        sys.argv = [first, *others]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
