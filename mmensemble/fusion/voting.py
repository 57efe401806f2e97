"""Soft and hard voting."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.strategy import Member
from mmensemble.graph import graph_distributions, graph_flat
from mmensemble.learning.outputs import distributions, flat
from mmensemble.tasks import Regression

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.graph import Frame, Graph

__all__ = ["HardVoting", "SoftVoting", "WeightedAverage"]


class WeightedAverage(LateFusion):
    """Average the members' outputs by one weight per member, over the members that a row has.

    A member of weight 0 has no part in the graph, and so none in the file.
    """

    _gives_prior = True

    @abstractmethod
    def _member_weights(self, n_members: int) -> np.ndarray:
        """Return one weight per member, (n_members,)."""

    def _combine(self, outputs: np.ndarray, present: np.ndarray, X: object) -> np.ndarray:
        weights = present * self._member_weights(len(outputs))
        total = weights.sum(axis=1)[:, None]
        average = np.einsum("mnk,nm->nk", outputs, weights) / np.where(total > 0, total, 1)
        return np.where(total > 0, average, self.prior_)

    def _combine_graph(
        self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value], source: Frame
    ) -> ir.Value:
        terms, totals = [], []
        for output, there, weight in zip(outputs, present, self._member_weights(len(outputs)), strict=True):
            if weight == 0:
                continue
            share = graph.op("Mul", graph.op("Cast", there, to=graph.FLOAT), graph.constant(np.float32(weight)))
            terms.append(graph.op("Mul", graph.op("Where", there, output, graph.constant(np.float32(0))), share))
            totals.append(share)
        total, zero = graph.op("Sum", *totals), graph.constant(np.float32(0))
        average = graph.op(
            "Div", graph.op("Sum", *terms), graph.op("Max", total, graph.constant(np.finfo(np.float32).tiny))
        )
        prior = graph.constant(self.prior_.astype(np.float32)[None], "prior")
        return graph.op("Where", graph.op("Greater", total, zero), average, prior)


class _Voting(WeightedAverage):
    """What soft and hard voting share: weights that the user sets."""

    weights: Sequence[float] | None

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
                f"{type(self).__name__} has {len(self.weights)} weights for {len(members)} members "
                f"({[member.name for member in members]})"
            )
        if not (weights >= 0).all() or not (weights > 0).any() or not np.isfinite(weights).all():
            raise ConfigurationError(f"weights must be finite, not negative, nor all 0: {list(self.weights)}")

    def _member_weights(self, n_members: int) -> np.ndarray:
        return np.ones(n_members) if self.weights is None else np.asarray(self.weights, dtype=float)


class SoftVoting(_Voting):
    r"""Average the members' probabilities, or a regression's predictions.

    .. math:: p = \sum_m w_m a_m p_m \Big/ \sum_m w_m a_m

    where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. On complete rows that is
    ``VotingClassifier(voting="soft")`` and ``VotingRegressor``.

    Parameters
    ----------
    weights : sequence of float, shape (n_members,), default=None
        One weight of at least 0 per member; None weighs all alike.

    Attributes
    ----------
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Kittler, Hatef, Duin, Matas (1998). On combining classifiers. IEEE PAMI 20(3), the sum rule.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights


