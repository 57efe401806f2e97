"""The way out for scikit-learn estimators without a form of their own: skl2onnx converts them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from sklearn.base import is_classifier, is_regressor
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import BaseForest
from mmensemble.converters.fallback.numbers import holds_trees
from mmensemble.converters.fallback.tried_out import Wanted, gives_sparse
from mmensemble.exceptions import ExportError
from mmensemble.graph import ML_OPSET, OPSET, Frame, Graph, Outputs, Source, Tensor, add_itself, to_graph
from mmensemble.preprocessing.tabular import FEATURES, TabularPreprocessor

__all__ = ["as_tensor", "can_convert", "convert", "refusing_nan", "takes_nan"]

_NEEDS_A_LOCALE = {"StringNormalizer", "Tokenizer"}


@to_graph.register(object)
def _others(estimator: Any, source: Source | None = None) -> Outputs:
    if hasattr(estimator, "__onnx_graph__"):
        return add_itself(estimator, source)
    return convert(estimator, Frame() if source is None else source)


# What no converter knows, most of which solves a problem of its own for each row, and what comes nearest to it.
_NEAREST = {
    "AdditiveChi2Sampler": "Nystroem or RBFSampler",
    "DictionaryLearning": "SparsePCA or TruncatedSVD",
    "FeatureHasher": "OneHotEncoder, or of texts HashingVectorizer,",
    "Isomap": "KernelPCA or Nystroem",
    "LatentDirichletAllocation": "TruncatedSVD",
    "LocallyLinearEmbedding": "KernelPCA or Nystroem",
    "MiniBatchDictionaryLearning": "SparsePCA or TruncatedSVD",
    "MiniBatchNMF": "TruncatedSVD",
    "NMF": "TruncatedSVD",
    "PolynomialCountSketch": "Nystroem(kernel='poly')",
    "SparseCoder": "SparsePCA or TruncatedSVD",
}


def can_convert(estimator: Any) -> bool:
    """Tell whether skl2onnx knows an estimator's class, or it may turn out to multiply by a matrix.

    Raises
    ------
    ExportError
        If it is known to have no form.
    """
    from skl2onnx._supported_operators import sklearn_operator_name_map

    name = type(estimator).__name__
    if name in _NEAREST and type(estimator).__module__.startswith("sklearn."):
        raise ExportError(f"{name} has no ONNX form; {_NEAREST[name]} comes nearest and has one")
    return type(estimator) in sklearn_operator_name_map or hasattr(estimator, "transform")


def convert(estimator: Any, source: Source) -> Outputs:
    """Add a fitted scikit-learn estimator to a graph by skl2onnx.

    What skl2onnx gives is compared with the estimator on rows of numbers that matter to it: their values, and what
    their shapes mean. Numbers that come as float64 stay so where that gives the same, or else are rounded to float32.

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
        If skl2onnx cannot convert it, or converts it to something else.
    """
    check_is_fitted(estimator)
    can_convert(estimator)
    name = type(estimator).__name__
    present: ir.Value | None
    if isinstance(source, Tensor):
        source = as_tensor(estimator, source)
    else:
        preprocessor, inputs, present = _feed(estimator, source)
        if preprocessor.tensors[FEATURES].dtype == "object":
            return _of_strings(estimator, source.graph, inputs[FEATURES], len(preprocessor.columns), present)
        source = Tensor(source.graph, inputs[FEATURES], present)
    graph, X = source.graph, source.exact
    wanted = Wanted.of(estimator)
    affine = wanted.affine(estimator)
    if affine is not None:
        weight, bias = (graph.constant(np.ascontiguousarray(numbers)) for numbers in affine)
        value = graph.op("Gemm", graph.double(X), weight, bias)
        return Outputs(graph, transformed=value, present=source.present)
    failures: list[str] = []
    # Trees compare in float32 themselves, and of thresholds in float64 skl2onnx may not find an end.
    doubles = X.dtype == ir.DataType.DOUBLE and not holds_trees(estimator)
    for dtype in ("float64", "float32") if doubles else ("float32",):
        try:
            proto = _proto(estimator, dtype, estimator.n_features_in_)
            named = wanted.found_in(proto, dtype)
            converted = _read(proto)
        except ExportError as error:
            failures.append(str(error))
            continue
        inputs = {"X": X if dtype == "float64" else graph.single(X)}
        outputs = graph.inline(converted, inputs)
        values = {what: _shaped(graph, outputs[output], wanted.width(what)) for what, output in named.items()}
        if not get_tags(estimator).input_tags.allow_nan:
            values = {
                what: value if what == "labels" else refusing_nan(source, value) for what, value in values.items()
            }
        if "labels" in values:
            values["labels"] = _numbers_of_labels(graph, values["labels"], estimator.classes_)
        sparse = "transformed" in values and gives_sparse(estimator, wanted.rows, sparse=source.sparse)
        return Outputs(graph, **values, present=source.present, task=wanted.task, sparse=sparse)
    raise ExportError(f"skl2onnx cannot convert {name}: {failures[-1]}")


def _of_strings(estimator: Any, graph: Graph, value: ir.Value, width: int, present: ir.Value) -> Outputs:
    """Add a transformer of strings, which skl2onnx's own tests have to vouch for."""
    if not hasattr(estimator, "transform") or is_classifier(estimator) or is_regressor(estimator):
        raise ExportError(f"{type(estimator).__name__} of strings has no ONNX form here; put an encoder before it")
    outputs = graph.inline(ir.from_proto(_at_opset(_proto(estimator, "object", width))), {"X": value})
    transformed, *others = outputs.values()
    if others:
        raise ExportError(f"skl2onnx gives several outputs for {type(estimator).__name__}")
    return Outputs(graph, transformed=transformed, present=present)


