"""Where the members of a composition disagree, and whether they err together."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length, column_or_1d

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.inspection._modalities import check_frame, fitted_members

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["member_disagreement", "pairwise_disagreement"]


def member_disagreement(estimator: Any, X: Any, y: Any = None) -> Bunch:
    """Compare what the members of a composition predict, each on its own, and what the composition makes of it.

    Parameters
    ----------
    estimator : estimator
        A fitted composition of classifiers or regressors whose members predict on their own: with late fusion, or of
        scikit-learn.
    X : DataFrame (pandas or polars), n_samples rows
        Best rows that were not fitted on.
    y : array-like of shape (n_samples,), default=None
        The truth, which the measures of common errors need.

    Returns
    -------
    sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        predictions : pandas.DataFrame of shape (n_samples, n_members + 1)
            A column for each member, None where it misses the row, and at last ``"ensemble"``. The index is X's.
        pairwise : pandas.DataFrame
            A row for each pair of columns of `predictions`: see `pairwise_disagreement`.

    Raises
    ------
    ConfigurationError
        If the estimator has no members, if they predict nothing on their own, as in a joint fusion, or if there are
        several outputs.
    DataError
        If X is no frame with rows.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmensemble import MultimodalClassifier, member_disagreement
    >>> X = pd.DataFrame({"weight": [0.1, 900.0] * 3, "price": [0.1, 9.0, 0.2, 8.0, 9.0, 0.1]})
    >>> y = ["fruit", "vehicle"] * 3
    >>> model = MultimodalClassifier(
    ...     [("weight", LogisticRegression(), ["weight"]), ("price", LogisticRegression(), ["price"])]
    ... ).fit(X, y)
    >>> result = member_disagreement(model, X, y)
    >>> result.predictions.tail(2)
        weight    price ensemble
    4    fruit  vehicle    fruit
    5  vehicle    fruit  vehicle
    >>> result.pairwise[["first", "second", "disagreement"]].round(2)
        first    second  disagreement
    0  weight     price          0.33
    1  weight  ensemble          0.00
    2   price  ensemble          0.33
    """
    import pandas as pd

    members = fitted_members(estimator)
    check_frame(X)
    whole = np.asarray(estimator.predict(X))
    if whole.ndim > 1:
        raise ConfigurationError("members can be compared on one column of predictions only")
    numbers = is_regressor(estimator)
    columns: dict[str, Any] = {}
    for member in members:
        present, predicted = member.predict(X)
        spread = np.full(len(present), np.nan if numbers else None, dtype=float if numbers else object)
        spread[present] = predicted
        columns[member.name] = spread
    last = "ensemble"
    while last in columns:
        last += "_"
    columns[last] = whole if numbers else whole.astype(object)
    predictions = pd.DataFrame(columns, index=getattr(X, "index", None), dtype=None if numbers else object)
    return Bunch(predictions=predictions, pairwise=pairwise_disagreement(predictions, y))


def pairwise_disagreement(predictions: Any, y: Any = None) -> pd.DataFrame:
    """Compare the columns of a frame of predictions, each with each.

    Parameters
    ----------
    predictions : pandas.DataFrame or dict of str to array-like, n_samples rows
        Labels, or float numbers. Rows that miss one of a pair are left out for that pair.
    y : array-like of shape (n_samples,), default=None
        The truth.

    Returns
    -------
    pandas.DataFrame
        A row for each pair, with the columns ``first``, ``second``, ``n_rows`` and, for labels, ``disagreement``: the
        share of rows with two different labels. With `y` also

        - ``double_fault``: the share of rows where both are wrong (Giacinto and Roli 2001);
        - ``error_correlation``: the correlation of being wrong, from -1 to 1;
        - ``q_statistic``: Yule's Q of being right, from -1 (they err on different rows) over 0 (independent) to 1.

        For numbers it is ``disagreement``, the mean absolute difference, and with `y` ``error_correlation``, that of
        the residuals. A measure whose denominator is 0, as when one of the two is never wrong, is NaN.

    Raises
    ------
    DataError
        If there is no prediction at all, or `y` has another length.

    Notes
    -----
    With errors N11 (both right), N00 (both wrong), N10 and N01 (one is), as Kuncheva and Whitaker write them,
    Q = (N11 N00 - N01 N10) / (N11 N00 + N01 N10), and the correlation has the root of the product of the four marginal
    counts below it. Their disagreement measure counts rows where one of two is right; here rows where both are wrong
    in different ways count too.

    References
    ----------
    Kuncheva, Whitaker (2003). Measures of diversity in classifier ensembles and their relationship with the ensemble
    accuracy. Machine Learning 51.

    Giacinto, Roli (2001). Design of effective neural network ensembles for image classification purposes. Image and
    Vision Computing 19.

    Examples
    --------
    >>> pairwise_disagreement({"text": list("abab"), "image": list("abba")}, list("abaa")).round(2).T
                           0
    first               text
    second             image
    n_rows                 4
    disagreement         0.5
    double_fault         0.0
    error_correlation  -0.33
    q_statistic         -1.0
    """
    import pandas as pd

    frame = pd.DataFrame(predictions)
    if frame.empty:
        raise DataError("there are no predictions to compare")
    truth = None
    if y is not None:
        truth = np.asarray(column_or_1d(y))
        check_consistent_length(frame, truth)
    numbers = all(dtype.kind == "f" for dtype in frame.dtypes)
    compare = _compare_numbers if numbers else _compare_labels
    rows = []
    for first, second in combinations(frame.columns, 2):
        both = (frame[first].notna() & frame[second].notna()).to_numpy()
        a, b = (frame[name].to_numpy()[both] for name in (first, second))
        measures = compare(a, b, None if truth is None else truth[both])
        rows.append({"first": first, "second": second, "n_rows": int(both.sum()), **measures})
    return pd.DataFrame(rows)


def _compare_labels(a: np.ndarray, b: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    measures = {"disagreement": _mean(a != b)}
    if truth is not None:
        right_a, right_b = a == truth, b == truth
        n11, n00 = float(np.sum(right_a & right_b)), float(np.sum(~right_a & ~right_b))
        n10, n01 = float(np.sum(right_a & ~right_b)), float(np.sum(~right_a & right_b))
        measures["double_fault"] = _mean(~right_a & ~right_b)
        marginals = (n11 + n10) * (n01 + n00) * (n11 + n01) * (n10 + n00)
        measures["error_correlation"] = _ratio(n11 * n00 - n01 * n10, marginals**0.5)
        measures["q_statistic"] = _ratio(n11 * n00 - n01 * n10, n11 * n00 + n01 * n10)
    return measures


def _compare_numbers(a: np.ndarray, b: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    measures = {"disagreement": _mean(np.abs(a - b))}
    if truth is not None:
        errors_a, errors_b = a - truth, b - truth
        errors_a, errors_b = errors_a - _mean(errors_a), errors_b - _mean(errors_b)
        scale = float(np.sqrt((errors_a**2).sum() * (errors_b**2).sum()))
        measures["error_correlation"] = _ratio(float(errors_a @ errors_b), scale)
    return measures


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
