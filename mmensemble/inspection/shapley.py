"""What each modality adds to each prediction: exact Shapley values over modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from math import factorial
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ConfigurationError
from mmensemble.inspection._modalities import modalities, with_missing
from mmensemble.learning.columns import Columns
from mmensemble.progress import Work

__all__ = ["modality_shapley"]

MOST_MODALITIES = 10

_METHODS = ("auto", "predict_proba", "decision_function", "predict")


def modality_shapley(
    estimator: Any,
    X: Any,
    *,
    method: str = "auto",
    groups: Mapping[str, Columns] | None = None,
    verbose: int = False,
) -> Bunch:
    """Share each prediction out among the modalities, by their exact Shapley values (Shapley 1953).

    The modalities are the players; a coalition is worth what the estimator predicts when the cells of all other
    modalities are missing. No cell of a model's input is made up for that: a composition predicts from what is there,
    and from nothing it predicts the prior. Prior and contributions add up to the prediction, and a modality that a row
    misses contributes nothing to it.

    Parameters
    ----------
    estimator : estimator
        A fitted composition, or a search over them; or any fitted estimator that takes missing cells, with `groups`.
    X : DataFrame (pandas or polars), n_samples rows
    method : {"auto", "predict_proba", "decision_function", "predict"}, default="auto"
        What is shared out. ``"auto"`` is ``predict_proba`` where the estimator has it, else ``predict``.
    groups : dict of str to str or list of str, default=None
        Which columns make up which modality. None takes each member's columns; members that share a column are one
        modality, named as theirs joined by ``+``.
    verbose : bool or int, default=False
        False shows on stderr how far it is where that takes more than 3 seconds, True shows it at once, 0 not at all.

    Returns
    -------
    sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        shapley_values : ndarray of float, shape (n_samples, n_modalities, n_outputs)
            The contributions; the outputs are classes or targets. Of several columns of labels, their classes stand
            side by side.
        base_values : ndarray of float, shape (n_outputs,)
            The prediction from nothing.
        predictions : ndarray of float, shape (n_samples, n_outputs)
            The predictions: ``base_values + shapley_values.sum(axis=1)``.
        importances : ndarray of float, shape (n_modalities,)
            The mean absolute contribution over rows and outputs.
        names : list of str
            The modalities.
        output_names : list of str
            The classes or targets.

    Raises
    ------
    ConfigurationError
        If there are more than 10 modalities, if they are not known or leave columns out that the estimator sees, or if
        the estimator has no such method.
    DataError
        If X is no frame with rows, or lacks a column.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    modality_importance : What a score loses without a modality.

    Notes
    -----
    For m modalities the rows are predicted 2^m times. Nothing is sampled, so there is no error of approximation.

    References
    ----------
    Shapley (1953). A value for n-person games. Contributions to the Theory of Games II.

    Lundberg, Lee (2017). A unified approach to interpreting model predictions. NeurIPS.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmensemble import MultimodalClassifier, modality_shapley
    >>> X = pd.DataFrame({"weight": [0.1, 900.0] * 10, "noise": [0.0, 0.0, 1.0, 1.0] * 5})
    >>> model = MultimodalClassifier(
    ...     [("facts", LogisticRegression(), ["weight"]), ("rest", LogisticRegression(), ["noise"])]
    ... ).fit(X, ["fruit", "vehicle"] * 10)
    >>> result = modality_shapley(model, X[:2])
    >>> result.names, result.output_names, result.base_values
    (['facts', 'rest'], ['fruit', 'vehicle'], array([0.5, 0.5]))
    >>> result.shapley_values[:, :, 0].round(3)
    array([[ 0.375, -0.125],
           [-0.375,  0.125]])
    """
    check_is_fitted(estimator)
    found = modalities(estimator, X, groups)
    n_players = len(found)
    if n_players > MOST_MODALITIES:
        raise ConfigurationError(
            f"{n_players} modalities make {2**n_players} coalitions; at most {MOST_MODALITIES} modalities are "
            "possible, so put some together by groups"
        )
    predict = _method(estimator, method)

    def worth(coalition: np.ndarray) -> np.ndarray:
        absent = [c for columns, there in zip(found.values(), coalition, strict=True) if not there for c in columns]
        return _side_by_side(predict(with_missing(X, absent)))

    nothing, *coalitions = np.array(list(product((False, True), repeat=n_players)))
    shown = Work("coalition", "modality_shapley", verbose, shown=True, size=len(coalitions) + 1)
    with shown:
        predictions = worth(nothing)
        base_values = predictions[0]
        if not np.allclose(predictions, base_values, rtol=0, atol=1e-6):
            raise ConfigurationError(
                "without any modality the predictions still differ from row to row; groups must hold all columns that "
                "the estimator sees"
            )
        values = np.zeros((len(predictions), n_players, len(base_values)))
        values -= predictions[:, None] / n_players
        for coalition in coalitions:
            shown.advance()
            predictions = worth(coalition)  # the last coalition is that of all
            for player, there in enumerate(coalition):
                others = int(coalition.sum()) - int(there)
                weight = factorial(others) * factorial(n_players - others - 1) / factorial(n_players)
                values[:, player] += weight * predictions if there else -weight * predictions
    return Bunch(
        shapley_values=values,
        base_values=base_values,
        predictions=predictions,
        importances=np.abs(values).mean(axis=(0, 2)),
        names=list(found),
        output_names=_output_names(estimator, len(base_values)),
    )


def _method(estimator: Any, method: str) -> Callable[[Any], Any]:
    if method not in _METHODS:
        raise ConfigurationError(f"method must be one of {_METHODS}, not {method!r}")
    if method == "auto":
        method = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
    if not hasattr(estimator, method):
        raise ConfigurationError(f"{type(estimator).__name__} has no {method}")
    if method == "predict" and is_classifier(estimator):
        raise ConfigurationError("labels cannot be shared out; take predict_proba or decision_function")
    found: Callable[[Any], Any] = getattr(estimator, method)
    return found


def _side_by_side(outputs: Any) -> np.ndarray:
    """Bring outputs, of several columns of labels too, to the shape (n, n_outputs)."""
    parts = outputs if isinstance(outputs, list) else [outputs]
    return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])


def _output_names(estimator: Any, n_outputs: int) -> list[str]:
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list):
        names = [f"{column}_{label}" for column, labels in enumerate(classes) for label in labels]
    else:
        names = [] if classes is None else [str(label) for label in classes]
    if len(names) == n_outputs:
        return names
    if n_outputs == 1:
        return ["prediction" if classes is None else names[-1]]
    return [str(number) for number in range(n_outputs)]