class HardVoting(_Voting):
    r"""Let each member vote for one class; of a regression, take the weighted median.

    A class's probability is its share of the votes,

    .. math:: p_k = \sum_m w_m a_m [k = \arg\max_j p_{mj}] \Big/ \sum_m w_m a_m

    so ``predict`` agrees with ``VotingClassifier(voting="hard")``: a tie goes to the first class. Independent labels
    and columns of labels are voted on one by one. The median of numbers is the mean of the lower and the upper weighted
    median, the values that at least half of the weight lies at or below, and at or above.

    Parameters
    ----------
    weights : sequence of float, shape (n_members,), default=None
        One weight of at least 0 per member; None weighs all alike.

    Attributes
    ----------
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Kittler, Hatef, Duin, Matas (1998). On combining classifiers. IEEE PAMI 20(3), the majority vote rule.

    Edgeworth (1888). On a new method of reducing observations relating to several quantities. Philosophical Magazine
    25, for the weighted median.
    """

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights

    def _combine(self, outputs: np.ndarray, present: np.ndarray, X: object) -> np.ndarray:
        if isinstance(self.task_, Regression):
            return self._median(outputs, present)
        votes = [np.eye(p.shape[-1])[p.argmax(axis=-1)] for p in distributions(outputs, self.task_)]
        return super()._combine(flat(votes, self.task_), present, X)

    def _combine_graph(
        self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value], source: Frame
    ) -> ir.Value:
        if isinstance(self.task_, Regression):
            return self._median_graph(graph, outputs, present)
        sizes = [len(labels) for labels in self.task_.label_sets] or [2]
        off_on = graph.constant(np.asarray([0, 1], dtype=np.float32))
        votes = []
        for output in outputs:
            parts = graph_distributions(graph, output, self.task_)
            best = [graph.op("ArgMax", part, axis=-1, keepdims=0) for part in parts]
            hot = [
                graph.op("OneHot", b, graph.constant(np.asarray(size)), off_on, axis=-1)
                for b, size in zip(best, sizes, strict=True)
            ]
            votes.append(graph_flat(graph, hot, self.task_))
        return super()._combine_graph(graph, votes, present, source)

    def _median(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        weights = (present * self._member_weights(len(outputs))).T[:, :, None]
        half = 0.5 * weights.sum(axis=0) * (1 - _HALF_TOLERANCE)
        lower = np.full(outputs.shape[1:], np.inf)
        upper = np.full(outputs.shape[1:], -np.inf)
        for values, weight in zip(outputs, weights, strict=True):
            below = (weights * (outputs <= values)).sum(axis=0)
            above = (weights * (outputs >= values)).sum(axis=0)
            lower = np.where((below >= half) & (weight > 0), np.minimum(lower, values), lower)
            upper = np.where((above >= half) & (weight > 0), np.maximum(upper, values), upper)
        voted = weights.sum(axis=0) > 0
        return np.where(voted, (np.where(voted, lower, 0) + np.where(voted, upper, 0)) / 2, self.prior_)

    def _median_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> ir.Value:
        zero, huge = graph.constant(np.float32(0)), np.finfo(np.float32).max
        members = zip(outputs, present, self._member_weights(len(outputs)), strict=True)
        counted = [(output, there, weight) for output, there, weight in members if weight > 0]
        outputs = [output for output, _, _ in counted]
        weights = [
            graph.op("Mul", graph.op("Cast", there, to=graph.FLOAT), graph.constant(np.float32(weight)))
            for _, there, weight in counted
        ]
        total = graph.op("Sum", *weights)
        half = graph.op("Mul", total, graph.constant(np.float32(0.5 * (1 - _HALF_TOLERANCE))))

        def reached(comparison: str, values: ir.Value, weight: ir.Value) -> ir.Value:
            shares = [
                graph.op("Where", graph.op(comparison, other, values), its, zero)
                for other, its in zip(outputs, weights, strict=True)
            ]
            enough = graph.op("GreaterOrEqual", graph.op("Sum", *shares), half)
            return graph.op("And", enough, graph.op("Greater", weight, zero))

        ends = []
        for comparison, choose, other in (("LessOrEqual", "Min", huge), ("GreaterOrEqual", "Max", -huge)):
            candidates = [
                graph.op("Where", reached(comparison, value, weight), value, graph.constant(np.float32(other)))
                for value, weight in zip(outputs, weights, strict=True)
            ]
            ends.append(graph.op("Mul", graph.op(choose, *candidates), graph.constant(np.float32(0.5))))
        prior = graph.constant(self.prior_.astype(np.float32)[None], "prior")
        return graph.op("Where", graph.op("Greater", total, zero), graph.op("Add", *ends), prior)


# Weights that add up to half are half whatever their rounding.
_HALF_TOLERANCE = 1e-6
