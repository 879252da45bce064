"""Log-probabilities that are no numbers: what a model gives whose type overflowed, or whose weights are damaged.

Knows log-probabilities. They come to the host anyway, so that to look at them costs no trip to the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from probegrid.errors import RunError


def refuse_overflow(logprobs: Iterable[float], dtype: torch.dtype) -> None:
    """Look at what a batch gave before any of it is believed.

    Hidden states that overflowed reach the logits as NaN: the norm before the head divides infinity by infinity.

    Args:
        logprobs: of tokens, in nats; minus infinity is a number here, of a token that cannot come.
        dtype: that the model computes in.

    Raises:
        RunError: one is NaN, or more than certain by infinity.
    """
    if all(value < math.inf for value in logprobs):  # NaN is not less than anything
        return
    if dtype == torch.float16:
        raise RunError(
            "the model's numbers overflow in float16, so that its log-probabilities are not finite; compute in a wider "
            "type, model.dtype=float32, or in bfloat16 on a card from Ampere on (RTX 30, A100 and later)."
        )
    if dtype == torch.float32:
        raise RunError(
            "the model's log-probabilities are not finite in float32: its weights are damaged; fetch it again."
        )
    raise RunError(
        f"the model's log-probabilities are not finite in {str(dtype).removeprefix('torch.')}: its weights are "
        "damaged, or it is not meant to be computed in this type; fetch it again, or try model.dtype=float32."
    )
