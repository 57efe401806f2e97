"""What a fusion strategy is, and the base of those that join members by their outputs.

A strategy is a parameter holder (`BaseEstimator`), so a search can run over strategies and inside them.
`MultimodalClassifier` clones it, hands it the members, and delegates to it: `fit`, `predict_proba`, `transform` and
`__onnx_graph__`.
Late strategies live here and work on the members' probabilities; joint ones, which train networks together, live in
`mmensemble_estimators` and derive from `Fusion` directly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from joblib import Memory, Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing

from mmensemble.caching import fit_member, out_of_fold
from mmensemble.compose import Columns, column_kinds, present_rows, select_columns
from mmensemble.exceptions import ConfigurationError, DataError

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.export.graph import Frame, Graph, Outputs

__all__ = ["Fusion", "LateFusion", "Member"]


@dataclass(frozen=True)
class Member:
    """One estimator of a composition and the columns it sees.

    Parameters
    ----------
    name : str
    estimator : estimator
        Unfitted before `Fusion.fit`, fitted after.
    columns : str or list of str
    kinds : dict of str to {"float", "string"}, default=None
        What the columns held in fit.
    """

    name: str
    estimator: Any
    columns: Columns
    kinds: dict[str, Any] | None = None

    def rows(self, X: Any) -> tuple[np.ndarray, Any]:
        """Return which rows have this modality, (n,) bool, and the member's columns of these rows."""
        present = present_rows(X, self.columns)
        chosen = select_columns(X, self.columns)
        return present, chosen if present.all() else _safe_indexing(chosen, np.flatnonzero(present))

    def fitted(self, estimator: Any, X: Any) -> Member:
        """Return the member with its fitted estimator."""
        return replace(self, estimator=estimator, kinds=column_kinds(X, self.columns))


class Fusion(BaseEstimator):
    """A way of joining members.

    Attributes
    ----------
    members_ : list of Member
        The fitted members.
    classes_ : ndarray of shape (n_classes,)
    class_prior_ : ndarray of float, shape (n_classes,)
        The classes' share in the fitting rows: the prediction for a row that misses every modality.
    """

    members_: list[Member]
    classes_: np.ndarray
    class_prior_: np.ndarray

    def leave_out(self, dropped: Sequence[bool]) -> None:
        """Adjust the parameters that speak of single members to those that are not dropped; called before `fit`.

        Parameters
        ----------
        dropped : sequence of bool, one for each member
        """

    @abstractmethod
    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        y: np.ndarray,
        *,
        sample_weight: np.ndarray | None = None,
        memory: Memory | None = None,
        n_jobs: int | None = None,
    ) -> Fusion:
        """Fit the members and what joins them.

        Parameters
        ----------
        members : sequence of Member
            Unfitted.
        X : DataFrame, n_samples rows
        y : ndarray of shape (n_samples,)
            Labels.
        sample_weight : ndarray of float, shape (n_samples,), default=None
        memory : joblib.Memory, default=None
            Where fitted members and out-of-fold predictions are kept.
        n_jobs : int, default=None
            As in scikit-learn.

        Returns
        -------
        self
        """

    @abstractmethod
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities, ndarray of float, shape (n_samples, n_classes)."""

    @abstractmethod
    def transform(self, X: Any) -> np.ndarray:
        """Return what the strategy joins or makes, ndarray of float, shape (n_samples, n_features_out)."""

    @abstractmethod
    def get_feature_names_out(self) -> list[str]:
        """Return the names of `transform`'s columns."""

    @abstractmethod
    def __onnx_graph__(self, source: Frame) -> Outputs:
        """Take part in `mmensemble.to_graph`."""

    def _set_classes(self, y: np.ndarray, sample_weight: np.ndarray | None) -> None:
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"y holds one class only ({self.classes_.tolist()[0]!r}); at least two are needed to classify"
            )
        self.class_prior_ = np.bincount(codes, weights=sample_weight) / (
            len(codes) if sample_weight is None else sample_weight.sum()
        )


