"""The product of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from mmensemble.fusion.late import LateFusion
from mmensemble.graph import graph_distributions, graph_flat
from mmensemble.learning.outputs import distributions, flat
from mmensemble.tasks import Multilabel, Regression, Task

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.graph import Frame, Graph

__all__ = ["ProductOfExperts"]


class ProductOfExperts(LateFusion):
    r"""Multiply the members' probabilities and normalise; of a regression, multiply Gaussians.

    .. math:: p_k \propto \prod_m p_{mk}^{a_m}

    where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. One expert can rule a class out, so the
    members should be calibrated. Independent labels and columns of labels are multiplied one by one.

    A regressor counts as a Gaussian around its prediction, with the variance of its out-of-fold residuals, and the
    product's mean is the predictions' mean weighted by precision:
    :math:`\mu = \sum_m a_m \mu_m \sigma_m^{-2} \big/ \sum_m a_m \sigma_m^{-2}`.

    Parameters
    ----------
    cv : int or splitter, default=5
        How the out-of-fold predictions are made from which a regressor's variance is taken. Classification has no use
        for it.

    Attributes
    ----------
    precision_ : ndarray of float, shape (n_members, n_targets)
        Of a regression: one over the variance of each member's residuals.
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Hinton (2002). Training products of experts by minimizing contrastive divergence. Neural Computation 14(8).

    Cao, Fleet (2014). Generalized product of experts for automatic and principled fusion of Gaussian process
    predictions. arXiv:1410.7827, for the Gaussian case.
    """

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def _learns(self, task: Task) -> bool:
        return isinstance(task, Regression)

    def _fit_combiner(
        self, outputs: np.ndarray, present: np.ndarray, X: Any, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        truth = y.reshape(len(y), -1)
        variance = np.stack(
            [
                np.average((made - truth)[there] ** 2, axis=0, weights=weight[there])
                for made, there in zip(outputs, present.T, strict=True)
            ]
        )
        # A member without any error must not make the others' weights 0 / 0.
        floor = np.maximum(1e-12 * truth.var(axis=0), np.finfo(np.float32).tiny)
        self.precision_ = 1 / np.maximum(variance, floor)

    def _combine(self, outputs: np.ndarray, present: np.ndarray, X: Any) -> np.ndarray:
        if isinstance(self.task_, Regression):
            weights = present.T[:, :, None] * self._shares()[:, None]
            total = weights.sum(axis=0)
            return np.asarray((weights * outputs).sum(axis=0) / np.where(total > 0, total, 1))
        there = present.T[:, :, None, None]
        parts = [
            softmax((np.log(np.maximum(part, self._least())) * there).sum(axis=0), axis=-1)
            for part in distributions(outputs, self.task_)
        ]
        return flat(parts, self.task_)

    def _shares(self) -> np.ndarray:
        """Return the precisions as shares, which float32 holds whatever the targets' unit is."""
        return np.asarray(self.precision_ / self.precision_.sum(axis=0))

    def _least(self) -> float:
        """Return what a probability counts at least; float32 knows 1 - p to six places only."""
        return 1e-6 if isinstance(self.task_, Multilabel) else 1e-12

    def _combine_graph(
        self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value], source: Frame
    ) -> ir.Value:
        zero = graph.constant(np.float32(0))
        if isinstance(self.task_, Regression):
            shares = [
                graph.op("Mul", graph.op("Cast", there, to=graph.FLOAT), graph.constant(share.astype(np.float32)[None]))
                for there, share in zip(present, self._shares(), strict=True)
            ]
            terms = [
                graph.op("Mul", share, graph.op("Where", there, output, zero))
                for share, there, output in zip(shares, present, outputs, strict=True)
            ]
            total = graph.op("Max", graph.op("Sum", *shares), graph.constant(np.finfo(np.float32).tiny))
            return graph.op("Div", graph.op("Sum", *terms), total)
        least = graph.constant(np.float32(self._least()))
        logs: list[list[ir.Value]] = []
        for output, there in zip(outputs, present, strict=True):
            column = graph.op("Unsqueeze", there, graph.constant(np.asarray([2])))
            parts = graph_distributions(graph, output, self.task_)
            logs.append(
                [graph.op("Where", column, graph.op("Log", graph.op("Max", part, least)), zero) for part in parts]
            )
        products = [graph.op("Softmax", graph.op("Sum", *terms), axis=-1) for terms in zip(*logs, strict=True)]
        return graph_flat(graph, products, self.task_)
