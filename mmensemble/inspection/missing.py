"""How a score falls as a modality goes missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from mmensemble._sklearn import safe_indexing
from mmensemble.cache import Store
from mmensemble.exceptions import ConfigurationError
from mmensemble.inspection._modalities import composition_of, fitted_members, modalities, one_scorer, with_missing
from mmensemble.learning.columns import Columns, present_rows
from mmensemble.progress import Step, Work

if TYPE_CHECKING:
    from numpy.random import RandomState

__all__ = ["missing_modality_curve"]


def missing_modality_curve(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    fractions: Any = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    scoring: Any = None,
    n_repeats: int = 3,
    random_state: int | RandomState | None = None,
    groups: Mapping[str, Columns] | None = None,
    verbose: int = False,
) -> Bunch:
    """Score a fitted composition while cells of one modality after the other are taken away.

    Parameters
    ----------
    estimator : estimator
        A fitted composition, or a search over them; or any fitted estimator that takes missing cells, with `groups`.
    X : DataFrame (pandas or polars), n_samples rows
        Best rows that were not fitted on.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    fractions : array-like of float, shape (n_fractions,), default=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
        The share of rows that lose the modality, of those that have it.
    scoring : str or callable, default=None
        One score, as in ``cross_val_score``; None is the estimator's own ``score``.
    n_repeats : int, default=3
        How often the rows are drawn. Within a repeat, rows that lost the modality stay without it at higher shares.
    random_state : int, RandomState or None, default=None
    groups : dict of str to str or list of str, default=None
        Which columns make up which modality. None takes each member's columns; members that share a column are one
        modality, named as theirs joined by ``+``.
    verbose : bool or int, default=False
        False shows on stderr how far it is where that takes more than 3 seconds, True shows it at once, 0 not at all.

    Returns
    -------
    sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        fractions : ndarray of float, shape (n_fractions,)
            The shares.
        scores : ndarray of float, shape (n_modalities, n_fractions, n_repeats)
            With that share of the modality's cells taken away.
        names : list of str
            The modalities.
        member_scores : dict of str to float
            The score of each member alone, on the rows that have every modality, as `complete_score`. Members that
            cannot be scored are left out: those of joint fusions, which predict nothing on their own, those of
            scikit-learn's ensembles, and those that lack what the score wants. Empty where no row is complete.
        complete_score : float
            The composition's score on the rows that have every modality; NaN where there is none.

    Raises
    ------
    ConfigurationError
        If the modalities are not known, or a parameter cannot work.
    DataError
        If X is no frame with rows, or lacks a column.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmensemble import MultimodalClassifier, missing_modality_curve
    >>> X = pd.DataFrame({"weight": [0.1, 900.0] * 10, "noise": [0.0, 0.0, 1.0, 1.0] * 5})
    >>> y = ["fruit", "vehicle"] * 10
    >>> model = MultimodalClassifier(
    ...     [("facts", LogisticRegression(), ["weight"]), ("rest", LogisticRegression(), ["noise"])]
    ... ).fit(X, y)
    >>> curve = missing_modality_curve(model, X, y, fractions=[0, 0.5, 1], random_state=0)
    >>> curve.scores.mean(axis=2).round(2)[0]
    array([1.  , 0.77, 0.5 ])
    >>> curve.member_scores
    {'facts': 1.0, 'rest': 0.5}
    """
    check_is_fitted(estimator)
    found = modalities(estimator, X, groups)
    check_consistent_length(X, y)
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or not len(shares) or not ((shares >= 0) & (shares <= 1)).all():
        raise ConfigurationError(f"fractions must be numbers from 0 to 1, not {fractions!r}")
    scorer = one_scorer(estimator, scoring, n_repeats)
    rng = check_random_state(random_state)
    plan = [("modality", 1.0)] * len(found)
    with Work("curve", "missing_modality_curve", verbose, plan=plan):
        whole = float(scorer(estimator, X, y))
        scores = np.full((len(found), len(shares), n_repeats), whole)
        there = {name: present_rows(X, columns) for name, columns in found.items()}
        for number, (name, columns) in enumerate(found.items()):
            nothing_left: float | None = None
            with Step("modality", number + 1, len(found), name, size=n_repeats * len(shares)) as step:
                for repeat in range(n_repeats):
                    order = rng.permutation(np.flatnonzero(there[name]))
                    for place, share in enumerate(shares):
                        lost = np.zeros(len(there[name]), dtype=bool)
                        lost[order[: round(share * len(order))]] = True
                        step.advance()
                        if not lost.any():
                            continue
                        if lost.sum() < len(order):
                            scores[number, place, repeat] = scorer(estimator, with_missing(X, columns, lost), y)
                            continue
                        if nothing_left is None:  # the same rows in every repeat
                            nothing_left = float(scorer(estimator, with_missing(X, columns, lost), y))
                        scores[number, place, repeat] = nothing_left
    complete = np.flatnonzero(np.all(list(there.values()), axis=0))
    member_scores: dict[str, float] = {}
    complete_score = float("nan")
    if len(complete):
        X, y = safe_indexing(X, complete), safe_indexing(y, complete)
        complete_score = float(scorer(estimator, X, y))
        member_scores = _member_scores(estimator, X, y, scoring)
    return Bunch(
        fractions=shares,
        scores=scores,
        names=list(found),
        member_scores=member_scores,
        complete_score=complete_score,
    )


def _member_scores(estimator: Any, X: Any, y: Any, scoring: Any) -> dict[str, float]:
    """Score every member on its own columns; rows that it misses are none of these."""
    try:
        members = fitted_members(estimator)
    except ConfigurationError:  # any estimator, by groups
        return {}
    scores = {}
    store = Store.of(getattr(composition_of(estimator), "cache", None))  # has the embeddings of these rows
    for member in members:
        if member.columns is None or not hasattr(member.estimator, "predict"):
            continue  # scikit-learn's ensembles do not say what their members see; linear fusion has features of them
        present, rows = member.rows(X)
        try:
            scorer = check_scoring(member.estimator, scoring=scoring)
            with store.active():
                score = scorer(member.estimator, rows, safe_indexing(y, np.flatnonzero(present)))
        except (AttributeError, ValueError):
            continue  # it has no head of its own (NotFittedError), or not the method or target that the score wants
        scores[member.name] = float(score)
    return scores
