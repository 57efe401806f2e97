"""The base of the strategies that join members by their outputs.

A strategy is a parameter holder (`BaseEstimator`), so a search can run over strategies and inside them.
`MultimodalClassifier` and `MultimodalRegressor` clone it, hand it the members and the task, and delegate to it: `fit`,
`outputs`, `transform` and `__onnx_graph__`.
Late strategies live here and work on the members' outputs; joint ones, which train networks together, live in
`mmensemble_estimators` and derive from `Fusion` directly.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from itertools import compress
from numbers import Integral
from operator import or_
from typing import Any, Self

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor

from mmensemble.cache import HashedRows, Store
from mmensemble.exceptions import ConfigurationError, DataError, ExportError
from mmensemble.fusion.held_out import HeldOut
from mmensemble.fusion.rows import FrameRows, GraphRows, Rows
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.graph import (
    Frame,
    GraphOperations,
    Outputs,
    any_present,
    graph_outputs,
    refuse_where_present,
    refused_answers,
    to_graph,
)
from mmensemble.learning.columns import Columns, as_list
from mmensemble.learning.folds import column_groups, member_fold, out_of_fold, split_rows
from mmensemble.learning.jobs import Job, can_be_cut, is_network, run_jobs
from mmensemble.learning.members import fit_member, takes_groups
from mmensemble.learning.outputs import check_can_answer, output_names, outputs_of
from mmensemble.learning.related_rows import warn_of_related_rows
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.progress import Step
from mmensemble.tasks import Regression, Task

__all__ = ["LateFusion"]


class LateFusion(Fusion):
    """Joins the members' outputs by a rule.

    A subclass assigns its parameters in ``__init__`` and writes `combine`, the rule, which is run on arrays to predict
    and in a graph to export. One whose rule is learned from out-of-fold outputs has a parameter ``cv``, says so in
    `learns` and writes `learn`. `check_parameters`, `takes_part` and `leave_out` are written where they are needed.

    """

    __module__ = "mmensemble.fusion"
    cv: Any

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        """Raise `ConfigurationError` for a parameter that does not fit; called before any member is fitted.

        Parameters
        ----------
        members : sequence of Member
            Unfitted.
        X : DataFrame, n_samples rows
        """

    def learns(self, task: Task) -> bool:
        """Tell whether `learn` is to be called, for which members are fitted on folds by ``cv`` as well.

        Parameters
        ----------
        task : Task
            What the outputs mean.
        """
        return False

    def learn(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: np.ndarray | None
    ) -> None:
        """Learn the rule from out-of-fold outputs, and keep it in attributes that end in ``_``.

        Parameters
        ----------
        outputs : ndarray of float, shape (n_members, n_samples, width)
            0 where a modality is missing.
        present : ndarray of bool, shape (n_members, n_samples, 1)
            Which rows have each member's modality.
        y : ndarray, shape (n_samples,) or (n_samples, n_columns)
            Of labels, their numbers among those of the task; a 0/1 matrix or numbers as they are.
        X : DataFrame, n_samples rows
        sample_weight : ndarray of float, shape (n_samples,), or None
        """

    def takes_part(self) -> np.ndarray:
        """Tell which members `combine` gets, ndarray of bool, shape (n_members,); the others are not exported."""
        return np.ones(len(self.members_), dtype=bool)

    @property
    def hides_nan(self) -> bool:
        """Whether NaN of a member, which is a row that it refuses, may not show in what `combine` makes of it.

        As where it takes the largest one, sorts, or looks at one member only.
        """
        return False

    @abstractmethod
    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        """Join the members' outputs.

        Values are arrays in `predict`, and stand for those of a batch in an exported graph: use the operations of `xp`
        and the operators, never numpy's functions.

        Parameters
        ----------
        xp : Operations
            The namespace of operations.
        outputs : sequence of values of float, shape (n, width)
            Of each member that takes part; 0 where its modality is missing.
        present : sequence of values of bool, shape (n, 1)
            Which rows have each one's modality.
        rows : Rows
            Columns of X, and estimators that the rule has itself.

        Returns
        -------
        value of float, shape (n, width)
            Rows that have no member get the prior whatever it is.
        """

    def fit(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        *,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> LateFusion:
        """Fit every member on the rows that have its modality, then what joins them; see `Fusion.fit`."""
        metadata: dict[str, Any] = {"sample_weight": sample_weight, "groups": groups, "n_jobs": n_jobs}
        learns = self.learns(target.task)
        store = Store.of(None) if store is None else store
        with store.sharing_rows() if learns else nullcontext(store) as metadata["store"]:
            held_out = self._held_out(members, X, target, **metadata)
        if learns:
            self.learn_from(held_out)
        return self

    def adopt(self, members: Sequence[Member], task: Task, prior: np.ndarray) -> Self:
        """Take over members that are fitted elsewhere, before `learn_from` and `join`."""
        self.members_, self.task_, self.prior_ = list(members), task, prior
        return self

    def for_fold(self) -> Self:
        """Return a clone that knows the members and what it chose of all rows, to learn the rule from a fold's rows."""
        return clone(self).adopt(self.members_, self.task_, self.prior_)

    def learn_from(self, held_out: HeldOut) -> None:
        """Learn the rule from out-of-fold outputs; written in place of `learn` where the folds matter."""
        self.learn(held_out.outputs, held_out.present, held_out.y, held_out.X, held_out.sample_weight)

    def _held_out(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        *,
        sample_weight: np.ndarray | None,
        groups: np.ndarray | None,
        store: Store,
        n_jobs: int | None,
    ) -> HeldOut:
        """Fit every member, and on folds too where the rule is learned; return what they say of the held-out rows."""
        self.task_, self.prior_ = target.task, target.prior
        y = for_members(target)
        self.check_parameters(members, X)
        learns = self.learns(self.task_)
        found = [self._rows_to_fit(member, X, y, sample_weight, learns=learns) for member in members]
        folds = split_rows(self.cv, X, target, groups) if learns else []
        if learns and groups is None and isinstance(self.cv, str):
            groups = column_groups(X, self.cv)  # for members that hold rows out themselves
        if learns and groups is None and (self.cv is None or isinstance(self.cv, Integral)):
            columns = [column for member in members for column in as_list(member.columns)]
            warn_of_related_rows(X, columns, y, self.task_, folds)
        fits, held_out_fits, held_out_rows = [], [], []
        for m, (member, (present, rows)) in enumerate(zip(members, found, strict=True)):
            known = (member.estimator, HashedRows(rows), y[present])
            cost, slow = float(can_be_cut(member.estimator)), is_network(member.estimator)
            weights = None if sample_weight is None else sample_weight[present]
            related = groups[present] if groups is not None and takes_groups(member.estimator) else None
            call: tuple[Any, ...] = (
                present,
                rows,
                store.call,
                fit_member,
                *known,
                self.task_.label_sets,
                weights,
                related,
            )
            n = float(present.sum())
            what = ("member", m + 1, len(members), member.name)
            # A frozen network embeds its rows in the first fit, and finds them embedded in the others.
            kinds = (m, m) if cost else ((m, "whole"), (m, "fold"))
            fits.append(Job(member.name, member.call, call, cost * n, [what], kinds[0], n, slow))
            for number, fold in enumerate(folds, 1):
                fitting, held_out = member_fold(fold, present)
                if len(held_out):
                    metadata = ((fitting, held_out), weights, related)
                    call = (present, rows, store.call, out_of_fold, *known, self.task_, *metadata)
                    n = float(len(fitting))
                    which = ("fold", number, len(folds))
                    held_out_fits.append(
                        Job(member.name, member.call, call, cost * n, [what, which], kinds[1], n, slow)
                    )
                    held_out_rows.append((m, np.flatnonzero(present)[held_out]))
        results = run_jobs(fits + held_out_fits, n_jobs)
        fitted = zip(members, results, strict=False)
        self.members_ = [member.fitted(estimator, X, labels) for member, (estimator, labels) in fitted]
        outputs = np.zeros((len(members), len(y), self.task_.width))
        for place, held_out_outputs in zip(held_out_rows, results[len(fits) :], strict=True):
            outputs[place] = held_out_outputs
        presence = np.stack([present for present, _ in found])[:, :, None]
        return HeldOut(outputs, presence, y, X, sample_weight, folds)

    def _rows_to_fit(
        self, member: Member, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, *, learns: bool
    ) -> tuple[np.ndarray, Any]:
        """Return `Member.rows`; raise an error where the member cannot learn from them."""
        self._check_member(member)
        present, rows = member.rows(X)
        if not present.any():
            raise DataError(f"every row misses member {member.name!r}; leave it out", column=_named(member.columns))
        if sample_weight is not None and not sample_weight[present].any():
            raise DataError(
                f"every row with member {member.name!r} has the weight 0; leave the member out",
                column=_named(member.columns),
            )
        if learns:
            self._check_classes(member, y[present])
        return present, rows

    def _check_member(self, member: Member) -> None:
        check_can_answer(f"member {member.name!r}", member.estimator, self.task_, type(self).__name__)
        wrong = is_classifier if isinstance(self.task_, Regression) else is_regressor
        if wrong(member.estimator):
            kind = "regressor" if isinstance(self.task_, Regression) else "classifier"
            raise ConfigurationError(
                f"member {member.name!r} ({type(member.estimator).__name__}) must be a {kind}, as the composition"
            )

    def _check_classes(self, member: Member, y: np.ndarray) -> None:
        if len(self.task_.label_sets) != 1:
            return
        places, counts = np.unique(y, return_counts=True)
        if counts.min() < 2:
            label = self.task_.label_sets[0].tolist()[places[counts.argmin()]]
            raise DataError(
                f"class {label!r} has 1 row with member {member.name!r}, and out-of-fold predictions need at least 2 "
                "of each class; add rows, drop the class, or use SoftVoting"
            )

    def _member_outputs(self, X: Any, wanted: Sequence[bool] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return each member's outputs (n, width), 0 where missing or not wanted, and presence (n, 1)."""
        outputs, presence = [], []
        for member, is_wanted in zip(self.members_, wanted, strict=True):
            present, rows = member.rows(X)
            if not is_wanted:
                outputs.append(np.zeros((len(present), self.task_.width)))
                presence.append(present[:, None])
                continue
            member_outputs = np.zeros((0, self.task_.width))
            if present.any():
                known = (member.estimator, self.task_, rows, member.labels)
                member_outputs = member.call(present, rows, outputs_of, *known)
            outputs.append(_spread(member_outputs, present))
            presence.append(present[:, None])
        return outputs, presence

    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float, shape (n_samples, width)."""
        outputs, present = self._member_outputs(X, self.takes_part())
        if not len(present[0]):
            return np.zeros((0, self.task_.width))
        return np.asarray(self.join(NUMPY, outputs, present, FrameRows(X, self.task_)))

    def transform(self, X: Any) -> np.ndarray:
        """Return the members' outputs side by side, (n_samples, n_members * width); 0 where missing."""
        outputs, _ = self._member_outputs(X, [True] * len(self.members_))
        return np.concatenate(outputs, axis=1)

    def get_feature_names_out(self) -> list[str]:
        """Return ``<member>_<class>`` for every column of `transform`."""
        return [f"{member.name}_{output}" for member in self.members_ for output in output_names(self.task_)]

    def join(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        """Combine the members that take part; a row that has none of them gets the prior."""
        part = self.takes_part()
        outputs, present = list(compress(outputs, part)), list(compress(present, part))
        combined = self.combine(xp, outputs, present, rows)
        return xp.where(reduce(or_, present), combined, xp.constant(self.prior_[None], "prior"))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read pickles of version 0.1 too, whose members learned labels of several dtypes as numbers of outputs."""
        task = state.get("task_")
        if task is not None and state.get("_member_task", task) != task:
            labels = [np.concatenate([column.astype(object) for column in task.label_sets])] * len(task.label_sets)
            members = [replace(member, labels=labels) for member in state["members_"]]
            state = {**state, "members_": members, "final_labels_": labels}
        super().__setstate__(state)

    def __onnx_graph__(self, source: Frame) -> Outputs:
        """Take part in `mmensemble.to_graph`."""
        if not isinstance(source, Frame):
            raise ExportError("a composition takes columns of X, and stands behind a step that makes a matrix")
        graph = source.graph
        xp = GraphOperations(graph)
        values, present = [], []
        parts = self.takes_part()
        for number, (member, takes_part) in enumerate(zip(self.members_, parts, strict=True), 1):
            before = len(graph.refusals)
            with Step("member", number, len(parts), member.name), graph.scope(member.name):
                outputs = to_graph(member.estimator, source.member(member.name, member.columns, member.kinds))
                if outputs.present is None:
                    raise ExportError(
                        f"member {member.name!r} ({type(member.estimator).__name__}) does not tell where it is missing"
                    )
                if self.hides_nan:
                    graph.refusals += refused_answers(outputs)
                if not takes_part:  # and what it refuses does not matter
                    del graph.refusals[before:]
                refuse_where_present(graph, before, outputs.present)
            value = graph_outputs(f"member {member.name!r}", member.estimator, outputs, self.task_, member.labels)
            values.append(xp.of(value))
            present.append(xp.of(outputs.present))
        with graph.scope(type(self).__name__):
            values = [xp.where(*pair, 0) for pair in zip(present, values, strict=True)]
            result = self.join(xp, values, present, GraphRows(source, self.task_))
            side_by_side = xp.concat(*values)
            any_member = any_present(graph, [value.value for value in present])
        return Outputs(
            graph,
            **{self.task_.output: result.value},
            transformed=side_by_side.value,
            present=any_member,
            task=self.task_,
        )


def _spread(outputs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Put the outputs of the rows that are present among all rows, with zeros for the others."""
    full = np.zeros((len(present), outputs.shape[1]))
    full[present] = outputs
    return full


def _named(columns: Columns) -> str:
    return ", ".join(as_list(columns))
