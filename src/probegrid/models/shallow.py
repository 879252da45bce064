"""A checkpoint's first blocks as a checkpoint of its own: a temporary folder of links to the files that hold them.

Knows how weights are spread over files, in a folder and on the hub, and how the supported families name them.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint
from probegrid.models.fingerprint import WEIGHTS_INDEX
from probegrid.planning.families import CUTTABLE

_SAFETENSORS = (WEIGHTS_INDEX, "model.safetensors")
_PICKLED = ("pytorch_model.bin.index.json", "pytorch_model.bin")


@dataclass(frozen=True)
class ShallowCheckpoint:
    """What ``from_pretrained`` reads in place of the whole checkpoint."""

    folder: Path
    """``config.json`` of so many blocks, an index without the others, links to the files that are left."""
    read_bytes: int
    """Of the tensors that are needed; of whole files where they are pickled."""
    files: int
    """Files that hold them."""
    all_files: int
    """Files of the whole checkpoint."""


def obstacle(checkpoint: Checkpoint, *, trust_remote_code: bool) -> str | None:
    """Why the checkpoint cannot be cut; None if it can."""
    model_type = str(checkpoint.config["model_type"])
    if trust_remote_code and "auto_map" in checkpoint.config:
        return f"{checkpoint.name} brings its own code"
    return None if model_type in CUTTABLE else f"{checkpoint.name} is of model_type {model_type}"


@contextmanager
def shallow_checkpoint(
    checkpoint: Checkpoint, blocks: int, *, use_safetensors: bool
) -> Iterator[ShallowCheckpoint]:
    """Lay out a checkpoint of the embeddings and the first ``blocks`` blocks; gone when the block ends.

    Files that hold nothing needed may be missing; from the hub they are not fetched.

    Raises:
        CheckpointError: a file that is needed is missing.
    """
    files = _Files.of(checkpoint, use_safetensors=use_safetensors)
    needed = {key: name for key, name in files.weight_map.items() if _is_needed(key, blocks)}
    with tempfile.TemporaryDirectory(prefix="probegrid-") as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(_cut(checkpoint.config, blocks)))
        (folder / files.index).write_text(json.dumps({"metadata": {}, "weight_map": needed}))
        read_bytes = 0
        names = sorted(set(needed.values()))
        for name in names:
            file = _find(checkpoint, name)
            if file is None:
                keys = sorted(key for key, holder in needed.items() if holder == name)
                raise _missing(checkpoint, f"{name}, which holds {keys[0]}")
            (folder / name).symlink_to(file.resolve())
            read_bytes += _tensor_bytes(file, needed)
        yield ShallowCheckpoint(folder, read_bytes, len(names), len(set(files.weight_map.values())))


@dataclass(frozen=True)
class _Files:
    """Which file holds which tensor."""

    index: str
    """Name of the index, as transformers looks for it."""
    weight_map: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, use_safetensors: bool) -> _Files:
        """Read the index, or the header of the only file.

        Raises:
            CheckpointError: there are no weights of an allowed format.
        """
        for index_name, single_name in (_SAFETENSORS,) if use_safetensors else (_SAFETENSORS, _PICKLED):
            if index := _find(checkpoint, index_name):
                return cls(index_name, json.loads(index.read_text())["weight_map"])
            if single := _find(checkpoint, single_name):
                return cls(index_name, dict.fromkeys(_tensor_names(single), single_name))
        formats = "safetensors weights" if use_safetensors else "weights"
        raise _missing(checkpoint, formats)


def _find(checkpoint: Checkpoint, name: str) -> Path | None:
    """A file of the checkpoint, fetched if it is on the hub; None if there is none."""
    if checkpoint.commit is None:
        file = Path(checkpoint.name) / name
        return file if file.is_file() else None
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(checkpoint.name, name, revision=checkpoint.commit))
    except errors.EntryNotFoundError:
        return None


def _missing(checkpoint: Checkpoint, what: str) -> CheckpointError:
    if checkpoint.commit is None:
        return CheckpointError(f"{checkpoint.name} lacks {what}; finish its download or copy.")
    return CheckpointError(
        f"{checkpoint.name} lacks {what}, or the hub cannot be reached and it is not in the local cache."
    )


def _tensor_names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    import torch

    return list(torch.load(file, map_location="meta", weights_only=True))


def _tensor_bytes(file: Path, needed: Mapping[str, str]) -> int:
    """Bytes of the needed tensors, by the header of a safetensors file; the size of any other file."""
    if file.suffix != ".safetensors":
        return file.stat().st_size
    from safetensors import safe_open

    with safe_open(file, "pt"):  # checks the header
        pass
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    spans = (header[key]["data_offsets"] for key in header.keys() & needed.keys())
    return sum(end - start for start, end in spans)


def _is_needed(key: str, blocks: int) -> bool:
    """Whether a tensor is of the embeddings or of the first blocks; final norm and head never are."""
    if block := re.search(r"(?:^|\.)layers\.(\d+)\.", key):
        return int(block[1]) < blocks
    return re.search(r"(?:^|\.)embed_tokens\.", key) is not None


def _cut(config: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """The config of the first blocks."""
    cut = {**config, "num_hidden_layers": blocks}
    if isinstance(config.get("layer_types"), list):
        cut["layer_types"] = config["layer_types"][:blocks]
    if blocks == 0:  # nothing is left that was quantized
        cut.pop("quantization_config", None)
    return cut
