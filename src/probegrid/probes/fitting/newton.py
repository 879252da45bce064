"""L2 logistic regression for many layers and penalties at once, by a truncated Newton method.

The objective is scikit-learn's, ``|w|^2 / 2 + C sum_i s_i log(1 + exp(-y_i (x_i w + b)))`` with ``s`` the weight of an
example and ``b`` not penalized, divided by ``C sum_i s_i``: mean loss + ``lambda |w|^2 / 2``.

Why Newton and not LBFGS: `torch.optim.LBFGS` takes all problems for one, with one step length and one curvature
estimate, and stops none of them at its own optimum. Here every problem has its own step, and where accuracy
is decided is apart from where time goes: the margins and the gradient, once a Newton step, are computed in float64;
the products with the Hessian, hundreds of them and all the time, in float32. One pass over the activations serves
all penalties. The margins are linear in the step, so that the line search touches no activation.

The objective is lambda-strongly convex in ``w``: a gradient g bounds the distance to the optimum by ``|g| / lambda``,
which, with the like for the bias, is the stopping rule.

Nocedal & Wright, "Numerical optimization" (2006), algorithm 7.1 (line search Newton-CG).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

TOLERANCE = 1e-5
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
        Weights float64[l, k, d] and biases float64[l, k].
    """
    targets = labels.to(x.device, torch.float64)
    sample_weights = class_weights(targets) if balanced else torch.ones_like(targets)
    strength = 1 / (torch.tensor(penalties, dtype=torch.float64, device=x.device) * sample_weights.sum())
    problem = _Problem(x, targets, sample_weights / sample_weights.sum(), strength[:, None])
    layers, _, width = x.shape
    theta = torch.zeros(layers, len(penalties), width + 1, dtype=torch.float64, device=x.device)
    left = torch.arange(len(penalties), device=x.device)
    for _ in range(_NEWTON_STEPS):
        point = theta[:, left]
        margins = problem.margins(point)
        gradient = problem.gradient(point, margins)
        running = problem.error_bound(point, margins, gradient) > TOLERANCE
        if not running.any():
            break
        step = problem.newton_direction(margins, gradient, running)
        length = problem.step_length(point, margins, step, gradient)
        theta[:, left] = point + torch.where(running, length, 0) * step
        unfinished = running.any(dim=0).flatten()
        left, problem = left[unfinished], replace(problem, strength=problem.strength[unfinished])
    return theta[..., :-1], theta[..., -1]


def class_weights(targets: Tensor) -> Tensor:
    """Weight of each example by which both classes count alike, with mean 1: float64[n] from float64[n] in {0, 1}."""
    share = targets.mean()
    return torch.where(targets > 0, 0.5 / share, 0.5 / (1 - share))


@dataclass(frozen=True)
class _Problem:
    """All problems together: a point ``theta``, a gradient or a step is [l, k, d + 1], the bias last.

    A problem is a row because products of few rows with a large matrix run several times faster on a CPU than of few
    columns.

    Attributes:
        x: float32[l, n, d].
        targets: float64[n], 0 or 1.
        sample_weights: float64[n], sum 1.
        strength: float64[k, 1], lambda.
    """

    x: Tensor
    targets: Tensor
    sample_weights: Tensor
    strength: Tensor

    def margins(self, theta: Tensor) -> Tensor:
        """Return ``x w + b``, float64[l, k, n], a layer at a time so that no float64 copy of all of x is made."""
        rows = zip(self.x, theta, strict=True)
        return torch.stack([point[:, :-1] @ layer.double().T + point[:, -1:] for layer, point in rows])

    def gradient(self, theta: Tensor, margins: Tensor) -> Tensor:
        """Return the gradient, float64[l, k, d + 1]."""
        residuals = self.sample_weights * (torch.sigmoid(margins) - self.targets)
        loss = torch.stack([row @ layer.double() for layer, row in zip(self.x, residuals, strict=True)])
        return torch.cat([loss + self.strength * theta[..., :-1], residuals.sum(-1, keepdim=True)], dim=-1)

    def error_bound(self, theta: Tensor, margins: Tensor, gradient: Tensor) -> Tensor:
        """Bound the distance to the optimum, relative to the norm of the weights or 1: float64[l, k, 1].

        Gradient over least curvature: lambda along the weights, that of the loss along the bias.
        """
        weights_error = gradient[..., :-1].norm(dim=-1, keepdim=True) / self.strength
        bias_error = gradient[..., -1:].abs() / self._curvature(margins).sum(-1, keepdim=True)
        bound: Tensor = (weights_error + bias_error) / theta[..., :-1].norm(dim=-1, keepdim=True).clamp(min=1)
        return bound

    def _curvature(self, margins: Tensor) -> Tensor:
        """Second derivative of each example's loss by its margin: float64[l, k, n]."""
        probabilities = torch.sigmoid(margins)
        return self.sample_weights * probabilities * (1 - probabilities)

    def newton_direction(self, margins: Tensor, gradient: Tensor, running: Tensor) -> Tensor:
        """Solve ``H step = -gradient`` by conjugate gradients in float32, loosely at first: float64[l, k, d + 1]."""
        curvature = self._curvature(margins).float()
        size = gradient.norm(dim=-1, keepdim=True).clamp(min=1e-300)
        residual = (-gradient / size).float()
        tolerance = size.sqrt().clamp(1e-2, 0.25).float()
        solution, direction = torch.zeros_like(residual), residual.clone()
        power = residual.square().sum(-1, keepdim=True)
        active = running
        for _ in range(_CG_STEPS):
            image = self._hessian(curvature, direction)
            alpha = torch.where(active, power / (direction * image).sum(-1, keepdim=True), 0)
            solution += alpha * direction
            residual -= alpha * image
            before, power = power, residual.square().sum(-1, keepdim=True)
            active = active & (power.sqrt() > tolerance)
            if not active.any():
                break
            growth = torch.where(active, power / before, 0)  # 0 / 0 where a problem began at its optimum
            direction = residual + growth * direction
        step: Tensor = solution.double() * size
        return step

    def _hessian(self, curvature: Tensor, direction: Tensor) -> Tensor:
        """Product of the Hessian with each direction: float32[l, k, d + 1]."""
        image = curvature * self._rough_margins(direction)
        weights = torch.bmm(image, self.x) + self.strength.float() * direction[..., :-1]
        return torch.cat([weights, image.sum(-1, keepdim=True)], dim=-1)

    def _rough_margins(self, theta: Tensor) -> Tensor:
        """Return ``x w + b`` in float32: float32[l, k, n]."""
        return torch.bmm(theta[..., :-1], self.x.mT) + theta[..., -1:]

    def step_length(self, theta: Tensor, margins: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
        """Halve the step until the objective falls enough (Armijo): float64[l, k, 1]."""
        slope = (gradient * step).sum(-1, keepdim=True)
        change = self._rough_margins(step.float())
        start = self._objective(theta, margins)
        length = torch.ones_like(slope)
        for _ in range(_HALVINGS):
            trial = self._objective(theta + length * step, margins + length * change)
            short = trial > start + _ARMIJO * length * slope + _ROUNDING * start
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        return length

    def _objective(self, theta: Tensor, margins: Tensor) -> Tensor:
        losses = self.sample_weights * (softplus(margins) - self.targets * margins)
        norms = theta[..., :-1].square().sum(-1, keepdim=True)
        return losses.sum(-1, keepdim=True) + self.strength / 2 * norms
