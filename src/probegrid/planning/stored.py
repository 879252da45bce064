"""How a checkpoint stores the matrices of its blocks, by what its config says of it.

Knows the keys of ``quantization_config`` that the common libraries write; imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probegrid.schema import QuantizationMethod

_BITS_OF_KINDS = {"mxfp4": 4, "fp8": 8, "fbgemm_fp8": 8, "bitnet": 2, "eetq": 8, "nvfp4": 4}


@dataclass(frozen=True, slots=True)
class StoredForm:
    """What a checkpoint says of how it is stored."""

    kind: str
    """transformers' ``quant_method``, or that of bitsandbytes: ``nf4``, ``fp4``, ``int8``."""
    bits: int | None
    """Of a weight; None where the config does not say."""
    is_bitsandbytes: bool = False

    @property
    def name(self) -> str:
        """What a cell of it is called: ``nf4``, ``gptq4``, ``fp8``."""
        short = self.kind.replace("compressed-tensors", "ct").replace("_", "")
        return short if self.bits is None or str(self.bits) in short else f"{short}{self.bits}"

    @property
    def method(self) -> QuantizationMethod:
        """The method that gives the same, or ``auto``: as it is stored, which no other method gives."""
        return (
            _SAME.get(self.kind, QuantizationMethod.auto) if self.is_bitsandbytes else QuantizationMethod.auto
        )


_SAME = {"nf4": QuantizationMethod.nf4, "int8": QuantizationMethod.int8}


def stored_form(config: Mapping[str, Any]) -> StoredForm | None:
    """Read it from a checkpoint's parsed ``config.json``; None where nothing is quantized."""
    text = config.get("text_config")
    settings = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, Mapping) else None
    )
    if not isinstance(settings, Mapping):
        return None
    if settings.get("load_in_4bit"):
        return StoredForm(str(settings.get("bnb_4bit_quant_type", "fp4")), 4, is_bitsandbytes=True)
    if settings.get("load_in_8bit"):
        return StoredForm("int8", 8, is_bitsandbytes=True)
    kind = str(settings.get("quant_method", "unknown"))
    return StoredForm(kind, _bits(kind, settings))


def published_form(kind: str | None) -> StoredForm | None:
    """The form of files that are not at hand, by their ``quant_method``."""
    return None if kind is None else StoredForm(kind, _BITS_OF_KINDS[kind])


def _bits(kind: str, settings: Mapping[str, Any]) -> int | None:
    given = settings.get("bits", settings.get("w_bit"))
    if isinstance(given, int):
        return given
    groups = settings.get("config_groups")
    if isinstance(groups, Mapping):
        found = {
            (group.get("weights") or {}).get("num_bits")
            for group in groups.values()
            if isinstance(group, Mapping)
        }
        if len(found) == 1 and isinstance(only := found.pop(), int):
            return only
    return _BITS_OF_KINDS.get(kind)
