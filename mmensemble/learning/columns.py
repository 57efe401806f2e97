"""How an estimator is tied to columns of a frame. Imports scikit-learn, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import narwhals as nw
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import check_columns, column_cells, column_names, columns_of, missing_cells, n_rows
from mmensemble.learning.pipelines import prediction_steps

__all__ = [
    "ColumnSelector",
    "Columns",
    "check_form",
    "column_gaps",
    "column_kinds",
    "on_column",
    "present_rows",
    "select_columns",
]

Columns = str | Sequence[str]


class ColumnSelector(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Pass one column, or some columns, of a frame on to the next step of a pipeline.

    Parameters
    ----------
    columns : str or list of str
        A string selects a series, a list a frame, as in ``ColumnTransformer``.

    Attributes
    ----------
    kinds_ : dict of str to {"float", "string"}
        What the selected columns held in `fit`.
    gaps_ : dict of str to None or NaN
        What stood for a missing cell in those of strings.
    n_features_in_ : int
        Number of columns of the frame.
    feature_names_in_ : ndarray of str objects, shape (n_columns,)

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"name": ["apple", "car"], "weight": [0.1, 900.0]})
    >>> ColumnSelector("name").fit_transform(frame).tolist()
    ['apple', 'car']
    """

    __module__ = "mmensemble"

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def fit(self, X: Any, y: Any = None) -> ColumnSelector:
        """Check that the columns are there.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        DataError
            If X is no frame or lacks a column.
        """
        self.kinds_ = column_kinds(X, self.columns)
        self.gaps_ = column_gaps(X, self.columns)
        self.feature_names_in_ = np.asarray(column_names(X), dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)
        return self

    def transform(self, X: Any) -> Any:
        """Select the columns.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows

        Returns
        -------
        Series or DataFrame, n_samples rows
        """
        check_is_fitted(self)
        return select_columns(X, self.columns, getattr(self, "gaps_", None))

    def set_output(self, *, transform: Any = None) -> ColumnSelector:
        """Do nothing: what is selected stays in the container that it came in, which may be a series.

        Parameters
        ----------
        transform : ignored

        Returns
        -------
        self
        """
        return self

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the selected columns.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects
        """
        return np.asarray(as_list(self.columns), dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


def on_column(columns: Columns, estimator: Any) -> Pipeline:
    """Tie an estimator to a column, so that it can stand in any scikit-learn composition over a frame.

    Parameters
    ----------
    columns : str or list of str
        A string gives the estimator a series, a list a frame.
    estimator : estimator
        Anything with the scikit-learn contract.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``columns`` and ``estimator``.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> on_column("name", DummyClassifier())
    Pipeline(steps=[('columns', ColumnSelector(columns='name')),
                    ('estimator', DummyClassifier())])
    """
    return Pipeline([("columns", ColumnSelector(columns)), ("estimator", estimator)])


def as_list(columns: Columns) -> list[str]:
    """Return column or columns as a list."""
    return [columns] if isinstance(columns, str) else list(columns)


def check_form(name: str, estimator: Any, columns: Columns) -> None:
    """Check that an estimator of scikit-learn that takes one column of texts, or a table, is given one.

    Parameters
    ----------
    name : str
        Who has the estimator, for the message.
    estimator : estimator
    columns : str or list of str

    Raises
    ------
    ConfigurationError
        If one column is named by a list where a vectorizer takes texts, or by a string where a table is taken.
    """
    while isinstance(estimator, Pipeline) and (steps := prediction_steps(estimator)):
        estimator = steps[0][1]
    if isinstance(estimator, FeatureUnion):
        for _, transformer in estimator.transformer_list:
            check_form(name, transformer, columns)
        return
    # What holds other estimators leaves it to them.
    holds_others = any(hasattr(estimator, parameter) for parameter in ("estimator", "estimators", "transformers"))
    if not type(estimator).__module__.startswith("sklearn.") or holds_others:
        return
    tags, kind = get_tags(estimator), type(estimator).__name__
    if tags.no_validation:
        return
    if isinstance(columns, str) and tags.input_tags.two_d_array and not tags.input_tags.one_d_array:
        raise ConfigurationError(
            f"{name}: {kind} takes a table; name its columns by a list, {[columns]}, not by a string"
        )
    if not isinstance(columns, str) and tags.input_tags.string and not tags.input_tags.two_d_array:
        raise ConfigurationError(
            f"{name}: {kind} takes the texts of one column; name it by a string, {columns[0]!r}, not by a list"
        )


def select_columns(X: Any, columns: Columns, gaps: Mapping[str, float | None] | None = None) -> Any:
    """Return one column as a series, or some columns as a frame.

    Parameters
    ----------
    X : DataFrame (pandas or polars)
    columns : str or list of str
    gaps : dict of str to None or NaN, default=None
        What `column_gaps` told in fit. A missing word comes as None, as NaN, or, where all are missing, in a column of
        numbers, by where the frame comes from; encoders tell these apart. It is given back as it was in fit.

    Raises
    ------
    DataError
        If X is no frame or lacks a column.
    """
    _check_columns(X, columns)
    chosen = safe_indexing(X, columns if isinstance(columns, str) else list(columns), axis=1)
    for name, gap in ({} if gaps is None else gaps).items():
        column = columns_of(X)[name]
        missing = missing_cells(column_cells(X, name))
        if not missing.any() or (column.dtype.is_numeric() and not missing.all()):
            continue  # numbers among words are a mistake, which the estimator names
        if gap is not None and not column.implementation.is_pandas():
            chosen, column = nw.from_native(chosen, allow_series=True).to_pandas(), column.cast(nw.String).to_pandas()
            column = nw.from_native(column, series_only=True)
        filled = _filled(column, missing, gap)
        chosen = filled if isinstance(columns, str) else _with(chosen, name, filled)
    return chosen


def _filled(column: nw.Series[Any], missing: np.ndarray, gap: float | None) -> Any:
    """Return a column of words with one value where cells are missing; other libraries than pandas have just one."""
    if not column.implementation.is_pandas():
        return column.cast(nw.String).to_native() if missing.all() else column.to_native()
    filled = column.to_native().astype(object)
    filled[missing] = gap
    return filled


def _with(frame: Any, name: str, column: Any) -> Any:
    made = nw.from_native(column, series_only=True)
    return nw.from_native(frame, eager_only=True).with_columns(made.alias(name)).to_native()


def column_gaps(X: Any, columns: Columns) -> dict[str, float | None]:
    """Tell what stands for a missing cell in those columns that hold no numbers: None or NaN.

    Where there is no missing cell it is NaN, as pandas has it; columns with both are left out.
    """
    found = columns_of(X)
    gaps: dict[str, float | None] = {}
    for name, kind in column_kinds(X, columns).items():
        if kind != "string":
            continue
        cells = column_cells(X, name)
        kinds = {cells[row] is None for row in np.flatnonzero(missing_cells(cells)).tolist()}
        if len(kinds) < 2:
            gaps[name] = None if kinds == {True} or not found[name].implementation.is_pandas() else np.nan
    return gaps


def column_kinds(X: Any, columns: Columns) -> dict[str, Literal["float", "string"]]:
    """Tell which of the columns hold numbers; all others count as strings (text, paths, images)."""
    _check_columns(X, columns)
    found = columns_of(X)
    return {name: "float" if _is_number(found[name].dtype) else "string" for name in as_list(columns)}


def present_rows(X: Any, columns: Columns) -> np.ndarray:
    """Tell which rows have a value in at least one of the columns.

    Returns
    -------
    ndarray of bool, shape (n_rows,)
    """
    present = np.zeros(n_rows(X), dtype=bool)
    for column in as_list(columns):
        present |= ~missing_cells(column_cells(X, column))
    return present


def _check_columns(X: Any, columns: Columns) -> None:
    names = column_names(X)
    if names is None:
        raise DataError(
            f"a DataFrame (pandas or polars) with the column(s) {as_list(columns)} is expected, not {type(X).__name__}"
        )
    check_columns(names, as_list(columns))


def _is_number(dtype: Any) -> bool:
    return bool(dtype.is_numeric() or dtype == nw.Boolean)
