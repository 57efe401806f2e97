"""Members for the columns of a frame, without being named. Imports scikit-learn.

Estimators of texts, pictures, sounds and films come from a package that registers them by `recommends`, as
`mmensemble_estimators` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.multiclass import type_of_target

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import n_rows
from mmensemble.multimodal.holdings import Holding, holdings

__all__ = ["InferredMembers", "infer_members", "recommends"]

# From so many rows on, boosted trees beside the linear model of the numbers.
ROWS_FOR_TREES = 500

Recommendation = Callable[[int, bool], tuple[Any, str]]
_recommendations: dict[str, Recommendation] = {}


def recommends(kind: str) -> Callable[[Recommendation], Recommendation]:
    """Register what estimator is recommended for columns of a kind.

    Parameters
    ----------
    kind : {"text", "picture", "sound", "film"}

    Returns
    -------
    decorator
        Of a function (number of rows, whether numbers are predicted) → an unfitted estimator, and why it.
    """

    def register(recommendation: Recommendation) -> Recommendation:
        _recommendations[kind] = recommendation
        return recommendation

    return register


class InferredMembers(list[tuple[str, Any, Any]]):
    """A list of members that tells how it came about; its `repr` is a table.

    Parameters
    ----------
    members : sequence of (str, estimator, str or list of str)
    reasons : sequence of (str, str, str)
        For each column: its name, the members that read it, and why.
    """

    __module__ = "mmensemble"

    def __init__(self, members: Sequence[tuple[str, Any, Any]] = (), reasons: Sequence[tuple[str, str, str]] = ()):
        super().__init__(members)
        self.reasons = list(reasons)

    def __reduce__(self) -> Any:
        return type(self), (list(self), self.reasons)

    def __repr__(self) -> str:
        rows = [("column", "members", "why"), *self.reasons]
        widths = [max(len(row[cell]) for row in rows) for cell in range(2)]
        lines = [f"{column:{widths[0]}}  {members:{widths[1]}}  {why}".rstrip() for column, members, why in rows]
        return "\n".join(lines)


def infer_members(X: Any, y: Any = None, *, regression: bool | None = None) -> InferredMembers:
    """Look at the columns of a frame, and choose members for them.

    Texts get a network and TF-IDF before a linear model, pictures, sounds and films a network each: the pretrained one
    that an installed package carries, frozen, or else one that is trained from scratch. Numbers and categories together
    get a linear model, and from 500 rows on boosted trees too. Identifiers, constants, dates, what is hardly ever there
    and what tells `y` by itself are left out.

    Parameters
    ----------
    X : DataFrame (pandas or polars), n_samples rows
        The rows to fit.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Without it, no column can be seen to tell it, and one column of labels is expected.
    regression : bool, default=None
        Whether numbers are predicted. None is by `y`: floating-point numbers are.

    Returns
    -------
    InferredMembers
        A list of (name, estimator, column or columns), as compositions take it: edit it at will. Its `repr` is a table
        of all columns that says why.

    Raises
    ------
    DataError
        If a column holds cells of several kinds or names files that are not there, or none is of use.
    ConfigurationError
        If there is no estimator for what a column holds, since no package that has one is installed.

    Examples
    --------
    >>> import pandas as pd
    >>> from mmensemble import infer_members
    >>> X = pd.DataFrame({"weight": [0.5, 1.25, 3.75, 2.5] * 5, "color": ["red", "blue", "blue", "red"] * 5})
    >>> members = infer_members(X, [0, 1, 1, 1] * 5)
    >>> members
    column  members  why
    weight  facts    4 numbers
    color   facts    2 different strings in 20 rows
    >>> [(name, columns) for name, _, columns in members]
    [('facts', ['weight', 'color'])]
    """
    target = None if y is None else np.asarray(y)
    if regression is None:
        regression = target is not None and type_of_target(target).startswith("continuous")
    found = holdings(X, target)
    wrap = _wrapping(target, regression)
    taken: set[str] = set()
    read_by: dict[str, list[tuple[str, Any]]] = {}
    whys = {}
    for holding in found:
        whys[holding.column] = f"left out: {holding.why}" if holding.kind is None else holding.why
        if holding.kind in (None, "numbers", "categories"):
            continue
        network, why = _recommended(holding, regression)
        whys[holding.column] += f"; {why}"
        read_by[holding.column] = [(_free(holding.column, taken), network)]
        if holding.kind == "text":
            read_by[holding.column].append((_free(f"{holding.column}_words", taken), wrap(_words(regression))))
    members: list[tuple[str, Any, Any]] = [
        (name, estimator, column) for column, own in read_by.items() for name, estimator in own
    ]
    numbers, categories = ([each.column for each in found if each.kind == kind] for kind in ("numbers", "categories"))
    columns = [*numbers, *categories]
    if columns:
        prepared = _prepared(numbers, categories)
        linear = RidgeCV(alphas=np.logspace(-3, 4, 15)) if regression else LogisticRegression(max_iter=1000)
        facts = [(_free("facts", taken), wrap(make_pipeline(prepared, linear)))]
        if n_rows(X) >= ROWS_FOR_TREES:
            trees = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
            facts.append((_free("facts_trees", taken), wrap(make_pipeline(prepared, trees(random_state=0)))))
        members += [(name, estimator, columns) for name, estimator in facts]
        read_by |= dict.fromkeys(columns, facts)
    reasons = [(column, ", ".join(name for name, _ in read_by.get(column, [])), why) for column, why in whys.items()]
    if not members:
        said = "; ".join(f"{column!r}: {why}" for column, _, why in reasons)
        raise DataError(f"no column of X is of use ({said}); list the members yourself")
    return InferredMembers(members, reasons)


def _free(name: str, taken: set[str]) -> str:
    """Return a name for a member that no other one has, and that scikit-learn allows."""
    base = name = name.replace("__", "_") or "column"
    number = 2
    while name in taken or name in ("estimators", "fusion", "cache", "n_jobs", "verbose", "time_limit"):
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _recommended(holding: Holding, regression: bool) -> tuple[Any, str]:
    kind = str(holding.kind)
    if kind not in _recommendations:
        with suppress(ModuleNotFoundError):
            importlib.import_module("mmensemble_estimators")
    if kind not in _recommendations:
        raise ConfigurationError(
            f"column {holding.column!r} holds a {kind} in each row, and no estimator for that is installed: "
            "pip install 'mmensemble[train]', or list the members yourself"
        )
    return _recommendations[kind](holding.n_present, regression)


def _words(regression: bool) -> Any:
    both = make_union(
        TfidfVectorizer(sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    )
    linear = RidgeCV(alphas=np.logspace(-2, 2, 9)) if regression else LogisticRegression(C=10, max_iter=1000)
    return make_pipeline(both, linear)


def _prepared(numbers: list[str], categories: list[str]) -> Any:
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    if not categories:
        return scaled
    encoded = (OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories)
    return make_column_transformer((scaled, numbers), encoded) if numbers else make_column_transformer(encoded)


def _wrapping(y: np.ndarray | None, regression: bool) -> Callable[[Any], Any]:
    """Return what makes an estimator of one output one of all that `y` has."""
    if y is None or y.ndim == 1 or y.shape[1] == 1:
        return lambda estimator: estimator
    if regression:
        return MultiOutputRegressor
    return OneVsRestClassifier if type_of_target(y) == "multilabel-indicator" else MultiOutputClassifier
