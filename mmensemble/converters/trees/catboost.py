"""catboost's estimators, as graphs, by the JSON that `save_model` writes. It compares x > border in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from mmensemble.converters.fallback.numbers import splits
from mmensemble.converters.linear import matrix
from mmensemble.converters.trees.ensemble import Link, Tree, boosted, raw_scores
from mmensemble.exceptions import ExportError
from mmensemble.graph import Frame, Outputs, Source, class_named, to_graph
from mmensemble.tasks import Thresholded

__all__ = ["check_catboost"]

_CatBoost = class_named("catboost.core.CatBoost")

_LINK_OF: dict[str, Link] = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "Focal": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "sigmoid",
    "MultiLogloss": "sigmoid",
    "MultiCrossEntropy": "sigmoid",
    **dict.fromkeys(["RMSE", "MultiRMSE", "MAE", "MAPE", "Quantile", "MultiQuantile", "LogLinQuantile"], "identity"),
    **dict.fromkeys(["Huber", "Expectile", "LogCosh", "Lq", "RMSPE"], "identity"),
    "Poisson": "exp",
    "Tweedie": "exp",
}
_FEATURES = ("cat", "text", "embedding")
_NO_NUMBERS = (
    "{}({}_features=...) is not exported; put an encoder before it, such as a OneHotEncoder or TargetEncoder of "
    "categories, a TfidfVectorizer of texts"
)
_MULTILABEL = ("MultiLogloss", "MultiCrossEntropy")


def check_catboost(estimator: Any) -> None:
    """Raise `ExportError` for parameters, of an estimator that need not be fitted, that have no ONNX form here."""
    name, parameters = type(estimator).__name__, estimator.get_params()
    for key in ("loss_function", "objective"):
        loss = parameters.get(key)
        if loss is not None and not (isinstance(loss, str) and loss.partition(":")[0] in _LINK_OF):
            shown = repr(loss) if isinstance(loss, str) else type(loss).__name__
            raise ExportError(f"{name}({key}={shown}) is not exported; {', '.join(_LINK_OF)} are")
    for kind in _FEATURES:
        features = parameters.get(f"{kind}_features")
        if features is not None and len(features):
            raise ExportError(_NO_NUMBERS.format(name, kind))


@splits.register(_CatBoost)
def _splits(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for tree in _trees(_model(estimator)):
        yield tree.splits


@to_graph.register(_CatBoost)
def _catboost(estimator: Any, source: Source | None = None) -> Outputs:
    name = type(estimator).__name__
    model = _model(estimator)
    loss = model["model_info"]["params"]["loss_function"]["type"]
    if loss not in _LINK_OF:
        raise ExportError(f"{name}(loss_function={loss!r}) is not exported; {', '.join(_LINK_OF)} are")
    source = Frame() if source is None else source
    if isinstance(source, Frame) and source.columns is None:  # it has no feature_names_in_
        source = replace(source, columns=list(estimator.feature_names_))
    X = matrix(estimator, source)
    _, bias = model["scale_and_bias"]
    with X.graph.scope(name):
        raw = raw_scores(X, X.value, _trees(model), len(bias), np.asarray([bias]))
        outputs = boosted(estimator, X, raw, _LINK_OF[loss], len(bias), multilabel=loss in _MULTILABEL)
    if is_classifier(estimator) and len(bias) == 1 and estimator.get_probability_threshold() != 0.5:
        task = Thresholded(np.asarray(estimator.classes_), estimator.get_probability_threshold(), 1)
        return replace(outputs, task=task)
    return outputs


def _model(estimator: Any) -> dict[str, Any]:
    check_catboost(estimator)
    for kind in _FEATURES:  # which `fit` takes as well
        if getattr(estimator, f"get_{kind}_feature_indices")():
            raise ExportError(_NO_NUMBERS.format(type(estimator).__name__, kind))
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        estimator.save_model(str(path), format="json")
        model: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return model


def _trees(model: dict[str, Any]) -> list[Tree]:
    scale, bias = model["scale_and_bias"]
    features = model["features_info"]["float_features"]
    missing_left = np.asarray([feature["nan_value_treatment"] != "AsTrue" for feature in features])
    trees = []
    for tree in model.get("oblivious_trees") or model.get("trees", []):
        questions, left, leaf_values = _symmetric(tree) if "leaf_values" in tree else _of_any_shape(tree)
        feature = np.asarray([0 if split is None else split["float_feature_index"] for split in questions])
        border = np.asarray([0.0 if split is None else split["border"] for split in questions])
        value = np.zeros((len(left), len(bias)))
        value[left < 0] = np.reshape(leaf_values, (-1, len(bias))) * scale
        trees.append(Tree(feature, border, left, np.where(left < 0, left, left + 1), missing_left[feature], value))
    return trees


# The split of each node, None of a leaf; its left child, which the right one follows; the values of the leaves.
_Nodes = tuple[list[dict[str, Any] | None], np.ndarray, list[Any]]


def _symmetric(tree: dict[str, Any]) -> _Nodes:
    """Lay open a tree that asks the same at all nodes of a level, the last of its splits at the root."""
    levels = tree["splits"][::-1]
    n_splits = 2 ** len(levels) - 1
    questions = [levels[(number + 1).bit_length() - 1] for number in range(n_splits)]
    left = np.append(2 * np.arange(n_splits) + 1, np.full(n_splits + 1, -1))
    return [*questions, *[None] * (n_splits + 1)], left, tree["leaf_values"]


def _of_any_shape(tree: dict[str, Any]) -> _Nodes:
    """Put the nodes of a tree into a list, level by level."""
    nodes, left = [tree], []
    for node in nodes:  # to which its children are added
        left.append(len(nodes) if "split" in node else -1)
        nodes += [node["left"], node["right"]] if "split" in node else []
    leaf_values = [node["value"] for node in nodes if "split" not in node]
    return [node.get("split") for node in nodes], np.asarray(left), leaf_values
