"""Weighted averages of the members that a row has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mmensemble.fusion.held_out import value_losses
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import Rows
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Task

__all__ = ["WeightedAverage", "best_shares", "weighted_average"]

# A smaller share is none. While it is looked for, one is a little more than 0, so that a row of one member has it.
LEAST_SHARE = 1e-4
NO_SHARE = 1e-6


def weighted_average(xp: Operations, outputs: Sequence[Value], present: Sequence[Value], weights: np.ndarray) -> Value:
    """Average members' outputs (n, width), which are 0 where missing.

    Parameters
    ----------
    xp : Operations
    outputs : sequence of values, shape (n, width)
    present : sequence of values of bool, shape (n, 1)
    weights : ndarray of float, shape (n_members,) or (n_members, width)
    """
    shares = [xp.where(has_modality, weight, 0) for has_modality, weight in zip(present, weights, strict=True)]
    total = xp.maximum(xp.add(*shares), xp.finfo.tiny)
    return xp.add(*(share * output for share, output in zip(shares, outputs, strict=True))) / total


def best_shares(task: Task, values: np.ndarray, present: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the shares of 1 by which a weighted average has the lowest loss (`value_losses`).

    Parameters
    ----------
    task : Task
    values : ndarray of float, shape (n_members, n, n_columns)
        Of each member, as `true_values` gives them.
    present : ndarray of bool, shape (n_members, n, 1)
    y : ndarray, shape (n,) or (n, n_columns)
    weight : ndarray of float, shape (n,)

    Returns
    -------
    ndarray of float, shape (n_members,)
    """
    n_members = len(values)
    row_weight = (weight / weight.sum())[:, None] / values.shape[2]

    def loss(shares: np.ndarray) -> tuple[float, np.ndarray]:
        average = weighted_average(NUMPY, list(values), list(present), shares)
        losses, slopes = value_losses(task, average, y, weight)
        total = np.maximum(np.tensordot(shares, present, 1), NUMPY.finfo.tiny)
        moved = present * (values - average) / total
        return float((row_weight * losses).sum()), np.tensordot(moved, row_weight * slopes, 2)

    found = minimize(
        loss,
        np.full(n_members, 1 / n_members),
        jac=True,
        method="SLSQP",
        bounds=[(NO_SHARE, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda s: s.sum() - 1, "jac": lambda s: np.ones(n_members)},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    shares = np.where(found.x < LEAST_SHARE, 0, found.x)
    return np.asarray(shares / shares.sum())


class WeightedAverage(LateFusion):
    """Average the members' outputs by one weight per member, over the members that a row has.

    A member of weight 0 has no part in the graph, and so none in the file.
    """

    @abstractmethod
    def member_weights(self) -> np.ndarray:
        """Return one weight of at least 0 per member, (n_members,)."""

    def takes_part(self) -> np.ndarray:
        return self.member_weights() > 0

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        weights = self.member_weights()
        return weighted_average(xp, outputs, present, weights[weights > 0])
