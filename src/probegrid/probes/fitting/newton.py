"""L2 logistic regression for many layers and penalties at once, by a truncated Newton method.

The objective is scikit-learn's, ``|w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i (x_i w + b)))`` with ``s`` the weight of an
example and ``b`` not penalized, divided by ``C sum_i s_i``: mean loss + ``lambda |w|^2 / 2``.

Why Newton and not LBFGS: `torch.optim.LBFGS` takes all problems for one, with one step length and one curvature
estimate, and stops none of them at its own optimum. Here every problem has its own step, and where accuracy
is decided is apart from where time goes: the margins and the gradient, once a Newton step, are computed in float64;
the products with the Hessian, hundreds of them and all the time, in float32. One pass over the activations serves
all penalties. The margins are linear in the step, so that the line search touches no activation.

The objective is lambda-strongly convex in ``w``: a gradient g bounds the distance to the optimum by ``|g| / lambda``,
which is the stopping rule.

Nocedal & Wright, "Numerical optimization" (2006), algorithm 7.1 (line search Newton-CG).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

TOLERANCE = 1e-6
"""Bound on the error of the weights, relative to their norm (to 1 where it is smaller)."""
_NEWTON_STEPS, _CG_STEPS, _HALVINGS = 50, 400, 30
_ARMIJO = 1e-4
_ROUNDING = 1e-15


def fit_logistic(
    x: Tensor, labels: Tensor, penalties: Sequence[float], *, balanced: bool = False
) -> tuple[Tensor, Tensor]:
    """Fit one logistic regression a layer and penalty.

    Args:
        x: float32[l, n, d], standardized; the fit runs on its device.
        labels: bool[n], both values among them.
        penalties: k inverse strengths of the regularization, scikit-learn's ``C``; positive.
        balanced: weight the examples so that both classes count alike (``class_weight="balanced"``).

    Returns:
        Weights float64[l, d, k] and biases float64[l, k].
    """
    targets = labels.to(x.device, torch.float64)
    sample_weights = class_weights(targets) if balanced else torch.ones_like(targets)
    strength = 1 / (torch.tensor(penalties, dtype=torch.float64, device=x.device) * sample_weights.sum())
    problem = _Problem(x, targets[:, None], (sample_weights / sample_weights.sum())[:, None], strength)
    layers, _, width = x.shape
    theta = torch.zeros(layers, width + 1, len(penalties), dtype=torch.float64, device=x.device)
    for _ in range(_NEWTON_STEPS):
        margins = problem.margins(theta)
        gradient = problem.gradient(theta, margins)
        running = problem.error_bound(theta, gradient) > TOLERANCE
        if not running.any():
            break
        step = problem.newton_direction(margins, gradient, running)
        length = problem.step_length(theta, margins, step, gradient)
        theta += torch.where(running, length, 0)[:, None] * step
    return theta[:, :-1], theta[:, -1]


def class_weights(targets: Tensor) -> Tensor:
    """Weight of each example by which both classes count alike, with mean 1: float64[n] from float64[n] in {0, 1}."""
    share = targets.mean()
    return torch.where(targets > 0, 0.5 / share, 0.5 / (1 - share))


@dataclass(frozen=True)
class _Problem:
    """All problems together. A point ``theta``, a gradient or a step is [l, d + 1, k], the bias last.

    Attributes:
        x: float32[l, n, d].
        targets: float64[n, 1], 0 or 1.
        sample_weights: float64[n, 1], sum 1.
        strength: float64[k], lambda.
    """

    x: Tensor
    targets: Tensor
    sample_weights: Tensor
    strength: Tensor

    def margins(self, theta: Tensor) -> Tensor:
        """Return ``x w + b``, float64[l, n, k], a layer at a time so that no float64 copy of all of x is made."""
        rows = zip(self.x, theta, strict=True)
        return torch.stack([layer.double() @ point[:-1] + point[-1] for layer, point in rows])

    def gradient(self, theta: Tensor, margins: Tensor) -> Tensor:
        """Return the gradient, float64[l, d + 1, k]."""
        residuals = self.sample_weights * (torch.sigmoid(margins) - self.targets)
        loss = torch.stack([layer.double().T @ row for layer, row in zip(self.x, residuals, strict=True)])
        return torch.cat([loss + self.strength * theta[:, :-1], residuals.sum(1, keepdim=True)], dim=1)

    def error_bound(self, theta: Tensor, gradient: Tensor) -> Tensor:
        """Bound the distance of the weights to the optimum, relative to their norm or 1: float64[l, k]."""
        norm = theta[:, :-1].norm(dim=1).clamp(min=1)
        return gradient.norm(dim=1) / (self.strength * norm)

    def newton_direction(self, margins: Tensor, gradient: Tensor, running: Tensor) -> Tensor:
        """Solve ``H step = -gradient`` by conjugate gradients in float32, loosely at first: float64[l, d + 1, k]."""
        slope = torch.sigmoid(margins)
        curvature = (self.sample_weights * slope * (1 - slope)).float()
        size = gradient.norm(dim=1, keepdim=True).clamp(min=1e-300)
        residual = (-gradient / size).float()
        tolerance = size[:, 0].sqrt().clamp(1e-3, 0.1).float()
        solution, direction = torch.zeros_like(residual), residual.clone()
        power = residual.square().sum(1)
        active = running
        for _ in range(_CG_STEPS):
            image = self._hessian(curvature, direction)
            alpha = torch.where(active, power / (direction * image).sum(1), 0)[:, None]
            solution += alpha * direction
            residual -= alpha * image
            before, power = power, residual.square().sum(1)
            active = active & (power.sqrt() > tolerance)
            if not active.any():
                break
            direction = residual + (power / before)[:, None] * direction
        return solution.double() * size

    def _hessian(self, curvature: Tensor, direction: Tensor) -> Tensor:
        """Product of the Hessian with each direction: float32[l, d + 1, k]."""
        weights, bias = direction[:, :-1], direction[:, -1:]
        image = curvature * torch.baddbmm(bias, self.x, weights)
        strength = self.strength.float()
        return torch.cat(
            [torch.baddbmm(strength * weights, self.x.mT, image), image.sum(1, keepdim=True)], dim=1
        )

    def step_length(self, theta: Tensor, margins: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
        """Halve the step until the objective falls enough (Armijo): float64[l, k]."""
        slope = (gradient * step).sum(1)
        change = self.margins(step)
        start = self._objective(theta, margins)
        length = torch.ones_like(slope)
        for _ in range(_HALVINGS):
            trial = self._objective(theta + length[:, None] * step, margins + length[:, None] * change)
            short = trial > start + _ARMIJO * length * slope + _ROUNDING * start
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        return length

    def _objective(self, theta: Tensor, margins: Tensor) -> Tensor:
        loss = (self.sample_weights * (softplus(margins) - self.targets * margins)).sum(1)
        return loss + self.strength / 2 * theta[:, :-1].square().sum(1)
