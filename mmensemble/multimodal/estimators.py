"""Compositions over the columns of a frame. Imports scikit-learn, no torch."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin

from mmensemble.learning.targets import LabelsMixin, LearnedTask, learn_labels, learn_numbers
from mmensemble.multimodal.composition import Composition
from mmensemble.tasks import Multioutput

__all__ = ["MultimodalClassifier", "MultimodalRegressor"]


class MultimodalClassifier(LabelsMixin, Composition):
    """Classify rows that hold several modalities, by members that are voted, stacked or fused.

    Parameters
    ----------
    estimators : list of (str, estimator, str or list of str), or "auto"
        With ``"auto"``, what `infer_members` finds. Else name, estimator and the columns it sees, as in
        ``ColumnTransformer``: a string gives the estimator a series, a list a frame. An estimator may be anything with
        the scikit-learn contract, and ``"drop"`` leaves it out.
        Parameters of members are reached by name: ``text__max_epochs``.
    fusion : fusion strategy, default=None
        How the members are joined; None is ``SuperLearner()``. Where a member has fewer than 10 rows of a class, or
        there are fewer than 10 groups, it is ``LinearFusion()`` if the members allow that, else ``SoftVoting()``, as
        of a single member and of one with fewer than 50 rows. Its parameters are reached as ``fusion__<parameter>``.
    cache : str, path, joblib.Memory or None, default=None
        A folder where fitted members, out-of-fold outputs, joint fusions and the embeddings of frozen networks are
        kept, so that a search over strategies fits each member once per fold and embeds each row once. It is kept below
        16 GiB, the oldest results go first; delete it to empty it. A ``Memory`` is yours to bound.
    n_jobs : int, default=None
        Members and their folds fitted at the same time, as in scikit-learn.
    time_limit : float, default=None
        Seconds of wall clock that `fit` may take. What is left when the members that are not trained step by step
        (scikit-learn's, and heads on frozen networks) are fitted is shared out among the others and their folds, by
        their rows; what one leaves goes to the next. A pretrained network that has not the time for an epoch is taken
        with its solved head. None is no limit.
    on_error : {"raise", "missing"}, default="raise"
        Whether a cell that cannot be read, as a damaged image, is a `DataError` of `predict` and its like, or counts as
        missing, with a warning: its row is predicted from what is left of it. In `fit` that holds for what estimators
        of mmensemble read; a text where scikit-learn's want a number is always an error there.
    verbose : bool or int, default=False
        False shows on stderr how far a fit is that takes more than 3 seconds: one line, in a log file a line for each
        stage. True shows it at once, and then how long fitting took and the fitted strategy: `SuperLearner` tells what
        it compared and chose. 0 shows nothing. It counts for the members too that have none of their own. The logger
        ``mmensemble`` has the fit of each member and fold, at the level INFO.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of them
        Of a 0/1 matrix the labels' numbers, of several columns of labels one array per column.
    inferred_estimators_ : InferredMembers
        With ``estimators="auto"``, the members and why.
    estimators_ : list of estimators
        The fitted members. As in scikit-learn's ensembles, they learned numbers in place of labels:
        the number of each label among those that the member's rows hold, which ``fusion_.members_[i].labels`` lists. A
        member whose parameters name labels, as ``class_weight={"spam": 5}`` does, learned the labels themselves.
    named_estimators_ : Bunch
        The fitted members by name.
    fusion_ : fusion strategy
        The fitted strategy.
    timed_out_ : list of str
        The members, or the strategy, whose training `time_limit` ended early, in a fold or on all rows.
    n_features_in_ : int
    feature_names_in_ : ndarray of str objects, shape (n_columns,)

    See Also
    --------
    mmensemble.MultimodalRegressor : The same for numbers.
    mmensemble.on_column : Ties an estimator to a column for scikit-learn's own ensembles.

    Notes
    -----
    A member is fitted on the rows that have its modality. A row that lacks some modalities is predicted from the
    others, and one that lacks all of them gets the classes' share in the fitting data.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from mmensemble import MultimodalClassifier, SoftVoting
    >>> X = pd.DataFrame({"name": ["red apple", "fast car"] * 4, "weight": [0.1, 900.0] * 4})
    >>> model = MultimodalClassifier(
    ...     [("text", make_pipeline(TfidfVectorizer(), LogisticRegression()), "name"),
    ...      ("facts", LogisticRegression(), ["weight"])],
    ...     fusion=SoftVoting(weights=[2, 1]),
    ... )
    >>> model.fit(X, ["fruit", "vehicle"] * 4).predict(pd.DataFrame({"name": ["apple", None], "weight": [0.2, 700]}))
    array(['fruit', 'vehicle'], dtype='<U7')
    """

    __module__ = "mmensemble"

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the members and the strategy that joins them.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels of any dtype, of two classes or more; a 0/1 matrix is multilabel; other columns of labels are so many
            tasks.
        sample_weight : array-like of float, shape (n_samples,), default=None
            Passed to every member and to the meta-learner.
        groups : array-like of shape (n_samples,) or str, default=None
            The group of each row, or the column of X that names it. Rows of one group are related, and the strategy's
            ``cv`` keeps them together. Passed on to members that are compositions, and to searches by group.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If a column is not there, a cell cannot be read, X is empty, or a class has too few rows.
        ConfigurationError
            If members, strategy and task do not fit together.
        """
        return self._fit(X, y, sample_weight, groups)

    def _learn(self, y: Any, weight: np.ndarray) -> LearnedTask:
        return learn_labels(y, weight)

    def predict_proba(self, X: Any) -> Any:
        """Predict class probabilities.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows

        Returns
        -------
        ndarray of float, shape (n_samples, n_classes), or list of them
            Columns in the order of `classes_`. Of a 0/1 matrix, the probability of each label; of several columns of
            labels, one array per column.

        Raises
        ------
        DataError
            If a column is not there or a cell cannot be read; it names the row and the column.
        """
        outputs = self._outputs(X)
        task = self.fusion_.task_
        return task.split(outputs) if isinstance(task, Multioutput) else outputs


class MultimodalRegressor(RegressorMixin, Composition):
    """Predict one or several numbers of rows that hold several modalities, by members that are joined.

    Parameters
    ----------
    estimators : list of (str, estimator, str or list of str), or "auto"
        With ``"auto"``, what `infer_members` finds. Else name, estimator and the columns it sees, as in
        ``ColumnTransformer``: a string gives the estimator a series, a list a frame. A member may be any regressor with
        the scikit-learn contract, and ``"drop"`` leaves it out.
        Parameters of members are reached by name: ``text__max_epochs``.
    fusion : fusion strategy, default=None
        How the members are joined; None is ``SuperLearner()``. Where a member has fewer than 10 rows of a class, or
        there are fewer than 10 groups, it is ``LinearFusion()`` if the members allow that, else ``SoftVoting()``, as
        of a single member and of one with fewer than 50 rows. Its parameters are reached as ``fusion__<parameter>``.
    cache : str, path, joblib.Memory or None, default=None
        A folder where fitted members, out-of-fold outputs, joint fusions and the embeddings of frozen networks are
        kept, so that a search over strategies fits each member once per fold and embeds each row once. It is kept below
        16 GiB, the oldest results go first; delete it to empty it. A ``Memory`` is yours to bound.
    n_jobs : int, default=None
        Members and their folds fitted at the same time, as in scikit-learn.
    time_limit : float, default=None
        Seconds of wall clock that `fit` may take. What is left when the members that are not trained step by step
        (scikit-learn's, and heads on frozen networks) are fitted is shared out among the others and their folds, by
        their rows; what one leaves goes to the next. A pretrained network that has not the time for an epoch is taken
        with its solved head. None is no limit.
    on_error : {"raise", "missing"}, default="raise"
        Whether a cell that cannot be read, as a damaged image, is a `DataError` of `predict` and its like, or counts as
        missing, with a warning: its row is predicted from what is left of it. In `fit` that holds for what estimators
        of mmensemble read; a text where scikit-learn's want a number is always an error there.
    verbose : bool or int, default=False
        False shows on stderr how far a fit is that takes more than 3 seconds: one line, in a log file a line for each
        stage. True shows it at once, and then how long fitting took and the fitted strategy: `SuperLearner` tells what
        it compared and chose. 0 shows nothing. It counts for the members too that have none of their own. The logger
        ``mmensemble`` has the fit of each member and fold, at the level INFO.

    Attributes
    ----------
    inferred_estimators_ : InferredMembers
        With ``estimators="auto"``, the members and why.
    estimators_ : list of estimators
        The fitted members.
    named_estimators_ : Bunch
        The fitted members by name.
    fusion_ : fusion strategy
        The fitted strategy.
    timed_out_ : list of str
        The members, or the strategy, whose training `time_limit` ended early, in a fold or on all rows.
    n_features_in_ : int
    feature_names_in_ : ndarray of str objects, shape (n_columns,)

    See Also
    --------
    mmensemble.MultimodalClassifier : The same for classes.

    Notes
    -----
    A member is fitted on the rows that have its modality. A row that lacks some modalities is predicted from the
    others, and one that lacks all of them gets the targets' mean in the fitting data.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LinearRegression, Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from mmensemble import MultimodalRegressor
    >>> X = pd.DataFrame({"name": ["apple", "car"] * 4, "weight": [0.1, 900.0] * 4})
    >>> model = MultimodalRegressor(
    ...     [("text", make_pipeline(TfidfVectorizer(), Ridge()), "name"), ("facts", LinearRegression(), ["weight"])]
    ... )
    >>> model.fit(X, [1.0, 20000.0] * 4).predict(pd.DataFrame({"name": [None], "weight": [900.0]})).round()
    array([20000.])
    """

    __module__ = "mmensemble"

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Fit the members and the strategy that joins them.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of float, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of float, shape (n_samples,), default=None
            Passed to every member and to the meta-learner.
        groups : array-like of shape (n_samples,) or str, default=None
            The group of each row, or the column of X that names it. Rows of one group are related, and the strategy's
            ``cv`` keeps them together. Passed on to members that are compositions, and to searches by group.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If a column is not there, a cell cannot be read, or X is empty.
        ConfigurationError
            If members, strategy and task do not fit together.
        """
        return self._fit(X, y, sample_weight, groups)

    def _learn(self, y: Any, weight: np.ndarray) -> LearnedTask:
        return learn_numbers(y, weight)
