"""Ridge regression with exact leave-one-out errors, from one eigendecomposition. Imports numpy."""

from __future__ import annotations

import numpy as np

from mmensemble.linear.choice import STEPS, preferred, strength
from mmensemble.linear.features import Features
from mmensemble.linear.losses import NumberLoss

__all__ = ["MOST_FEATURES", "Ridge"]

# Of more features (or rows, if these are less) an eigendecomposition would take longer than to solve step by step.
MOST_FEATURES = 4096
# A row that no other one says anything about has a leverage of 1, which rounding may exceed.
LEAST_REST = 1e-10


class Ridge:
    """Ridge regression on dense features.

    Parameters
    ----------
    features : Features
        Without sparse ones.
    target : ndarray of float, shape (k, n)
    """

    def __init__(self, features: Features, target: np.ndarray) -> None:
        self.features = features
        values, self._basis = np.linalg.eigh(features.gram())
        self._values = np.maximum(values, 0.0)
        self._rows = features.dense @ self._basis
        self._mean = np.average(target, axis=1, weights=features.weight)
        self._centred = target - self._mean[:, None]
        self._products = (self._centred * features.weight) @ self._rows

    def solve(self, penalty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, n_features) and intercepts (k,) for penalties (k,)."""
        inner = (self._products / (self._values + penalty[:, None])) @ self._basis.T
        return self.features.outer(inner, self._mean)

    def choose(self) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Return the steps (k,) with the least error on each row by all others, and the losses (k,) of all steps."""
        losses = {step: self._left_out(self.features.penalty(strength(step))) for step in STEPS}
        return preferred(losses, NumberLoss.tie), losses

    def _left_out(self, penalty: float) -> np.ndarray:
        """Return half the mean squared errors (k,) of rows that are left out (Golub, Heath and Wahba 1979)."""
        weight = self.features.weight
        shrunk = 1 / (self._values + penalty)
        leverage = weight * ((self._rows**2) @ shrunk + 1 / weight.sum())
        residuals = self._centred - (self._products * shrunk) @ self._rows.T
        errors = residuals / np.maximum(1 - leverage, LEAST_REST)
        return np.asarray(0.5 * np.average(errors**2, axis=1, weights=weight))