def _numbering_rows(present: np.ndarray, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a member, which sees the rows that are present only, and number a bad row as in the whole."""
    try:
        return function(*arguments)
    except DataError as error:
        if error.row is None:
            raise
        row = int(np.flatnonzero(present)[error.row])
        raise DataError(error.message, row=row, column=error.column) from error


class LateFusion(Fusion):
    """Joins the members' probabilities; a subclass says how, once in numpy and once as a graph."""

    _out_of_fold: ClassVar[bool] = False

    cv: Any

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        y: np.ndarray,
        *,
        sample_weight: np.ndarray | None = None,
        memory: Memory | None = None,
        n_jobs: int | None = None,
    ) -> LateFusion:
        """Fit every member on the rows that have its modality, then what joins them; see `Fusion.fit`."""
        self._check_parameters(members)
        self._set_classes(y, sample_weight)
        memory = memory or Memory(None)
        fit = memory.cache(fit_member, ignore=[])
        predict = memory.cache(out_of_fold)
        jobs, held_out_jobs, present = [], [], []
        for member in members:
            if not hasattr(member.estimator, "predict_proba"):
                raise ConfigurationError(
                    f"member {member.name!r} ({type(member.estimator).__name__}) has no predict_proba, "
                    f"which {type(self).__name__} needs"
                )
            there, rows = member.rows(X)
            if not there.any():
                raise DataError(f"every row misses member {member.name!r}; leave it out", column=str(member.columns))
            weights = None if sample_weight is None else sample_weight[there]
            jobs.append(delayed(_numbering_rows)(there, fit, member.estimator, rows, y[there], weights))
            present.append(there)
            if self._out_of_fold:
                self._check_folds(member, y[there])
                held_out_jobs.append(
                    delayed(_numbering_rows)(there, predict, member.estimator, rows, y[there], self.cv, weights)
                )
        done = Parallel(n_jobs=n_jobs)(jobs + held_out_jobs)
        self.members_ = [m.fitted(estimator, X) for m, estimator in zip(members, done, strict=False)]
        if self._out_of_fold:
            outputs = [
                self._scatter(proba, np.unique(y[there]), there)
                for proba, there in zip(done[len(jobs) :], present, strict=True)
            ]
            self._fit_combiner(np.stack(outputs), np.column_stack(present), y, sample_weight)
        return self

    def _check_parameters(self, members: Sequence[Member]) -> None:
        """Raise `ConfigurationError` for a parameter that does not fit the members."""

    def _check_folds(self, member: Member, y: np.ndarray) -> None:
        labels, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise DataError(
                f"class {labels.tolist()[counts.argmin()]!r} has 1 row with member {member.name!r}, and out-of-fold "
                "predictions need at least 2 of each class; add rows, drop the class, or use SoftVoting"
            )

    def _fit_combiner(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        """Learn from out-of-fold probabilities (n_members, n, n_classes) and presence (n, n_members)."""

    def _scatter(self, proba: np.ndarray, classes: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Spread a member's probabilities over all rows and all classes, with zeros for what it does not know."""
        full = np.zeros((len(present), len(self.classes_)))
        full[np.ix_(present, np.searchsorted(self.classes_, classes))] = proba
        return full

    def _member_outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the members' probabilities (n_members, n, n_classes) and presence (n, n_members)."""
        outputs, presence = [], []
        for member in self.members_:
            present, rows = member.rows(X)
            proba = np.zeros((0, len(self.classes_)))
            if present.any():
                proba = _numbering_rows(present, member.estimator.predict_proba, rows)
            classes = member.estimator.classes_ if present.any() else self.classes_
            outputs.append(self._scatter(proba, classes, present))
            presence.append(present)
        return np.stack(outputs), np.column_stack(presence)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities, ndarray of float, shape (n_samples, n_classes)."""
        outputs, present = self._member_outputs(X)
        if not len(present):
            return np.zeros((0, len(self.classes_)))
        combined = self._combine(outputs, present)
        return np.where(present.any(axis=1, keepdims=True), combined, self.class_prior_)

    def transform(self, X: Any) -> np.ndarray:
        """Return the members' probabilities side by side, (n_samples, n_members * n_classes); 0 where missing."""
        outputs, _ = self._member_outputs(X)
        return np.concatenate(list(outputs), axis=1)

    def get_feature_names_out(self) -> list[str]:
        """Return ``<member>_<class>`` for every column of `transform`."""
        return [f"{member.name}_{label}" for member in self.members_ for label in self.classes_]

    @abstractmethod
    def _combine(self, outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Join (n_members, n, n_classes) and (n, n_members) to (n, n_classes); rows missing all do not matter."""

    @abstractmethod
    def _combine_graph(self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value]) -> ir.Value:
        """Do what `_combine` does, on values of a graph: probabilities (n, n_classes) and presence (n, 1) bool."""

    def __onnx_graph__(self, source: Frame) -> Outputs:
        """Take part in `mmensemble.to_graph`."""
        from mmensemble.export.graph import Outputs, any_present, member_outputs

        graph = source.graph
        outputs, present = member_outputs(self.members_, self.classes_, source)
        with graph.scope(type(self).__name__):
            combined = self._combine_graph(graph, outputs, present)
            any_there = any_present(graph, present)
            prior = graph.constant(self.class_prior_.astype(np.float32)[None], "class_prior")
            probabilities = graph.op("Where", any_there, combined, prior)
        return Outputs(graph, probabilities=probabilities, present=any_there)
