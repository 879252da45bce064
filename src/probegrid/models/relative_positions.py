"""DeBERTa's relative positions: only those that occur in a batch are scored.

Its second and third versions hold every token against all 512 relative positions, and then pick those that occur: of
texts of 40 tokens, 79 of them. The first version cuts its table beforehand; so is theirs here. Knows transformers'
modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def only_near(model: Any, length: int) -> Iterator[None]:
    """Within it a model holds rows of so many tokens against the relative positions that they have; it says the same.

    Args:
        model: any; one that has no such table is left as it is.
        length: tokens of the longest row, padding included.
    """
    encoder = getattr(model.base_model, "encoder", None)
    attentions = [layer.attention.self for layer in getattr(encoder, "layer", ()) if _has_table(layer)]
    if encoder is None or not attentions or not getattr(encoder, "relative_attention", False):
        yield
        return
    whole = attentions[0].pos_ebd_size
    if length >= whole or any(each.pos_ebd_size != whole for each in attentions):
        yield
        return
    table = encoder.get_rel_embedding
    encoder.get_rel_embedding = lambda: table()[whole - length : whole + length]
    for each in attentions:
        each.pos_ebd_size = length
    try:
        yield
    finally:
        del encoder.get_rel_embedding
        for each in attentions:
            each.pos_ebd_size = whole


def _has_table(layer: Any) -> bool:
    return hasattr(getattr(getattr(layer, "attention", None), "self", None), "pos_ebd_size")
