"""Linear models by the products of rows, whose cost does not depend on the number of features. Imports numpy, scipy."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.linalg import lapack

from mmensemble.linear.descent import descend
from mmensemble.linear.losses import Loss

__all__ = ["Folds", "Solved"]

# Of the folds' solutions, whose losses alone are wanted. One by another kernel starts from these, so that they must be
# more exact than those along a path.
TOLERANCE = 3e-3
# A row whose class is sure has hardly any curvature; it is given this share of what a row has on average.
LEAST_CURVATURE = 0.02
# Added to what is factorised, which rounding may take below 0.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Solved:
    """What models of several folds say.

    Parameters
    ----------
    loss : float
        The sum of the losses of the rows that were held out, by weight, of those that their model can tell.
    raw : ndarray of float, shape (n_folds, k, n)
        Raw outputs.
    dual : ndarray of float, shape (n_folds, k, n)
        Derivatives of the sum of losses by the raw outputs. But for the intercept, the raw outputs are minus the kernel
        times these, whatever the kernel.
    curvature : ndarray of float, shape (n,)
        Second derivatives of each row's loss, on average.
    """

    loss: float
    raw: np.ndarray
    dual: np.ndarray
    curvature: np.ndarray


class Folds:
    """Models that are fitted to all rows but those of a fold, by a kernel: the products of the rows with each other.

    Parameters
    ----------
    loss : Loss
    weight : ndarray of float, shape (n,)
        Above 0, of mean 1.
    folds : ndarray of int, shape (n,)
        Which fold holds each row out.
    numbers : ndarray of int
        The folds to solve for, all at once.
    """

    def __init__(self, loss: Loss, weight: np.ndarray, folds: np.ndarray, numbers: np.ndarray) -> None:
        self.loss, self.weight = loss, weight
        held_out = folds == numbers[:, None]
        self.sets = weight * ~held_out
        self.counted = loss.can_tell(loss.known(self.sets)) * (weight * held_out)[:, None]

    def solve(self, kernel: np.ndarray, start: Solved | None = None) -> Solved:
        """Minimise the sum of losses and half the squared norm, fᵀK⁻¹f, of the outputs f less their intercepts.

        Parameters
        ----------
        kernel : ndarray of float64, shape (n, n)
        start : Solved, default=None
            By another kernel.
        """
        k, curvature = self.loss.k, self.loss.curvature(self.weight)
        rows = _Rows(kernel, self.weight, np.full(len(kernel), curvature) if start is None else start.curvature)
        if start is None:
            at = np.zeros((len(self.sets), k, len(kernel) + 1))
            at[:, :, -1] = self.loss.constant(self.weight) / rows.constant
        else:
            at = rows.coordinates(start.raw, start.dual)
        known = self.loss.known(self.sets)
        at, _ = descend(rows, self.loss, self.sets, np.ones(k), at, TOLERANCE)  # type: ignore[arg-type]
        raw = rows.outputs(at)[0]
        losses, dual, second = self.loss(raw, known)
        held_out = float(np.where(self.counted > 0, losses, 0.0).ravel() @ self.counted.ravel())
        found = np.mean([second(_one(raw.shape, number))[:, number] for number in range(k)], axis=(0, 1))
        return Solved(held_out, raw, dual * self.sets[:, None], np.maximum(found, LEAST_CURVATURE * curvature))


def _one(shape: tuple[int, ...], number: int) -> np.ndarray:
    """Return a change of a single output by 1, in the rows of all sets."""
    change = np.zeros(shape)
    change[:, number] = 1.0
    return change


class _Rows:
    """Rows in coordinates in which losses of given curvatures are round; see `Preconditioned`.

    With D = weight · curvature, the loss and the penalty have second derivatives of about D + K⁻¹, whose inverse is
    RRᵀ. Outputs are R times the coordinates u, and fᵀK⁻¹f is |u|² - fᵀDf. The kernel is centred so that D ties it to
    the intercept in no way.
    """

    penalty = 1.0
    sparse_penalty = np.zeros(0)

    def __init__(self, kernel: np.ndarray, weight: np.ndarray, curvature: np.ndarray) -> None:
        n = len(weight)
        self.features, self.curvature = SimpleNamespace(weight=weight), curvature
        self._metric = weight * curvature
        root, share = np.sqrt(self._metric), self._metric / self._metric.sum()
        mean = kernel @ share
        self._kernel = kernel - mean - (mean - share @ mean)[:, None]
        self.constant = 1 / np.sqrt(self._metric.sum())
        inner = self._kernel * root * root[:, None]
        inner.flat[:: n + 1] += 1
        # I - (I + D½KD½)⁻¹ is D½ (D + K⁻¹)⁻¹ D½.
        factor = lapack.dpotrf(inner.T, lower=1, clean=0, overwrite_a=1)[0]
        inverse = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
        np.negative(inverse, out=inverse)
        inverse[np.diag_indices(n)] += 1 + ROUNDING
        factor = lapack.dpotrf(inverse, lower=1, clean=1, overwrite_a=1)[0]
        self.rows = np.empty((n, n + 1))
        np.divide(factor, root[:, None], out=self.rows[:, :-1])
        self.rows[:, -1] = self.constant

    def coordinates(self, raw: np.ndarray, dual: np.ndarray) -> np.ndarray:
        """Return what is near a solution by another kernel, (n_sets, k, n + 1)."""
        flat = dual.reshape(-1, dual.shape[2])
        at = np.empty((len(flat), self.rows.shape[1]))
        at[:, :-1] = (self._metric * (-flat @ self._kernel) - flat) @ self.rows[:, :-1]
        at[:, -1] = raw.reshape(flat.shape) @ self._metric * self.constant
        return at.reshape(*dual.shape[:2], -1)

    def outputs(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the raw outputs (n_sets, k, n), twice: the rows make all of them."""
        raw: Any = (coordinates.reshape(-1, self.rows.shape[1]) @ self.rows.T).reshape(*coordinates.shape[:-1], -1)
        return raw, raw

    def gradient(self, by_raw: np.ndarray, by_dense: np.ndarray) -> np.ndarray:
        """Return the gradient (n_sets, k, n + 1) from derivatives by what `outputs` returns."""
        flat = (by_raw + by_dense).reshape(-1, len(self.rows))
        return np.asarray(flat @ self.rows).reshape(*by_raw.shape[:-1], -1)
