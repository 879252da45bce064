"""From a checkpoint to a model that is ready to read.

Knows transformers' loading and what can go wrong in it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from probegrid.errors import CheckpointError
from probegrid.models.checkpoint import Checkpoint, hub_errors
from probegrid.planning.placement import Placement
from probegrid.schema import ModelConfig, QuantizationMethod

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from probegrid.planning.plan import Limits


Tokenizer: TypeAlias = "PreTrainedTokenizerBase"


@dataclass(frozen=True)
class ModelRequest:
    """Everything that determines which weights are in memory, and where."""

    checkpoint: Checkpoint
    config: ModelConfig
    quantization: QuantizationMethod
    device_map: dict[str, int | str] | str
    """Module name to GPU index or ``cpu``, as accelerate takes it; or ``auto``."""
    placement: Placement | None = None
    """The plan's, for loading part by part and streaming blocks (``placed``); None: ``device_map`` alone counts."""
    keep_in: str | None = None
    """Store that the quantized copy of an unquantized checkpoint is kept in and read from; None: none is kept."""

    def without_head(self, blocks: int) -> ModelRequest:
        """The same for the bare decoder and its first ``blocks`` blocks, by the bare decoder's names."""
        if isinstance(self.device_map, str):
            return self
        bare = {name.removeprefix("model."): device for name, device in self.device_map.items()}
        later = {f"layers.{block}" for block in range(blocks, len(bare))}
        return replace(
            self,
            device_map={name: bare[name] for name in bare if name != "lm_head" and name not in later},
            placement=None if self.placement is None else self.placement.first(blocks),
        )


@dataclass
class LoadedModel:
    """A model in memory."""

    model: PreTrainedModel
    load_s: float
    """Seconds from the request to ready."""
    limits: Limits | None = field(default=None, kw_only=True)
    """What the plan allows the readings of the cell that opened it; None: what the device has free decides."""

    @property
    def eos_ids(self) -> list[int]:
        """Token ids that end a sequence, by the checkpoint's generation config and its config."""
        found: set[int] = set()
        for source in (self.model.generation_config, self.model.config.get_text_config()):
            ids = getattr(source, "eos_token_id", None)
            found |= set(ids if isinstance(ids, list) else [] if ids is None else [ids])
        return sorted(found)


def load_tokenizer(checkpoint: Checkpoint, config: ModelConfig) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone, which prompts need before any weight is read.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    from probegrid.models.special_tokens import set_as_configured

    with loading_errors(checkpoint):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint.name, revision=checkpoint.commit, trust_remote_code=config.trust_remote_code
        )
        set_as_configured(tokenizer, get_tokenizer_config(checkpoint.name, revision=checkpoint.commit))
    return tokenizer


def load_model(request: ModelRequest) -> LoadedModel:
    """Load the whole model for generation, on the devices of the request.

    Raises:
        CheckpointError: weights that are missing, incomplete, damaged, or not of this architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from probegrid.models.load_by_parts import load_placed, obstacle
    from probegrid.models.quantization import compute_in

    started = time.perf_counter()
    if request.placement is not None and obstacle(request.checkpoint, request.config) is None:
        with loading_errors(request.checkpoint):
            placed = load_placed(
                request.checkpoint,
                request.config,
                request.quantization,
                request.placement,
                keep_in=request.keep_in,
            )
        return LoadedModel(placed, time.perf_counter() - started)
    with loading_errors(request.checkpoint):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            request.checkpoint.name,
            revision=request.checkpoint.commit,
            dtype=getattr(torch, request.config.dtype.value),
            device_map=request.device_map,
            trust_remote_code=request.config.trust_remote_code,
            use_safetensors=request.config.use_safetensors or None,  # False would refuse safetensors
            ignore_mismatched_sizes=True,  # reported, and refused below
            output_loading_info=True,
            **quantization_setting(request),
        )
    model, info = loaded
    refuse_missing(request.checkpoint, info)
    compute_in(model, getattr(torch, request.config.dtype.value))
    return LoadedModel(model.eval(), time.perf_counter() - started)


def quantization_setting(request: ModelRequest) -> dict[str, Any]:
    """The keyword that tells ``from_pretrained`` to quantize; none at all where the stored weights say how they are.

    Raises:
        CheckpointError: the checkpoint is quantized in another way than asked.
    """
    from probegrid.models.quantization import quantization_config

    config = quantization_config(request.quantization, request.checkpoint, request.config.dtype)
    return {} if config is None else {"quantization_config": config}


def embedding_device(model: PreTrainedModel) -> torch.device:
    """Where token ids go: the device of the embedding."""
    embedding: Any = model.get_input_embeddings()
    device: torch.device = embedding.weight.device
    return device


def refuse_missing(
    checkpoint: Checkpoint, info: dict[str, Any], unneeded: frozenset[str] = frozenset()
) -> None:
    """Refuse what transformers would fill with random numbers.

    Args:
        checkpoint: named in the message.
        info: what ``from_pretrained`` says of its loading.
        unneeded: weights that may be missing, since nothing computes with them.

    Raises:
        CheckpointError: a weight is missing, or has another shape than the architecture's.
    """
    missing = sorted(info["missing_keys"] - unneeded)
    missing += sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing:
        raise CheckpointError(
            f"{checkpoint.name} lacks {len(missing)} weights of its architecture, {missing[0]} among them; "
            "finish its download, or correct its config.json."
        )


@contextlib.contextmanager
def loading_errors(checkpoint: Checkpoint) -> Iterator[None]:
    """Silence transformers' reports and turn what its loading raises into a CheckpointError."""
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
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{checkpoint.name} cannot be loaded: {reason[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
