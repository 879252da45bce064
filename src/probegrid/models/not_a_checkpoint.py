"""What people have in a folder in place of a checkpoint's files, called what it is, with what to do.

Knows what LoRA adapters, GGUF files, git-lfs pointers, Mistral's own format and interrupted downloads look like.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probegrid.errors import CheckpointError

_POINTER = b"version https://git-lfs"
_INDEX, _PICKLED_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
_SETTINGS = (
    "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", _INDEX,
    _PICKLED_INDEX,
)  # fmt: skip
"""What transformers reads beside ``config.json`` where it is there; of some that are damaged it says nothing."""


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


def check_settings(folder: Path) -> None:
    """Refuse small files beside the weights that are not what their names say.

    Raises:
        CheckpointError: one is no JSON object, an index names no files, or the tokenizer is a git-lfs pointer.
    """
    for file in (folder / name for name in _SETTINGS):
        found = check_object(file)
        if (
            file.name in (_INDEX, _PICKLED_INDEX)
            and file.is_file()
            and not isinstance(found.get("weight_map"), dict)
        ):
            raise CheckpointError(
                f"{file} does not say which file holds which weight (weight_map); copy or download it again."
            )
    _refuse_pointer(folder / "tokenizer.json")


def check_object(file: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none.

    Raises:
        CheckpointError: it is a git-lfs pointer, or holds no JSON object.
    """
    _refuse_pointer(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        reason = "" if isinstance(found, dict) else f"a {type(found).__name__}"
    except OSError:  # said when it is read
        return {}
    except (RecursionError, ValueError) as error:
        reason = str(error)
    if reason:
        raise CheckpointError(f"{file} holds no JSON object ({reason}); copy or download it again.")
    return dict(found)


def is_gguf(file: Path) -> CheckpointError:
    """What to say of a GGUF file."""
    return CheckpointError(
        f"{file} is a GGUF file, the format of llama.cpp, which probegrid does not read; give the safetensors "
        "checkpoint that it was made from, with quantization=nf4 or int8 where memory is short."
    )


def check_files(files: Sequence[Path]) -> None:
    """Refuse weight files that are not whole.

    Raises:
        CheckpointError: one is a git-lfs pointer, or shorter than its own header says; or they are named as
            transformers looks for none.
    """
    for file in files:
        _refuse_pointer(file)
        try:
            with file.open("rb") as stream:
                if file.suffix == ".safetensors":
                    _check_length(file, stream.read(8))
        except OSError:  # said when it is read
            continue
    _check_names(files)


def _check_names(files: Sequence[Path]) -> None:
    """Refuse safetensors files that are several, or called anything, and that no index names."""
    folder = files[0].parent
    if all(file.suffix == ".safetensors" and file.name != "model.safetensors" for file in files) and not any(
        (folder / name).exists() for name in (_INDEX, _PICKLED_INDEX, "pytorch_model.bin")
    ):
        raise CheckpointError(
            f"{folder} holds {min(file.name for file in files)}, but neither {_INDEX}, which says what each file "
            "holds, nor one model.safetensors; copy the index too, or give a single file that name."
        )


def _refuse_pointer(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            is_pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError:  # said when it is read
        return
    if is_pointer:
        what = "the weights" if file.suffix in (".safetensors", ".bin", ".pt", ".pth") else "the file"
        raise CheckpointError(
            f"{file} is a git-lfs pointer, not {what}; run `git lfs pull` in {file.parent}."
        )


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