def _proto(estimator: Any, dtype: str, width: int) -> onnx.ModelProto:
    from skl2onnx import __max_supported_opset__, convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    types = {"float64": DoubleTensorType, "float32": FloatTensorType, "object": StringTensorType}
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    try:
        with warnings.catch_warnings():  # skl2onnx gives protobuf booleans for integers
            warnings.simplefilter("ignore")
            proto = convert_sklearn(
                estimator,
                initial_types=[("X", types[dtype]([None, width]))],
                target_opset={"": min(OPSET, __max_supported_opset__), "ai.onnx.ml": ML_OPSET},
                options=options,
            )
    except Exception as error:  # skl2onnx raises RuntimeError, NameError, TypeError and its own, without a common base
        raise ExportError((str(error).strip() or repr(error)).splitlines()[0]) from error
    if any(node.op_type in _NEEDS_A_LOCALE for node in proto.graph.node):
        raise ExportError(
            f"{type(estimator).__name__} splits and lower-cases text by the scoring machine's locale, so its scores "
            "could differ there; it is not exported"
        )
    return proto


def _read(proto: onnx.ModelProto) -> ir.Model:
    try:
        return ir.from_proto(_at_opset(proto))
    except ir.serde.SerdeError as error:
        raise ExportError(f"what it gives is no model ({str(error).splitlines()[0]})") from error


def _shaped(graph: Graph, value: ir.Value, width: int | None) -> ir.Value:
    """Give a value its shape (batch, width)."""
    return value if width is None else graph.op("Reshape", value, graph.constant(np.asarray([-1, width])))


def _numbers_of_labels(graph: Graph, labels: ir.Value, classes: Any) -> ir.Value:
    """Return the numbers of labels (batch, 1) among the classes, (batch, 1) int64."""
    classes = np.asarray(classes)
    known = classes.astype(object) if classes.dtype.kind in "OU" else classes.astype(np.int64)
    equal = graph.op("Equal", labels, graph.constant(known[None], "classes"))
    return graph.op("ArgMax", graph.op("Cast", equal, to=Graph.FLOAT), axis=1, keepdims=1)


def refusing_nan(source: Tensor, scores: ir.Value) -> ir.Value:
    """Let the scores of every row that holds NaN or infinity be NaN, where scikit-learn would refuse it."""
    graph = source.graph
    total = graph.op("ReduceSum", source.value, graph.constant(np.asarray([1])), keepdims=1)
    nothing = graph.op("Mul", total, graph.constant(np.float32(0)))
    return graph.op("Add", *graph.alike(scores, nothing))


def _refuses_infinity(estimator: Any) -> bool:
    """Tell whether an estimator refuses rows with an infinite number, as those of scikit-learn do but for a few."""
    takes = (HistGradientBoostingClassifier, HistGradientBoostingRegressor, FunctionTransformer, DummyClassifier)
    if not type(estimator).__module__.startswith("sklearn.") or isinstance(estimator, takes):
        return False
    if isinstance(estimator, Pipeline):
        return _refuses_infinity(next((step for _, step in estimator.steps if hasattr(step, "fit")), None))
    if isinstance(estimator, SelectorMixin) and get_tags(estimator).input_tags.allow_nan:
        return False
    # What wraps other estimators leaves it to them.
    within = [
        getattr(estimator, name) for name in ("estimators_", "estimator_", "estimator") if hasattr(estimator, name)
    ]
    if isinstance(estimator, BaseForest) or not within:
        return True
    return _refuses_infinity(next(iter(np.ravel(np.asarray(within[0], dtype=object))), None))


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
        return source.refuse() if source.refused and takes_nan(estimator) else source
    source = Frame() if source is None else source
    preprocessor, inputs, present = _feed(estimator, source)
    if preprocessor.tensors[FEATURES].dtype == "object":
        raise ExportError(f"{type(estimator).__name__} takes numbers; the columns are {preprocessor.columns}")
    return Tensor(source.graph, inputs[FEATURES], present)


def takes_nan(estimator: Any) -> bool:
    """Tell whether an estimator takes NaN, as those of other packages may, and what looks at nothing."""
    if isinstance(estimator, str) or not type(estimator).__module__.startswith("sklearn."):
        return True
    tags = get_tags(estimator)
    return tags.input_tags.allow_nan or tags.no_validation


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
    preprocessor = TabularPreprocessor(kinds, dtype="float64", finite=_refuses_infinity(estimator))
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
