"""What a fusion strategy is, and what it gets of each member."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from mmensemble._sklearn import safe_indexing
from mmensemble.cache import Store
from mmensemble.exceptions import DataError
from mmensemble.learning.columns import Columns, column_gaps, column_kinds, present_rows, select_columns
from mmensemble.learning.folds import Fold, numbered
from mmensemble.learning.refused_cells import refused_cell
from mmensemble.learning.targets import LearnedTask
from mmensemble.preprocessing.base import unreadable_as_missing
from mmensemble.progress import Step
from mmensemble.tasks import Task
from mmensemble.time_limits import portion

__all__ = ["Fusion", "Member"]


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
    labels : list of ndarray, default=None
        By column of `y`, the label that each of the fitted estimator's classes 0, 1, ... stands for; None where it has
        no classes, or they are the labels themselves.
    gaps : dict of str to None or NaN, default=None
        What stood for a missing cell, in fit, in the columns of strings.
    unreadable : {"raise", "missing"}, default="raise"
        What becomes, in fit, of a cell that a preprocessor cannot read.
    """

    __module__ = "mmensemble.fusion"
    name: str
    estimator: Any
    columns: Columns
    kinds: dict[str, Any] | None = None
    labels: list[np.ndarray] | None = None
    gaps: dict[str, float | None] | None = None
    unreadable: str = "raise"

    def rows(self, X: Any) -> tuple[np.ndarray, Any]:
        """Return which rows have this modality, (n,) bool, and the member's columns of these rows."""
        present = present_rows(X, self.columns)
        chosen = select_columns(X, self.columns, self.gaps)
        return present, chosen if present.all() else safe_indexing(chosen, np.flatnonzero(present))

    def fitted(self, estimator: Any, X: Any, labels: list[np.ndarray] | None = None) -> Member:
        """Return the member with its fitted estimator, and the labels that its classes number."""
        kinds = column_kinds(X, self.columns)
        # A preprocessor of ours takes None and NaN alike, and need not be told.
        gaps = {} if hasattr(estimator, "preprocessor_") else column_gaps(X, self.columns)
        return replace(self, estimator=estimator, kinds=kinds, labels=labels, gaps=gaps, unreadable="raise")

    def call(self, present: np.ndarray, rows: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of the member's estimator, which sees the rows that are present only.

        A bad row is numbered as in the whole; where another library raises an error of a cell, it is found. Any other
        error gets a note that names the member.

        Parameters
        ----------
        present : ndarray of bool, shape (n,)
        rows : Series or DataFrame, n_present rows
            What the estimator sees of them, or a part of it.
        function : callable
        *arguments
            Its own.
        """
        leniently = unreadable_as_missing() if self.unreadable == "missing" else nullcontext()
        with numbered(np.flatnonzero(present)), leniently:
            try:
                return function(*arguments)
            except DataError:
                raise
            except Exception as error:
                bad = refused_cell(error, self.name, self.estimator, rows)
                if bad is not None:
                    raise bad from error
                error.add_note(f"This was member {self.name!r} ({type(self.estimator).__name__}) of the composition.")
                raise


class Fusion(BaseEstimator):
    """A way of joining members.

    It is exported by `mmensemble.to_graph`: by a method ``__onnx_graph__(source)``, or by a function that is registered
    there for its class.

    Attributes
    ----------
    members_ : list of Member
        The fitted members.
    task_ : Task
        What the outputs mean.
    prior_ : ndarray of float, shape (``task_.width``,)
        The outputs of a row that misses every modality: the classes' or labels' share in the fitting rows, or the
        targets' mean.
    """

    __module__ = "mmensemble.fusion"
    members_: list[Member]
    task_: Task
    prior_: np.ndarray

    def leave_out(self, dropped: Sequence[bool]) -> None:
        """Adjust the parameters that speak of single members to those that are not dropped; called before `fit`.

        Parameters
        ----------
        dropped : sequence of bool, one for each member
        """

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        text, learned = super().__repr__(N_CHAR_MAX), self._learned()
        return f"{text}, {learned}" if learned else text

    def _learned(self) -> str:
        """Say what a fitted strategy has learned of each member; nothing before, and where it learns nothing."""
        return ""

    @abstractmethod
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
    ) -> Fusion:
        """Fit the members and what joins them.

        Parameters
        ----------
        members : sequence of Member
            Unfitted.
        X : DataFrame, n_samples rows
        target : LearnedTask
            The task, its prior, and `y`.
        sample_weight : ndarray of float, shape (n_samples,), default=None
        groups : ndarray, shape (n_samples,), default=None
            Rows of one group are related: a split must not part them.
        store : Store, default=None
            Where fitted members, out-of-fold outputs and embeddings are kept.
        n_jobs : int, default=None
            As in scikit-learn.

        Returns
        -------
        self
        """

    def out_of_fold(
        self,
        members: Sequence[Member],
        X: Any,
        target: LearnedTask,
        folds: Sequence[Fold],
        *,
        sample_weight: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        store: Store | None = None,
        n_jobs: int | None = None,
    ) -> np.ndarray:
        """Predict the rows that each fold holds out, by a clone that was fitted without them.

        By this a strategy with members of its own is a candidate of `SuperLearner`. Write it anew where there is a
        shorter way than to fit all that there is, fold by fold. If that fits the strategy to all rows on the way, `fit`
        is not called after it.

        Parameters
        ----------
        members, X, target, sample_weight, groups, store, n_jobs : as in `fit`
        folds : sequence of Fold
            They hold each row out once.

        Returns
        -------
        ndarray of float, shape (n_samples, width)
        """
        made = np.zeros((len(target.y), target.task.width))
        for number, (fitting, held_out) in enumerate(folds):
            weight, related = (None if part is None else part[fitting] for part in (sample_weight, groups))
            part, rows = replace(target, y=target.y[fitting]), safe_indexing(X, fitting)
            with portion(1 / (len(folds) - number)), Step("fold", number + 1, len(folds)), numbered(fitting):
                fitted = clone(self).fit(
                    members, rows, part, sample_weight=weight, groups=related, store=store, n_jobs=n_jobs
                )
            with numbered(held_out):
                made[held_out] = fitted.outputs(safe_indexing(X, held_out))
        return made

    @abstractmethod
    def outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, ndarray of float, shape (n_samples, width)."""

    @abstractmethod
    def transform(self, X: Any) -> np.ndarray:
        """Return what the strategy joins or makes, ndarray of float, shape (n_samples, n_features_out)."""

    @abstractmethod
    def get_feature_names_out(self) -> list[str]:
        """Return the names of `transform`'s columns."""
