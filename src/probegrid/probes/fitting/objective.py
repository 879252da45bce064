"""The objective of logistic regression, and how far a step may go: what every way of fitting shares.

It is scikit-learn's, ``|w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i (x_i w + b)))`` with ``s`` the weight of an example and
``b`` not penalized, divided by ``C sum_i s_i``: mean loss + ``lambda |w|^2 / 2``.

It is lambda-strongly convex in ``w``: a gradient g bounds the distance to the optimum by ``|g| / lambda``, which, with
the like for the bias, is the stopping rule.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

TOLERANCE = 1e-5
"""Bound on the error of the weights, relative to their norm (to 1 where it is smaller)."""
NEWTON_STEPS = 50
_HALVINGS = 30
_ARMIJO = 1e-4
_ROUNDING = 1e-15


def mean_loss(margins: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    """Weighted mean of the examples' losses: float64[..., 1] from margins float64[..., n]."""
    return (shares * (softplus(margins) - targets * margins)).sum(-1, keepdim=True)


def error_bound(
    weights: Tensor, gradient: Tensor, bias_gradient: Tensor, curvature: Tensor, strength: Tensor
) -> Tensor:
    """Bound the distance to the optimum, relative to the norm of the weights or 1: float64[..., 1].

    Gradient over least curvature: lambda along the weights, that of the loss along the bias.

    Args:
        weights, gradient: float64[..., d].
        bias_gradient: float64[..., 1].
        curvature: float64[..., n], second derivative of each example's share of the loss by its margin.
        strength: float64[..., 1], lambda.
    """
    weights_error = gradient.norm(dim=-1, keepdim=True) / strength
    bias_error = bias_gradient.abs() / curvature.sum(-1, keepdim=True)
    bound: Tensor = (weights_error + bias_error) / weights.norm(dim=-1, keepdim=True).clamp(min=1)
    return bound


def step_length(objective_after: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """Halve each step until the objective falls enough (Armijo).

    Args:
        objective_after: the objective of each problem after such shares of its step, both float64[..., 1].
        slope: float64[..., 1], gradient times step.
    """
    start = objective_after(torch.zeros_like(slope))
    length = torch.ones_like(slope)
    for _ in range(_HALVINGS):
        short = objective_after(length) > start + _ARMIJO * length * slope + _ROUNDING * start
        if not short.any():
            break
        length = torch.where(short, length / 2, length)
    return length
