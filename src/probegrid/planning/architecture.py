"""From the facts of a decoder to its parameters, bytes and operations.

Knows how the plain families are built, takes the weights of every other part by part (``Architecture.weights``), and
knows how bitsandbytes stores a quantized matrix. Pure arithmetic on integers: every count is exact, but for the
constants of NF4 where only the sum of a block's matrices is known (to 0.01%).

A decoder is ``embedding -> blocks -> final norm -> head``. Only the matrices of the blocks are quantized:
embedding, norms, biases, the experts' router and the head stay in the model's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from probegrid.schema import Architecture, BlockWeights, Dtype, QuantizationMethod

DTYPE_BYTES = {Dtype.float32: 4, Dtype.bfloat16: 2, Dtype.float16: 2}

_FLOAT32_BYTES = 4
_NF4_BLOCK = 64
"""Weights that share an absolute maximum (bitsandbytes' default ``blocksize``)."""
_NF4_NESTED_BLOCK = 256
"""Absolute maxima that share a second one (``quantize_4bit`` with ``compress_statistics``)."""
_INT8_PRODUCT_BYTES = 6
"""A product of int8 matrices in int32, and scaled in float16."""
_NF4_TABLES = 16 + 256 + 1
"""float32 constants of each tensor: the NF4 code, the 8-bit code of the maxima, their mean."""


_PUBLISHED_BYTES = {"fp8": 1 + 4 / 128**2, "mxfp4": 0.5 + 1 / 32}
"""A weight and its part of a scale."""


@dataclass(frozen=True, slots=True)
class Parts:
    """One number, of parameters or of bytes, for each part of a decoder."""

    embedding: int
    block: int
    """Of the largest block."""
    final_norm: int
    head: int
    """0 where the head is the embedding."""
    each: tuple[int, ...] = ()
    """Of every block in order; empty where all are alike."""

    @classmethod
    def of_blocks(cls, embedding: int, blocks: Sequence[int], final_norm: int, head: int) -> Parts:
        """Of blocks that may differ."""
        alike = len(set(blocks)) <= 1
        return cls(embedding, max(blocks, default=0), final_norm, head, () if alike else tuple(blocks))

    def of_block(self, index: int) -> int:
        """Of one block."""
        return self.each[index] if self.each else self.block

    def of_all(self, blocks: Collection[int]) -> int:
        """Sum over some blocks."""
        return sum(self.each[index] for index in blocks) if self.each else len(blocks) * self.block

    def largest_of(self, blocks: Collection[int]) -> int:
        """The largest of some blocks."""
        return max(self.each[index] for index in blocks) if self.each else self.block

    @property
    def usual_block(self) -> float:
        """Of a block on average."""
        return sum(self.each) / len(self.each) if self.each else self.block

    def total(self, blocks: int, *, with_head: bool = True) -> int:
        """Sum over embedding, the first ``blocks`` blocks and, ``with_head``, final norm and head."""
        inner = sum(self.each[:blocks]) if self.each else blocks * self.block
        return self.embedding + inner + (self.final_norm + self.head if with_head else 0)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A quantized tensor of a block: ``copies`` matrices of ``rows x columns`` (output x input)."""

    rows: int
    columns: int
    copies: int = 1
    """1, or the number of experts."""

    @property
    def parameters(self) -> int:
        """Weights of all copies."""
        return self.rows * self.columns * self.copies


def block_matrices(architecture: Architecture) -> tuple[Matrix, ...]:
    """The matrices of one block, one entry a stored tensor.

    The experts of a mixture are two tensors, ``gate_up_proj`` and ``down_proj``, as transformers 5 holds
    them.
    """
    hidden, intermediate = architecture.hidden, architecture.intermediate
    queries = architecture.heads * architecture.head_dim
    keys = architecture.kv_heads * architecture.head_dim
    attention = (Matrix(queries, hidden), Matrix(keys, hidden), Matrix(keys, hidden), Matrix(hidden, queries))
    if architecture.experts > 1:
        experts = architecture.experts
        return (*attention, Matrix(2 * intermediate, hidden, experts), Matrix(hidden, intermediate, experts))
    gate = up = Matrix(intermediate, hidden)
    return (*attention, gate, up, Matrix(hidden, intermediate))


def parameters(architecture: Architecture) -> Parts:
    """Parameters of each part, those of every expert included."""
    if (known := architecture.weights) is not None:
        blocks = [weights.matrices + weights.others for weights in _each_block(architecture)]
        return Parts.of_blocks(known.embedding, blocks, known.tail, known.head)
    matrices = sum(matrix.parameters for matrix in block_matrices(architecture))
    embedding = architecture.vocab * architecture.hidden
    return Parts(
        embedding=embedding,
        block=matrices + _vector_parameters(architecture),
        final_norm=architecture.hidden,
        head=0 if architecture.tied_embeddings else embedding,
    )


def active_parameters(architecture: Architecture) -> int:
    """Parameters one token passes through: all of a dense model, those of its own experts in a mixture."""
    if architecture.weights is not None:
        experts = sum(weights.experts for weights in _each_block(architecture))
        all_idle = experts - experts * architecture.experts_per_token // architecture.experts
        return parameters(architecture).total(architecture.layers) - all_idle
    idle = sum(matrix.parameters - _active(matrix, architecture) for matrix in block_matrices(architecture))
    return parameters(architecture).total(architecture.layers) - architecture.layers * idle


def packed_share(architecture: Architecture, blocks: int) -> float:
    """The share of the weights of the first ``blocks`` blocks that quantization packs."""
    if architecture.weights is not None:
        known = _each_block(architecture)[:blocks]
        packed = sum(weights.matrices for weights in known)
        return packed / max(1, packed + sum(weights.others for weights in known))
    of_a_block = sum(matrix.parameters for matrix in block_matrices(architecture))
    return of_a_block / parameters(architecture).block


def weight_bytes(architecture: Architecture, dtype: Dtype, method: QuantizationMethod) -> Parts:
    """Bytes of each part as loaded, quantization constants included, to the byte of bitsandbytes 0.50.

    - ``none``, ``auto``: ``dtype``.
    - ``int8`` (LLM.int8, Dettmers et al. 2022): one byte a weight and a float32 scale (``SCB``) a row.
    - ``nf4`` (QLoRA, Dettmers et al. 2023, double quantization): half a byte a weight, one byte for the
      maximum of 64 weights, one float32 for 256 such maxima, and the code tables of each tensor.

    The experts of a mixture are quantized as two tensors, like ``bitsandbytes.nn.parametrize`` stores them.
    """
    bytes_of = _MATRIX_BYTES[method]
    counts = parameters(architecture)
    width = DTYPE_BYTES[dtype]
    if architecture.weights is not None:
        blocks = [
            _block_bytes(weights, method, width) + weights.others * width
            for weights in _each_block(architecture)
        ]
        outside = (counts.embedding * width, counts.final_norm * width, counts.head * width)
        return Parts.of_blocks(outside[0], blocks, *outside[1:])
    matrices = sum(bytes_of(matrix, width) for matrix in block_matrices(architecture))
    return Parts(
        embedding=counts.embedding * width,
        block=matrices + _vector_parameters(architecture) * width,
        final_norm=counts.final_norm * width,
        head=counts.head * width,
    )


def published_bytes(architecture: Architecture, dtype: Dtype) -> Parts | None:
    """Bytes of each part as the files hold it, by ``Architecture.stored``; None where they are not quantized.

    - ``fp8`` (DeepSeek-V3, arXiv 2412.19437): a byte a weight of every matrix, a float32 scale for 128 by 128 of them.
    - ``mxfp4`` (OCP Microscaling Formats 1.0): 4 bits a weight of an expert, a scale of 8 bits for 32 of them.

    What the headers of the files would say is this within 1%.
    """
    if architecture.stored is None:
        return None
    width = DTYPE_BYTES[dtype]
    counts = parameters(architecture)
    blocks = []
    for index, (matrices, experts) in enumerate(_matrices_of_blocks(architecture)):
        small = matrices if architecture.stored == "fp8" else experts
        of_small = math.ceil(small * _PUBLISHED_BYTES[architecture.stored])
        blocks.append(of_small + (counts.of_block(index) - small) * width)
    return Parts.of_blocks(counts.embedding * width, blocks, counts.final_norm * width, counts.head * width)


def _matrices_of_blocks(architecture: Architecture) -> list[tuple[int, int]]:
    """Weights of each block's matrices, and those of them that are experts'."""
    if architecture.weights is not None:
        return [(weights.matrices, weights.experts) for weights in _each_block(architecture)]
    matrices = block_matrices(architecture)
    experts = sum(matrix.parameters for matrix in matrices if matrix.copies > 1)
    return [(sum(matrix.parameters for matrix in matrices), experts)] * architecture.layers


def kv_bytes_per_token(architecture: Architecture, dtype: Dtype, blocks: int | None = None) -> int:
    """Bytes of keys and values one token leaves behind in ``blocks`` blocks (all of them when None).

    An upper bound where some blocks attend to a sliding window only (Gemma 2 and 3).
    """
    layers = architecture.layers if blocks is None else blocks
    width = architecture.kv_width
    of_a_block = 2 * architecture.kv_heads * architecture.head_dim if width is None else width
    return of_a_block * DTYPE_BYTES[dtype] * layers


def block_flops_per_token(architecture: Architecture, context_tokens: float) -> float:
    """Floating-point operations of one block for a token that attends to ``context_tokens`` others.

    Two a weight of the active matrices and the router, four a query element and attended token (scores, then
    values).
    """
    active = _active_matrices(architecture)
    attention = 4 * architecture.heads * architecture.head_dim * context_tokens
    return 2 * (active + _router_parameters(architecture)) + attention


def head_flops_per_token(architecture: Architecture) -> float:
    """Floating-point operations of the head for one token."""
    return 2.0 * architecture.vocab * architecture.hidden


def flops_per_token(architecture: Architecture, context_tokens: float = 0.0) -> float:
    """Floating-point operations of the whole model for a token that attends to ``context_tokens`` others."""
    blocks = architecture.layers * block_flops_per_token(architecture, context_tokens)
    return blocks + head_flops_per_token(architecture)


def working_bytes(
    architecture: Architecture,
    dtype: Dtype,
    method: QuantizationMethod,
    tokens: int,
    *,
    shares_prefix: bool,
) -> int:
    """Bytes a forward pass of ``tokens`` holds at its peak beside weights, keys, values and logits.

    Whatever the depth, the peak is inside one block, and is the largest of

    - the feed-forward product: the stream four times over (embeddings, stream, its norm, what comes out) and the
      gate, the other half and their product;
    - NF4: one of these less, and a matrix unpacked while it is multiplied; of a mixture, in int8 too, all its experts;
    - int8: products in int32, then in float16, then in ``dtype``;
    - behind a shared prefix, merging two attentions: the queries, both outputs, and three float32 copies of them.

    Followed through torch's allocator; `benchmarks/working_memory.py` measures it within 2% for passes of 10 thousand
    tokens or more without quantization and in NF4, within 5% for 2 thousand. int8 takes more where inputs have outliers
    (LLM.int8 multiplies their columns in 16 bits): up to 8 bytes a weight of one matrix, if every column has one.
    """
    width = DTYPE_BYTES[dtype]
    hidden = architecture.hidden
    forward = architecture.intermediate * architecture.experts_per_token
    peaks = [tokens * width * (4 * hidden + 3 * forward)]
    unpacked = width * _unpacked_at_once(architecture)
    if method is QuantizationMethod.int8 and architecture.experts > 1:
        peaks.append(tokens * width * (4 * hidden + 2 * forward) + unpacked)
    if method is QuantizationMethod.nf4:
        peaks.append(tokens * width * (4 * hidden + 2 * forward) + unpacked)
    if method is QuantizationMethod.int8:
        peaks.append(tokens * (4 * hidden * width + forward * (2 * width + _INT8_PRODUCT_BYTES)))
    if shares_prefix:
        queries = architecture.heads * architecture.head_dim
        keys = architecture.kv_heads * architecture.head_dim
        copies = 1 if width == _FLOAT32_BYTES else 3  # in float32 the outputs are their own copies
        merged = width * (3 * hidden + 3 * queries + 2 * keys) + copies * _FLOAT32_BYTES * queries
        peaks.append(tokens * merged)
    return max(peaks)


def _each_block(architecture: Architecture) -> list[BlockWeights]:
    """The weights of every block, where they are given."""
    assert architecture.weights is not None
    return [weights for weights in architecture.weights.blocks for _ in range(weights.count)]


def _block_bytes(weights: BlockWeights, method: QuantizationMethod, width: int) -> int:
    """Bytes of the matrices of a block of which the sums are known."""
    if method is QuantizationMethod.int8:
        return weights.matrices + weights.rows * _FLOAT32_BYTES
    if method is QuantizationMethod.nf4:
        maxima = -(-weights.matrices // _NF4_BLOCK)
        nested_maxima = -(-maxima // _NF4_NESTED_BLOCK) + weights.tensors
        return (
            -(-weights.matrices // 2)
            + maxima
            + (nested_maxima + weights.tensors * _NF4_TABLES) * _FLOAT32_BYTES
        )
    return weights.matrices * width


def _active_matrices(architecture: Architecture) -> float:
    """Weights of matrices that a token passes through in a block, on average."""
    if architecture.weights is None:
        return sum(_active(matrix, architecture) for matrix in block_matrices(architecture))
    share = architecture.experts_per_token / architecture.experts
    blocks = _each_block(architecture)
    return sum(each.matrices - each.experts * (1 - share) for each in blocks) / max(1, len(blocks))


def _unpacked_at_once(architecture: Architecture) -> int:
    """Weights of the largest matrix, or of all experts of a block, which are unpacked together."""
    if architecture.weights is not None:
        return max((weights.largest for weights in architecture.weights.blocks), default=0)
    matrices = block_matrices(architecture)
    experts = sum(matrix.parameters for matrix in matrices if matrix.copies > 1)
    return max(experts, *(matrix.parameters for matrix in matrices))


def _active(matrix: Matrix, architecture: Architecture) -> int:
    return (
        matrix.parameters * architecture.experts_per_token // architecture.experts
        if matrix.copies > 1
        else matrix.parameters
    )


def _router_parameters(architecture: Architecture) -> int:
    return architecture.experts * architecture.hidden if architecture.experts > 1 else 0


def _vector_parameters(architecture: Architecture) -> int:
    """Norms, biases and the router of one block: what is never quantized."""
    norms = (4 if architecture.post_norms else 2) * architecture.hidden
    qk_norms = 2 * architecture.head_dim if architecture.qk_norm else 0
    qkv_rows = (architecture.heads + 2 * architecture.kv_heads) * architecture.head_dim
    biases = (
        (qkv_rows if architecture.attention_bias else 0)
        + (architecture.hidden if architecture.output_bias else 0)
        + (2 * architecture.intermediate + architecture.hidden if architecture.mlp_bias else 0)
    )
    return norms + qk_norms + biases + _router_parameters(architecture)


def _plain_bytes(matrix: Matrix, dtype_bytes: int) -> int:
    return matrix.parameters * dtype_bytes


def _int8_bytes(matrix: Matrix, dtype_bytes: int) -> int:
    return matrix.parameters + matrix.rows * matrix.copies * _FLOAT32_BYTES


def _nf4_bytes(matrix: Matrix, dtype_bytes: int) -> int:
    packed = -(-matrix.parameters // 2)
    maxima = -(-matrix.parameters // _NF4_BLOCK)
    nested_maxima = -(-maxima // _NF4_NESTED_BLOCK)
    return packed + maxima + (nested_maxima + _NF4_TABLES) * _FLOAT32_BYTES


_MATRIX_BYTES: dict[QuantizationMethod, Callable[[Matrix, int], int]] = {
    QuantizationMethod.auto: _plain_bytes,
    QuantizationMethod.none: _plain_bytes,
    QuantizationMethod.int8: _int8_bytes,
    QuantizationMethod.nf4: _nf4_bytes,
}
