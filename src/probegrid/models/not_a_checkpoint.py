"""What people have in a folder in place of a checkpoint's weights, called what it is, with what to do.

Knows what LoRA adapters, GGUF files, git-lfs pointers, Mistral's own format and interrupted downloads look like.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from probegrid.errors import CheckpointError

_POINTER = b"version https://git-lfs"


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no checkpoint of transformers, by the names in it.

    Raises:
        CheckpointError: it holds an adapter, a GGUF file, or a checkpoint in Mistral's own format.
    """
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} is a LoRA adapter of {_base_of(folder)}, not a model; merge it into its base (`PeftModel"
            ".from_pretrained(base, adapter).merge_and_unload().save_pretrained(folder)`) and give that folder."
        )
    names = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    weights = [name for name in names if name.endswith((".safetensors", ".bin", ".pt", ".pth"))]
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    if ggufs and not weights:
        raise is_gguf(folder / ggufs[0])
    own = [name for name in weights if name.startswith("consolidated")]
    if own and len(own) == len(weights):
        raise CheckpointError(
            f"{folder} holds {own[0]} alone, which is in the publisher's own format, not transformers'; download the "
            "model-*.safetensors and config.json of the same model, or convert it by transformers' conversion script "
            "of its family."
        )


def is_gguf(file: Path) -> CheckpointError:
    """What to say of a GGUF file."""
    return CheckpointError(
        f"{file} is a GGUF file, the format of llama.cpp, which probegrid does not read; give the safetensors "
        "checkpoint that it was made from, with quantization=nf4 or int8 where memory is short."
    )


def check_files(files: Sequence[Path]) -> None:
    """Refuse weight files that are not whole.

    Raises:
        CheckpointError: one is a git-lfs pointer, or shorter than its own header says.
    """
    for file in files:
        try:
            with file.open("rb") as stream:
                start = stream.read(len(_POINTER))
                if start == _POINTER:
                    raise CheckpointError(
                        f"{file} is a git-lfs pointer, not the weights; run `git lfs pull` in {file.parent}."
                    )
                if file.suffix == ".safetensors":
                    _check_length(file, start + stream.read(8))
        except OSError:  # said when it is read
            continue


def _check_length(file: Path, start: bytes) -> None:
    """Hold a safetensors file's size against its header."""
    size, header = file.stat().st_size, int.from_bytes(start[:8], "little")
    if len(start) >= 8 and 8 + header <= size:
        with file.open("rb") as stream:
            stream.seek(8)
            try:
                tensors = json.loads(stream.read(header))
            except ValueError:
                return  # damaged: said when it is opened
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        expected = 8 + header + max(ends, default=0)
    else:
        expected = 8 + header if len(start) >= 8 else 8
    if size < expected:
        raise CheckpointError(
            f"{file} is cut short: it has {size} of at least {expected} bytes; copy or download it again."
        )


def _base_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another model"
