"""What a fusion strategy is, and the base of those that join members by their outputs.

A strategy is a parameter holder (`BaseEstimator`), so a search can run over strategies and inside them.
`MultimodalClassifier` and `MultimodalRegressor` clone it, hand it the members and the task, and delegate to it: `fit`,
`outputs`, `transform` and `__onnx_graph__`.
Late strategies live here and work on the members' outputs; joint ones, which train networks together, live in
`mmensemble_estimators` and derive from `Fusion` directly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import is_classifier, is_regressor

from mmensemble.cache import Store
from mmensemble.exceptions import ConfigurationError, DataError, ExportError
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.graph import graph_outputs
from mmensemble.learning.columns import Columns, as_list
from mmensemble.learning.folds import out_of_fold
from mmensemble.learning.members import fit_member
from mmensemble.learning.outputs import check_can_answer, output_names, outputs_of
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.tasks import Regression, Task

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.graph import Frame, Graph, Outputs

__all__ = ["LateFusion"]


class LateFusion(Fusion):
    """Joins the members' outputs; a subclass says how, once in numpy and once as a graph."""

    cv: Any

    # Whether `_combine_graph` itself gives the prior to rows that miss all members; it may then leave members out.
    _gives_prior: ClassVar[bool] = False

    # The task as the members learned it.
    _member_task: Task

    def _learns(self, task: Task) -> bool:
        """Tell whether the strategy learns from out-of-fold outputs."""
        return False

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        *,
        sample_weight: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> LateFusion:
        """Fit every member on the rows that have its modality, then what joins them; see `Fusion.fit`."""
        self.task_, self.prior_ = target.task, target.prior
        self._member_task, y = for_members(target)
        self._check_parameters(members)
        self._check_columns(members, X)
        store = Store.of(None) if store is None else store
        learns = self._learns(self.task_)
        jobs, held_out_jobs, present = [], [], []
        for member in members:
            self._check_member(member)
            there, rows = member.rows(X)
            if not there.any():
                raise DataError(f"every row misses member {member.name!r}; leave it out", column=_named(member.columns))
            weights = None if sample_weight is None else sample_weight[there]
            if weights is not None and not weights.any():
                raise DataError(
                    f"every row with member {member.name!r} has the weight 0; leave the member out",
                    column=_named(member.columns),
                )
            jobs.append(delayed(member.call)(there, store.call, fit_member, member.estimator, rows, y[there], weights))
            present.append(there)
            if learns:
                self._check_folds(member, y[there])
                arguments = (member.estimator, rows, y[there], self._member_task, self.cv, weights)
                held_out_jobs.append(delayed(member.call)(there, store.call, out_of_fold, *arguments))
        done = Parallel(n_jobs=n_jobs)(jobs + held_out_jobs)
        self.members_ = [m.fitted(estimator, X) for m, estimator in zip(members, done, strict=False)]
        if learns:
            presence = np.column_stack(present)
            outputs = np.stack([_spread(held, there) for held, there in zip(done[len(jobs) :], present, strict=True)])
            self._fit_combiner(outputs, presence, X, y, sample_weight)
        return self

    def _check_parameters(self, members: Sequence[Member]) -> None:
        """Raise `ConfigurationError` for a parameter that does not fit the members or the task."""

    def _check_columns(self, members: Sequence[Member], X: Any) -> None:
        """Raise an error for columns that the strategy reads itself and cannot, before members are fitted."""

    def _check_member(self, member: Member) -> None:
        check_can_answer(f"member {member.name!r}", member.estimator, self.task_, type(self).__name__)
        wrong = is_classifier if isinstance(self.task_, Regression) else is_regressor
        if wrong(member.estimator):
            kind = "regressor" if isinstance(self.task_, Regression) else "classifier"
            raise ConfigurationError(
                f"member {member.name!r} ({type(member.estimator).__name__}) must be a {kind}, as the composition"
            )

    def _check_folds(self, member: Member, y: np.ndarray) -> None:
        if isinstance(self.cv, Integral) and self.cv < 2:
            raise ConfigurationError(f"cv must be at least 2, not {self.cv}")
        if len(self.task_.label_sets) != 1:
            return
        labels, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            raise DataError(
                f"class {labels.tolist()[counts.argmin()]!r} has 1 row with member {member.name!r}, and out-of-fold "
                "predictions need at least 2 of each class; add rows, drop the class, or use SoftVoting"
            )

    def _fit_combiner(
        self, outputs: np.ndarray, present: np.ndarray, X: Any, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        """Learn from out-of-fold outputs (n_members, n, width), presence (n, n_members), and `y` as members get it."""

    def _member_outputs(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the members' outputs (n_members, n, width), 0 where missing, and presence (n, n_members)."""
        outputs, presence = [], []
        for member in self.members_:
            there, rows = member.rows(X)
            made = np.zeros((0, self.task_.width))
            if there.any():
                made = member.call(there, outputs_of, member.estimator, self._member_task, rows)
            outputs.append(_spread(made, there))
            presence.append(there)
        return np.stack(outputs), np.column_stack(presence)

    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float, shape (n_samples, width)."""
        outputs, present = self._member_outputs(X)
        if not len(present):
            return np.zeros((0, self.task_.width))
        combined = self._combine(outputs, present, X)
        return np.where(present.any(axis=1, keepdims=True), combined, self.prior_)

    def transform(self, X: Any) -> np.ndarray:
        """Return the members' outputs side by side, (n_samples, n_members * width); 0 where missing."""
        outputs, _ = self._member_outputs(X)
        return np.concatenate(list(outputs), axis=1)

    def get_feature_names_out(self) -> list[str]:
        """Return ``<member>_<class>`` for every column of `transform`."""
        return [f"{member.name}_{output}" for member in self.members_ for output in output_names(self.task_)]

    @abstractmethod
    def _combine(self, outputs: np.ndarray, present: np.ndarray, X: Any) -> np.ndarray:
        """Join (n_members, n, width) and (n, n_members) to (n, width); rows missing all do not matter."""

    @abstractmethod
    def _combine_graph(
        self, graph: Graph, outputs: Sequence[ir.Value], present: Sequence[ir.Value], source: Frame
    ) -> ir.Value:
        """Do what `_combine` does, on values of a graph: outputs (batch, width) and presence (batch, 1) bool."""

    def __onnx_graph__(self, source: Frame) -> Outputs:
        """Take part in `mmensemble.to_graph`."""
        from mmensemble.graph import Outputs, any_present

        graph = source.graph
        outputs, present, transformed = [], [], []
        for member, made in _member_graphs(self.members_, source):
            value = graph_outputs(f"member {member.name!r}", member.estimator, made, self._member_task)
            outputs.append(value)
            present.append(made.present)
            transformed.append(graph.op("Where", made.present, value, graph.constant(np.float32(0))))
        with graph.scope(type(self).__name__):
            combined = self._combine_graph(graph, outputs, present, source)
            any_there = any_present(graph, present)
            result = combined
            if not self._gives_prior:
                prior = graph.constant(self.prior_.astype(np.float32)[None], "prior")
                result = graph.op("Where", any_there, combined, prior)
            side_by_side = graph.op("Concat", *transformed, axis=1)
        return Outputs(
            graph,
            **{self.task_.output: result},
            transformed=side_by_side,
            present=any_there,
            task=self.task_,
        )


def _member_graphs(members: Sequence[Member], source: Frame) -> list[tuple[Member, Any]]:
    """Add the members to a graph; every one of them says which rows it is there for."""
    from mmensemble.graph import Frame, to_graph

    if not isinstance(source, Frame):
        raise ExportError("a composition takes columns of X, and stands behind a step that makes a matrix")
    made = []
    for member in members:
        with source.graph.scope(member.name):
            outputs = to_graph(member.estimator, source.member(member.name, member.columns, member.kinds))
            if outputs.present is None:
                raise ExportError(
                    f"member {member.name!r} ({type(member.estimator).__name__}) does not tell where it is missing"
                )
            made.append((member, outputs))
    return made


def _spread(outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Put the outputs of the rows that are present among all rows, with zeros for the others."""
    full = np.zeros((len(present), outputs.shape[1]))
    full[present] = outputs
    return full


def _named(columns: Columns) -> str:
    return ", ".join(as_list(columns))
