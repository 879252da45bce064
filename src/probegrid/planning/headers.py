"""From the headers of a checkpoint's safetensors files to the weights of every part of its decoder.

A header names each tensor with its type and shape: what a plan needs of any family, without torch and without reading a
weight. What sees or hears, and layers that predict further tokens, are no part of the decoder.

Knows how tensors of decoders are named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from probegrid.planning.architecture import Parts
from probegrid.schema import BlockWeights, DecoderWeights

_BITS = {"F64": 64, "F32": 32, "I32": 32, "I64": 64, "BF16": 16, "F16": 16, "I16": 16, "F4": 4}
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer|block)\.(\d+)\.")
NO_DECODER = re.compile(
    r"(?:^|\.)(?:\w*vision\w*|visual\w*|image\w*|audio\w*|speech\w*|vqmodel|sam_model|patch_\w+|\w*projector\w*|mm_\w+"
    r"|mlp_AR|connector|aligner|\w*merger\w*|encoder|mtp\w*|nextn\w*)\."
    r"|^pos_embed\."
)
"""Names of what is no part of a decoder of text: what sees, hears, or predicts further tokens."""
TEXT = re.compile(r"^(?:model\.)?(?:language_model|text_model|llm)\.")
"""What stands before the names of the language model of a larger one."""
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output_layer|output|head)\.")
_EMBEDDING = re.compile(r"emb|wte|wpe|position|project_in|per_layer")
ROUTER = re.compile(r"(?:^|\.)(?:gate|router|shared_expert_gate|wg|classifier)\.(?:\w+\.)*weight$")
"""Names of the weights that choose experts: never quantized."""
_NO_MATRIX = re.compile(r"norm|conv|bias|A_log|rotary|scale|zero|sinks")
_EXPERT = re.compile(r"(?:^|\.)experts\.")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor as its file's header has it."""

    dtype: str
    """safetensors' name: ``BF16``, ``I32``, ``F8_E4M3``."""
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in its file."""
        return self.numel * _BITS.get(self.dtype, 8) // 8


Headers = Mapping[str, TensorHeader]
"""Of all tensors of a checkpoint, by name."""


def local_headers(files: list[Path]) -> dict[str, TensorHeader] | None:
    """The headers of some files; None where one is no safetensors file."""
    found: dict[str, TensorHeader] = {}
    for file in files:
        if file.suffix != ".safetensors":
            return None
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= file.stat().st_size:
                return None
            try:
                header = json.loads(stream.read(length))
            except ValueError:
                return None
        for name, tensor in header.items():
            if name != "__metadata__":
                found[name] = TensorHeader(tensor["dtype"], tuple(tensor["shape"]))
    return found


class _Part(Enum):
    embedding = "embedding"
    block = "block"
    tail = "tail"
    head = "head"


def stored_bytes(headers: Headers, layers: int, *, tied: bool) -> Parts:
    """Bytes of every part of a decoder of ``layers`` blocks as its files hold it."""
    parts = _divided(headers, layers)
    of = {part: sum(headers[name].nbytes for name in parts[part, -1]) for part in _Part}
    blocks = [sum(headers[name].nbytes for name in parts[_Part.block, index]) for index in range(layers)]
    head = sum(headers[name].nbytes for name in _of_head(headers, parts, tied=tied))
    return Parts.of_blocks(of[_Part.embedding], blocks, of[_Part.tail], head)


def weights_by_headers(headers: Headers, layers: int, *, tied: bool) -> DecoderWeights:
    """Parameters of every part of a decoder that is not quantized.

    Args:
        headers: of its files.
        layers: blocks; further ones are left out.
        tied: whether the head is the embedding, even where the files hold both.
    """
    parts = _divided(headers, layers)
    of = {part: sum(headers[name].numel for name in parts[part, -1]) for part in _Part}
    blocks: list[BlockWeights] = []
    for index in range(layers):
        found = _block({name: headers[name] for name in parts[_Part.block, index]})
        if blocks and _alike(blocks[-1], found):
            blocks[-1].count += 1
        else:
            blocks.append(found)
    return DecoderWeights(
        embedding=of[_Part.embedding],
        tail=of[_Part.tail],
        head=sum(headers[name].numel for name in _of_head(headers, parts, tied=tied)),
        blocks=blocks,
    )


def has_head(headers: Headers) -> bool:
    """Whether the files hold a head of their own."""
    return any(_HEAD.search(name) and not _BLOCK.search(name) for name in headers)


def _alike(one: BlockWeights, other: BlockWeights) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("matrices", "rows", "tensors", "largest", "others", "experts")
    )


def _divided(headers: Headers, layers: int) -> dict[tuple[_Part, int], list[str]]:
    parts: dict[tuple[_Part, int], list[str]] = {(part, -1): [] for part in _Part}
    parts |= {(_Part.block, index): [] for index in range(layers)}
    is_inner = any(TEXT.search(name) for name in headers)
    stems = _whole_stems(headers, layers)
    for name in headers:
        block = _BLOCK.search(name)
        if is_inner and not (TEXT.search(name) or block or _HEAD.search(name)):
            continue
        if block is not None and stems and name[: block.start(1)] not in stems:
            continue
        if NO_DECODER.search(name if block is None else name[: block.start() + 1]):
            continue
        if block is not None:
            if int(block[1]) < layers:
                parts[_Part.block, int(block[1])].append(name)
        elif _HEAD.search(name):
            parts[_Part.head, -1].append(name)
        else:
            parts[_Part.embedding if _EMBEDDING.search(name) else _Part.tail, -1].append(name)
    return parts


def _whole_stems(headers: Headers, layers: int) -> set[str]:
    """What stands before the number of a block, where a block of every number has it: a tower has fewer, as a rule."""
    numbers: dict[str, set[int]] = {}
    for name in headers:
        if (block := _BLOCK.search(name)) is not None:
            numbers.setdefault(name[: block.start(1)], set()).add(int(block[1]))
    return {stem for stem, found in numbers.items() if found.issuperset(range(layers))}


def _of_head(headers: Headers, parts: Mapping[tuple[_Part, int], list[str]], *, tied: bool) -> list[str]:
    """The tensors of the head; of one that is the embedding, what it has besides that matrix."""
    shapes = {headers[name].shape for name in parts[_Part.embedding, -1]} if tied else set()
    return [
        name
        for name in parts[_Part.head, -1]
        if len(headers[name].shape) != 2 or headers[name].shape not in shapes
    ]


def _block(headers: Headers) -> BlockWeights:
    matrices = {name: tensor for name, tensor in headers.items() if _is_matrix(name, tensor)}
    experts = {name: tensor for name, tensor in matrices.items() if _EXPERT.search(name)}
    dense = {name: tensor for name, tensor in matrices.items() if name not in experts}
    packed = sum(tensor.numel for tensor in matrices.values())
    of_experts = sum(tensor.numel for tensor in experts.values())
    return BlockWeights(
        matrices=packed,
        rows=sum(math.prod(tensor.shape[:-1]) for tensor in matrices.values()),
        tensors=len(dense) + 2 * bool(experts),
        largest=max([of_experts, *(tensor.numel for tensor in dense.values())]),
        others=sum(tensor.numel for tensor in headers.values()) - packed,
        experts=of_experts,
    )


def _is_matrix(name: str, tensor: TensorHeader) -> bool:
    """As ``models.quantization.is_matrix``, by name and shape alone."""
    last = name.rpartition(".")[2]
    if ROUTER.search(name) or _NO_MATRIX.search(name.rpartition(".")[0].rpartition(".")[2]) or "bias" in last:
        return False
    if len(tensor.shape) == 3:
        return _NO_MATRIX.search(last) is None
    return len(tensor.shape) == 2 and (last == "weight" or _EXPERT.search(name) is not None)
