"""What a rule is learned from: members' out-of-fold outputs; and how good outputs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmensemble._sklearn import safe_indexing
from mmensemble.learning.folds import Fold, member_fold
from mmensemble.learning.outputs import distributions
from mmensemble.operations import NUMPY
from mmensemble.tasks import Multilabel, Regression, Task

__all__ = ["HeldOut", "mean_loss", "row_losses", "true_values", "value_losses"]

# A probability of 0 costs as much as this one.
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class HeldOut:
    """What members say of rows that they were not fitted on.

    Parameters
    ----------
    outputs : ndarray of float, shape (n_members, n_samples, width)
        0 where a modality is missing.
    present : ndarray of bool, shape (n_members, n_samples, 1)
    y : ndarray, shape (n_samples,) or (n_samples, n_columns)
        As `for_members` gives it.
    X : DataFrame, n_samples rows
    sample_weight : ndarray of float, shape (n_samples,), or None
    folds : sequence of Fold
        By which the outputs were made.
    """

    outputs: np.ndarray
    present: np.ndarray
    y: np.ndarray
    X: Any
    sample_weight: np.ndarray | None
    folds: Sequence[Fold]

    @property
    def weight(self) -> np.ndarray:
        """The rows' weights, 1 where none are given, (n_samples,)."""
        return np.ones(len(self.y)) if self.sample_weight is None else self.sample_weight

    @property
    def used(self) -> np.ndarray:
        """Which rows tell something: they have a member and a weight, (n_samples,) bool."""
        return self.present[:, :, 0].any(axis=0) & (self.weight > 0)

    def rows(self, chosen: np.ndarray) -> HeldOut:
        """Return some rows, given their numbers, and what is left of the folds."""
        there = np.zeros(len(self.y), dtype=bool)
        there[chosen] = True
        chosen = np.flatnonzero(there)
        folds = [member_fold(fold, there) for fold in self.folds]
        return HeldOut(
            self.outputs[:, chosen],
            self.present[:, chosen],
            self.y[chosen],
            safe_indexing(self.X, chosen),
            None if self.sample_weight is None else self.sample_weight[chosen],
            [(fitting, held_out) for fitting, held_out in folds if len(fitting) and len(held_out)],
        )


def true_values(task: Task, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return what outputs (..., n, width) give to the truth, a number for each column of `y`, (..., n, n_columns).

    That is the probability of the true class, of each label or column of labels; the prediction of each number.
    """
    if isinstance(task, Regression):
        return outputs
    # The true class of each column of labels, (n,), or of each independent label, (n, n_labels).
    truths = [y] if isinstance(task, Multilabel) else list(y.reshape(len(y), -1).T)
    parts = zip(distributions(NUMPY, outputs, task), truths, strict=True)
    chosen = []
    for part, truth in parts:
        index = np.broadcast_to(truth[..., None], (*part.shape[:-1], 1)).astype(np.intp)
        chosen.append(np.take_along_axis(part, index, axis=-1))
    return chosen[0][..., 0] if isinstance(task, Multilabel) else np.concatenate(chosen, axis=-1)


def value_losses(task: Task, values: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of `true_values` (n, n_columns), and their slopes, in the same shape.

    It is the log loss of a classification, and the squared error of a regression, in units of each target's weighted
    variance.
    """
    if isinstance(task, Regression):
        truth = y.reshape(len(y), -1)
        scale = _variance(truth, weight)
        return (values - truth) ** 2 / scale, 2 * (values - truth) / scale
    values = np.maximum(values, LEAST_PROBABILITY)
    return -np.log(values), -1 / values


def row_losses(task: Task, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return each row's loss, (n,), of outputs (n, width): the mean over the columns of `y` of `value_losses`."""
    losses, _ = value_losses(task, true_values(task, outputs, y), y, weight)
    return np.asarray(losses.mean(axis=1))


def mean_loss(task: Task, outputs: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Return the mean of `row_losses` by weight."""
    return float(np.average(row_losses(task, outputs, y, weight), weights=weight))


def _variance(truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted variance of each target, (n_targets,), of truth (n, n_targets); never 0."""
    mean = np.average(truth, axis=0, weights=weight)
    variance = np.average((truth - mean) ** 2, axis=0, weights=weight)
    return np.asarray(np.maximum(variance, np.finfo(float).tiny))
