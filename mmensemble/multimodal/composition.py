"""What both compositions share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import TransformerMixin, clone, is_regressor
from sklearn.utils import Bunch, Tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from mmensemble._sklearn import BaseComposition, CallbackSupportMixin, VisualBlock, check_sample_weight
from mmensemble.cache import Store
from mmensemble.exceptions import ConfigurationError, DataError, MmensembleError
from mmensemble.frames import column_names, missing_cells, n_rows, naming_rows, not_a
from mmensemble.fusion import Fusion, LinearFusion, Member, SoftVoting, SuperLearner
from mmensemble.learning.columns import as_list, check_form, present_rows
from mmensemble.learning.folds import column_groups
from mmensemble.learning.representations import makes_features
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.multimodal.inferring import infer_members
from mmensemble.multimodal.unreadable import warn_of_cells, without_unreadable
from mmensemble.preprocessing.base import unreadable_as_missing
from mmensemble.progress import Work, fitting, report
from mmensemble.progress.work import LOGGER, is_silent
from mmensemble.time_limits import TimeLimit, check_time_limit, time_limit, warn_of_cut

__all__ = ["Composition", "check_frame", "is_dropped"]

# Two in each of five folds: rows of a class with a member, or groups. Fewer tell too little of what is better.
LEAST_ROWS = 10


class Composition(CallbackSupportMixin, TransformerMixin, BaseComposition):
    """What both compositions share."""

    def __init__(
        self,
        estimators: list[tuple[str, Any, Any]] | Literal["auto"],
        *,
        fusion: Fusion | None = None,
        cache: Any = None,
        n_jobs: int | None = None,
        time_limit: float | None = None,
        on_error: Literal["raise", "missing"] = "raise",
        verbose: int = False,
    ) -> None:
        self.estimators: Any = estimators
        self.fusion = fusion
        self.cache = cache
        self.n_jobs = n_jobs
        self.time_limit = time_limit
        self.on_error = on_error
        self.verbose = verbose

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read pickles of version 0.1 too, which had no time limit and raised all errors."""
        super().__setstate__({"time_limit": None, "on_error": "raise", **state})

    @property
    def _named(self) -> list[tuple[str, Any]]:
        """The members without their columns, which is what ``BaseComposition`` reads and writes."""
        try:
            return [(name, estimator) for name, estimator, _ in self.estimators]
        except (TypeError, ValueError):
            return self.estimators  # "auto", or misshapen: `fit` says so, get_params must not

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
            params = {**params, "fusion": SuperLearner()}
        self._set_params("_named", **params)
        return self

    @abstractmethod
    def _learn(self, y: Any, weight: np.ndarray) -> LearnedTask:
        """Return what `y` is."""

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> Self:
        check_time_limit(self.time_limit)
        if self.on_error not in ("raise", "missing"):
            raise ConfigurationError(f"on_error must be 'raise' or 'missing', not {self.on_error!r}")
        with fitting(self, X, y, sample_weight) as work:
            limit = self._fit_shown(work, X, y, sample_weight, groups)
        if limit.cut:
            name = type(self).__name__
            remedy = f"{name} has it as far as it came: give it more seconds, or members with fine_tune='head'"
            warn_of_cut(self.time_limit, ", ".join(limit.cut), remedy, stacklevel=3)
        return self

    def _fit_shown(self, work: Work, X: Any, y: Any, sample_weight: Any, groups: Any) -> TimeLimit:
        name = type(self).__name__
        estimators: Any = self.estimators
        if not _is_auto(estimators):
            members = self._check_members(estimators)
        names = check_frame(X)
        if y is None:
            raise DataError(f"{name}.fit requires y to be passed, but the target y is None")
        if isinstance(y, str):
            raise DataError(
                f"y must be the labels of the rows, not the name {y!r}; give X[{y!r}] as y, and X without that column"
            )
        if isinstance(groups, str):
            groups = column_groups(X, groups)
        check_consistent_length(X, y, groups)
        if _is_auto(estimators):
            with naming_rows(X):
                self.inferred_estimators_ = infer_members(X, y, regression=is_regressor(self))
            report(self.inferred_estimators_)
            estimators = self.inferred_estimators_
            members = self._check_members(estimators)
        rows = np.empty((n_rows(X), 1))
        weight = check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        with naming_rows(X):
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
        groups = None if groups is None else _checked_groups(groups)
        members = [replace(member, unreadable=self.on_error) for member in members]
        if self.fusion is None:
            strategies, fewest = _defaults(members, X, target, groups)
        else:
            strategies, fewest = [clone(self.fusion)], ""
        dropped = [is_dropped(estimator) for _, estimator, _ in estimators]
        metadata: dict[str, Any] = {
            "sample_weight": None if sample_weight is None else weight,
            "groups": groups,
            "store": Store.of(self.cache),
            "n_jobs": self.n_jobs,
        }
        leniently = unreadable_as_missing() if self.on_error == "missing" else nullcontext()
        with time_limit(self.time_limit) as limit, naming_rows(X), leniently:
            for fusion in strategies:
                work.title = type(fusion).__name__
                fusion.leave_out(dropped)
                try:
                    self.fusion_ = fusion.fit(members, X, target, **metadata)
                except MmensembleError:
                    if fusion is strategies[-1]:
                        raise
                else:
                    break
        work.title = name
        if not is_regressor(self):
            self.classes_ = self.fusion_.task_.classes
        self.timed_out_ = list(limit.cut)
        self.estimators_ = [member.estimator for member in self.fusion_.members_]
        self.named_estimators_ = Bunch(**{member.name: member.estimator for member in self.fusion_.members_})
        report(self.fusion_)
        if fewest and not is_silent(self.verbose):
            chosen = type(self.fusion_).__name__
            LOGGER.warning("%s: %s, too few to compare strategies; it is %s", name, fewest, chosen)
        return limit

    def _check_members(self, estimators: Any) -> list[Member]:
        shape = "estimators must be 'auto' or a list of (name, estimator, column or columns)"
        try:
            members = [Member(name, estimator, columns) for name, estimator, columns in estimators]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{shape}, not {estimators!r}") from error
        members = [member for member in members if not is_dropped(member.estimator)]
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
            if len(set(columns)) < len(columns):
                raise ConfigurationError(f"member {member.name!r} names a column twice: {columns}")
            check_form(f"member {member.name!r}", member.estimator, member.columns)
        self._validate_names([name for name, _, _ in estimators])
        return members

    def _outputs(self, X: Any) -> np.ndarray:
        """Return probabilities or predictions, (n_samples, width)."""
        check_is_fitted(self)
        return self._of_rows(self.fusion_.outputs, X)

    def _of_rows(self, function: Callable[[Any], np.ndarray], X: Any) -> np.ndarray:
        """Return what the fitted strategy makes of rows; with ``on_error="missing"``, without cells that it refuses."""
        check_frame(X, empty=True)
        with Store.of(self.cache).active(), naming_rows(X):
            # Rows that are all readable, as most are, are read once.
            for finite in (False, True) if self.on_error == "missing" else ():
                try:
                    return function(X)
                except (TypeError, ValueError):
                    X, errors = without_unreadable(self.fusion_.members_, X, finite=finite)
                    if errors:
                        warn_of_cells(errors, stacklevel=4)
            return function(X)

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
        return self._of_rows(self.fusion_.transform, X)

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
        found = getattr(self, "inferred_estimators_", self.estimators)
        if _is_auto(found):
            return VisualBlock("single", self, names="auto", name_details=str(self))
        names, estimators, columns = zip(*found, strict=True)
        return VisualBlock("parallel", estimators, names=names, name_details=columns)

    def __onnx_graph__(self, source: Any) -> Any:
        """Take part in `mmensemble.to_graph`."""
        from mmensemble.graph import to_graph

        check_is_fitted(self)
        return to_graph(self.fusion_, source)


