"""What determines a reading, and nothing that does not: the store's keys are its hashes.

Knows which of the config's values decide what a model makes of a sequence of tokens. A value that is its field's
default is left out, so that a field that is added later changes no key.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

from probegrid.models.checkpoint import Checkpoint
from probegrid.schema import DecodingConfig, DeviceMapConfig, Dtype, ModelConfig, QuantizationMethod

_DIGEST_LENGTH = 32
_NOT_THE_WEIGHTS = (
    "path",
    "revision",
    "chat_template",
    "template_kwargs",
    "thinking",
    "architecture",
    "resources",
)
"""Fields of a model's config that decide no number but by the checkpoint's fingerprint or the tokens themselves."""
_OF_SAMPLES = ("do_sample", "num_generations", "temperature", "seed")


def describe_model(
    checkpoint: Checkpoint,
    model: ModelConfig,
    quantization: QuantizationMethod,
    device_map: DeviceMapConfig,
) -> dict[str, Any]:
    """What determines what a model makes of a sequence of tokens."""
    in_float16 = quantization is QuantizationMethod.nf4 and model.dtype is Dtype.float16
    return {
        # before, NF4 was multiplied in bfloat16 there too: what was read then is not found
        **({"nf4_compute": "float16"} if in_float16 else {}),
        "checkpoint": checkpoint.fingerprint,
        "dtype": model.dtype.value,
        "quantization": quantization.value,
        "device_map": describe_device_map(device_map),
        **not_default(model, without=(*_NOT_THE_WEIGHTS, "dtype")),
    }


def describe_device_map(device_map: DeviceMapConfig) -> dict[str, Any]:
    """The devices that compute; how many copies of the model do changes no number."""
    return not_default(device_map, without=("replicas",))


def anywhere(described: dict[str, Any]) -> dict[str, Any]:
    """What identifies a model wherever it lies: a probe that was trained on it serves it on any devices."""
    return {name: value for name, value in described.items() if name != "device_map"}


def describe_decoding(decoding: DecodingConfig, stop: Sequence[str]) -> dict[str, Any]:
    """What determines the answers to a prompt besides the model and the tokens."""
    without = ("batch_size", "max_thinking_tokens", *(() if decoding.do_sample else _OF_SAMPLES))
    return {
        "max_new_tokens": decoding.max_new_tokens,
        "stop": sorted(set(stop)),
        **not_default(decoding, without=(*without, "max_new_tokens")),
    }


def not_default(value: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, as plain values; an enum by its name."""
    found: dict[str, Any] = {}
    for part in fields(value):
        chosen = getattr(value, part.name)
        default = part.default_factory() if part.default_factory is not MISSING else part.default
        if part.name not in without and chosen != default:
            found[part.name] = chosen.name if isinstance(chosen, Enum) else chosen
    return found


def digest_of(
    token_ids: Sequence[int], spans: Sequence[tuple[int, int]] = (), prompt: int | None = None
) -> str:
    """What a sequence of tokens, and what is read of it, are known by: 32 hex digits of a SHA-256.

    Args:
        token_ids: of the sequence.
        spans: that are read of it.
        prompt: how many of its tokens are read otherwise than the others; None: all are read alike.
    """
    digest = hashlib.sha256(array("q", token_ids).tobytes())
    if spans:
        digest.update(b"spans")
        digest.update(array("q", [edge for span in spans for edge in span]).tobytes())
    if prompt is not None:
        digest.update(b"prompt")
        digest.update(array("q", [prompt]).tobytes())
    return digest.hexdigest()[:_DIGEST_LENGTH]
