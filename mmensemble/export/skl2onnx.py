"""The way out for scikit-learn estimators without a form of their own: skl2onnx converts them."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import onnx
import onnx.version_converter
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble._forest import BaseForest
from sklearn.tree import BaseDecisionTree
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ExportError
from mmensemble.export.graph import ML_OPSET, OPSET, Frame, Outputs, Source, Tensor
from mmensemble.preprocessing.tabular import FEATURES, TabularPreprocessor

__all__ = ["as_tensor", "convert"]

_NEEDS_A_LOCALE = {"StringNormalizer", "Tokenizer"}


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
    if isinstance(source, Tensor):
        inputs, present = {"X": source.value}, source.present
        types = [("X", FloatTensorType([None, estimator.n_features_in_]))]
    else:
        preprocessor, inputs, present = _feed(estimator, source)
        types = [
            (key, (StringTensorType if spec.dtype == "object" else FloatTensorType)([None, spec.shape[1]]))
            for key, spec in preprocessor.tensors.items()
        ]
        inputs = {key: inputs[key] for key, _ in types}
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    try:
        with warnings.catch_warnings():  # skl2onnx gives protobuf booleans for integers
            warnings.simplefilter("ignore", DeprecationWarning)
            proto = convert_sklearn(
                estimator,
                initial_types=types,
                target_opset={"": min(OPSET, __max_supported_opset__), "ai.onnx.ml": ML_OPSET},
                options=options,
            )
    except Exception as error:  # skl2onnx raises RuntimeError, NameError, TypeError and its own, without a common base
        raise ExportError(f"skl2onnx cannot convert {name}: {str(error).strip().splitlines()[0]}") from error
    _tell_trees_where_nan_goes(estimator, proto)
    if any(node.op_type in _NEEDS_A_LOCALE for node in proto.graph.node):
        raise ExportError(
            f"{name} splits and lower-cases text by the scoring machine's locale, so its scores could differ there; "
            "text vectorizers are not exported yet"
        )
    outputs = source.graph.inline(ir.from_proto(_at_opset(proto)), inputs)
    if is_regressor(estimator):
        (predictions,) = outputs.values()
        return Outputs(source.graph, predictions=predictions, present=present)
    if hasattr(estimator, "predict_proba"):
        return Outputs(source.graph, probabilities=outputs["probabilities"], present=present)
    if hasattr(estimator, "transform"):
        (transformed,) = outputs.values()
        return Outputs(source.graph, transformed=transformed, present=present)
    raise ExportError(f"{name} has neither predict_proba nor predictions of numbers nor transform")


def _tell_trees_where_nan_goes(estimator: Any, proto: onnx.ModelProto) -> None:
    """Let each split of a tree or forest send NaN where scikit-learn sends it; skl2onnx leaves that out."""
    if not isinstance(estimator, (BaseDecisionTree, BaseForest)):
        return
    trees = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
    for node in proto.graph.node:
        if not node.op_type.startswith("TreeEnsemble"):
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        places = zip(
            attributes["nodes_treeids"].ints,
            attributes["nodes_nodeids"].ints,
            attributes["nodes_modes"].strings,
            strict=True,
        )
        attributes["nodes_missing_value_tracks_true"].ints[:] = [
            int(mode != b"LEAF" and trees[tree].missing_go_to_left[split]) for tree, split, mode in places
        ]


def as_tensor(estimator: Any, source: Frame) -> Tensor:
    """Turn numeric columns of X into the matrix that an estimator takes."""
    preprocessor, inputs, present = _feed(estimator, source)
    if preprocessor.tensors[FEATURES].dtype != "float32":
        raise ExportError(f"{type(estimator).__name__} takes numbers; the columns are {preprocessor.columns}")
    return Tensor(source.graph, inputs[FEATURES], present)


def _feed(estimator: Any, source: Frame) -> tuple[TabularPreprocessor, dict[str, ir.Value], ir.Value]:
    if source.kinds is None:
        raise ExportError(
            f"{type(estimator).__name__} stands on a whole frame whose column types are not known; "
            "give it to a MultimodalClassifier with its columns, or wrap it in on_column(columns, estimator)"
        )
    layout: Literal["columns", "matrix"] = "columns" if isinstance(estimator, ColumnTransformer) else "matrix"
    if layout == "matrix" and len(set(source.kinds.values())) > 1:
        raise ExportError(
            f"{type(estimator).__name__} takes numbers and strings at once ({source.kinds}); "
            "put a ColumnTransformer before it"
        )
    preprocessor = TabularPreprocessor(dict(source.kinds), layout=layout)
    inputs = source.graph.feed(source.name or "tabular", source.column_list(), preprocessor)
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
