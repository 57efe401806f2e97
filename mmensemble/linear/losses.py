"""What a linear model is fitted by: losses of raw outputs, for several sets of rows at once. Imports numpy and scipy.

Each works on raw outputs of shape (n_sets, k, n): of as many models as there are sets of rows to fit, of which some
know a class or label less than others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from scipy.special import expit

__all__ = ["LabelLoss", "Loss", "NumberLoss", "SoftmaxLoss"]

# Changes of the raw outputs (n_sets, k, n) → by how much they change the derivatives.
Second = Callable[[np.ndarray], np.ndarray]

# In place of minus infinity, which has no gradient.
NEVER = -1e9
# A model that fits is surer than the shares of the classes, and the surer, the flatter its loss. Half was as quick as a
# third, and quicker than one, on embeddings of names and drawings.
FITTED = 0.5


class Loss(ABC):
    """A loss of raw outputs.

    Parameters
    ----------
    target : ndarray
        A column for each row.
    k : int
        Raw outputs.

    Attributes
    ----------
    n_parts : int
        How many losses there are of a row, each with a penalty of its own.
    tie : float
        A mean loss that is less by so little is no better.
    """

    n_parts: int
    tie: ClassVar[float] = 1e-4

    def __init__(self, target: np.ndarray, k: int) -> None:
        self.target, self.k = target, k

    @abstractmethod
    def of(self, rows: np.ndarray) -> Loss:
        """Return the loss of some of the rows."""

    @abstractmethod
    def known(self, weight: np.ndarray) -> np.ndarray:
        """Tell which outputs can be fitted to sets of rows, by weights (n_sets, n): (n_sets, k) bool."""

    @abstractmethod
    def can_tell(self, known: np.ndarray) -> np.ndarray:
        """Tell which rows' losses models can tell that know these outputs, (n_sets, n_parts, n) bool."""

    @abstractmethod
    def constant(self, weight: np.ndarray) -> np.ndarray:
        """Return the raw outputs (k,) that suit all rows best, by weights (n,)."""

    @abstractmethod
    def curvature(self, weight: np.ndarray) -> float:
        """Return about what the second derivative by an output is on average where a model fits, by weights (n,)."""

    @abstractmethod
    def __call__(self, raw: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, Second]:
        """Return losses (n_sets, n_parts, n), and their derivatives by raw outputs (n_sets, k, n), first and second."""


class SoftmaxLoss(Loss):
    """Cross-entropy of one of several classes, by number: target (n,) int."""

    n_parts = 1

    def of(self, rows: np.ndarray) -> SoftmaxLoss:
        return SoftmaxLoss(self.target[rows], self.k)

    def known(self, weight: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(self.target, weights=w, minlength=self.k) > 0 for w in weight])

    def can_tell(self, known: np.ndarray) -> np.ndarray:
        return known[:, None, self.target]

    def constant(self, weight: np.ndarray) -> np.ndarray:
        share = np.bincount(self.target, weights=weight, minlength=self.k)
        # A class without a row: as if one row in twice as many were half of it.
        return np.asarray(np.log(np.where(share > 0, share, 0.5) / weight.sum()))

    def curvature(self, weight: np.ndarray) -> float:
        share = np.exp(self.constant(weight))
        return FITTED * float((share * (1 - share)).mean())

    def __call__(self, raw: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, Second]:
        if not known.all():
            raw = np.where(known[:, :, None], raw, NEVER)
        rows = np.arange(raw.shape[2])
        shifted = raw - raw.max(axis=1, keepdims=True)
        own = shifted[:, self.target, rows]
        p = np.exp(shifted, out=shifted)
        total = p.sum(axis=1, keepdims=True)
        losses = np.log(total) - own[:, None]
        p /= total
        residuals = p.copy()
        residuals[:, self.target, rows] -= 1

        def second(change: np.ndarray) -> np.ndarray:
            changed = p * change
            return np.asarray(changed - p * changed.sum(axis=1, keepdims=True))

        return losses, residuals, second


class LabelLoss(Loss):
    """Cross-entropy of independent labels: target (k, n) of 0 and 1."""

    def __init__(self, target: np.ndarray, k: int) -> None:
        super().__init__(target, k)
        self.n_parts = k

    def of(self, rows: np.ndarray) -> LabelLoss:
        return LabelLoss(self.target[:, rows], self.k)

    def known(self, weight: np.ndarray) -> np.ndarray:
        return np.asarray((weight @ self.target.T > 0) & (weight @ (1 - self.target.T) > 0))

    def can_tell(self, known: np.ndarray) -> np.ndarray:
        return np.broadcast_to(known[:, :, None], (*known.shape, self.target.shape[1]))

    def constant(self, weight: np.ndarray) -> np.ndarray:
        total = weight.sum()
        share = np.clip(self.target @ weight / total, 0.5 / (total + 1), 1 - 0.5 / (total + 1))
        return np.asarray(np.log(share / (1 - share)))

    def curvature(self, weight: np.ndarray) -> float:
        share = expit(self.constant(weight))
        return FITTED * float((share * (1 - share)).mean())

    def __call__(self, raw: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, Second]:
        target = self.target.astype(raw.dtype, copy=False)
        p = expit(raw)
        losses, residuals, curvature = np.logaddexp(0, raw) - target * raw, p - target, p * (1 - p)
        if not known.all():
            losses, residuals, curvature = (part * known[:, :, None] for part in (losses, residuals, curvature))
        return losses, residuals, lambda change: curvature * change


class NumberLoss(Loss):
    """Half the squared error of independent numbers: target (k, n)."""

    tie = 0.0

    def __init__(self, target: np.ndarray, k: int) -> None:
        super().__init__(target, k)
        self.n_parts = k

    def of(self, rows: np.ndarray) -> NumberLoss:
        return NumberLoss(self.target[:, rows], self.k)

    def known(self, weight: np.ndarray) -> np.ndarray:
        return np.ones((len(weight), self.k), dtype=bool)

    def can_tell(self, known: np.ndarray) -> np.ndarray:
        return np.broadcast_to(known[:, :, None], (*known.shape, self.target.shape[1]))

    def constant(self, weight: np.ndarray) -> np.ndarray:
        return np.asarray(np.average(self.target, axis=1, weights=weight))

    def curvature(self, weight: np.ndarray) -> float:
        return 1.0

    def __call__(self, raw: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, Second]:
        residuals = raw - self.target.astype(raw.dtype, copy=False)
        return 0.5 * residuals**2, residuals, lambda change: change
