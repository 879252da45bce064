"""One layer's activations on disk: a folder of safetensors, one for each batch that was read, merged when all is there.

A file is named by its content; its rows are known by the digests of their passages. Knows tensors and files.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.disk import atomic, content_name, disk_errors
from probegrid.readings.claims import Claims
from probegrid.readings.store import Entry, read_verified

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Part:
    """What one file holds: of each passage its digest, its number of rows, what it took and when; the rows."""

    digests: tuple[str, ...]
    counts: tuple[int, ...]
    seconds: tuple[float, ...]
    read_at: tuple[float, ...]
    values: Tensor
    """[n, d] bfloat16, passage by passage."""


class LayerStore:
    """``<entry>/layer-<L>/``."""

    def __init__(self, entry: Entry, layer: int) -> None:
        """Open the folder; the first part makes it."""
        self._entry = entry
        self.folder = entry.folder / f"layer-{layer:03d}"
        self._rows: dict[str, Tensor] = {}
        self._seconds: dict[str, float] = {}
        self._read_at: dict[str, float] = {}
        self._read: set[str] = set()

    def write(
        self,
        digests: Sequence[str],
        counts: Sequence[int],
        values: Tensor,
        seconds: Sequence[float],
        read_at: Sequence[float] | None = None,
    ) -> str:
        """Write a part whole or not at all.

        Args:
            digests: of its passages.
            counts: rows of each.
            values: [n, d] bfloat16, passage by passage.
            seconds: that each took.
            read_at: when each was read, in seconds since the epoch; None: now.

        Returns:
            The file's name.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        from safetensors.torch import save

        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        index = {
            "digests": list(digests),
            "counts": list(counts),
            "seconds": list(seconds),
            "read_at": [time.time()] * len(digests) if read_at is None else list(read_at),
        }
        content = save({"values": values.contiguous()}, metadata={"index": json.dumps(index)})
        name = f"part-{content_name(content)}.safetensors"
        with atomic(self.folder / name) as temporary:
            temporary.write_bytes(content)
        return name

    def stored(self, since: float | None = None) -> set[str]:
        """Digests of the passages whose rows are there and whole; a damaged file is set aside.

        Args:
            since: what was read before (seconds since the epoch) does not count; None: all does.

        Raises:
            StoreError: a file may not be read.
        """
        for _, part in self._parts(without=self._read):
            split = part.values.split(list(part.counts))
            for digest, rows, seconds, at in zip(
                part.digests, split, part.seconds, part.read_at, strict=True
            ):
                if digest not in self._read_at or self._read_at[digest] < at:
                    self._rows[digest], self._seconds[digest], self._read_at[digest] = rows, seconds, at
        return {digest for digest, at in self._read_at.items() if since is None or at >= since}

    def list_anew(self) -> None:
        """Let a network file system see what other machines wrote: it lists a folder anew where something is made."""
        if self.folder.exists():
            file = self.folder / f".{socket.gethostname()}-{os.getpid()}.tmp"
            with disk_errors(file):
                file.touch()
                file.unlink()

    def seconds(self, digests: Sequence[str], before: float = math.inf) -> float:
        """What reading these passages took, of those that were read before (seconds since the epoch)."""
        return sum(
            self._seconds[digest] for digest in dict.fromkeys(digests) if self._read_at[digest] < before
        )

    def read(self, counts: Sequence[tuple[str, int]]) -> Tensor:
        """All values [n, d] bfloat16, passage by passage in the order of ``counts``.

        Args:
            counts: of each passage, its digest and its rows.

        Raises:
            KeyError: a passage is not stored.
        """
        import torch

        self.stored()
        return torch.cat([self._rows[digest] for digest, _ in counts])

    def forget(self) -> None:
        """Free the memory of what was read; it is read again when it is asked for."""
        self._rows, self._seconds, self._read_at, self._read = {}, {}, {}, set()

    def merge(self) -> None:
        """Make one part of all, where there are several: inodes are rationed; of those who share them, one does it."""
        if not self.folder.exists():
            return
        with Claims(self.folder) as claims:
            if claims.take("merge"):
                self._merge()

    def _merge(self) -> None:
        import torch

        parts = list(self._parts(without=set()))
        if len(parts) < 2:
            return
        merged = self.write(
            [digest for _, part in parts for digest in part.digests],
            [count for _, part in parts for count in part.counts],
            torch.cat([part.values for _, part in parts]),
            [second for _, part in parts for second in part.seconds],
            [at for _, part in parts for at in part.read_at],
        )
        self._read.add(merged)
        for file, _ in parts:
            file.unlink(missing_ok=True)

    def _parts(self, without: set[str]) -> Iterator[tuple[Path, _Part]]:
        """The files that were not read yet, by their names."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        for file, content in read_verified(
            self._entry, self.folder, "part-*.safetensors", frozenset(without)
        ):
            try:
                header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
                index = json.loads(header["__metadata__"]["index"])
                part = _Part(
                    tuple(index["digests"]),
                    tuple(index["counts"]),
                    tuple(index["seconds"]),
                    tuple(index["read_at"]),
                    load(content)["values"],
                )
            except (SafetensorError, KeyError, TypeError, ValueError) as error:
                self._entry.set_aside(file, str(error))
                continue
            without.add(file.name)
            yield file, part
