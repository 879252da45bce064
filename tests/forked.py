"""How tests start Python programs: each as a fork of a process that has done its imports, see `fork_server`.

`Forked` is a ``subprocess.Popen`` in all that its users see, and `run` a ``subprocess.run``. What cannot be had by
forking (another interpreter, options of Python's own, variables that count when a library is imported) is started as
ever; so are, by ``subprocess`` itself, the programs of tests that are about a start.
"""

from __future__ import annotations

import atexit
import ctypes
import inspect
import json
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_AT_IMPORT = (
    *("PYTHON", "OMP_", "MKL_", "TORCH_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "MPL"),
    *("HOME", "XDG_", "LC_", "LANG", "TZ"),
)
"""How variables begin that count when a library is imported: a program that has others is started anew."""
_TAKEN_OVER = {"PYTHONPATH", "PYTHONUNBUFFERED", "HF_MODULES_CACHE", "OMP_WAIT_POLICY"}
"""Those of them that a fork can take over, or that say nothing to a single thread."""
SERVER = "fork-server"
"""The name of the process that a forked program keeps for what it may start itself."""
_SPECIAL = ("preexec_fn", "pass_fds", "executable", "shell", "gid", "gids", "uid")
"""What Popen may be asked for that a server is not told."""
_LIGHT_ACTIONS = {f"action={name}" for name in ("plan", "report", "sync", "status", "cancel", "verify")}
_PR_SET_CHILD_SUBREAPER = 36
_SIZE = struct.Struct("!I")
_START = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """A program that was forked where it could be, and started where not."""

    def _execute_child(self, *arguments: Any) -> None:
        asked = _START.bind(self, *arguments).arguments
        servers, program = _servers_for(asked), _forkable(asked)
        if servers is None or program is None:
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        pipes = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        streams = [number if pipe == -1 else pipe for number, pipe in enumerate(pipes)]
        self.pid = servers.ask(program, streams)
        self._child_created = True
        names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in names))  # type: ignore[attr-defined]


def run(
    words: Sequence[str | Path],
    *,
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as ``subprocess.run`` does."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Forked(words, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, out, err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def python() -> str:
    """What a shell runs in the place of ``python``, as others than `Forked` start it."""
    _servers.start()
    program = Path(__file__).with_name("forked_python.py")
    return shlex.join([sys.executable, "-IS", str(program), _servers.address])


def fork_programs_of(python: Path) -> None:
    """Fork what this other interpreter runs too, from processes of its own that have imported what it finds."""
    _others.setdefault(str(python), _Servers(str(python)))


def fork_what_is_started(heavy: str | socket.socket) -> None:
    """In a forked program: have its own programs forked too, by the server at this address or at this socket."""
    _servers.take(heavy)
    subprocess.Popen = Forked  # type: ignore[misc]


def path_of(environment: Mapping[str, str]) -> list[str]:
    """The folders of ``PYTHONPATH``."""
    return [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]


class _Servers:
    """The servers that this process asks; it starts them when it first does, and they end with it."""

    def __init__(self, python: str = sys.executable) -> None:
        self.python = python
        """The interpreter that runs them, and so the packages that they import."""
        self.environment: dict[str, str] = {}
        """Theirs."""
        self.address = ""
        """Where the heavy one listens to those who are not its owner."""
        self._owned: dict[str, socket.socket] = {}
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._let_go)

    @property
    def are_there(self) -> bool:
        """Whether there is one to ask."""
        return bool(self._owned or self.address)

    def _let_go(self) -> None:
        """In a copy of this process: its servers are not the copy's, whose answers would be mixed with its own."""
        if self._owned:
            for server in self._owned.values():
                server.close()
            self._owned, self.address = {}, ""

    def take(self, heavy: str | socket.socket) -> None:
        """In a forked program: ask this server, and start none."""
        self.environment = dict(os.environ)  # still the server's own
        self.address = heavy if isinstance(heavy, str) else ""
        self._owned = {} if isinstance(heavy, str) else {"heavy": heavy}

    def start(self) -> None:
        """Start both, unless there are some."""
        with self._lock:
            if self.environment:
                return
            folder = Path(tempfile.mkdtemp(prefix="probegrid-fork-", dir="/tmp"))  # sockets want short paths
            atexit.register(self._end, folder)
            self.address = str(folder / "heavy")
            self.environment = os.environ | {"HF_HUB_OFFLINE": "1"}
            if self.python != sys.executable:
                self.environment.pop("PYTHONPATH", None)  # its packages, not ours
            public = socket.socket(socket.AF_UNIX)
            public.bind(self.address)
            public.listen(64)
            pairs = {kind: socket.socketpair() for kind in ("light", "heavy")}
            its = [*(pair[1].fileno() for pair in pairs.values()), public.fileno()]
            program = [self.python, str(Path(__file__).with_name("fork_server.py")), *map(str, its)]
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
            server = subprocess.Popen(program, env=self.environment, pass_fds=its, **quiet)  # type: ignore[call-overload]
            server.returncode = 0  # nobody waits for it
            self._owned = {kind: ours for kind, (ours, _) in pairs.items()}
            for each in (public, *(other for _, other in pairs.values())):
                each.close()

    def _end(self, folder: Path) -> None:
        for server in self._owned.values():
            server.close()
        shutil.rmtree(folder, ignore_errors=True)

    def ask(self, program: Mapping[str, Any], streams: Sequence[int]) -> int:
        """Have a program started as a child of this process, if the server is its own; the process."""
        server = self._owned.get(_kind_of(program["words"]))
        if server is None:
            with socket.socket(socket.AF_UNIX) as asker:
                asker.connect(self.address)
                send(asker, program, streams)
                return _answer(asker)
        prctl = ctypes.CDLL(None).prctl
        with self._lock:
            prctl(
                _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0
            )  # an orphan of a descendant becomes a child of this process
            try:
                send(server, program, streams)
                return _answer(server)
            finally:
                prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


