"""From a checkpoint to a model that lies and computes where its placement says, one part after another.

A part is the embedding, a block, the final norm or the head. Each is read, quantized on the device that will
compute it, and parked if it streams, before the next is read: no device ever holds more than the placement gives it
and one unquantized matrix. transformers' own loading refuses to quantize beside modules in CPU memory, or leaves
those unquantized, and a mixture's experts always; and all that the families supported here need of it is a table of
the two names that changed.

Knows the parts of a decoder and what the supported families call their tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from probegrid.errors import CheckpointError
from probegrid.models.dispatch import dispatch, torch_device
from probegrid.models.offload import ParkedBlock
from probegrid.models.quantization import Entries, fill, pack
from probegrid.models.weights import Weights
from probegrid.planning.placement import Device, Placement
from probegrid.schema import QuantizationMethod

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_QUANTIZED = re.compile(r".*_proj(\.weight)?")
"""The matrices of a block, experts included; not its norms, biases and router."""
_EXPERT = re.compile(r"block_sparse_moe\.experts\.(\d+)\.w[123]\.weight")
"""One matrix of one expert, as Mixtral's checkpoints name it."""


class Parts(Protocol):
    """Where the parts of a model come from."""

    def part(self, name: str, device: torch.device) -> Entries:
        """The tensors of a part, by their names within it, as ``packing.fill`` takes them.

        Args:
            name: ``model.embed_tokens``, ``model.layers.<i>``, ``model.norm`` or ``lm_head``.
            device: where matrices are quantized, if they have to be.

        Raises:
            CheckpointError: a tensor is missing or cannot be read.
        """
        ...


class CheckpointParts:
    """The parts of a checkpoint; the matrices of its blocks are quantized as they are read."""

    def __init__(
        self, weights: Weights, method: QuantizationMethod, dtype: torch.dtype, *, stored: bool
    ) -> None:
        """Read nothing yet.

        Args:
            weights: the checkpoint's tensors.
            method: how the matrices of the blocks are held.
            dtype: what all weights are converted to, before they are quantized.
            stored: whether the checkpoint is quantized already; it is then taken as it is.
        """
        self._weights = weights
        self._method = method
        self._dtype = dtype
        self._stored = stored

    def part(self, name: str, device: torch.device) -> Entries:
        """As ``Parts.part``."""
        if self._stored:
            return {local: self._weights.read(full) for local, full in self._weights.under(name).items()}
        entries: Entries = {}
        quantizes = ".layers." in name and self._method is not QuantizationMethod.none
        for local, tensor in self._tensors(name):
            if quantizes and _QUANTIZED.fullmatch(local):
                entries |= pack(local, tensor.to(device, self._dtype), self._method)
            else:
                entries[local] = tensor.to(self._dtype)
        return entries

    def _tensors(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """Each tensor of a part by the name of its parameter, with a mixture's experts joined to two."""
        names = self._weights.under(part)
        experts = 0
        for local, name in names.items():
            if expert := _EXPERT.fullmatch(local):
                experts = max(experts, 1 + int(expert[1]))
            else:
                yield local.replace("block_sparse_moe.", "mlp."), self._weights.read(name)
        if experts:

            def matrix(expert: int, kind: str) -> Tensor:
                local = f"block_sparse_moe.experts.{expert}.{kind}.weight"
                return self._weights.read(names.get(local, f"{part}.{local}"))

            gate_up = [torch.cat([matrix(expert, "w1"), matrix(expert, "w3")]) for expert in range(experts)]
            yield "mlp.experts.gate_up_proj", torch.stack(gate_up)
            yield "mlp.experts.down_proj", torch.stack([matrix(expert, "w2") for expert in range(experts)])


def assemble(
    config: PreTrainedConfig, placement: Placement, parts: Parts, dtype: torch.dtype
) -> PreTrainedModel:
    """Build a model part by part, each where its placement puts it.

    Args:
        config: the whole model's; its blocks are cut to the placement's.
        placement: the device of each part. Without a head, the model is the bare decoder and its final norm the
            identity: its last hidden state is the residual stream after the last block.
        parts: the weights.
        dtype: type of the weights that are not quantized, and of the computation.

    Raises:
        CheckpointError: a weight is missing or has another shape than its config says.
    """
    model = skeleton(config, len(placement.blocks), dtype, with_head=placement.head is not None)
    parked: dict[int, ParkedBlock] = {}
    for name, module, device in _parts_of(model, placement):
        try:
            fill(module, parts.part(name, torch_device(device)), dtype=dtype, device=torch_device(device))
        except CheckpointError as error:
            raise CheckpointError(f"{name} cannot be loaded: {error}") from error
        index = name.removeprefix("model.layers.")
        if index.isdecimal() and int(index) in placement.streamed:
            parked[int(index)] = ParkedBlock(module)
    decoder: Any = model.base_model
    decoder.rotary_emb.to(torch_device(placement.blocks[0] if placement.blocks else placement.embedding))
    model.tie_weights()
    dispatch(model, placement, parked)
    model.eval()
    return model


def skeleton(
    config: PreTrainedConfig, blocks: int, dtype: torch.dtype, *, with_head: bool
) -> PreTrainedModel:
    """A model of the first ``blocks`` blocks with every parameter on the meta device, its buffers on the CPU.

    Without its head it is the bare decoder, and its final norm the identity.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModel, AutoModelForCausalLM

    settings = config.to_dict() | {"num_hidden_layers": blocks}
    if settings.get("layer_types"):
        settings["layer_types"] = settings["layer_types"][:blocks]
    changed = type(config).from_dict(settings)
    kind: Any = AutoModelForCausalLM if with_head else AutoModel
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = kind.from_config(changed, dtype=dtype)
    if not with_head:
        bare: Any = model
        bare.norm = nn.Identity()
    return model


def _parts_of(model: PreTrainedModel, placement: Placement) -> Iterator[tuple[str, nn.Module, Device]]:
    """The name, module and device of every part that has weights of its own, in the order they compute."""
    decoder: Any = model.base_model
    yield "model.embed_tokens", decoder.embed_tokens, placement.embedding
    for index, (block, device) in enumerate(zip(decoder.layers, placement.blocks, strict=True)):
        yield f"model.layers.{index}", block, device
    if placement.head is not None:
        yield "model.norm", decoder.norm, placement.final_norm
        if not model.config.tie_word_embeddings:
            yield "lm_head", model.get_output_embeddings(), placement.head
