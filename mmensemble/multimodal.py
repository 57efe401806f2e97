"""Compositions over the columns of a frame. Imports scikit-learn, no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.utils import Bunch, Tags
from sklearn.utils._user_interface import _print_elapsed_time
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, check_is_fitted

from mmensemble.caching import Store
from mmensemble.compose import as_list
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.fusion import Fusion, Member, SoftVoting
from mmensemble.preprocessing.frames import column_names, n_rows
from mmensemble.scoring.tasks import Multioutput
from mmensemble.targets import LearnedTask, exact_matches, learn_labels, learn_numbers

__all__ = ["MultimodalClassifier", "MultimodalRegressor"]


class _Multimodal(TransformerMixin, _BaseComposition):
    """What both compositions share."""

    def __init__(
        self,
        estimators: list[tuple[str, Any, Any]],
        *,
        fusion: Fusion | None = None,
        cache: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.estimators = estimators
        self.fusion = fusion
        self.cache = cache
        self.n_jobs = n_jobs
        self.verbose = verbose

    @property
    def _named(self) -> list[tuple[str, Any]]:
        """The members without their columns, which is what ``_BaseComposition`` reads and writes."""
        try:
            return [(name, estimator) for name, estimator, _ in self.estimators]
        except (TypeError, ValueError):
            return self.estimators  # type: ignore[return-value] # misshapen: `fit` says so, get_params must not

    @_named.setter
    def _named(self, value: list[tuple[str, Any]]) -> None:
        self.estimators = [
            (name, estimator, columns)
            for (name, estimator), (_, _, columns) in zip(value, self.estimators, strict=True)
        ]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, those of members (``text__max_epochs``) and of the strategy (``fusion__cv``) too.

        Parameters
        ----------
        deep : bool, default=True

        Returns
        -------
        dict
        """
        return dict(self._get_params("_named", deep=deep))

    def set_params(self, **params: Any) -> Self:
        """Set parameters by the names that `get_params` gives.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self
        """
        if params.get("fusion", self.fusion) is None and any(name.startswith("fusion__") for name in params):
            params = {**params, "fusion": SoftVoting()}
        self._set_params("_named", **params)
        return self

    @abstractmethod
    def _learn(self, y: Any, weight: np.ndarray) -> LearnedTask:
        """Return what `y` is."""

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        name = type(self).__name__
        members = self._check_members()
        names = _check_frame(X)
        if y is None:
            raise DataError(f"{name}.fit requires y to be passed, but the target y is None")
        check_consistent_length(X, y)
        rows = np.empty((n_rows(X), 1))
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        target = self._learn(y, weight)
        for member in members:
            for column in as_list(member.columns):
                if column not in names:
                    raise DataError(
                        f"member {member.name!r} wants a column that is not there; the columns are {names}",
                        column=column,
                    )
        self.feature_names_in_ = np.asarray(names, dtype=object)
        self.n_features_in_ = len(names)
        fusion = SoftVoting() if self.fusion is None else clone(self.fusion)
        fusion.leave_out([_is_dropped(estimator) for _, estimator, _ in self.estimators])
        with _print_elapsed_time(name, "fit" if self.verbose else None):
            self.fusion_ = fusion.fit(
                members,
                X,
                target,
                sample_weight=None if sample_weight is None else weight,
                store=Store.of(self.cache),
                n_jobs=self.n_jobs,
            )
        self.estimators_ = [member.estimator for member in self.fusion_.members_]
        self.named_estimators_ = Bunch(**{member.name: member.estimator for member in self.fusion_.members_})
        return self

    def _check_members(self) -> list[Member]:
        shape = "estimators must be a list of (name, estimator, column or columns)"
        try:
            members = [Member(name, estimator, columns) for name, estimator, columns in self.estimators]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{shape}, not {self.estimators!r}") from error
        members = [member for member in members if not _is_dropped(member.estimator)]
        for member in members:
            if not hasattr(member.estimator, "fit"):
                raise ConfigurationError(
                    f"member {member.name!r} must be an estimator or 'drop', not {member.estimator!r}"
                )
        if not members:
            raise ConfigurationError(f"{shape}; there is none to fit")
        if self.fusion is not None and not isinstance(self.fusion, Fusion):
            raise ConfigurationError(
                "fusion must be a strategy such as SoftVoting() or Stacking() of mmensemble, or ConcatFusion() of "
                f"mmensemble_estimators, not {self.fusion!r}"
            )
        for member in members:
            columns = as_list(member.columns) if isinstance(member.columns, (str, Sequence)) else []
            if not columns or not all(isinstance(column, str) for column in columns):
                raise ConfigurationError(
                    f"member {member.name!r}: the columns must be a name or a list of names, not {member.columns!r}"
                )
        self._validate_names([name for name, _, _ in self.estimators])
        return members

    def _outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, (n_samples, width)."""
        check_is_fitted(self)
        _check_frame(X, empty=True)
        with Store.of(self.cache).active():
            return self.fusion_.outputs(X)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row, each label, or the targets.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the form of `y`. A label of a 0/1 matrix counts from a probability above 0.5.

        Raises
        ------
        DataError
            If a column is not there or a cell cannot be read; it names the row and the column.
        """
        outputs = self._outputs(X)
        return self.fusion_.task_.predict(outputs)

    def transform(self, X: Any) -> np.ndarray:
        """Return the members' outputs side by side, or the fused representation of a joint strategy.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows

        Returns
        -------
        ndarray of float, shape (n_samples, n_features_out)
        """
        check_is_fitted(self)
        _check_frame(X, empty=True)
        with Store.of(self.cache).active():
            return self.fusion_.transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of `transform`'s columns.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects, shape (n_features_out,)
        """
        check_is_fitted(self)
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}_{name}" for name in self.fusion_.get_feature_names_out()], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        return tags

    def _sk_visual_block_(self) -> Any:
        from sklearn.utils._repr_html.estimator import _VisualBlock

        names, estimators, columns = zip(*self.estimators, strict=True)
        return _VisualBlock("parallel", estimators, names=names, name_details=columns)

    def __onnx_graph__(self, source: Any) -> Any:
        """Take part in `mmensemble.to_graph`."""
        check_is_fitted(self)
        return self.fusion_.__onnx_graph__(source)


class MultimodalClassifier(ClassifierMixin, _Multimodal):
    """Classify rows that hold several modalities, by members that are voted, stacked or fused.

    Parameters
    ----------
    estimators : list of (str, estimator, str or list of str)
        Name, estimator and the columns it sees, as in ``ColumnTransformer``: a string gives the estimator a series, a
        list a frame. An estimator may be anything with the scikit-learn contract, and ``"drop"`` leaves it out.
        Parameters of members are reached by name: ``text__max_epochs``.
    fusion : fusion strategy, default=None
        How the members are joined; None is ``SoftVoting()``. Its parameters are reached as ``fusion__<parameter>``.
    cache : str, path, joblib.Memory or None, default=None
        A folder where fitted members, out-of-fold outputs, joint fusions and the embeddings of frozen networks are
        kept, so that a search over strategies fits each member once per fold and embeds each row once. It is kept below
        16 GiB, the oldest results go first; delete it to empty it. A ``Memory`` is yours to bound.
    n_jobs : int, default=None
        Members and their folds fitted at the same time, as in scikit-learn.
    verbose : bool, default=False
        Print how long fitting took.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of them
        Of a 0/1 matrix the labels' numbers, of several columns of labels one array per column.
    estimators_ : list of estimators
        The fitted members.
    named_estimators_ : Bunch
        The fitted members by name.
    fusion_ : fusion strategy
        The fitted strategy.
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the members and the strategy that joins them.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels of any dtype, of two classes or more; a 0/1 matrix is multilabel; other columns of labels are so many
            tasks.
        sample_weight : array-like of float, shape (n_samples,), default=None
            Passed to every member and to the meta-learner.

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
        self._fit(X, y, sample_weight)
        self.classes_ = self.fusion_.task_.classes
        return self

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

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy: the share of rows of which every label is right.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        float
        """
        return exact_matches(y, self.predict(X), sample_weight)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MultimodalRegressor(RegressorMixin, _Multimodal):
    """Predict one or several numbers of rows that hold several modalities, by members that are joined.

    Parameters
    ----------
    estimators : list of (str, estimator, str or list of str)
        Name, estimator and the columns it sees, as in ``ColumnTransformer``: a string gives the estimator a series, a
        list a frame. A member may be any regressor with the scikit-learn contract, and ``"drop"`` leaves it out.
        Parameters of members are reached by name: ``text__max_epochs``.
    fusion : fusion strategy, default=None
        How the members are joined; None is ``SoftVoting()``. Its parameters are reached as ``fusion__<parameter>``.
    cache : str, path, joblib.Memory or None, default=None
        A folder where fitted members, out-of-fold outputs, joint fusions and the embeddings of frozen networks are
        kept, so that a search over strategies fits each member once per fold and embeds each row once. It is kept below
        16 GiB, the oldest results go first; delete it to empty it. A ``Memory`` is yours to bound.
    n_jobs : int, default=None
        Members and their folds fitted at the same time, as in scikit-learn.
    verbose : bool, default=False
        Print how long fitting took.

    Attributes
    ----------
    estimators_ : list of estimators
        The fitted members.
    named_estimators_ : Bunch
        The fitted members by name.
    fusion_ : fusion strategy
        The fitted strategy.
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the members and the strategy that joins them.

        Parameters
        ----------
        X : DataFrame (pandas or polars), n_samples rows
        y : array-like of float, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of float, shape (n_samples,), default=None
            Passed to every member and to the meta-learner.

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
        return self._fit(X, y, sample_weight)

    def _learn(self, y: Any, weight: np.ndarray) -> LearnedTask:
        return learn_numbers(y, weight)


def _is_dropped(estimator: Any) -> bool:
    return isinstance(estimator, str) and estimator == "drop"


def _check_frame(X: Any, *, empty: bool = False) -> list[str]:
    names = column_names(X)
    if names is None or not hasattr(X, "shape"):
        raise DataError(f"X must be a DataFrame (pandas or polars), not {type(X).__name__}")
    if n_rows(X) == 0 and not empty:
        raise DataError("0 rows were given to fit; at least 2 are needed")
    return names
