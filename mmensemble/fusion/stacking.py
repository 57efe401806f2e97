"""Stacked generalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion._base import LateFusion, Member

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.export.graph import Graph

__all__ = ["Stacking"]


class Stacking(LateFusion):
    """Feed the members' probabilities to a meta-learner (Wolpert 1992), trained on out-of-fold predictions.

    On complete rows that is ``StackingClassifier(stack_method="predict_proba")``: of two classes only the second one's
    probability is used. Where a modality is missing, its place is taken by the member's mean out-of-fold probabilities.

    Parameters
    ----------
    final_estimator : estimator, default=None
        The meta-learner; None is ``LogisticRegression()``.
    cv : int or splitter, default=5
        How the out-of-fold predictions are made.

    Attributes
    ----------
    final_estimator_ : estimator
        The fitted meta-learner.
    fill_ : ndarray of float, shape (n_members, n_classes)
        The members' mean out-of-fold probabilities.
    members_ : list of Member
        Fitted on all rows.
    classes_ : ndarray of shape (n_classes,)
    class_prior_ : ndarray of float, shape (n_classes,)

    References
    ----------
    Wolpert (1992). Stacked generalization. Neural Networks 5(2).
    """

    _out_of_fold: ClassVar[bool] = True

    def __init__(self, final_estimator: Any = None, cv: Any = 5) -> None:
        self.final_estimator = final_estimator
        self.cv = cv

    def _check_parameters(self, members: Sequence[Member]) -> None:
        if isinstance(self.cv, int) and self.cv < 2:
            raise ConfigurationError(f"cv must be at least 2, not {self.cv}")
        if self.final_estimator is not None and not hasattr(self.final_estimator, "predict_proba"):
            raise ConfigurationError(f"final_estimator {self.final_estimator!r} has no predict_proba")

    def _fit_combiner(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        self.fill_ = np.stack([proba[there].mean(axis=0) for proba, there in zip(outputs, present.T, strict=True)])
        final = LogisticRegression() if self.final_estimator is None else clone(self.final_estimator)
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        rows = present.any(axis=1)
        if sample_weight is not None:
            weights = {"sample_weight": sample_weight[rows]}
        self.final_estimator_ = final.fit(self._features(outputs, present)[rows], y[rows], **weights)

    def _features(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        filled = np.where(present.T[:, :, None], outputs, self.fill_[:, None, :])
        return np.concatenate(list(filled[:, :, self._first_column :]), axis=1)

    @property
    def _first_column(self) -> int:
        return 1 if len(self.classes_) == 2 else 0

    def _combine(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        return np.asarray(self.final_estimator_.predict_proba(self._features(outputs, present)))

    def _combine_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> ir.Value:
        from mmensemble.export.graph import Tensor, to_graph

        features = []
        for output, there, fill in zip(outputs, present, self.fill_, strict=True):
            filled = graph.op("Where", there, output, graph.constant(fill.astype(np.float32)[None]))
            if self._first_column:
                filled = graph.op("Gather", filled, graph.constant(np.asarray([1])), axis=1)
            features.append(filled)
        stacked = graph.op("Concat", *features, axis=1)
        final = to_graph(self.final_estimator_, Tensor(graph, stacked)).probabilities
        assert final is not None, "a classifier's graph has probabilities"  # noqa: S101 - narrows the type
        return final
