"""The way out for scikit-learn estimators without a form of their own: skl2onnx converts them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from sklearn.base import is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ExportError
from mmensemble.graph import ML_OPSET, OPSET, Frame, Outputs, Source, Tensor, add_itself, to_graph
from mmensemble.preprocessing.tabular import FEATURES, TabularPreprocessor
from mmensemble.tasks import Regression

__all__ = ["as_tensor", "can_convert", "convert", "refusing_nan", "without_probabilities"]

_NEEDS_A_LOCALE = {"StringNormalizer", "Tokenizer"}


@to_graph.register(object)
def _others(estimator: Any, source: Source | None = None) -> Outputs:
    if hasattr(estimator, "__onnx_graph__"):
        return add_itself(estimator, source)
    return convert(estimator, Frame() if source is None else source)


def can_convert(estimator: Any) -> bool:
    """Tell whether skl2onnx knows an estimator's class."""
    from skl2onnx._supported_operators import sklearn_operator_name_map

    return type(estimator) in sklearn_operator_name_map


def convert(estimator: Any, source: Source) -> Outputs:
    """Add a fitted scikit-learn estimator to a graph by skl2onnx.

    Parameters
    ----------
    estimator : estimator
    source : Frame or Tensor

    Returns
    -------
    Outputs

    Raises
    ------
    ExportError
        If skl2onnx cannot convert it.
    """
    from skl2onnx import __max_supported_opset__, convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    check_is_fitted(estimator)
    name = type(estimator).__name__
    if isinstance(getattr(estimator, "classes_", None), list):
        raise ExportError(f"{name} over several columns of labels has no ONNX form; use a MultiOutputClassifier")
    if is_classifier(estimator) and not hasattr(estimator, "predict_proba"):
        raise ExportError(without_probabilities(name))
    present: ir.Value | None
    if isinstance(source, Tensor):
        present = source.present
    else:
        preprocessor, inputs, present = _feed(estimator, source)
        if preprocessor.tensors[FEATURES].dtype == "float32":
            source = Tensor(source.graph, inputs[FEATURES], present)
    if isinstance(source, Tensor):
        inputs = {"X": source.value}
        types = [("X", FloatTensorType([None, estimator.n_features_in_]))]
    else:
        inputs = {"X": inputs[FEATURES]}
        types = [("X", StringTensorType([None, len(preprocessor.columns)]))]
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    try:
        with warnings.catch_warnings():  # skl2onnx gives protobuf booleans for integers
            warnings.simplefilter("ignore")
            proto = convert_sklearn(
                estimator,
                initial_types=types,
                target_opset={"": min(OPSET, __max_supported_opset__), "ai.onnx.ml": ML_OPSET},
                options=options,
            )
    except Exception as error:  # skl2onnx raises RuntimeError, NameError, TypeError and its own, without a common base
        raise ExportError(f"skl2onnx cannot convert {name}: {str(error).strip().splitlines()[0]}") from error
    if any(node.op_type in _NEEDS_A_LOCALE for node in proto.graph.node):
        raise ExportError(
            f"{name} splits and lower-cases text by the scoring machine's locale, so its scores could differ there; "
            "it is not exported"
        )
    outputs = source.graph.inline(ir.from_proto(_at_opset(proto)), inputs)

    def scores(value: ir.Value) -> ir.Value:
        if isinstance(source, Frame) or get_tags(estimator).input_tags.allow_nan:
            return value
        return refusing_nan(source, value)

    if is_regressor(estimator):
        (predictions,) = outputs.values()
        width = int(getattr(estimator, "n_outputs_", 1))
        task = Regression(width, one_dimensional=width == 1)
        return Outputs(source.graph, predictions=scores(predictions), present=present, task=task)
    if hasattr(estimator, "predict_proba"):
        return Outputs(source.graph, probabilities=scores(outputs["probabilities"]), present=present)
    if hasattr(estimator, "transform"):
        (transformed,) = outputs.values()
        return Outputs(source.graph, transformed=transformed, present=present)
    raise ExportError(f"{name} has neither predict_proba nor predictions of numbers nor transform")


def without_probabilities(name: str) -> str:
    """Say why a classifier is not exported."""
    return f"{name} has no predict_proba, so there are no probabilities to export; put it into a CalibratedClassifierCV"


def refusing_nan(source: Tensor, scores: ir.Value) -> ir.Value:
    """Let the scores of every row that holds NaN or infinity be NaN, where scikit-learn would refuse it."""
    graph = source.graph
    total = graph.op("ReduceSum", source.value, graph.constant(np.asarray([1])), keepdims=1)
    return graph.op("Add", scores, graph.op("Mul", total, graph.constant(np.float32(0))))


def as_tensor(estimator: Any, source: Source | None) -> Tensor:
    """Return the matrix of numbers that an estimator takes, whether its X is still on the host or in the graph.

    Parameters
    ----------
    estimator : estimator
        Fitted; where the columns of X are not known, its ``feature_names_in_`` are.
    source : Frame or Tensor
        Columns of X that hold numbers, which become inputs of the graph, or the matrix that an earlier step made. None
        is a new graph and all columns.

    Returns
    -------
    Tensor
        (batch, n_features) float32.

    Raises
    ------
    ExportError
        If the columns hold strings, or have no names.
    """
    if isinstance(source, Tensor):
        return source
    source = Frame() if source is None else source
    preprocessor, inputs, present = _feed(estimator, source)
    if preprocessor.tensors[FEATURES].dtype != "float32":
        raise ExportError(f"{type(estimator).__name__} takes numbers; the columns are {preprocessor.columns}")
    return Tensor(source.graph, inputs[FEATURES], present)


def _feed(estimator: Any, source: Frame) -> tuple[TabularPreprocessor, dict[str, ir.Value], ir.Value]:
    columns = source.column_list() or [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    if not columns:
        raise ExportError(
            f"{type(estimator).__name__} was fitted on rows without column names; fit it on a frame, give it to a "
            "MultimodalClassifier with its columns, or wrap it in on_column(columns, estimator)"
        )
    # What was fitted without a look at the columns' types takes numbers, or else has a form of its own.
    kinds: dict[str, Any] = (
        dict.fromkeys(columns, "float") if source.kinds is None else {c: source.kinds[c] for c in columns}
    )
    if len(set(kinds.values())) > 1:
        raise ExportError(
            f"{type(estimator).__name__} takes numbers and strings at once ({kinds}); put a ColumnTransformer before it"
        )
    if source.fill:
        raise ExportError(
            f"{type(estimator).__name__} behind a SimpleImputer of strings has no ONNX form; an encoder has"
        )
    preprocessor = TabularPreprocessor(kinds)
    inputs = source.graph.feed(source.name or "tabular", columns, preprocessor)
    return preprocessor, inputs, source.graph.present(inputs)


def _at_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a model to the composition's opset; skl2onnx may return a lower one, or name a domain twice."""
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    del proto.opset_import[:]
    proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())
    if versions.get("", OPSET) < OPSET:
        proto = onnx.version_converter.convert_version(proto, OPSET)
    return proto
