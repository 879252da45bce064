"""From a checkpoint to a model that is ready to read.

Knows transformers' loading and what can go wrong in it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint, hub_errors
from probegrid.models.facts import loaded_by_transformers
from probegrid.models.not_a_checkpoint import check_object
from probegrid.models.request import ModelRequest
from probegrid.planning.placement import Placement
from probegrid.schema import ModelConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from probegrid.planning.plan import Limits


_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")
"""Files that tokenizers are made of, besides SentencePiece's and tiktoken's, and code."""

Tokenizer: TypeAlias = "PreTrainedTokenizerBase"


@dataclass
class LoadedModel:
    """A model in memory."""

    model: PreTrainedModel
    load_s: float
    """Seconds from the request to ready."""
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    """What its user should know: weights that were not used, and in how many bits the blocks are held."""
    limits: Limits | None = field(default=None, kw_only=True)
    """What the plan allows the readings of the cell that opened it; None: what the device has free decides."""

    @property
    def eos_ids(self) -> list[int]:
        """Token ids that end a sequence, by the checkpoint's generation config and its config.

        Raises:
            CheckpointError: what one of them names is no token id.
        """
        found: set[int] = set()
        for source in (self.model.generation_config, self.model.config.get_text_config()):
            ids = getattr(source, "eos_token_id", None)
            found |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
        if wrong := [token for token in found if not isinstance(token, int)]:
            raise CheckpointError(
                f"generation_config.json has eos_token_id={wrong[0]!r}, which is no token id; write numbers."
            )
        return sorted(found)


def load_tokenizer(checkpoint: Checkpoint, config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone, which prompts need before any weight is read.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    from probegrid.models.special_tokens import set_as_configured

    try:
        with loading_errors(checkpoint):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                checkpoint.name, revision=checkpoint.commit, trust_remote_code=config.trust_remote_code
            )
            set_as_configured(tokenizer, get_tokenizer_config(checkpoint.name, revision=checkpoint.commit))
    except CheckpointError:
        _look_at_tokenizer(checkpoint)
        raise
    except Exception as error:  # of the library tokenizers too, whose errors have no class of their own
        _look_at_tokenizer(checkpoint)
        raise CheckpointError(
            f"the tokenizer of {checkpoint.name}, or its config.json, cannot be read: {_reason(error)}; correct what "
            "this names, or copy both again from where the model came from."
        ) from error
    if not tokenizer.encode(
        "A question", add_special_tokens=False
    ):  # made of nothing, where files are missing
        raise _no_tokenizer(checkpoint)
    return tokenizer


def _look_at_tokenizer(checkpoint: Checkpoint) -> None:
    """Refuse the files of a tokenizer that cannot be loaded, where they say better why than transformers does."""
    if checkpoint.commit is not None:
        return
    folder = Path(checkpoint.name)
    if not any(
        file.name in _VOCABULARIES or file.suffix in (".model", ".tiktoken", ".py")
        for file in folder.iterdir()
    ):
        raise _no_tokenizer(checkpoint)
    check_object(folder / "tokenizer.json")


def _no_tokenizer(checkpoint: Checkpoint) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint.name} has no tokenizer: its tokenizer.json is missing or empty; copy the tokenizer's files "
        "beside the weights."
    )


def load_model(request: ModelRequest) -> LoadedModel:
    """Load the whole model for generation, on the devices of the request.

    Raises:
        CheckpointError: weights that are missing, incomplete, damaged, or not of this architecture.
    """
    from probegrid.models.load_by_parts import load_placed
    from probegrid.models.load_whole import load_whole
    from probegrid.models.storage import storage_note
    from probegrid.models.warming import warm_up

    started = time.perf_counter()
    placement = request.placement or _on_the_cpu(request.checkpoint)
    warm_up(placement.gpus if placement is not None else ())
    unplaced: list[str] = []
    with loading_errors(request.checkpoint):
        if placement is not None and loaded_by_transformers(request.checkpoint, request.config) is None:
            placed = load_placed(
                request.checkpoint, request.config, request.quantization, placement, keep_in=request.keep_in
            )
            model, unplaced = placed.model, placed.unplaced
        else:
            model = load_whole(request)
    notes = (*_unplaced_note(request.checkpoint, unplaced), storage_note(model))
    return LoadedModel(model, time.perf_counter() - started, notes=notes)


def _on_the_cpu(checkpoint: Checkpoint) -> Placement | None:
    """Where a model lies that nothing was planned for; None: as accelerate spreads it over GPUs."""
    import torch

    return None if torch.cuda.is_available() else Placement.on_the_cpu(checkpoint.blocks, with_head=True)


def _unplaced_note(checkpoint: Checkpoint, unplaced: list[str]) -> Iterator[str]:
    if unplaced:
        more = f" and {len(unplaced) - 3} more" if len(unplaced) > 3 else ""
        yield (
            f"{checkpoint.name} holds weights that its architecture has no place for, which are left out: "
            f"{', '.join(unplaced[:3])}{more}"
        )


def embedding_device(model: PreTrainedModel) -> torch.device:
    """Where token ids go: the device of the embedding."""
    embedding: Any = model.get_input_embeddings()
    device: torch.device = embedding.weight.device
    return device


@contextlib.contextmanager
def loading_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Silence transformers' reports and turn what its loading raises into a CheckpointError."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with (
            hub_errors(f"model.path={checkpoint.name}", checkpoint.commit)
            if checkpoint.commit
            else contextlib.nullcontext()
        ):
            yield
    except StrictDataclassError as error:
        reason = _reason(error.__cause__ or error)
        raise CheckpointError(
            f"{checkpoint.name} cannot be loaded: its config.json is not as its family's is: {reason}; correct it."
        ) from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint.name} cannot be loaded: {_reason(error)}") from error
    finally:
        logging.set_verbosity(verbosity)


def _reason(error: BaseException) -> str:
    """The first line of what an error says; of a name alone, that it is not known."""
    if isinstance(error, KeyError) and " " not in str(error):
        return f"{error} is missing in its files, or is nothing that transformers knows"
    said = str(error.args[0] if isinstance(error, KeyError) else error).strip()
    return said.splitlines()[0] if said else type(error).__name__
