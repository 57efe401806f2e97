"""A look at every part of a composition before any of it is exported, which may take minutes for a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer

from mmensemble._sklearn import BaseSearchCV
from mmensemble.converters.fallback.skl2onnx import can_convert
from mmensemble.converters.functions import check_function
from mmensemble.converters.text import check_vectorizer
from mmensemble.converters.trees.catboost import check_catboost
from mmensemble.converters.trees.lightgbm import check_lightgbm
from mmensemble.converters.trees.xgboost import check_xgboost
from mmensemble.exceptions import ExportError
from mmensemble.fusion import Fusion
from mmensemble.graph import class_named, is_registered, to_generator_graph, to_graph
from mmensemble.learning.columns import ColumnSelector
from mmensemble.learning.pipelines import prediction_steps
from mmensemble.multimodal import MultimodalClassifier, MultimodalRegressor

__all__ = ["Exportability", "can_export", "check_exportable"]

Named = Iterable[tuple[str, Any]]


@dataclass(frozen=True, repr=False)
class Exportability:
    """What `can_export` answers; it is true where nothing stands against an export.

    Parameters
    ----------
    reasons : tuple of str
        Which parts have no ONNX form, and why.
    """

    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons

    def __str__(self) -> str:
        return "it can be exported" if self else f"it cannot be exported: {'; '.join(self.reasons)}"

    __repr__ = __str__


def can_export(estimator: Any) -> Exportability:
    """Tell whether an estimator can be exported, before it is fitted.

    Each part is looked at by itself: what it lets pass is still compared with the estimator when it is exported.

    Parameters
    ----------
    estimator : estimator
        Fitted or not: a composition, a leaf, a scikit-learn estimator with others inside.

    Returns
    -------
    Exportability
        True, or false with the reasons.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from mmensemble import can_export
    >>> bool(can_export(make_pipeline(TfidfVectorizer(), LogisticRegression())))
    True
    >>> can_export(make_pipeline(TfidfVectorizer(tokenizer=str.split), LogisticRegression())).reasons[0][:56]
    'tfidfvectorizer: TfidfVectorizer(tokenizer=...) is Pytho'
    """
    parts = {"": estimator}
    if hasattr(estimator, "get_params"):
        parts |= {name.replace("__", "/"): value for name, value in estimator.get_params(deep=True).items()}
    reasons = []
    for path, part in parts.items():
        if isinstance(part, type) or not hasattr(part, "fit") or isinstance(part, Fusion):
            continue
        try:
            _check(part)
        except ExportError as error:
            reasons.append(f"{path}: {error}" if path else str(error))
    return Exportability(tuple(dict.fromkeys(reasons)))


def check_exportable(estimator: Any) -> None:
    """Look for parts of a fitted composition that have no ONNX form, without exporting anything.

    What it lets pass may still turn out to have none.

    Parameters
    ----------
    estimator : estimator
        Fitted.

    Raises
    ------
    ExportError
        If a part is known to have no ONNX form; it says which one and why.
    """
    for path, part in _walk("", estimator):
        try:
            _check(part)
        except ExportError as error:
            raise ExportError(f"{path}: {error}" if path else str(error)) from error


def _walk(path: str, estimator: Any) -> Iterator[tuple[str, Any]]:
    yield path, estimator
    for name, part in _parts(estimator):
        if part is not None and not isinstance(part, str):
            yield from _walk(f"{path}/{name}" if path else name, part)


@singledispatch
def _check(estimator: Any) -> None:
    registered = is_registered(to_graph, estimator) or is_registered(to_generator_graph, estimator)
    if registered or hasattr(estimator, "__onnx_graph__") or can_convert(estimator):
        return
    raise ExportError(
        f"{type(estimator).__name__} has no ONNX form: skl2onnx does not know it; give it a method __onnx_graph__, or "
        "register a function for it with to_graph.register"
    )


@_check.register
def _(estimator: ColumnSelector) -> None:
    """Let it pass: a pipeline reads it."""


@_check.register(class_named("imblearn.base.SamplerMixin"))
def _(estimator: Any) -> None:
    """Let it pass: a pipeline passes over it."""


@_check.register(CountVectorizer)
@_check.register(HashingVectorizer)
def _(estimator: Any) -> None:
    check_vectorizer(estimator)


@_check.register
def _(estimator: FunctionTransformer) -> None:
    if estimator.func is not None:
        check_function(estimator.func, "func")


_check.register(class_named("xgboost.sklearn.XGBModel"))(check_xgboost)
_check.register(class_named("lightgbm.sklearn.LGBMModel"))(check_lightgbm)
_check.register(class_named("catboost.core.CatBoost"))(check_catboost)


@singledispatch
def _parts(estimator: Any) -> Named:
    """Return the fitted parts that an estimator is exported by."""
    return []


@_parts.register
def _(estimator: Pipeline) -> Named:
    return prediction_steps(estimator)


@_parts.register
def _(estimator: FeatureUnion) -> Named:
    return estimator.transformer_list


@_parts.register
def _(estimator: ColumnTransformer) -> Named:
    return [(name, part) for name, part, columns in getattr(estimator, "transformers_", [])]


@_parts.register(MultimodalClassifier)
@_parts.register(MultimodalRegressor)
@_parts.register(StackingClassifier)
@_parts.register(StackingRegressor)
@_parts.register(VotingClassifier)
@_parts.register(VotingRegressor)
def _(estimator: Any) -> Named:
    members = list(getattr(estimator, "named_estimators_", {}).items())
    joins = getattr(estimator, "fusion_", estimator)
    # A super learner's final estimators are those of what it chose.
    joins = [joins, *(strategy for _, strategy in getattr(joins, "candidates_", []))]
    return [*members, *(("final_estimator", getattr(each, "final_estimator_", None)) for each in joins)]


@_parts.register(OneVsRestClassifier)
@_parts.register(MultiOutputClassifier)
@_parts.register(MultiOutputRegressor)
def _(estimator: Any) -> Named:
    # All are clones of one, but for scikit-learn's stand-ins for constant labels.
    parts = [part for part in getattr(estimator, "estimators_", []) if not hasattr(part, "y_")]
    return [("estimator", part) for part in parts[:1]]


@_parts.register
def _(estimator: CalibratedClassifierCV) -> Named:
    return [("estimator", part.estimator) for part in getattr(estimator, "calibrated_classifiers_", [])[:1]]


@_parts.register
def _(estimator: TransformedTargetRegressor) -> Named:
    return [("regressor", getattr(estimator, "regressor_", None))]


@_parts.register(FixedThresholdClassifier)
@_parts.register(TunedThresholdClassifierCV)
def _(estimator: Any) -> Named:
    return [("estimator", getattr(estimator, "estimator_", estimator.estimator))]


@_parts.register
def _(estimator: BaseSearchCV) -> Named:
    return [("best_estimator", getattr(estimator, "best_estimator_", None))]


@_parts.register
def _(estimator: FrozenEstimator) -> Named:
    return [("estimator", estimator.estimator)]
