"""The tensors of a checkpoint by name, read one at a time from wherever they are.

Knows safetensors files, their index and the hub.
"""

from __future__ import annotations

import contextlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint, hub_errors
from probegrid.models.fingerprint import WEIGHTS_INDEX

_SINGLE = "model.safetensors"


class Weights:
    """The tensors of a checkpoint in safetensors; a file is fetched and mapped when a tensor of it is first read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Open nothing yet."""
        self._checkpoint = checkpoint
        self._open: dict[str, Any] = {}

    @cached_property
    def _files(self) -> dict[str, str]:
        """Which file holds which tensor, by the index or the header of the only file."""
        index = self._find(WEIGHTS_INDEX)
        if index is not None:
            files: dict[str, str] = json.loads(index.read_text())["weight_map"]
            return files
        if self._find(_SINGLE) is not None:
            return dict.fromkeys(self._file(_SINGLE).keys(), _SINGLE)
        raise CheckpointError(
            f"{self._checkpoint.name} has no safetensors weights; finish its download, or set "
            "model.use_safetensors=false if it has others."
        )

    def under(self, part: str) -> dict[str, str]:
        """The tensors of a part of a causal model (``model.layers.3``): name within the part to name in the file.

        Raises:
            CheckpointError: there are no safetensors, or the hub is out of reach.
        """
        start = f"{part}."
        if not any(name.startswith("model.") for name in self._files):  # saved as a bare decoder
            start = start.removeprefix("model.")
        return {name.removeprefix(start): name for name in self._files if name.startswith(start)}

    def read(self, name: str) -> Tensor:
        """Read a tensor, by its name in the file, into CPU memory.

        Raises:
            CheckpointError: there is no such tensor, or its file is missing or damaged.
        """
        from safetensors import SafetensorError

        if name not in self._files:
            raise self._lacks(name)
        try:
            tensor: Tensor = self._file(self._files[name]).get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(
                f"{self._checkpoint.name} cannot be read: {self._files[name]} is damaged ({error})."
            ) from error
        return tensor

    def _file(self, name: str) -> Any:
        if name not in self._open:
            from safetensors import safe_open

            file = self._find(name)
            if file is None:
                raise self._lacks(name)
            self._open[name] = safe_open(file, "pt")
        return self._open[name]

    def _find(self, name: str) -> Path | None:
        """A file of the checkpoint, fetched if it is on the hub; None if there is none."""
        if self._checkpoint.commit is None:
            file = Path(self._checkpoint.name) / name
            return file if file.is_file() else None
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        with (
            hub_errors(f"model.path={self._checkpoint.name}", self._checkpoint.commit),
            contextlib.suppress(RemoteEntryNotFoundError),
        ):
            return Path(hf_hub_download(self._checkpoint.name, name, revision=self._checkpoint.commit))
        return None

    def _lacks(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self._checkpoint.name} lacks {what}; finish its download, or correct its config.json."
        )
