"""A few passages read as a batch and each alone by the model's own forward pass: are their activations the same?

What reads rows together is believed up to rounding, as in ``trial.py``; a model that sees both sides, or whose rows
depend on their neighbours, is read row by row. Knows the reader of the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from probegrid.hardware.memory import or_none_if_out_of_memory
from probegrid.inference.outcome import Report
from probegrid.inference.residual import ResidualReader, Rows, Span, ways
from probegrid.inference.trial import FAILURES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDING = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Distances that are rounding in each type whatever the model."""
_UNIT = "of its length"

Passage = tuple[Sequence[int], Sequence[Span]]
"""Token ids, and what is read of them."""


def rows_that_agree(
    model: PreTrainedModel, layers: Sequence[int], passages: Sequence[Passage]
) -> tuple[Report, Rows]:
    """The fastest way to read rows together that gives what each gives alone.

    Args:
        model: as it is used.
        layers: to be read.
        passages: of the reading; the shortest and the longest are tried.
    """
    by_length = sorted(passages, key=lambda passage: len(passage[0]))
    chosen = by_length if len(by_length) < 2 else [by_length[-1], by_length[0]]
    passed_over: dict[str, str] = {}
    for rows in ways(model):
        if rows is Rows.alone or not chosen:
            return Report(rows.value, unit=_UNIT, passed_over=passed_over), rows
        try:
            distance = or_none_if_out_of_memory(partial(_distance, model, layers, rows, chosen))
        except FAILURES as error:
            passed_over[rows.value] = f"{type(error).__name__} in its code: {str(error).strip()[:120]}"
            continue
        if distance is None:
            return Report(rows.value, unit=_UNIT, passed_over=passed_over), rows
        allowed = ROUNDING[model.dtype]
        if distance <= allowed:
            return Report(rows.value, len(chosen), distance, allowed, _UNIT, passed_over), rows
        passed_over[rows.value] = (
            f"{distance:.2g} of its length from what the model gives for a row alone, where rounding is {allowed:.1g}"
        )
    raise AssertionError("one by one is a way")


def _distance(
    model: PreTrainedModel, layers: Sequence[int], rows: Rows, passages: Sequence[Passage]
) -> float:
    """The largest, over layers and passages, of the mean over vectors of how far they are apart."""
    token_ids, spans = zip(*passages, strict=True)
    together = ResidualReader(model, layers, rows).read(token_ids, spans, torch.float32)
    alone = ResidualReader(model, layers, Rows.alone)
    each = [alone.read([ids], [of_row], torch.float32) for ids, of_row in passages]
    starts = [0]
    for of_row in spans:
        starts.append(starts[-1] + len(of_row))
    found = 0.0
    for layer in layers:
        for place, row in enumerate(each):
            batched = together[layer][starts[place] : starts[place + 1]]
            found = max(found, _apart(batched, row[layer]))
    return math.inf if math.isnan(found) else found


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Mean over vectors [n, d] of the length of their difference, as a part of their own."""
    lengths = wanted.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    apart = float(((found - wanted).norm(dim=-1) / lengths).mean())
    return (
        math.inf if math.isnan(apart) and wanted.isfinite().all() else (0.0 if math.isnan(apart) else apart)
    )
