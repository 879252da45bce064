"""Quantize once: the quantized parts of a checkpoint, kept in the store as they are made and read from it later.

``<store>/quantized/<key>/`` holds a safetensors file a part (``model.layers.7-<SHA-256>.safetensors``), each written
whole or not at all, named by its content and held against its name whenever it is read. A load that was interrupted, or
that needed the first blocks only, leaves the parts it made; the next one makes what is missing. When all are there, a
``config.json`` and an index make the folder a checkpoint of its own, which transformers reads too (a mixture's experts
excepted, which it cannot read quantized).

Knows files and names of parts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegrid.disk import atomic, content_name, disk_errors, remove_temporaries, set_aside
from probegrid.errors import StoreError
from probegrid.models.build import Parts
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.fingerprint import WEIGHTS_INDEX
from probegrid.models.parts import Part
from probegrid.models.quantization import Entries, quantization_config
from probegrid.progress import say
from probegrid.schema import Dtype, QuantizationMethod

if TYPE_CHECKING:
    import torch

FORMAT = 2
"""Raised whenever the same checkpoint would be packed otherwise than before."""
_SPARE_BYTES = 10**9
"""Disk space that is left free."""


class QuantizedStore:
    """The quantized copy of one checkpoint: parts are read from it, and those it lacks are made and kept."""

    def __init__(
        self,
        store_dir: str | Path,
        checkpoint: Checkpoint,
        method: QuantizationMethod,
        dtype: Dtype,
        parts: Parts,
        names: Sequence[str],
    ) -> None:
        """Look for the copy; nothing is read or written yet.

        Args:
            store_dir: the store's folder.
            checkpoint: the unquantized checkpoint.
            method: ``int8`` or ``nf4``.
            dtype: type of what is not quantized.
            parts: makes the parts that are not kept yet.
            names: of all parts of the whole model.
        """
        self.folder = folder_of(store_dir, checkpoint, method, dtype)
        self._checkpoint = checkpoint
        self._method = method
        self._dtype = dtype
        self._parts = parts
        self._names = names

    def part(self, part: Part, device: torch.device) -> Entries:
        """As ``assembly.Parts.part``; a part that was not kept yet is made by ``parts`` and kept.

        A part that does not fit on the disk is made and not kept.

        A damaged part is set aside with a sentence and made again.

        Raises:
            StoreError: a kept part may not be read, or the folder cannot be written.
        """
        from safetensors.torch import load_file

        file = self._kept(part.name)
        if file is not None and self._is_whole(file):
            kept: Entries = load_file(file)
            return kept
        entries = self._parts.part(part, device)
        self._keep(part.name, entries)
        return entries

    def _kept(self, name: str) -> Path | None:
        """The file of a part; None where there is none."""
        return next(iter(sorted(self.folder.glob(f"{name}-{'[0-9a-f]' * 32}.safetensors"))), None)

    def _is_whole(self, file: Path) -> bool:
        """Whether a part holds what its name says; one that does not is set aside."""
        try:
            is_whole = content_name(file) == file.stem.rpartition("-")[2]
        except FileNotFoundError:  # another process has set it aside
            return False
        except OSError as error:
            raise StoreError(
                f"{file} cannot be read: {error.strerror}; ask its owner for the right to."
            ) from error
        if not is_whole:
            say(
                f"{file} is damaged (its checksum differs); it is kept as {set_aside(file).name} and made again"
            )
        return is_whole

    def _keep(self, name: str, entries: Entries) -> None:
        from safetensors.torch import save_file

        named = {tensor: value.cpu().contiguous() for tensor, value in entries.items()}
        needed = sum(value.nbytes for value in named.values())
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.folder)
            if shutil.disk_usage(self.folder).free < needed + _SPARE_BYTES:
                return
            with atomic(
                self.folder / f"{name}.safetensors",
                name_of=lambda written: f"{name}-{content_name(written)}.safetensors",
            ) as temporary:
                save_file(named, temporary, metadata={"format": "pt"})
            files = {part: self._kept(part) for part in self._names}
            if None not in files.values():
                self._complete([file for file in files.values() if file is not None])

    def _complete(self, files: Sequence[Path]) -> None:
        """Write what makes the folder a checkpoint: the index and, last, the config."""
        from safetensors import safe_open

        weight_map: dict[str, str] = {}
        for file in files:
            with safe_open(file, "pt") as tensors:
                weight_map |= dict.fromkeys(tensors.keys(), file.name)
        stored = quantization_config(self._method, self._checkpoint, self._dtype)
        assert stored is not None
        changes = {
            "quantization_config": stored.to_dict(),
            "dtype": self._dtype.value,
        }
        self._write_json(WEIGHTS_INDEX, {"metadata": {}, "weight_map": weight_map})
        self._write_json("config.json", self._checkpoint.config | changes)

    def _write_json(self, name: str, value: Any) -> None:
        with atomic(self.folder / name) as temporary:
            temporary.write_text(json.dumps(value, indent=1))


def folder_of(
    store_dir: str | Path, checkpoint: Checkpoint, method: QuantizationMethod, dtype: Dtype
) -> Path:
    """Where the quantized copy of a checkpoint is kept, whether or not it is there."""
    determines = [FORMAT, checkpoint.fingerprint, method.value, dtype.value]
    key = hashlib.sha256(json.dumps(determines).encode()).hexdigest()[:16]
    return Path(store_dir) / "quantized" / key
