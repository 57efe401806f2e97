"""Stacked generalisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.filling import PeerRegression
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.rows import FrameRows, Rows
from mmensemble.fusion.strategy import Member
from mmensemble.learning.columns import as_list, column_kinds
from mmensemble.learning.members import fit_member, member_target
from mmensemble.learning.outputs import check_can_answer, informative_columns
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Multilabel, Multioutput, Regression, Task

__all__ = ["Stacking"]


class Stacking(LateFusion):
    """Feed the members' outputs to a meta-learner (Wolpert 1992), trained on out-of-fold outputs.

    On complete rows that is ``StackingClassifier(stack_method="predict_proba")`` and ``StackingRegressor``: of two
    classes only the second one's probability is used. Where a modality is missing, its place is taken by what the
    member would be expected to say, by a ridge regression of its out-of-fold outputs on the mean of its peers'. Levels
    are built by nesting: a member, or the meta-learner, may be a composition itself.

    Parameters
    ----------
    final_estimator : estimator, default=None
        The meta-learner. None is ``LogisticRegression()``, one per label or column of labels where there are several
        (``OneVsRestClassifier``, ``MultiOutputClassifier``), and ``RidgeCV()`` for a regression.
    cv : int, str, splitter or list of splits, default=5
        How the out-of-fold outputs are made. All members share the folds, which leave each row of X out once: that many
        stratified ones, or ones by group where `groups` are passed to `fit`; ones that keep together the rows with the
        same cell in the column of X that is named; those of a splitter, which sees X as `fit` gets it; or those of a
        list of row numbers to fit and to hold out.
    passthrough : bool or list of str, default=False
        True gives the meta-learner the members' numeric columns too, a list these numeric columns of X. They come as
        they are: put a scaler before a linear meta-learner. A missing number is replaced by its column's mean.

    Attributes
    ----------
    final_estimator_ : estimator
        The fitted meta-learner. Of a classification it learned numbers, as in ``StackingClassifier``.
    final_labels_ : list of ndarray, or None
        By column of `y`, the label that each of the meta-learner's classes 0, 1, ... stands for; None of a regression
        and of independent labels.
    peer_regression_ : PeerRegression
        What is expected of a member whose modality is missing.
    passthrough_ : list of str
        The columns that are passed through.
    passthrough_means_ : ndarray of float, shape (n_passed_through,)
    members_ : list of Member
        Fitted on all rows.
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Wolpert (1992). Stacked generalization. Neural Networks 5(2).
    """

    __module__ = "mmensemble"

    # Version 0.1 had no such attribute: its meta-learners learned the labels themselves.
    final_labels_: list[np.ndarray] | None = None

    def __init__(self, final_estimator: Any = None, cv: Any = 5, passthrough: bool | Sequence[str] = False) -> None:
        self.final_estimator = final_estimator
        self.cv = cv
        self.passthrough = passthrough

    def learns(self, task: Task) -> bool:
        return True

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        if self.final_estimator is not None:
            check_can_answer("final_estimator", self.final_estimator, self.task_, "Stacking")
        columns = [] if isinstance(self.passthrough, bool) else self.passthrough
        if (
            isinstance(columns, str)
            or not isinstance(columns, Iterable)
            or not all(isinstance(name, str) for name in columns)
        ):
            raise ConfigurationError(f"passthrough must be a bool or a list of columns, not {self.passthrough!r}")
        self._columns(members, X)

    def _columns(self, members: Sequence[Member], X: Any) -> list[str]:
        """Return the columns to pass through, which must hold numbers."""
        if isinstance(self.passthrough, bool):
            if not self.passthrough:
                return []
            used = list(dict.fromkeys(name for member in members for name in as_list(member.columns)))
            columns = [name for name, kind in column_kinds(X, used).items() if kind == "float"]
            if not columns:
                raise ConfigurationError(
                    f"passthrough=True finds no numeric column among the members' {used}; name columns of X in a list"
                )
            return columns
        kinds = column_kinds(X, list(self.passthrough))
        strings = [name for name, kind in kinds.items() if kind != "float"]
        if strings:
            raise ConfigurationError(f"passthrough takes numeric columns, and {strings} hold something else")
        return list(kinds)

    def learn(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: np.ndarray | None
    ) -> None:
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        self.peer_regression_ = PeerRegression().fit(outputs, present, weight)
        self.passthrough_ = self._columns(self.members_, X)
        rows = FrameRows(X, self.task_)
        numbers = rows.numbers("passthrough", self.passthrough_) if self.passthrough_ else np.zeros((len(y), 0))
        shares = ~np.isnan(numbers) * weight[:, None]
        total = shares.sum(axis=0)
        sums = (np.where(np.isnan(numbers), 0, numbers) * shares).sum(axis=0)
        self.passthrough_means_ = sums / np.where(total > 0, total, 1)
        used = present[:, :, 0].any(axis=0)
        features = self._features(NUMPY, list(outputs), list(present), rows)[used]
        try:
            self.final_estimator_, self.final_labels_ = self._fit_meta_learner(
                features, y[used], None if sample_weight is None else sample_weight[used]
            )
        except Exception as error:
            error.add_note("This was the final_estimator of Stacking.")
            raise

    def _fit_meta_learner(
        self, features: np.ndarray, y: np.ndarray, weight: np.ndarray | None
    ) -> tuple[Any, list[np.ndarray] | None]:
        label_sets = self.task_.label_sets
        if self.final_estimator is not None:
            return fit_member(self.final_estimator, features, y, label_sets, weight)
        if isinstance(self.task_, Regression):
            return fit_member(RidgeCV(), features, y, label_sets, weight)
        if not isinstance(self.task_, (Multilabel, Multioutput)):
            return fit_member(LogisticRegression(), features, y, label_sets, weight)
        per_column = OneVsRestClassifier if isinstance(self.task_, Multilabel) else MultiOutputClassifier
        if weight is None:
            return fit_member(per_column(LogisticRegression()), features, y, label_sets)
        # OneVsRestClassifier hands weights on by metadata routing only.
        with config_context(enable_metadata_routing=True):
            final = per_column(LogisticRegression().set_fit_request(sample_weight=True))
            y, labels = member_target(final, y, label_sets)
            return final.fit(features, y, sample_weight=weight), labels

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        features = self._features(xp, outputs, present, rows)
        return rows.outputs_of("final_estimator", self.final_estimator_, features, self.final_labels_)

    def _features(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        features = self.peer_regression_.fill(xp, outputs, present)
        informative = informative_columns(self.task_)
        if len(informative) < self.task_.width:
            features = [xp.take(output, informative) for output in features]
        if self.passthrough_:
            numbers = rows.numbers("passthrough", self.passthrough_)
            means = xp.constant(self.passthrough_means_[None], "passthrough_means")
            features.append(xp.where(xp.isnan(numbers), means, numbers))
        return xp.concat(*features)
