"""Which columns make up a modality, and frames with some of its cells moved or taken away.

Imports scikit-learn and narwhals, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import narwhals as nw
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import check_scoring
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import check_columns, column_names, n_rows, not_a
from mmensemble.learning.columns import Columns, ColumnSelector, as_list, present_rows, select_columns
from mmensemble.learning.folds import numbered
from mmensemble.learning.members import named
from mmensemble.learning.targets import LabelsMixin

__all__ = [
    "FittedMember",
    "check_frame",
    "composition_of",
    "fitted_members",
    "modalities",
    "one_scorer",
    "rows_shuffled",
    "with_missing",
]


def one_scorer(estimator: Any, scoring: Any, n_repeats: int) -> Any:
    """Return the one score that is to be measured so many times, or raise `ConfigurationError`."""
    if n_repeats < 1:
        raise ConfigurationError(f"n_repeats must be at least 1, not {n_repeats}")
    if isinstance(scoring, (list, tuple, set, dict)):
        raise ConfigurationError("scoring must be one score")
    return check_scoring(estimator, scoring=scoring)


class _Labelled(LabelsMixin, BaseEstimator):
    """A fitted classifier that learned numbers of labels, as one of the labels."""

    def __init__(self, estimator: Any, labels: Sequence[np.ndarray]) -> None:
        self.estimator = estimator
        self.labels = labels

    @property
    def classes_(self) -> Any:
        return self.labels[0] if len(self.labels) == 1 else list(self.labels)

    def predict(self, X: Any) -> np.ndarray:
        numbers = np.asarray(self.estimator.predict(X)).astype(int)
        # Some libraries' classifiers predict (n, 1).
        return named(numbers.reshape(-1) if len(self.labels) == 1 else numbers, self.labels)

    def __getattr__(self, name: str) -> Any:
        if name == "estimator":  # not so before __init__
            raise AttributeError(name)
        return getattr(self.estimator, name)


@dataclass(frozen=True)
class FittedMember:
    """A fitted member of a composition, asked about the rows of the composition's frame.

    Parameters
    ----------
    name : str
    estimator : estimator
        Fitted.
    columns : str, list of str or None
        What it sees; None is the whole frame.
    """

    name: str
    estimator: Any
    columns: Columns | None

    def rows(self, X: Any) -> tuple[np.ndarray, Any]:
        """Return which rows have this modality, (n,) bool, and what the member sees of them."""
        if self.columns is None:
            return np.ones(n_rows(X), dtype=bool), X
        present = present_rows(X, self.columns)
        return present, safe_indexing(select_columns(X, self.columns), np.flatnonzero(present))

    def predict(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows have this modality, (n,) bool, and the predictions of these rows.

        Raises
        ------
        ConfigurationError
            If the member belongs to a joint fusion and predicts nothing on its own.
        """
        present, rows = self.rows(X)
        if not present.any():
            return present, np.empty(0, dtype=object)
        try:
            with numbered(np.flatnonzero(present)):
                predicted = np.asarray(self.estimator.predict(rows))
        except NotFittedError as error:
            raise ConfigurationError(
                f"member {self.name!r} predicts nothing on its own: in a joint fusion only the whole does"
            ) from error
        return present, predicted


def check_frame(X: Any) -> None:
    """Raise `DataError` if X is no frame with rows."""
    if column_names(X) is None or isinstance(X, Mapping):
        raise DataError(f"X must be a DataFrame (pandas or polars), {not_a(X)}")
    if n_rows(X) == 0:
        raise DataError("X has no rows")


def fitted_members(estimator: Any) -> list[FittedMember]:
    """List the fitted members of a composition, those of scikit-learn's included.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the composition is not fitted.
    ConfigurationError
        If it has no members.
    """
    check_is_fitted(estimator)
    composition = composition_of(estimator)
    if composition is None or not hasattr(composition, "named_estimators_"):
        raise ConfigurationError(f"{type(estimator).__name__} is no composition of members by name")
    if hasattr(composition, "fusion_"):
        return [
            FittedMember(member.name, _labelled(member.estimator, member.labels), member.columns)
            for member in composition.fusion_.members_
        ]
    # scikit-learn's ensembles number the labels before they fit their members.
    encoded = isinstance(composition, VotingClassifier) or (
        isinstance(composition, StackingClassifier) and composition.cv != "prefit"
    )
    labels = [composition.classes_] if encoded else None
    return [
        FittedMember(name, _labelled(composition.named_estimators_[name], labels), None)
        for name, _ in composition.estimators
        if name in composition.named_estimators_ and not isinstance(composition.named_estimators_[name], str)
    ]


