"""The solution of linear models with given penalties, for several sets of rows at once. Imports numpy."""

from __future__ import annotations

import numpy as np

from mmensemble.linear.features import Preconditioned
from mmensemble.linear.losses import Loss

__all__ = ["descend"]

MAX_ITERATIONS = 100
# Of the inner solver; more would be spent on a direction that the next one corrects.
MAX_PRODUCTS = 100
# How much of the gradient a Newton step leaves at first. The nearer the end, the less.
LEFT_AT_FIRST = 0.3
# Of the decrease that the slope promises, what a step must bring (Armijo 1966).
SUFFICIENT = 1e-4


def descend(
    features: Preconditioned,
    loss: Loss,
    weight: np.ndarray,
    penalty: np.ndarray,
    start: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, bool]:
    """Minimise the weighted sum of losses and half the penalty times the squared coefficients.

    A truncated Newton method: each step is found by conjugate gradients, as exactly as is worth it (Dembo and Steihaug
    1983). The sets of rows share what is read of the features, and nothing else.

    Parameters
    ----------
    features : Preconditioned
    loss : Loss
    weight : ndarray of float, shape (n_sets, n)
        Of the rows, in each of the sets that a model is fitted to.
    penalty : ndarray of float, shape (k,)
    start : ndarray of float, shape (n_sets, k, features.width)
    tolerance : float
        Norm of the gradient, as a multiple of the root of the rows' weight, at which a model is solved. In coordinates
        in which its loss is round, a row's loss could then be lower by half the square of this on average.

    Returns
    -------
    coordinates : ndarray of float, shape (n_sets, k, features.width)
    converged : bool

    References
    ----------
    Dembo, Steihaug (1983). Truncated-Newton algorithms for large-scale unconstrained optimization. Mathematical
    Programming.
    """
    problem = _Problem(features, loss, weight, penalty)
    limit = tolerance * np.sqrt(weight.sum(axis=1))
    at = start.astype(features.rows.dtype)
    raw, dense = features.outputs(at)
    value = problem.look(at, raw, dense)
    gradient = problem.gradient()
    left = first = _norms(gradient)
    for _ in range(MAX_ITERATIONS):
        if (left <= limit).all():
            return at, True
        share = np.minimum(LEFT_AT_FIRST, np.sqrt(left / np.where(first > 0, first, 1.0)))
        wanted = np.where(left > limit, np.maximum(share * left, 0.3 * limit), left)
        step, step_raw, step_dense = problem.newton_step(gradient, wanted)
        slope = _products(gradient, step)
        size = np.ones(len(at))
        while True:
            scale = _each(size, at)
            there = at + scale * step, raw + scale * step_raw, dense + scale * step_dense
            found = problem.look(*there)
            # What rounding makes of the value is no increase.
            rounded = 10 * np.finfo(at.dtype).eps * np.abs(value)
            too_far = (found > value + SUFFICIENT * size * slope + rounded) & (size > 1e-6)
            if not too_far.any():
                break
            size = np.where(too_far, size / 2, size)
        (at, raw, dense), value = there, found
        gradient = problem.gradient()
        left = _norms(gradient)
    return at, bool((left <= limit).all())


class _Problem:
    """The sum of losses and penalties of all sets, at the place that was looked at last."""

    def __init__(self, features: Preconditioned, loss: Loss, weight: np.ndarray, penalty: np.ndarray) -> None:
        dtype = features.rows.dtype
        ratio = (penalty / features.penalty)[:, None]
        self.features, self.loss, self.known = features, loss, loss.known(weight)
        self.each_row = weight.astype(dtype)[:, None]
        # The coordinates' squares less what the raw outputs of all rows, those of weight 0 too, say of them are what
        # the coefficients cost.
        self.of_outputs = (-features.curvature * ratio * features.features.weight).astype(dtype)
        self.of_coordinates = (np.hstack([np.ones(features.rows.shape[1]), features.sparse_penalty]) * ratio).astype(
            dtype
        )

    def look(self, at: np.ndarray, raw: np.ndarray, dense: np.ndarray) -> np.ndarray:
        """Return the sums (n_sets,) at coordinates, of which `raw` and `dense` are the outputs."""
        losses, self.by_raw, self.second = self.loss(raw, self.known)
        self.by_raw *= self.each_row
        self.by_dense = self.of_outputs * dense
        self.shrunk = self.of_coordinates * at
        penalties = _products(dense, self.by_dense) + _products(at, self.shrunk)
        return np.asarray((losses * self.each_row).sum(axis=(1, 2), dtype=np.float64) + 0.5 * penalties)

    def gradient(self) -> np.ndarray:
        return self.features.gradient(self.by_raw, self.by_dense) + self.shrunk

    def newton_step(self, gradient: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a step after which a quadratic loss would have a gradient of the norms `wanted`, and its outputs."""
        step, residual = np.zeros_like(gradient), -gradient
        direction, squared = residual, _products(residual, residual)
        outputs = [np.zeros_like(self.by_raw), np.zeros_like(self.by_raw)]
        for _ in range(MAX_PRODUCTS):
            going = np.sqrt(squared) > wanted
            if not going.any():
                break
            raw, dense = self.features.outputs(direction)
            curved = self.features.gradient(self.second(raw) * self.each_row, self.of_outputs * dense)
            curved += self.of_coordinates * direction
            size = _each(np.where(going, squared / np.where(going, _products(direction, curved), 1.0), 0.0), gradient)
            step += size * direction
            outputs = [outputs[0] + size * raw, outputs[1] + size * dense]
            residual = residual - size * curved
            before, squared = squared, np.where(going, _products(residual, residual), squared)
            again = np.where(going, squared / np.where(going, before, 1.0), 0.0)
            direction = residual + _each(again, gradient) * direction
        return step, outputs[0], outputs[1]


def _each(of_sets: np.ndarray, like: np.ndarray) -> np.ndarray:
    return of_sets[:, None, None].astype(like.dtype)


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the inner products (n_sets,) of two arrays (n_sets, k, m)."""
    return np.array([np.vdot(a, b) for a, b in zip(one, other, strict=True)], dtype=np.float64)


def _norms(gradient: np.ndarray) -> np.ndarray:
    return np.sqrt(_products(gradient, gradient))
