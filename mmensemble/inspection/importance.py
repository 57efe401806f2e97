"""Permutation importance of whole modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch, check_random_state
from sklearn.utils.validation import check_is_fitted

from mmensemble.frames import n_rows
from mmensemble.inspection._modalities import modalities, one_scorer, rows_shuffled
from mmensemble.learning.columns import Columns
from mmensemble.learning.jobs import Job, run_jobs
from mmensemble.progress import Work

if TYPE_CHECKING:
    from numpy.random import RandomState

__all__ = ["modality_importance"]


def modality_importance(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    scoring: Any = None,
    n_repeats: int = 10,
    random_state: int | RandomState | None = None,
    n_jobs: int | None = None,
    sample_weight: Any = None,
    groups: Mapping[str, Columns] | None = None,
    verbose: int = False,
) -> Bunch:
    """Measure how much a score drops when a modality is shuffled between rows (Breiman 2001).

    All columns of a modality are shuffled together, so what holds within the modality is kept and only what ties it to
    the target and to the other modalities is broken. For modalities of one column the numbers are those of
    `sklearn.inspection.permutation_importance`.

    Parameters
    ----------
    estimator : estimator
        A fitted composition: ``MultimodalClassifier``, scikit-learn's ensembles over `mmensemble.on_column`, or a
        search over them; or any fitted estimator, with `groups`.
    X : DataFrame (pandas or polars), n_samples rows
        Best rows that were not fitted on.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    scoring : str or callable, default=None
        One score, as in ``cross_val_score``; None is the estimator's own ``score``.
    n_repeats : int, default=10
        How often each modality is shuffled.
    random_state : int, RandomState or None, default=None
    n_jobs : int, default=None
        Modalities at the same time, as in scikit-learn.
    sample_weight : array-like of float, shape (n_samples,), default=None
        Weights in the score.
    groups : dict of str to str or list of str, default=None
        Which columns make up which modality. None takes each member's columns; members that share a column are one
        modality, named as theirs joined by ``+``.
    verbose : bool or int, default=False
        False shows on stderr how far it is where that takes more than 3 seconds, True shows it at once, 0 not at all.

    Returns
    -------
    sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        importances_mean, importances_std : ndarray of float, shape (n_modalities,)
            Over the repeats.
        importances : ndarray of float, shape (n_modalities, n_repeats)
            The score as it is minus the score with the modality shuffled.
        baseline_score : float
            The score as it is.
        names : list of str
            The modalities.

    Raises
    ------
    ConfigurationError
        If the modalities are not known, or a parameter cannot work.
    DataError
        If X is no frame with rows, or lacks a column.
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.

    See Also
    --------
    modality_shapley : What each modality adds to a single prediction.
    missing_modality_curve : The score when cells are missing, rather than wrong.

    Notes
    -----
    A modality that carries what another one carries too looks unimportant, although either alone would do.

    References
    ----------
    Breiman (2001). Random forests. Machine Learning 45(1).

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from mmensemble import MultimodalClassifier, modality_importance
    >>> X = pd.DataFrame({"weight": [0.1, 900.0] * 10, "noise": [0.0, 0.0, 1.0, 1.0] * 5})
    >>> y = ["fruit", "vehicle"] * 10
    >>> model = MultimodalClassifier(
    ...     [("facts", LogisticRegression(), ["weight"]), ("rest", LogisticRegression(), ["noise"])]
    ... ).fit(X, y)
    >>> result = modality_importance(model, X, y, random_state=0)
    >>> result.names, result.importances_mean.round(2)
    (['facts', 'rest'], array([0.52, 0.  ]))
    """
    check_is_fitted(estimator)
    found = modalities(estimator, X, groups)
    scorer = one_scorer(estimator, scoring, n_repeats)
    weights = {} if sample_weight is None else {"sample_weight": np.asarray(sample_weight)}
    # One seed for all modalities, as scikit-learn does, so the result does not depend on n_jobs.
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max + 1)
    baseline = float(scorer(estimator, X, y, **weights))
    jobs = [
        Job(
            name,
            _shuffled_scores,
            (scorer, estimator, X, y, columns, n_repeats, seed, weights),
            steps=[("modality", number, len(found), name)],
        )
        for number, (name, columns) in enumerate(found.items(), 1)
    ]
    with Work("importance", "modality_importance", verbose):
        scores = run_jobs(jobs, n_jobs)
    importances = baseline - np.array(scores)
    return Bunch(
        importances_mean=importances.mean(axis=1),
        importances_std=importances.std(axis=1),
        importances=importances,
        baseline_score=baseline,
        names=list(found),
    )


def _shuffled_scores(
    scorer: Any,
    estimator: Any,
    X: Any,
    y: Any,
    columns: Sequence[str],
    n_repeats: int,
    seed: int,
    weights: dict[str, np.ndarray],
) -> list[float]:
    rng = np.random.RandomState(seed)
    shuffle = np.arange(n_rows(X))
    order = shuffle.copy()
    scores = []
    for _ in range(n_repeats):
        # Shuffling what is shuffled already, as scikit-learn does, gives its very numbers.
        rng.shuffle(shuffle)
        order = order[shuffle]
        scores.append(float(scorer(estimator, rows_shuffled(X, columns, order), y, **weights)))
    return scores
