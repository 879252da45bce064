"""Which checkpoint a name means, and what identifies its content.

Knows local folders, the embedded model and the hub.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probegrid.embedded import checkpoint_dir
from probegrid.errors import CheckpointError, NotAtHand
from probegrid.models.fingerprint import fingerprint, weight_files
from probegrid.models.not_a_checkpoint import check_files, check_folder, check_settings, is_gguf
from probegrid.planning.families import blocks_of, context_of, vocabulary_of
from probegrid.schema import ModelConfig

EMBEDDED = "embedded:tiny"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found: its own config is at hand, its weights need not be."""

    name: str
    """Folder or hub id, as transformers takes it."""
    commit: str | None
    """Commit of the hub repository; None for a folder."""
    fingerprint: str
    """What identifies the content: the commit, or a hash over a folder's files (`models.fingerprint`)."""
    config: dict[str, Any]
    """The checkpoint's own config.json."""

    @property
    def context(self) -> int | None:
        """Most positions the model takes, in tokens; None where its config sets no limit."""
        return context_of(self.config)

    @property
    def vocabulary(self) -> int | None:
        """Tokens that have an embedding; None where its config does not say."""
        return vocabulary_of(self.config)

    @property
    def blocks(self) -> int:
        """Transformer blocks, by its own config.

        Raises:
            CheckpointError: its config does not say.
        """
        count = blocks_of(self.config)
        if count is None:
            raise CheckpointError(f"the config.json of {self.name} does not say how many layers there are.")
        return count


def find_checkpoint(
    model: ModelConfig,
    *,
    key: str = "model.path",
    fetch: bool = True,
    say: Callable[[str], None] | None = None,
) -> Checkpoint:
    """Resolve ``model.path`` and ``model.revision``.

    Args:
        model: path and revision.
        key: the config's key that holds the path, for messages.
        fetch: whether the hub may be asked; without it a hub id is not at hand.
        say: told where reading a folder for the first time takes long.

    Raises:
        CheckpointError: a folder that is missing or holds no checkpoint, a hub id that is unknown, gated, or out of
            reach.
        NotAtHand: a hub id, where the hub may not be asked.
    """
    if model.path == EMBEDDED:
        return _from_folder(checkpoint_dir(), model.use_safetensors, say)
    folder = Path(model.path).expanduser()
    if folder.is_dir():
        return _from_folder(folder, model.use_safetensors, say)
    if folder.suffix == ".gguf" and folder.exists():
        raise is_gguf(folder)
    if folder.exists():
        raise CheckpointError(f"{key}={model.path} is a file; give the folder that holds config.json.")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model.path) or model.path.startswith("."):
        raise CheckpointError(
            f"{key}={model.path} is neither a folder that exists nor a hub id (owner/name)."
        )
    if not fetch:
        raise NotAtHand(f"{key}={model.path} is on the hub.")
    return _from_hub(model.path, model.revision, key)


def _from_folder(folder: Path, use_safetensors: bool, say: Callable[[str], None] | None) -> Checkpoint:
    check_folder(folder)
    config = _read_config(folder / "config.json", str(folder))
    check_files(weight_files(folder, use_safetensors=use_safetensors))
    check_settings(folder)
    identity = fingerprint(folder, use_safetensors=use_safetensors, say=say)
    return Checkpoint(str(folder), None, identity, config)


def _from_hub(name: str, revision: str | None, key: str) -> Checkpoint:
    from huggingface_hub import hf_hub_download

    with hub_errors(f"{key}={name}", revision):
        config_file = Path(hf_hub_download(name, "config.json", revision=revision))
    commit = config_file.parent.name
    return Checkpoint(name, commit, f"{name}@{commit}", _read_config(config_file, name))


@contextmanager
def hub_errors(what: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into one sentence about ``what``."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise CheckpointError(
            f"{what} is gated: accept its licence on the hub and run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(
            f"{what} has no revision {revision}; give a branch, tag or commit that it has."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{what} is not on the hub, or is private; check its spelling or give a folder."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        mend = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "the hub cannot be reached"
        raise CheckpointError(
            f"{what} is not in the local cache and {mend}; give model.path=<folder of the checkpoint> or a connection."
        ) from error


def _special_float(found: dict[str, Any]) -> Any:
    """What transformers writes for numbers that JSON has not: ``{"__float__": "Infinity"}``."""
    return float(found["__float__"]) if set(found) == {"__float__"} else found


def _read_config(file: Path, name: str) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{name} is not a checkpoint: it has no config.json.")
    try:
        config: dict[str, Any] = json.loads(file.read_text(), object_hook=_special_float)
    except (RecursionError, ValueError) as error:
        raise CheckpointError(
            f"{name} is not a checkpoint: its config.json is not JSON ({error})."
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise CheckpointError(
            f"{name} is not a transformers checkpoint: its config.json names no model_type."
        )
    if (count := blocks_of(config)) is not None and count < 1:
        raise CheckpointError(f"the config.json of {name} says that it has {count} layers; correct it.")
    return config