def _labelled(estimator: Any, labels: Sequence[np.ndarray] | None) -> Any:
    return estimator if labels is None else _Labelled(estimator, labels)


def modalities(estimator: Any, X: Any, groups: Mapping[str, Columns] | None = None) -> dict[str, list[str]]:
    """Return the columns of each modality, by name; no column is in two of them.

    Parameters
    ----------
    estimator : estimator
        A composition of members over columns.
    X : DataFrame
    groups : dict of str to str or list of str, default=None
        The modalities. None makes one of each member's columns; members that share a column are one modality, whose
        name is theirs joined by ``+``.

    Raises
    ------
    ConfigurationError
        If a column is in two groups, or if there are no groups and the estimator does not say what its members see.
    DataError
        If X is no frame with rows, or lacks a column.
    """
    check_frame(X)
    found = _member_columns(estimator) if groups is None else {name: as_list(c) for name, c in groups.items()}
    if not found:
        raise ConfigurationError("groups must hold at least one modality")
    check_columns(column_names(X) or [], chain.from_iterable(found.values()))
    if groups is None:
        return _merged(found.items())
    given = [column for columns in found.values() for column in columns]
    if len(set(given)) < len(given):
        raise ConfigurationError(f"no column may be in two groups; got {found}")
    return found


def rows_shuffled(X: Any, columns: Sequence[str], order: np.ndarray) -> Any:
    """Return the frame with some columns taken, together, from other rows."""
    frame = nw.from_native(X, eager_only=True)
    return frame.with_columns(*(frame[column][order.tolist()].alias(column) for column in columns)).to_native()


def with_missing(X: Any, columns: Iterable[str], rows: np.ndarray | None = None) -> Any:
    """Return the frame with the cells of some columns taken away, in the rows of a mask or in all of them."""
    columns = list(columns)
    if not columns:
        return X
    frame = nw.from_native(X, eager_only=True)
    keep = np.zeros(len(frame), dtype=bool) if rows is None else ~rows
    kept = nw.new_series("kept", keep, nw.Boolean, backend=frame.implementation)
    return frame.with_columns(
        *(nw.when(kept).then(nw.col(column)).otherwise(None).alias(column) for column in columns)
    ).to_native()


def composition_of(estimator: Any) -> Any:
    """Look into a fitted search or a calibrated classifier for the composition; None if there is none."""
    while not hasattr(estimator, "estimators"):
        inner = getattr(estimator, "best_estimator_", None)
        estimator = getattr(estimator, "estimator", None) if inner is None else inner
        if estimator is None:
            return None
    return estimator


def _member_columns(estimator: Any) -> dict[str, list[str]]:
    composition = composition_of(estimator)
    found: dict[str, list[str]] = {}
    for name, member, *columns in (
        [] if composition is None else getattr(composition, "inferred_estimators_", composition.estimators)
    ):
        if isinstance(member, str):
            continue  # "drop"
        if not columns and isinstance(member, Pipeline) and isinstance(member.steps[0][1], ColumnSelector):
            columns = [member.steps[0][1].columns]
        if not columns:
            found = {}
            break
        found[name] = as_list(columns[0])
    if not found:
        raise ConfigurationError(
            f"{type(estimator).__name__} does not say which columns its members see; give groups={{name: columns}}"
        )
    return found


def _merged(found: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Join the sets of columns that overlap."""
    merged: list[tuple[list[str], list[str]]] = []
    for name, columns in found:
        sharing = [pair for pair in merged if set(pair[1]) & set(columns)]
        names = [n for pair in sharing for n in pair[0]] + [name]
        together = list(dict.fromkeys([c for pair in sharing for c in pair[1]] + columns))
        place = merged.index(sharing[0]) if sharing else len(merged)
        merged = [pair for pair in merged if pair not in sharing]
        merged.insert(place, (names, together))
    return {"+".join(names): columns for names, columns in merged}
