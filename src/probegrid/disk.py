"""Files and folders that appear whole or not at all, and what a disk refuses said in one sentence.

A folder's files go into a hidden sibling (``.<name>.tmp-<host>-<pid>-<random>``), reach the disk, and the sibling is
renamed. A folder that is already there is first renamed away (``.<name>.old-...``), so a reader sees the old folder,
for an instant none, then the new one; never a mixture.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout
from safetensors import SafetensorError

from probegrid.errors import ConfigError, StoreError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}")
DAMAGED_SUFFIX = ".damaged"
LEFTOVER_AGE_S = 3600
"""A part is written in seconds to minutes; a temporary file of this age belongs to no living writer."""
_NAME_LENGTH = 32
_FIRST_SPACE = 0xEFFFFFFC
"""What Linux calls the processes' numbers outside of every container (PROC_PID_INIT_INO)."""
_ABANDONED_AFTER_S = 24 * 3600
_FULL_DISK = {errno.ENOSPC: "no space is left on the disk", errno.EDQUOT: "the disk quota is used up"}


@contextmanager
def atomic(
    target: Path, *, private: bool = False, name_of: Callable[[Path], str] | None = None
) -> Iterator[Path]:
    """Give a temporary path beside ``target`` to write to; flush and rename it when the block ends well.

    Args:
        target: gets the permissions that the umask leaves, whatever the writer in the block set
            (safetensors writes 0600).
        private: whether it is for this user's eyes alone (0600), because it must hold a secret.
        name_of: the file's name by what was written, in place of the target's.

    Raises:
        StoreError: the disk is full or cannot be written.
    """
    # by chance too: containers that share a folder may agree in the host's name and in a process's number
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = target.with_name(f".{target.name}.{unique}.tmp")
    with disk_errors(target):
        try:
            mode = _create(
                temporary, private=private
            )  # before the block: safetensors calls EACCES "No such file"
            yield temporary
            temporary.chmod(mode)
            sync_file(temporary)
            temporary.replace(target if name_of is None else target.with_name(name_of(temporary)))
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn what the operating system says of a disk into one sentence about ``target``."""
    try:
        with full_disk(target):
            yield
    except Timeout:  # of a lock, no matter of the disk
        raise
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {_reason(error, target)}") from error


@contextmanager
def full_disk(target: Path | str) -> Iterator[None]:
    """Turn a full disk, and nothing else, into one sentence about ``target``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise StoreError(
            f"no space is left for {target}; free some and run the same command: it goes on."
        ) from error


def refuse_no_folder(key: str, name: str) -> None:
    """Refuse what is no folder, and cannot become one: an address, a file, a link to what is not there.

    Raises:
        ConfigError: it is one of these.
    """
    if "://" in name:
        raise ConfigError(f"{key}={name} is an address; give a folder, in which its storage may be mounted.")
    place = nearest(Path(name))
    if not place.is_dir():
        what = "a link to what is not there" if place.is_symlink() else "a file"
        raise ConfigError(f"{key}={name}: {place} is {what}; give a folder.")


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that nothing can be made in, before hours go into what shall stand there; nothing is made.

    Raises:
        StoreError: it may not be written.
    """
    place = nearest(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise StoreError(f"{folder} cannot be written: {_reason(OSError(number, ''), place)}")


def nearest(path: Path) -> Path:
    """What is there of a path: itself, or the innermost folder in which it would be made."""
    return next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))


@contextmanager
def permission_errors() -> Iterator[None]:
    """Turn what may not be read or written, wherever that is met, and nothing else, into one sentence about it."""
    try:
        yield
    except OSError as error:
        denied = None if error.filename is None else no_permission(error, Path(error.filename))
        if denied is None:
            raise
        raise StoreError(
            f"{error.filename} cannot be used: {denied}; have it changed, or give another folder."
        ) from error


@contextmanager
def locked(file: Path, timeout_s: float = -1, *, lease_s: float = 15.0) -> Iterator[None]:
    """Hold a lock that one process at a time can have, on whatever file system ``file`` would be.

    Where that knows no locks (some network ones), a lease stands for it: a file beside that names its holder's host
    and process, who touches it every few seconds. It passes on at once where the holder is a dead process of this
    host, and from another host once it was not touched for ``lease_s``, so that a wait is at least twice as long.

    Args:
        file: never read; its folder must exist.
        timeout_s: how long to wait; negative for ever.
        lease_s: how long a holder may be silent; all must say the same.

    Raises:
        filelock.Timeout: another process holds it.
        OSError: it cannot be written.
    """
    lock: FileLock | SoftFileLease
    if _knows_locks(file.parent):
        lock = FileLock(file)
    else:
        lock = SoftFileLease(file.with_name(f"{file.name}.lease"), lease_duration=lease_s)
        timeout_s = max(timeout_s, 2 * lease_s) if timeout_s >= 0 else timeout_s
    with lock.acquire(timeout=timeout_s):
        yield


def _knows_locks(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        error.filename = str(folder)  # a name by chance tells nobody anything
        raise
    return True


def make_private(file: Path) -> None:
    """Let only this user read a file (0600), which is made where it is not there, before a secret goes into it.

    Raises:
        StoreError: it cannot be written.
    """
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))
        file.chmod(0o600)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers of `atomic` left unfinished in a folder: temporary files that are over an hour old."""
    for file in folder.glob("**/.*.tmp"):
        with suppress(OSError):  # gone meanwhile, or a colleague's
            if time.time() - file.stat().st_mtime > LEFTOVER_AGE_S:
                file.unlink()


