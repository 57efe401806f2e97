"""Weighted averages of the members that a row has."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import Rows
from mmensemble.operations import Operations, Value

__all__ = ["WeightedAverage", "weighted_average"]


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
