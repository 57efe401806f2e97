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

    def leave_out(self, dropped: Sequence[bool]) -> None:
        """Forget the weights of dropped members, as ``VotingClassifier`` does."""
        if self.weights is not None and np.shape(self.weights) == (len(dropped),):
            self.weights = [weight for weight, left_out in zip(self.weights, dropped, strict=True) if not left_out]

    def _check_parameters(self, members: Sequence[Member]) -> None:
        if self.weights is None:
            return
        try:
            weights = np.asarray(self.weights, dtype=float)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"weights must be numbers, not {self.weights!r}") from error
        if weights.ndim != 1:
            raise ConfigurationError(f"weights must be a sequence, not {self.weights!r}")
        if len(self.weights) != len(members):
            raise ConfigurationError(
                f"SoftVoting has {len(self.weights)} weights for {len(members)} members "
                f"({[member.name for member in members]})"
            )
        if not (weights >= 0).all() or not (weights > 0).any() or not np.isfinite(weights).all():
            raise ConfigurationError(f"weights must be finite, not negative, nor all 0: {list(self.weights)}")

    def _member_weights(self, n_members: int) -> np.ndarray:
        return np.ones(n_members) if self.weights is None else np.asarray(self.weights, dtype=float)

    def _combine(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        weights = present * self._member_weights(len(outputs))
        total = weights.sum(axis=1)[:, None]
        return np.where(
            total > 0, np.einsum("mnk,nm->nk", outputs, weights) / np.where(total > 0, total, 1), self.class_prior_
        )

    def _combine_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> ir.Value:
        weights = self._member_weights(len(outputs))
        terms, totals = [], []
        for output, there, weight in zip(outputs, present, weights, strict=True):
            share = graph.op("Mul", graph.op("Cast", there, to=graph.FLOAT), graph.constant(np.float32(weight)))
            terms.append(graph.op("Mul", graph.op("Where", there, output, graph.constant(np.float32(0))), share))
            totals.append(share)
        total, zero = graph.op("Sum", *totals), graph.constant(np.float32(0))
        voted = graph.op(
            "Div", graph.op("Sum", *terms), graph.op("Max", total, graph.constant(np.finfo(np.float32).tiny))
        )
        prior = graph.constant(self.class_prior_.astype(np.float32)[None], "class_prior")
        return graph.op("Where", graph.op("Greater", total, zero), voted, prior)