def content_name(content: bytes | Path) -> str:
    """The name of a file by what it holds, given as it is or as a path: 32 hex digits of its SHA-256.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()[:_NAME_LENGTH]
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:_NAME_LENGTH]


def set_aside(file: Path) -> Path:
    """Rename a damaged file to ``*.damaged``, where nobody looks for it, and return its path now.

    Raises:
        StoreError: it cannot be renamed.
    """
    kept = file.with_name(file.name + DAMAGED_SUFFIX)
    with suppress(FileNotFoundError), setting_aside(file):
        file.replace(kept)
    return kept


@contextmanager
def setting_aside(path: Path) -> Iterator[None]:
    """Say of what is damaged, and cannot be moved out of the way, both in one sentence; not of what is gone."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        why = no_permission(error, path) or error.strerror or error
        raise StoreError(
            f"{path} is damaged and cannot be set aside: {why}; have it removed, or give another folder."
        ) from error


def sync_file(file: Path) -> None:
    """Make sure that what a file holds has reached the disk."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def sibling(path: Path, kind: str) -> Path:
    """A hidden name beside ``path`` that nothing has, known to `remove_leftovers`; ``kind`` is ``tmp`` or ``old``."""
    return path.with_name(f".{path.name}.{kind}-{host()}-{os.getpid()}-{secrets.token_hex(4)}")


@cache
def host() -> str:
    """Where a process's number means that process: this host, or a container of it that has numbers of its own."""
    with suppress(OSError):  # no Linux
        space = Path("/proc/self/ns/pid").stat().st_ino
        if space != _FIRST_SPACE:
            return f"{socket.gethostname()}.{space}"
    return socket.gethostname()


def lies_in(path: Path, folder: Path) -> bool:
    """Whether what a path names, once links are followed, is there and lies in a folder."""
    try:
        return path.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to nowhere, or in a circle
        return False


def files_in(folder: Path) -> list[Path]:
    """Every file in a folder and the folders in it, sorted; links that lead out of it are passed over."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and lies_in(path, folder))


def no_permission(error: OSError, path: Path) -> str | None:
    """Say who may do what was refused, and to whom the file belongs; None where permission was not the matter."""
    if error.errno not in _NO_PERMISSION:
        return None
    if error.errno == errno.EROFS:
        return "its file system is mounted read-only"
    for place in (path, *path.parents):
        with suppress(OSError):  # not there, or in a folder that may not be looked into
            uid = place.stat().st_uid
            break
    else:
        return "no permission"
    return f"no permission, it belongs to {user_name(uid)}"


def user_name(uid: int) -> str:
    """What a user is called; the number where nobody knows a name, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def unreadable(path: Path, error: OSError) -> StoreError:
    """Say why a file or a folder cannot be read that is not damaged."""
    denied = no_permission(error, path)
    if denied is not None:
        return StoreError(f"cannot read {path}: {denied}; have it changed, or copy what you may read.")
    return StoreError(f"cannot read {path}: {error.strerror or error}.")


def _create(file: Path, *, private: bool) -> int:
    """Make an empty file; return its permissions, which the umask and the folder have decided."""
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _reason(error: OSError, target: Path) -> str:
    denied = no_permission(error, target)
    if denied is not None:
        return f"{denied}; have it changed, or give another store_dir or results_dir."
    return f"{error.strerror or error}; check store_dir and results_dir."


def _is_full(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(f"os error {number}" in str(error) for number in _FULL)  # all that safetensors says of it


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write ``files`` (relative path -> content) as ``folder``; the last writer wins.

    Raises:
        StoreError: the disk is full or refuses to be written; what stood there before still stands.
    """
    temporary = sibling(folder, "tmp")
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            _write_file(temporary / name, content)
        for path in (temporary, *filter(Path.is_dir, temporary.rglob("*"))):
            _flush_folder(path)
        _replace(folder, temporary)
    except OSError as error:
        denied = no_permission(error, folder)
        reason = denied or _FULL_DISK.get(error.errno or 0, error.strerror or str(error))
        mend = "have it changed" if denied else "make room"
        raise StoreError(
            f"cannot write {folder}: {reason}; {mend} or choose another folder, and run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Clear what killed writers left in ``parent``; a folder that one had only renamed away is put back.

    A leftover counts as abandoned when its process is dead (on this host) or when it is older than a day.
    """
    for path in parent.glob(".*"):
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or not _is_abandoned(path, found["host"], int(found["pid"])):
            continue
        if found["kind"] == "old":
            with suppress(OSError):  # the folder stands already: the replacement was complete
                path.rename(parent / found["name"])
        shutil.rmtree(path, ignore_errors=True)


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(folder: Path, temporary: Path) -> None:
    retired: list[Path] = []
    while True:
        try:
            temporary.rename(folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another writer was quicker
            retired.append(folder.rename(sibling(folder, "old")))
    _flush_folder(folder.parent)
    for path in retired:
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path, where: str, pid: int) -> bool:
    if where == host() and not _is_running(pid):
        return True
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S
    except FileNotFoundError:
        return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
