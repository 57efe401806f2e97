"""Soft voting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion._base import LateFusion, Member

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.export.graph import Graph

__all__ = ["SoftVoting"]


class SoftVoting(LateFusion):
    r"""Average the members' probabilities.

    .. math:: p = \sum_m w_m a_m p_m \Big/ \sum_m w_m a_m

    where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. On complete rows that is
    ``VotingClassifier(voting="soft")``.

    Parameters
    ----------
    weights : sequence of float, shape (n_members,), default=None
        One weight of at least 0 per member; None weighs all alike.

    Attributes
    ----------
    members_ : list of Member
    classes_ : ndarray of shape (n_classes,)
    class_prior_ : ndarray of float, shape (n_classes,)
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights

    def _check_parameters(self, members: Sequence[Member]) -> None:
        if self.weights is None:
            return
        if len(self.weights) != len(members):
            raise ConfigurationError(
                f"SoftVoting has {len(self.weights)} weights for {len(members)} members "
                f"({[member.name for member in members]})"
            )
        if min(self.weights) < 0 or max(self.weights) <= 0:
            raise ConfigurationError(f"weights must not be negative, nor all 0: {list(self.weights)}")

    def _member_weights(self, n_members: int) -> np.ndarray:
        return np.ones(n_members) if self.weights is None else np.asarray(self.weights, dtype=float)

    def _combine(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        weights = present * self._member_weights(len(outputs))
        total = np.maximum(weights.sum(axis=1), np.finfo(np.float32).tiny)
        return np.einsum("mnk,nm->nk", outputs, weights) / total[:, None]

    def _combine_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> ir.Value:
        weights = self._member_weights(len(outputs))
        terms, totals = [], []
        for output, there, weight in zip(outputs, present, weights, strict=True):
            share = graph.op("Mul", graph.op("Cast", there, to=graph.FLOAT), graph.constant(np.float32(weight)))
            terms.append(graph.op("Mul", output, share))
            totals.append(share)
        total = graph.op("Max", graph.op("Sum", *totals), graph.constant(np.finfo(np.float32).tiny))
        return graph.op("Div", graph.op("Sum", *terms), total)
