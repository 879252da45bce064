"""Logistic regression of one layer after another, along its penalties from the strongest: for a CPU.

Each optimum begins at the one before. Arithmetic is spent where a processor is fast: a product of matrices and a
Cholesky factor in float32 for the step, a few products with vectors in float64 for margins and gradient, which decide
the accuracy. As fast as scikit-learn's LBFGS at its default tolerance needs at a thousandth of its error
(``benchmarks/activations.py``).

- No more examples than features: ``w = X' a``, and the Newton step is solved in the n coefficients a, with the Gram
  matrix ``X X'`` made once a layer. (Kernel logistic regression; Rasmussen & Williams, "Gaussian processes for machine
  learning" (2006), algorithm 3.1, is the same step for a Gaussian process.)
- More examples than features: the Hessian itself, of an earlier point: with its factor as a preconditioner conjugate
  gradients take two or three products with the activations.

Notation as in `objective`: r the derivative of each example's loss by its margin, D the second one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from probegrid.probes.fitting.objective import NEWTON_STEPS, TOLERANCE, error_bound, mean_loss, step_length

_LEAST_CURVATURE = 1e-14
"""Of an example that is classified beyond doubt: its step is divided by the root of it."""
_JITTER = 1e-6
"""Added to a matrix that is singular to rounding, relative to its mean diagonal."""
_CG_STEPS, _CG_TOLERANCE = 60, 1e-2
_ROUGH_STEPS = 12
"""Newton steps, of three or four that a fit takes, after which float32 is taken to be the obstacle."""
_STALE = 8
"""Steps of conjugate gradients after which the next preconditioner is made anew."""


def fit_paths(x: Tensor, targets: Tensor, shares: Tensor, strengths: Tensor) -> tuple[Tensor, Tensor]:
    """Fit every layer and penalty; arguments and results as of `newton_batched.fit_batched`."""
    order = strengths.argsort(descending=True)
    weights = torch.empty(len(x), len(strengths), x.shape[2], dtype=torch.float64)
    biases = torch.empty(len(x), len(strengths), dtype=torch.float64)
    for row, layer in enumerate(x):
        for column, point in zip(order, _path(layer, targets, shares, strengths[order]), strict=True):
            weights[row, column], biases[row, column] = point.weights, point.bias
    return weights, biases


@dataclass(frozen=True)
class _Point:
    """Where a fit stands, and a step from there.

    Attributes:
        weights: float64[d].
        bias: float64[1].
        margins: float64[n], ``x weights + bias``.
    """

    weights: Tensor
    bias: Tensor
    margins: Tensor

    def after(self, length: Tensor, step: _Point) -> _Point:
        """The point so far along a step."""
        return _Point(
            self.weights + length * step.weights,
            self.bias + length * step.bias,
            self.margins + length * step.margins,
        )


class _System(Protocol):
    """The linear system of a Newton step, in one of two forms."""

    def gradient(self, residuals: Tensor, weights: Tensor, strength: Tensor) -> Tensor:
        """``X' r + lambda w``: float64[d]."""
        ...

    def solve(
        self, residuals: Tensor, curvature: Tensor, gradient: Tensor, strength: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The step of the weights float64[d] and of the bias float64[1]."""
        ...

    def move(self, length: Tensor) -> None:
        """Take note that so much of the last step is taken."""
        ...

    def refine(self) -> None:
        """Compute in float64 from here."""
        ...


def _path(x: Tensor, targets: Tensor, shares: Tensor, strengths: Tensor) -> Iterator[_Point]:
    """The optimum of each strength, which fall, for one layer float32[n, d]."""
    n, width = x.shape
    exact = x.double()
    system: _System = _Dual(x, exact) if n <= width else _Primal(x, exact)
    point = _Point(exact.new_zeros(width), exact.new_zeros(1), exact.new_zeros(n))
    for strength in strengths.split(1):
        for taken in range(NEWTON_STEPS):
            if taken == _ROUGH_STEPS:
                system.refine()
            probabilities = torch.sigmoid(point.margins)
            residuals = shares * (probabilities - targets)
            curvature = shares * probabilities * (1 - probabilities)
            gradient = system.gradient(residuals, point.weights, strength)
            bias_gradient = residuals.sum(-1, keepdim=True)
            if error_bound(point.weights, gradient, bias_gradient, curvature, strength) <= TOLERANCE:
                break
            weights_step, bias_step = system.solve(residuals, curvature, gradient, strength)
            step = _Point(weights_step, bias_step, exact @ weights_step + bias_step)
            slope = (gradient @ step.weights + bias_gradient @ step.bias).reshape(1)
            length = step_length(_Objective(point, step, targets, shares, strength), slope)
            point = point.after(length, step)
            system.move(length)
        yield point


@dataclass(frozen=True)
class _Objective:
    """The objective along a step."""

    point: _Point
    step: _Point
    targets: Tensor
    shares: Tensor
    strength: Tensor

    def __call__(self, length: Tensor) -> Tensor:
        """float64[1], after so much of the step."""
        there = self.point.after(length, self.step)
        return (
            mean_loss(there.margins, self.targets, self.shares)
            + self.strength / 2 * there.weights.square().sum()
        )


class _Dual:
    """In the coefficients a of ``w = X' a``, for n <= d.

    With ``c = r + lambda a``, zero at the optimum, a step (s, t) of coefficients and bias solves
    ``(lambda + D G) s = -(c + D t)`` and ``sum(a + s) = 0``, which is the bias's gradient. With ``s = W z`` and
    ``W^2 = D`` the matrix is ``lambda + W G W``: symmetric, and no difference of nearly equal numbers is divided by
    lambda.
    """

    def __init__(self, x: Tensor, exact: Tensor) -> None:
        self._exact = exact
        self._gram = x @ x.T
        self._coefficients = exact.new_zeros(len(x))
        self._step = torch.zeros_like(self._coefficients)

    def gradient(self, residuals: Tensor, weights: Tensor, strength: Tensor) -> Tensor:
        """As `_System`; the weights are known by their coefficients."""
        return (residuals + strength * self._coefficients) @ self._exact

    def solve(
        self, residuals: Tensor, curvature: Tensor, gradient: Tensor, strength: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `_System`."""
        root = curvature.clamp(min=_LEAST_CURVATURE).sqrt()
        scale = root.to(self._gram.dtype)
        matrix = (self._gram * scale[:, None]).mul_(scale)
        matrix.diagonal().add_(strength.to(scale.dtype))
        needed = (residuals + strength * self._coefficients) / root
        size = needed.norm().clamp(min=1e-300)
        solved = _factored(matrix).solve(torch.stack([needed / size, root]).to(scale.dtype)).double()
        by_residual, by_bias = root * solved[0] * size, root * solved[1]
        bias = (self._coefficients.sum() - by_residual.sum()) / by_bias.sum()
        self._step = -by_residual - bias * by_bias
        return self._step @ self._exact, bias.reshape(1)

    def move(self, length: Tensor) -> None:
        """As `_System`."""
        self._coefficients = self._coefficients + length * self._step

    def refine(self) -> None:
        """As `_System`: examples that are nearly alike leave a matrix that float32 cannot tell from a singular one."""
        self._gram = self._exact @ self._exact.T


class _Primal:
    """In the weights themselves, the bias as one more feature that is not penalized, for n > d."""

    def __init__(self, x: Tensor, exact: Tensor) -> None:
        self._x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self._exact = exact
        self._spread: Tensor | None = None
        """``X' D X`` of an earlier point."""
        self._factored_for: Tensor | None = None

    def gradient(self, residuals: Tensor, weights: Tensor, strength: Tensor) -> Tensor:
        """As `_System`."""
        return residuals @ self._exact + strength * weights

    def solve(
        self, residuals: Tensor, curvature: Tensor, gradient: Tensor, strength: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As `_System`, by conjugate gradients with the product of the present Hessian."""
        rough = curvature.to(self._x.dtype)
        penalty = strength.to(rough.dtype).repeat(self._x.shape[1])
        penalty[-1] = 0
        self._prepare(rough, penalty, strength)
        needed = -torch.cat([gradient, residuals.sum(-1, keepdim=True)])
        size = needed.norm().clamp(min=1e-300)
        solution = self._conjugate_gradients((needed / size).to(rough.dtype), rough, penalty)
        step = solution.double() * size
        return step[:-1], step[-1:]

    def _prepare(self, curvature: Tensor, penalty: Tensor, strength: Tensor) -> None:
        """The preconditioner: of an earlier point as long as it does, always of the present strength."""
        if self._spread is None:
            weighted = self._x * curvature.sqrt()[:, None]
            self._spread, self._factored_for = weighted.T @ weighted, None
        if self._factored_for is None or self._factored_for != strength:
            self._preconditioner = _factored(self._spread + penalty.diag())
            self._factored_for = strength

    def _conjugate_gradients(self, residual: Tensor, curvature: Tensor, penalty: Tensor) -> Tensor:
        """The inverse of the present Hessian times ``residual``, to a hundredth in the norm of the Hessian."""
        solution = torch.zeros_like(residual)
        ahead = self._preconditioner.solve(residual[None])[0]
        direction, power = ahead, residual @ ahead
        enough = _CG_TOLERANCE**2 * power
        steps = 0
        while power > enough and steps < _CG_STEPS:
            image = (self._x @ direction * curvature) @ self._x + penalty * direction
            alpha = power / (direction @ image)
            solution = solution + alpha * direction
            residual = residual - alpha * image
            ahead = self._preconditioner.solve(residual[None])[0]
            before, power = power, residual @ ahead
            direction = ahead + power / before * direction
            steps += 1
        if steps > _STALE:
            self._spread = None
        return solution

    def move(self, length: Tensor) -> None:
        """As `_System`; nothing is kept of a step."""

    def refine(self) -> None:
        """As `_System`."""
        self._x = self._x.double()
        self._spread = None


@dataclass(frozen=True)
class _Factored:
    """A symmetric positive matrix by its Cholesky factor, [m, m]."""

    lower: Tensor

    def solve(self, rows: Tensor) -> Tensor:
        """The inverse times each row: [q, m]."""
        return torch.cholesky_solve(rows.T, self.lower).T


def _factored(matrix: Tensor) -> _Factored:
    """Factor a matrix, and where it is singular to rounding, one that is a little more than it."""
    lower, failed = torch.linalg.cholesky_ex(matrix)
    added = _JITTER * float(matrix.diagonal().mean())
    while failed and added > 0:
        matrix = matrix + added * torch.eye(len(matrix), dtype=matrix.dtype)
        lower, failed = torch.linalg.cholesky_ex(matrix)
        added *= 10
    return _Factored(lower)
