"""Logistic regression for many layers and penalties at once, by a truncated Newton method: for a GPU.

Why Newton and not LBFGS: `torch.optim.LBFGS` takes all problems for one, with one step length and one curvature
estimate, and stops none of them at its own optimum. Here every problem has its own step, and where accuracy
is decided is apart from where time goes: the margins and the gradient, once a Newton step, are computed in float64;
the products with the Hessian, hundreds of them and all the time, in float32. One pass over the activations serves
all penalties. The margins are linear in the step, so that the line search touches no activation.

Why no factor of the Hessian, as on a CPU (`newton_path`): a GPU factors hundreds of matrices of this size one after
another, and multiplies all of them at once.

Nocedal & Wright, "Numerical optimization" (2006), algorithm 7.1 (line search Newton-CG).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probegrid.probes.fitting.objective import NEWTON_STEPS, TOLERANCE, error_bound, mean_loss, step_length

_CG_STEPS = 400


def fit_batched(x: Tensor, targets: Tensor, shares: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Fit all layers and penalties together.

    Args:
        x: float32[l, n, d], standardized; the fit runs on its device.
        targets: float64[n], 0 or 1.
        shares: float64[n], the weight of each example, sum 1.
        strengths: float64[k], lambda.

    Returns:
        Weights float64[l, k, d] and biases float64[l, k].
    """
    problem = _Problem(x, targets, shares, strengths[:, None])
    layers, _, width = x.shape
    theta = torch.zeros(layers, len(strengths), width + 1, dtype=torch.float64, device=x.device)
    left = torch.arange(len(strengths), device=x.device)
    for _ in range(NEWTON_STEPS):
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


@dataclass(frozen=True)
class _Problem:
    """All problems together: a point ``theta``, a gradient or a step is [l, k, d + 1], the bias last.

    A problem is a row because products of few rows with a large matrix run several times faster on a CPU than of few
    columns.

    Attributes:
        x: float32[l, n, d].
        targets: float64[n], 0 or 1.
        shares: float64[n], sum 1.
        strength: float64[k, 1], lambda.
    """

    x: Tensor
    targets: Tensor
    shares: Tensor
    strength: Tensor

    def margins(self, theta: Tensor) -> Tensor:
        """Return ``x w + b``, float64[l, k, n], a layer at a time so that no float64 copy of all of x is made."""
        rows = zip(self.x, theta, strict=True)
        return torch.stack([point[:, :-1] @ layer.double().T + point[:, -1:] for layer, point in rows])

    def gradient(self, theta: Tensor, margins: Tensor) -> Tensor:
        """Return the gradient, float64[l, k, d + 1]."""
        residuals = self.shares * (torch.sigmoid(margins) - self.targets)
        loss = torch.stack([row @ layer.double() for layer, row in zip(self.x, residuals, strict=True)])
        return torch.cat([loss + self.strength * theta[..., :-1], residuals.sum(-1, keepdim=True)], dim=-1)

    def error_bound(self, theta: Tensor, margins: Tensor, gradient: Tensor) -> Tensor:
        """As `objective.error_bound`: float64[l, k, 1]."""
        curvature = self._curvature(margins)
        return error_bound(theta[..., :-1], gradient[..., :-1], gradient[..., -1:], curvature, self.strength)

    def _curvature(self, margins: Tensor) -> Tensor:
        """Second derivative of each example's loss by its margin: float64[l, k, n]."""
        probabilities = torch.sigmoid(margins)
        return self.shares * probabilities * (1 - probabilities)

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
        """As `objective.step_length`: float64[l, k, 1]."""
        change = self._rough_margins(step.float())

        def objective_after(length: Tensor) -> Tensor:
            norms = (theta + length * step)[..., :-1].square().sum(-1, keepdim=True)
            losses = mean_loss(margins + length * change, self.targets, self.shares)
            return losses + self.strength / 2 * norms

        return step_length(objective_after, (gradient * step).sum(-1, keepdim=True))
