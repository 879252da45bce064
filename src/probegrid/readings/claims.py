"""Who is at work on which batch of a reading: a hidden file a batch beside its parts, touched while its holder lives.

Replicas on one machine, the jobs of one cell, two users who ask the same at the same time: all share a reading by
claiming its batches here. Knows files, processes and clocks; nothing of what a batch holds.

A claim is made by a creation that only one can win. It passes on at once where its holder is a dead process of this
machine, else once it was not touched for `SILENT_S` by the watch of whoever waits, so that no two clocks are compared.
It is made in the folder of the parts itself: a network file system then lists that folder anew.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from probegrid.disk import disk_errors

BEAT_S = 5.0
"""Seconds between two touches of what is held."""
SILENT_S = 60.0
"""A claim that was not touched for so long has no holder any more."""
POLL_S = 0.5
"""Seconds between two looks at what others hold, where nothing else is left to do."""
_SAME_BIRTH_S = 2.0
"""A process's birth is told by the clock, which may be set meanwhile."""
_own_tokens: set[str] = set()
"""Of every claim that this process holds."""


@dataclass(frozen=True)
class _Seen:
    """What a claim of another looked like, and since when."""

    token: str
    touched_ns: int
    since: float
    """By this process's steady clock."""


class Claims:
    """The claims that this process makes in a folder; as a context manager, it lets all go at the end."""

    def __init__(self, folder: Path) -> None:
        """Hold nothing yet.

        Args:
            folder: exists, and is the one that holders write what they made to.
        """
        self._folder = folder
        self._held: dict[str, str] = {}
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Claim what nobody holds, or whose holder is gone; whether it is this process's now.

        Raises:
            StoreError: the disk is full, or may not be written.
        """
        token = secrets.token_hex(8)
        if not (self._create(name, token) or self._take_over(name, token)):
            return False
        with self._lock:
            self._held[name] = token
            _own_tokens.add(token)
            self._seen.pop(name, None)
            if self._beating is None:
                self._beating = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._beating.start()
        return True

    def release(self, name: str) -> None:
        """Let a claim go, unless another has taken it over meanwhile."""
        with self._lock:
            token = self._held.pop(name, None)
            _own_tokens.discard(token or "")
        found = _read(self._file(name))
        if token is not None and found is not None and found[0].get("token") == token:
            with suppress(OSError):
                self._file(name).unlink()

    def wait_for(self, name: str) -> None:
        """Claim what another holds as soon as it is let go.

        Raises:
            StoreError: as `take`.
        """
        while not self.take(name):
            time.sleep(POLL_S)

    def clear(self, names: Iterable[str]) -> None:
        """Remove what holders left who died between the end of their work and letting go."""
        for name in names:
            if self._file(name).exists() and self.take(name):
                self.release(name)

    def is_held(self, name: str) -> bool:
        """Whether somebody who lives holds a claim, as far as can be told by now."""
        return not self._is_abandoned(name)

    def _file(self, name: str) -> Path:
        return self._folder / f".{name}.claim"

    def _create(self, name: str, token: str) -> bool:
        with disk_errors(self._file(name)):
            try:
                descriptor = os.open(self._file(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            with os.fdopen(descriptor, "w") as stream:
                stream.write(_written(token))
        return True

    def _take_over(self, name: str, token: str) -> bool:
        """Take the place of a holder that is gone.

        Only one can rename what it left. Where that turns out to be a fresh claim, which another made in the instant
        since it was looked at, it is put back; at worst two do the same batch, and the store keeps one.
        """
        before = _read(self._file(name))
        if not self._is_abandoned(name):
            return False
        if before is not None:
            moved = self._folder / f".{name}.{token}.tmp"
            with disk_errors(self._file(name)):
                try:
                    self._file(name).rename(moved)
                except FileNotFoundError:  # another was quicker
                    return False
            found = _read(moved)
            if found is not None and found[0] != before[0]:
                moved.rename(self._file(name))
                return False
            moved.unlink(missing_ok=True)
        return self._create(name, token)

    def _is_abandoned(self, name: str) -> bool:
        """Whether the holder of a claim is gone, as far as can be told by now."""
        found = _read(self._file(name))
        if found is None:
            return True
        held_by, touched_ns, is_own = found
        token, now = str(held_by.get("token")), time.monotonic()
        if is_own and held_by.get("machine") == _machine() and not _is_alive(held_by):
            return True
        seen = self._seen.get(name)
        if seen is None or (seen.token, seen.touched_ns) != (token, touched_ns):
            self._seen[name] = seen = _Seen(token, touched_ns, now)
        return now - seen.since > SILENT_S

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with self._lock:
                names = list(self._held)
            for name in names:
                with suppress(OSError):  # let go meanwhile, or taken over while this machine slept
                    os.utime(self._file(name))


def _written(token: str) -> str:
    return json.dumps({"machine": _machine(), "pid": os.getpid(), "born": _born(os.getpid()), "token": token})


def _read(file: Path) -> tuple[dict[str, Any], int, bool] | None:
    """Who holds a claim, when it was touched last (ns), and whether it is this user's; None if nobody does.

    It is opened, for a network file system asks its server then. Another user's processes may be hidden (hidepid): they
    are told to be alive by their touches alone.
    """
    try:
        with file.open("rb") as stream:
            content, status = stream.read(), os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    except OSError:  # it may not be read: whoever holds it, its touches can be seen
        with suppress(OSError):
            return {}, file.stat().st_mtime_ns, False
        return None
    try:
        values = json.loads(content)
    except ValueError:  # its holder is about to write it, or was killed before it had
        values = {}
    values = values if isinstance(values, dict) else {}
    return values, status.st_mtime_ns, status.st_uid == os.getuid()


@cache
def _machine() -> str:
    """This machine since it was started, and this container of it: where a process's number means that process."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _is_alive(held_by: Mapping[str, Any]) -> bool:
    """Whether the holder, of this machine, lives; what this very process let lie by an error is nobody's."""
    process, born = int(held_by.get("pid", 0)), _born(int(held_by.get("pid", 0)))
    if born is None or abs(born - float(held_by.get("born") or 0)) > _SAME_BIRTH_S:
        return False
    return process != os.getpid() or held_by.get("token") in _own_tokens


def _born(process: int) -> float | None:
    """When a process of this machine was started, in seconds; None if it is none, or has ended."""
    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else found.create_time()
    except psutil.Error:
        return None
