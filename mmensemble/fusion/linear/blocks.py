"""A member's features among all rows, and linear models over some of them. Imports numpy and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from mmensemble.linear import LinearSolution, solve_classes, solve_labels, solve_numbers
from mmensemble.linear.losses import LabelLoss, Loss, NumberLoss, SoftmaxLoss
from mmensemble.tasks import Multilabel, Regression, Task

__all__ = ["Block", "losses_of", "solve"]


@dataclass(frozen=True)
class Block:
    """The features of a member, of which rows that lack its modality have the mean.

    Parameters
    ----------
    features : ndarray or csr_array of float64, shape (n_present, n_features)
    present : ndarray of bool, shape (n,)
    mean : ndarray of float64, shape (n_features,)
    size : float
        The mean square of a row, less the mean.
    """

    features: Any
    present: np.ndarray
    mean: np.ndarray
    size: float

    @classmethod
    def of(cls, features: Any, present: np.ndarray, weight: np.ndarray) -> Block:
        """Measure the features by the weights (n,) of all rows."""
        share = weight[present] / weight[present].sum()
        mean = np.asarray(share @ features)
        squares = (features.multiply(features) if issparse(features) else features**2).sum(axis=1)
        size = float(share @ np.asarray(squares).ravel() - mean @ mean)
        return cls(features, present, mean, size if size > 1e-12 * float(mean @ mean) else 1.0)

    def kernel(self, rows: np.ndarray) -> np.ndarray:
        """Return the products of some rows with each other, divided by `size`.

        Rows that lack the modality are alike, and as large as the others: as if they had one more feature.
        """
        here, features = self.of_rows(rows)
        if issparse(features):
            products = (features @ features.T).toarray()
            by_mean = features @ self.mean
            products += self.mean @ self.mean - by_mean - by_mean[:, None]
        else:
            centred = features - self.mean
            products = centred @ centred.T
        kernel = np.equal.outer(here, here).astype(np.float64)
        kernel[np.ix_(here, here)] = products / self.size
        return kernel

    def of_rows(self, rows: np.ndarray) -> tuple[np.ndarray, Any]:
        """Return which of some rows are present, and the features of these."""
        here = self.present[rows]
        return here, self.features[(np.cumsum(self.present) - 1)[rows[here]]]

    def among(self, rows: np.ndarray) -> Any:
        """Return the features of some rows, 0 where missing; dense ones less their mean."""
        here, features = self.of_rows(rows)
        if not issparse(features):
            full = np.zeros((len(rows), features.shape[1]))
            full[here] = features - self.mean
            return full
        lengths = np.zeros(len(rows) + 1, dtype=np.int64)
        lengths[1:][here] = np.diff(features.indptr)
        return csr_array((features.data, features.indices, lengths.cumsum()), shape=(len(rows), features.shape[1]))


def losses_of(task: Task, y: np.ndarray, weight: np.ndarray) -> list[Loss]:
    """Return what is minimised, in the order of the task's outputs; `y` is as `for_members` gives it."""
    if isinstance(task, Regression):
        table = y.reshape(len(y), -1).astype(np.float64)
        mean = np.average(table, axis=0, weights=weight)
        scale = np.sqrt(np.average((table - mean) ** 2, axis=0, weights=weight))
        return [NumberLoss(((table - mean) / np.where(scale > 0, scale, 1.0)).T, task.width)]
    if isinstance(task, Multilabel):
        return [LabelLoss(y.T.astype(np.float64), task.width)]
    columns = y.reshape(len(y), -1).T
    return [SoftmaxLoss(column, len(labels)) for column, labels in zip(columns, task.label_sets, strict=True)]


def solve(
    blocks: Sequence[Any], scales: Sequence[np.ndarray], task: Task, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients (n_features, width) and intercepts (width,).

    Parameters
    ----------
    blocks : sequence of arrays, each (n, n_features of the block)
    scales : sequence of ndarray
        The penalty of each feature.
    task, y, weight
        As of `losses_of`.
    """
    settings: dict[str, Any] = {"penalty": 1.0, "penalty_scale": np.concatenate(list(scales)), "name": "LinearFusion"}
    solutions: list[LinearSolution]
    if isinstance(task, Regression):
        solutions = [solve_numbers(blocks, y.reshape(len(y), -1), weight, **settings)]
    elif isinstance(task, Multilabel):
        solutions = [solve_labels(blocks, y, weight, **settings)]
    else:
        columns = zip(y.reshape(len(y), -1).T, task.label_sets, strict=True)
        solutions = [solve_classes(blocks, column, len(labels), weight, **settings) for column, labels in columns]
    coef = np.concatenate([solution.coef for solution in solutions])
    return coef.T, np.concatenate([solution.intercept for solution in solutions])
