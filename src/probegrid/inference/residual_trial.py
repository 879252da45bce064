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
from probegrid.inference.forest import in_common
from probegrid.inference.outcome import Report
from probegrid.inference.reasons import PACKED, PADDED, why_it_failed
from probegrid.inference.residual import ResidualReader, Row, Rows, prefix_of, ways
from probegrid.inference.trial import FAILURES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDING = {torch.float32: 1e-3, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Distances that are rounding in each type whatever the model."""
_UNIT = "of its length"


def rows_that_agree(
    model: PreTrainedModel, layers: Sequence[int], passages: Sequence[Row]
) -> tuple[Report, Rows]:
    """The fastest way to read rows together that gives what each gives alone.

    Args:
        model: as it is used.
        layers: to be read.
        passages: of the reading; the shortest and the longest are tried, and where prefixes are shared one more.
    """
    by_length = sorted(passages, key=lambda passage: len(passage.token_ids))
    extremes = by_length if len(by_length) < 2 else [by_length[-1], by_length[0]]
    passed_over: dict[str, str] = {}
    alone = _Alone(model, layers)
    for rows in ways(model, passages):
        if rows is Rows.alone or not extremes:
            return Report(rows.value, unit=_UNIT, passed_over=passed_over), rows
        chosen = _with_the_likest(extremes, passages) if rows is Rows.shared else extremes
        try:
            distance = or_none_if_out_of_memory(partial(_distance, model, rows, chosen, alone))
        except FAILURES as error:
            passed_over[rows.value] = why_it_failed(error, PADDED if rows is Rows.padded else PACKED)
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


def _with_the_likest(extremes: Sequence[Row], passages: Sequence[Row]) -> list[Row]:
    """With the passage that has most in common with the longest: they share more than all do."""
    longest = extremes[0]
    tokens = longest.token_ids
    others = [passage for passage in passages if passage is not longest and passage.token_ids != tokens]
    likest = max(others, key=lambda passage: in_common(passage.token_ids, tokens), default=longest)
    return [*extremes, *([] if any(likest is one for one in extremes) else [likest])]


class _Alone:
    """What the model gives of a passage by itself, each asked for once."""

    def __init__(self, model: PreTrainedModel, layers: Sequence[int]) -> None:
        self.model, self.layers = model, layers
        self._read: dict[int, dict[int, Tensor]] = {}

    def __call__(self, passage: Row) -> dict[int, Tensor]:
        """Of each layer [n, d] float32."""
        if id(passage) not in self._read:
            reader = ResidualReader(self.model, self.layers, Rows.alone)
            self._read[id(passage)] = reader.read(
                [passage.token_ids], [passage.spans], torch.float32, [passage.prompt]
            )
        return self._read[id(passage)]


def _distance(model: PreTrainedModel, rows: Rows, passages: Sequence[Row], alone: _Alone) -> float:
    """The largest, over layers and passages, of the mean over vectors of how far they are apart."""
    token_ids, spans, prompts = zip(*passages, strict=True)
    prefix, layers = prefix_of(passages), alone.layers
    together = ResidualReader(model, layers, rows, prefix).read(token_ids, spans, torch.float32, prompts)
    each = [alone(passage) for passage in passages]
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