_servers = _Servers()
_others: dict[str, _Servers] = {}
"""Those of other interpreters."""


def _servers_for(asked: Mapping[str, Any]) -> _Servers | None:
    """The servers of the interpreter that a program runs in; None where it has none."""
    words = _words(asked)
    found = (each for each in (_servers, *_others.values()) if _after_python(words, each.python))
    return next(found, None)


def _words(asked: Mapping[str, Any]) -> list[str]:
    return [] if isinstance(asked["args"], str | bytes) else [os.fspath(word) for word in asked["args"]]


def _forkable(asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a server is to be told of a program; None for one that it cannot start."""
    servers = _servers_for(asked)
    is_special = any(asked[name] for name in _SPECIAL) or asked["umask"] >= 0 or asked["process_group"] >= 0
    if servers is None or is_special or sys.platform != "linux":
        return None
    servers.start()
    environment = dict(os.environ if asked["env"] is None else asked["env"])
    if not servers.are_there or _differ(environment, servers.environment):
        return None
    umask = os.umask(0o022)
    os.umask(umask)
    return {
        "words": _after_python(_words(asked), servers.python),
        "folder": os.path.abspath(asked["cwd"] or os.getcwd()),
        "environment": environment,
        "new_session": asked["start_new_session"],
        "umask": umask,
        "ignored": [number for number in (1, 2, 3, 15) if signal.getsignal(number) is signal.SIG_IGN],
        "unbuffered": bool(environment.get("PYTHONUNBUFFERED")),
        "waits": False,
    }


def _after_python(words: list[str], interpreter: str) -> list[str]:
    """The words after ``python``, if it is this one without options of its own."""
    python = Path(interpreter)
    if words[:1] == [str(python.with_name("probegrid"))]:
        return words
    if words[:1] != [str(python)] or len(words) < 2:
        return []
    is_plain = words[1] in ("-c", "-m") or words[1].endswith(".py")
    return words[1:] if is_plain else []


def _kind_of(words: Sequence[str]) -> str:
    """Which server a program is for, as far as its words say whether it computes."""
    is_probegrid = Path(words[0]).name == "probegrid" or words[:2] == ["-m", "probegrid"]
    own = {*words[2:], *(words[1:2] if words[0] != "-m" else ())}
    return "light" if is_probegrid and ("-m" in own or _LIGHT_ACTIONS & own) else "heavy"


def _differ(environment: Mapping[str, str], servers: Mapping[str, str]) -> bool:
    """Whether a program would have imported something else; warnings as Python has them can be had later too."""
    taken_over = _TAKEN_OVER if environment.get("PYTHONWARNINGS") else {*_TAKEN_OVER, "PYTHONWARNINGS"}
    ours, theirs = (
        {
            name: value
            for name, value in each.items()
            if name.startswith(_AT_IMPORT) and name not in taken_over
        }
        for each in (environment, servers)
    )
    return ours != theirs


def send(to: socket.socket, content: object, streams: Sequence[int] = ()) -> None:
    """Send plain values, and streams along with them."""
    encoded = json.dumps(content).encode()
    socket.send_fds(to, [_SIZE.pack(len(encoded))], list(streams))
    to.sendall(encoded)


def receive(source: socket.socket) -> tuple[Any, list[int]] | None:
    """What was sent; None at the end."""
    try:
        size, streams, _, _ = socket.recv_fds(source, _SIZE.size, 3)
        if len(size) < _SIZE.size:
            return None
        left, encoded = _SIZE.unpack(size)[0], b""
        while len(encoded) < left:
            encoded += source.recv(left - len(encoded))
        return json.loads(encoded), streams
    except ConnectionError:
        return None


def _answer(server: socket.socket) -> int:
    answer = receive(server)
    assert answer is not None, "the server of forks has ended"
    return int(answer[0])
