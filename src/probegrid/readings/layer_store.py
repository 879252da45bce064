"""One layer's activations on disk: a folder of safetensors, one for each batch that was read.

Knows tensors and files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from probegrid.disk import atomic, disk_errors
from probegrid.readings.store import Entry, damaged

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Part:
    """What one file holds."""

    file: Path
    passages: tuple[int, ...]
    """Indices of the passages."""
    seconds: float
    """Of the forward pass, this layer's share of it."""
    crc32: int
    """Checksum of the values' bytes."""


class LayerStore:
    """``<entry>/layer-<L>/``."""

    def __init__(self, entry: Entry, layer: int) -> None:
        """Open the folder; the first part makes it."""
        self.folder = entry.folder / f"layer-{layer:03d}"

    def write(self, passages: Sequence[int], values: Tensor, seconds: float) -> None:
        """Write a part whole or not at all.

        Args:
            passages: indices of its passages.
            values: [n, d] bfloat16, passage by passage.
            seconds: that it took.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        import torch
        from safetensors.torch import save_file

        with disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        tensors = {"passages": torch.tensor(passages), "values": values.contiguous()}
        metadata = {"seconds": repr(seconds), "crc32": str(_crc32(values))}
        with atomic(self.folder / f"part-{passages[0]:06d}.safetensors") as temporary:
            save_file(tensors, temporary, metadata=metadata)

    def passages(self) -> set[int]:
        """Indices of the passages that are stored.

        Raises:
            StoreError: a part is damaged.
        """
        return {passage for part in self.parts() for passage in part.passages}

    def parts(self) -> Iterator[Part]:
        """Every part, without its values.

        Raises:
            StoreError: a part is damaged.
        """
        from safetensors import SafetensorError, safe_open

        for file in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(file, "pt") as tensors:
                    passages = tensors.get_tensor("passages").tolist()
                    metadata = tensors.metadata()
                part = Part(file, tuple(passages), float(metadata["seconds"]), int(metadata["crc32"]))
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                raise damaged(file, error) from error
            yield part

    def read(self, counts: Mapping[int, int]) -> Tensor:
        """All values [n, d] bfloat16, passage by passage in the order of ``counts``.

        Args:
            counts: rows of each passage.

        Raises:
            StoreError: a part is damaged.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        rows: dict[int, Tensor] = {}
        for part in self.parts():
            try:
                values = load_file(part.file)["values"]
                if _crc32(values) != part.crc32:
                    raise damaged(part.file, ValueError("its checksum differs"))
                split = values.split([counts[passage] for passage in part.passages])
            except (SafetensorError, OSError, RuntimeError) as error:
                raise damaged(part.file, error) from error
            rows.update(zip(part.passages, split, strict=True))
        return torch.cat([rows[passage] for passage in counts])


def _crc32(values: Tensor) -> int:
    import torch

    return zlib.crc32(values.contiguous().view(torch.uint8).numpy().tobytes())
