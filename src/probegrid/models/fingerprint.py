"""What identifies a local checkpoint: the content of every file that decides what its model says.

A large file is read once and remembered by its path, size, times and inode; a small one is read each time. Knows
folders of transformers checkpoints and the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from probegrid.disk import atomic
from probegrid.errors import CheckpointError, StoreError
from probegrid.hardware.machine import cache_dir

WEIGHTS_INDEX = "model.safetensors.index.json"
_REMEMBERED_FROM_BYTES = 4 << 20
_SAID_FROM_BYTES = 4 << 30
_MOST_REMEMBERED = 2000
_SAFE, _PICKLED = (".safetensors",), (".bin", ".pt", ".pth")
_OTHER_WEIGHTS = (".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".npz")
_PROSE = (".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf")
_LOCK_WAIT_S = 10

Stamp = tuple[int, int, int, int]
"""Size, modification and change time in ns, inode: a file with another stamp is read again."""


def fingerprint(folder: Path, *, use_safetensors: bool, say: Callable[[str], None] | None = None) -> str:
    """SHA-256 (hex) over the names and contents of the files of a checkpoint's folder that are read when it is loaded.

    Args:
        folder: holds ``config.json``.
        use_safetensors: pickled weights are no part of it.
        say: told where reading takes long.

    Raises:
        CheckpointError: there are no weights of an allowed format, or a file cannot be read.
    """
    files = [*weight_files(folder, use_safetensors=use_safetensors), *_other_files(folder)]
    try:
        stamps = {file: _stamp(file) for file in files}
        hashes = _hashes(stamps, say)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read: {error.strerror}; finish the copy of the checkpoint, or mend its rights."
        ) from error
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{hashes[file]}\n".encode())
    return digest.hexdigest()


def weight_files(folder: Path, *, use_safetensors: bool) -> list[Path]:
    """The files whose weights are loaded: safetensors, by the index where there is one, else pickled ones.

    Raises:
        CheckpointError: there are none of an allowed format.
    """
    safe = [file for file in folder.iterdir() if file.suffix in _SAFE]
    if safe:  # a publisher's own format may lie beside transformers'
        single = folder / "model.safetensors"
        return _indexed(folder) or ([single] if single.is_file() else safe)
    pickled = [file for file in folder.iterdir() if file.suffix in _PICKLED]
    if not pickled:
        raise CheckpointError(
            f"{folder} has a config.json but no weights (*.safetensors); finish its download or copy."
        )
    if use_safetensors:
        raise CheckpointError(
            f"{folder} holds pickled weights alone (*{pickled[0].suffix}), which can run code when they are opened; "
            "convert them to safetensors, or trust them with model.use_safetensors=false."
        )
    return pickled


def _indexed(folder: Path) -> list[Path]:
    """The files that the index names and that are there; what is missing is said when it is needed."""
    try:
        names = set(json.loads((folder / WEIGHTS_INDEX).read_text())["weight_map"].values())
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [file for name in sorted(names) if (file := folder / str(name)).is_file()]


def _other_files(folder: Path) -> Iterator[Path]:
    """Configuration, tokenizer, templates and code; code of subfolders too."""
    ignored = (*_SAFE, *_PICKLED, *_OTHER_WEIGHTS, *_PROSE)
    for file in folder.iterdir():
        if file.is_file() and not file.name.startswith((".", "LICENSE")) and file.suffix not in ignored:
            yield file
    for pattern in ("*/**/*.py", "*/**/*.jinja"):
        yield from folder.glob(pattern)


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _hashes(stamps: dict[Path, Stamp], say: Callable[[str], None] | None) -> dict[Path, str]:
    known = _read_memory()
    found, missing = {}, []
    for file, stamp in stamps.items():
        remembered = known.get(str(file.resolve()))
        if stamp[0] >= _REMEMBERED_FROM_BYTES and remembered is not None and tuple(remembered[0]) == stamp:
            found[file] = str(remembered[1])
        else:
            missing.append(file)
    size = sum(stamps[file][0] for file in missing)
    if say is not None and size >= _SAID_FROM_BYTES:
        say(f"reading {size / 1e9:.0f} GB of weights once, to know the checkpoint by its content")
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        found |= dict(zip(missing, threads.map(_sha256, missing), strict=True))
    _remember({file: stamps[file] for file in missing if stamps[file][0] >= _REMEMBERED_FROM_BYTES}, found)
    return found


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _memory_file() -> Path:
    return cache_dir() / "fingerprints.json"


def _read_memory() -> dict[str, list[list[int] | str]]:
    """What is remembered: [stamp, hash] by path; nothing where it cannot be read."""
    try:
        known = json.loads(_memory_file().read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(stamps: dict[Path, Stamp], hashes: dict[Path, str]) -> None:
    """Keep what was read; a cache that cannot be written costs another reading, and nothing else."""
    # A file that changed while it was read has another stamp now: what was read of it is not kept.
    settled: Sequence[Path] = [file for file in stamps if _stamp(file) == stamps[file]]
    if not settled:
        return
    memory = _memory_file()
    with suppress(OSError, StoreError, Timeout):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{memory}.lock", timeout=_LOCK_WAIT_S):
            known = _read_memory() | {
                str(file.resolve()): [list(stamps[file]), hashes[file]] for file in settled
            }
            with atomic(memory) as temporary:
                temporary.write_text(json.dumps(dict(list(known.items())[-_MOST_REMEMBERED:])))
