"""Stacked generalisation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.filling import PeerRegression
from mmensemble.fusion.held_out import HeldOut
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.meta_learner import chosen_strength, fit_default
from mmensemble.fusion.pool import LEAST_LOG_RATIO, log_ratios
from mmensemble.fusion.rows import FrameRows, Rows
from mmensemble.fusion.strategy import Member
from mmensemble.learning.columns import as_list, column_kinds
from mmensemble.learning.members import fit_member
from mmensemble.learning.outputs import check_can_answer, informative_columns
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Regression, Task

__all__ = ["Stacking"]


class Stacking(LateFusion):
    r"""Feed the members' outputs to a meta-learner (Wolpert 1992), trained on out-of-fold outputs.

    With a meta-learner of your own that is, on complete rows, ``StackingClassifier(stack_method="predict_proba")`` and
    ``StackingRegressor``: of two classes only the second one's probability is used. Where a modality is missing, its
    place is taken by what the member would be expected to say, by a ridge regression of its out-of-fold outputs on the
    mean of its peers'. Levels are built by nesting: a member, or the meta-learner, may be a composition itself.

    The default meta-learner is linear, and its penalty is the one of the lowest loss (log loss, or squared error) when
    it is cross-validated on the out-of-fold outputs, by the same folds. Beside a class's probability it sees by how
    much a member makes it more probable than it is beforehand, :math:`\log(p_{mk} / \pi_k)`, in which independent
    evidence adds up.

    Parameters
    ----------
    final_estimator : estimator, default=None
        The meta-learner. None is ``LogisticRegression``, one per label or column of labels where there are several
        (``OneVsRestClassifier``, ``MultiOutputClassifier``), and ``Ridge`` for a regression.
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
    strength_ : float or None
        Of the default meta-learner: ``C`` of a classification; of a regression ``alpha`` per row and unit of a
        feature's variance.
    log_ratios_ : bool
        Whether the meta-learner sees logarithms of the probabilities' ratios to the prior too.
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

    # Version 0.1 had no such attributes: its meta-learners learned the labels themselves, and saw probabilities only.
    final_labels_: list[np.ndarray] | None = None
    log_ratios_: bool = False
    strength_: float | None = None

    _strength_of_all: float | None = None

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

    def for_fold(self) -> Stacking:
        # One of a few numbers, chosen from all rows: a fold's own choice costs as much as all else.
        stacking = super().for_fold()
        stacking._strength_of_all = self.strength_
        return stacking

    def learn_from(self, held_out: HeldOut) -> None:
        outputs, present, weight = held_out.outputs, held_out.present, held_out.weight
        self.log_ratios_ = self.final_estimator is None and not isinstance(self.task_, Regression)
        self.peer_regression_ = PeerRegression().fit(
            np.stack(self._said(NUMPY, list(outputs), list(present))), present, weight
        )
        self.passthrough_ = self._columns(self.members_, held_out.X)
        rows = FrameRows(held_out.X, self.task_)
        numbers = rows.numbers("passthrough", self.passthrough_) if self.passthrough_ else np.zeros((len(weight), 0))
        shares = ~np.isnan(numbers) * weight[:, None]
        total = shares.sum(axis=0)
        sums = (np.where(np.isnan(numbers), 0, numbers) * shares).sum(axis=0)
        self.passthrough_means_ = sums / np.where(total > 0, total, 1)
        used = held_out.present[:, :, 0].any(axis=0)
        features = self._features(NUMPY, list(outputs), list(present), rows)[used]
        known = held_out.rows(np.flatnonzero(used))
        try:
            if self.final_estimator is None:
                of_all = self._strength_of_all
                self.strength_ = chosen_strength(self.task_, features, known) if of_all is None else of_all
                fitted = fit_default(self.task_, features, known.y, known.sample_weight, self.strength_)
            else:
                given = (known.y, self.task_.label_sets, known.sample_weight)
                fitted = fit_member(self.final_estimator, features, *given)
        except Exception as error:
            error.add_note("This was the final_estimator of Stacking.")
            raise
        self.final_estimator_, self.final_labels_ = fitted

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        features = self._features(xp, outputs, present, rows)
        return rows.outputs_of("final_estimator", self.final_estimator_, features, self.final_labels_)

    def _said(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value]) -> list[Value]:
        """Return what the meta-learner sees of each member, (n, n_seen); 0 where missing."""
        if not self.log_ratios_:
            return list(outputs)
        ratios = log_ratios(xp, outputs, present, self.prior_, self.task_)
        scale = 1 / abs(LEAST_LOG_RATIO)  # not far beyond -1 to 1, as the probabilities
        return [xp.concat(output, ratio * scale) for output, ratio in zip(outputs, ratios, strict=True)]

    def _features(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        features = self.peer_regression_.fill(xp, self._said(xp, outputs, present), present)
        informative, width = informative_columns(self.task_), self.task_.width
        if len(informative) < width:
            further = np.arange(width, 2 * width if self.log_ratios_ else width)
            features = [xp.take(output, np.concatenate([informative, further])) for output in features]
        if self.passthrough_:
            numbers = rows.numbers("passthrough", self.passthrough_)
            means = xp.constant(self.passthrough_means_[None], "passthrough_means")
            features.append(xp.where(xp.isnan(numbers), means, numbers))
        return xp.concat(*features)
