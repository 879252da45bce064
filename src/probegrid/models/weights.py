"""The tensors of a checkpoint by name, read one at a time from wherever they are.

Knows safetensors files, pickled ones where they are allowed, their index and the hub.
"""

from __future__ import annotations

import json
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint, hub_errors
from probegrid.models.fingerprint import WEIGHTS_INDEX

_SAFETENSORS = (WEIGHTS_INDEX, "model.safetensors")
_PICKLED = ("pytorch_model.bin.index.json", "pytorch_model.bin")


class Weights:
    """The tensors of a checkpoint; a file is fetched and mapped when a tensor of it is first read.

    Attributes:
        read_bytes: of the tensors that were read.
        read_files: files that held them.
    """

    def __init__(self, checkpoint: Checkpoint, *, use_safetensors: bool = True) -> None:
        """Open nothing yet.

        Args:
            checkpoint: where they are.
            use_safetensors: pickled weights are refused.
        """
        self._checkpoint = checkpoint
        self._use_safetensors = use_safetensors
        self._open: dict[str, Any] = {}
        self.read_bytes = 0
        self.read_files: set[str] = set()

    @cached_property
    def _files(self) -> dict[str, str]:
        """Which file holds which tensor, by the index or the header of the only file."""
        for index_name, single_name in (_SAFETENSORS,) if self._use_safetensors else (_SAFETENSORS, _PICKLED):
            if index := self._find(index_name):
                files: dict[str, str] = json.loads(index.read_text())["weight_map"]
                return files
            if self._find(single_name) is not None:
                return dict.fromkeys(self._file(single_name).keys(), single_name)
        formats = "safetensors weights" if self._use_safetensors else "weights"
        raise CheckpointError(
            f"{self._checkpoint.name} has no {formats}; finish its download"
            + (", or set model.use_safetensors=false if it has others." if self._use_safetensors else ".")
        )

    @property
    def names(self) -> list[str]:
        """Names of all tensors.

        Raises:
            CheckpointError: there are no weights of an allowed format, or the hub is out of reach.
        """
        return list(self._files)

    @property
    def all_files(self) -> int:
        """Files of the whole checkpoint."""
        return len(set(self._files.values()))

    def read(self, name: str) -> Tensor:
        """Read a tensor, by its name in the file, into CPU memory.

        Raises:
            CheckpointError: there is no such tensor, or its file is missing or damaged.
        """
        from safetensors import SafetensorError

        if name not in self._files:
            raise self._lacks(name)
        file = self._files[name]
        opened = self._file(file, holding=name)
        try:
            tensor: Tensor = opened[name] if isinstance(opened, dict) else opened.get_tensor(name)
        except KeyError as error:
            raise self._lacks(name) from error
        except SafetensorError as error:
            raise CheckpointError(
                f"{self._checkpoint.name} cannot be read: {file} is damaged ({error})."
            ) from error
        self.read_bytes += tensor.nbytes
        self.read_files.add(file)
        return tensor

    def _file(self, name: str, holding: str | None = None) -> Any:
        if name not in self._open:
            file = self._find(name)
            if file is None:
                raise self._lacks(name if holding is None else f"{name}, which holds {holding}")
            self._open[name] = _opened(file)
        return self._open[name]

    def _find(self, name: str) -> Path | None:
        """A file of the checkpoint, fetched if it is on the hub; None if there is none."""
        if self._checkpoint.commit is None:
            file = Path(self._checkpoint.name) / name
            return file if file.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        with hub_errors(f"model.path={self._checkpoint.name}", self._checkpoint.commit):
            try:
                return Path(hf_hub_download(self._checkpoint.name, name, revision=self._checkpoint.commit))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                return None

    def _lacks(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._checkpoint.name} lacks {what}; finish its download, or correct its config.json."
        )


def _opened(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(file, "pt")
        except SafetensorError as error:
            raise CheckpointError(
                f"{file} cannot be loaded: it is damaged or cut short ({error}); copy or download it again."
            ) from error
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{file} cannot be loaded: {str(error).splitlines()[0]}") from error