def _defaults(
    members: list[Member], X: Any, target: LearnedTask, groups: np.ndarray | None
) -> tuple[list[Fusion], str]:
    """Return the strategies that are meant by none, the best first: one that compares, where there is enough for that.

    Where there is not, what there is too little of stands beside them. What learns from folds how to join the members
    needs rows of each class in each; what learns a penalty for each member does not.
    """
    n_groups = len(target.y) if groups is None else len(np.unique(groups))
    numbers = for_members(target)
    table = numbers.reshape(len(numbers), -1)
    counts, of_classes = [], [n_groups]
    for member in members:
        present = present_rows(X, member.columns)
        counts.append(int(present.sum()))
        if target.task.classes is not None:
            of_classes += [np.unique(column, return_counts=True)[1].min() for column in table[present].T if column.size]
    if len(members) == 1:
        return [SoftVoting()], ""
    if min(counts) < 5 * LEAST_ROWS:
        return [SoftVoting()], f"member {members[int(np.argmin(counts))].name!r} has {min(counts)} rows"
    if min(of_classes) >= LEAST_ROWS:
        return [SuperLearner()], ""
    fewest = f"there are {n_groups} groups" if n_groups < LEAST_ROWS else f"a class has {min(of_classes)} rows"
    if n_groups > 1 and all(makes_features(member.estimator) for member in members):
        return [LinearFusion(), SoftVoting()], fewest
    return [SoftVoting()], fewest


def _checked_groups(groups: Any) -> np.ndarray:
    """Return the group of each row, (n,), or raise a `DataError` where it is missing."""
    groups = column_or_1d(groups)
    missing = missing_cells(groups)
    if missing.any():
        raise DataError("the group of the row is missing", row=int(missing.argmax()))
    return np.asarray(groups)


def _is_auto(estimators: Any) -> bool:
    return isinstance(estimators, str) and estimators == "auto"


def is_dropped(estimator: Any) -> bool:
    """Tell whether a member is left out."""
    return isinstance(estimator, str) and estimator == "drop"


def check_frame(X: Any, *, empty: bool = False) -> list[str]:
    """Return the names of a frame's columns, or raise a `DataError` where X is none, or has no rows."""
    names = column_names(X)
    if names is None or not hasattr(X, "shape"):
        raise DataError(f"X must be a DataFrame (pandas or polars), {not_a(X)}")
    if n_rows(X) == 0 and not empty:
        raise DataError("0 rows were given to fit; at least 2 are needed")
    return names
