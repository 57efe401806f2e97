from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.cluster import DBSCAN
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, Stacking, export_onnx, on_column, to_graph
from mmensemble.exceptions import ExportError
from mmensemble.export import Frame, Graph, Outputs, Tensor
from mmensemble.graph import any_present, graph_outputs
from mmensemble.preprocessing import ImagePreprocessor, TabularPreprocessor
from mmensemble.tasks import Classification


def run(model: ir.Model, **inputs: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def op_types(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def numbers(*names: str) -> TabularPreprocessor:
    return TabularPreprocessor(dict.fromkeys(names, "float"))


def matrix(graph: Graph, *names: str) -> ir.Value:
    return graph.feed("facts", names, numbers(*names))["features"]


class MeanColor(ClassifierMixin, BaseEstimator):
    """A classifier of images from elsewhere, which knows its graph: softmax of mean colour times a fixed matrix."""

    def __init__(self, size: int = 4, seed: int = 0) -> None:
        self.size = size
        self.seed = seed

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MeanColor:
        self.classes_ = np.unique(y)
        self.weight_ = np.random.default_rng(self.seed).normal(size=(3, len(self.classes_))).astype(np.float32)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        logits = ImagePreprocessor(size=self.size).encode(list(X)).items.mean(axis=(1, 2)) / 255 @ self.weight_
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def __onnx_graph__(self, source: Any) -> Outputs:
        graph = source.graph
        inputs = graph.feed(source.name or "image", source.column_list(), ImagePreprocessor(size=self.size))
        pixels = graph.op("Div", graph.op("Cast", inputs["pixels"], to=graph.FLOAT), graph.constant(np.float32(255)))
        mean = graph.op("ReduceMean", pixels, graph.constant(np.asarray([1, 2])), keepdims=0)
        logits = graph.op("MatMul", mean, graph.constant(self.weight_, "weight"))
        probabilities = graph.op("Softmax", logits, axis=1)
        return Outputs(graph, probabilities=probabilities, present=graph.present(inputs))


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    pictures = list(rng.integers(0, 256, (20, 4, 4, 3), dtype=np.uint8))
    return pd.DataFrame({"picture": pictures, "weight": rng.normal(size=20), "price": rng.normal(size=20)})


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return np.array(["a", "b"] * 10)


# --- building


def test_equal_feeds_are_one() -> None:
    graph = Graph()
    first = graph.feed("facts", ["weight"], numbers("weight"))
    assert graph.feed("other", ("weight",), numbers("weight")) is first
    assert [feed.name for feed in graph.feeds] == ["facts"]
    columns = graph.feed("facts", ["weight"], TabularPreprocessor({"weight": "float"}, layout="columns"))
    assert columns is not first
    price = graph.feed("facts", ["price"], numbers("weight"))
    assert [feed.name for feed in graph.feeds] == ["facts", "facts_2", "facts_3"]
    assert [value.name for value in price.values()] == ["facts_3.features", "facts_3.present"]
    assert graph.feed("facts", ["price"], numbers("weight")) is price


def test_inputs_have_the_shape_of_their_preprocessor() -> None:
    graph = Graph()
    pixels = graph.feed("image", ["picture"], ImagePreprocessor(size=5))
    assert pixels["pixels"].shape == ir.Shape(["batch", 5, 5, 3])
    assert (pixels["pixels"].dtype, pixels["present"].dtype) == (ir.DataType.UINT8, ir.DataType.BOOL)
    words = graph.feed("kind", ["kind"], TabularPreprocessor({"kind": "string"}))
    assert words["features"].dtype == ir.DataType.STRING
    assert graph.present(pixels).producer().op_type == "Unsqueeze"


def test_what_nothing_needs_is_dropped() -> None:
    graph = Graph()
    x = matrix(graph, "a", "b")
    graph.feed("unused", ["c"], numbers("c"))
    graph.op("Exp", x)
    graph.constant(np.zeros(1000, dtype=np.float32), "unused")
    model = graph.to_model({"probabilities": (graph.op("Neg", x), 2)})
    assert op_types(model) == {"Neg": 1}
    assert [value.name for value in model.graph.inputs] == ["facts.features"]
    assert not model.graph.initializers


def test_equal_constants_are_stored_once_and_others_are_not() -> None:
    graph = Graph()
    value = matrix(graph, "a", "b")
    weight = np.arange(4, dtype=np.float32).reshape(2, 2)
    for array in (weight, weight.copy(), weight + 1, weight.reshape(1, 2, 2)[0], np.float32(0)):
        value = graph.op("Add", value, graph.constant(array, "weight"))
    model = graph.to_model({"probabilities": (value, 2)})
    assert op_types(model) == {"Add": 5}
    assert len(model.graph.initializers) == 3
    zeros = np.zeros((2, 2), dtype=np.float32)
    np.testing.assert_array_equal(run(model, **{"facts.features": zeros}), 4 * weight + 1)


def test_equal_subgraphs_are_computed_once() -> None:
    graph = Graph()
    x = matrix(graph, "a", "b")

    def embed(scale: float) -> ir.Value:
        weight = graph.constant(np.full((2, 2), scale, dtype=np.float32), "weight")
        return graph.op("Relu", graph.op("MatMul", graph.op("Tanh", x), weight))

    with graph.scope("first"):
        first = embed(1.0)
    with graph.scope("second"):
        second = embed(1.0)
    other = embed(2.0)
    model = graph.to_model({"probabilities": (graph.op("Sum", first, second, other), 2)})
    assert op_types(model) == {"Tanh": 1, "MatMul": 2, "Relu": 2, "Sum": 1}
    got = run(model, **{"facts.features": np.array([[0.5, 1.0]], dtype=np.float32)})
    np.testing.assert_allclose(got, [[4 * np.tanh([0.5, 1.0]).sum()] * 2], rtol=1e-6)


def test_attributes_tell_nodes_apart() -> None:
    graph = Graph()
    x = matrix(graph, "a", "b")
    rows, columns = (graph.op("Softmax", x, axis=axis) for axis in (1, 0))
    model = graph.to_model({"probabilities": (graph.op("Sub", rows, columns), 2)})
    assert op_types(model)["Softmax"] == 2


def test_the_same_model_inlined_twice_is_there_once() -> None:
    def part() -> ir.Model:
        part = Graph()
        weight = part.constant(np.ones((2, 2), dtype=np.float32), "weight")
        value = part.op("Relu", part.op("MatMul", matrix(part, "a", "b"), weight))
        return part.to_model({"probabilities": (value, 2)})

    graph = Graph()
    x = matrix(graph, "a", "b")
    inlined = [graph.inline(part(), {"facts.features": x})["probabilities"] for _ in range(2)]
    model = graph.to_model({"probabilities": (graph.op("Add", *inlined), 2)})
    assert op_types(model) == {"MatMul": 1, "Relu": 1, "Add": 1}
    assert len(model.graph.initializers) == 1
    np.testing.assert_array_equal(run(model, **{"facts.features": np.ones((1, 2), np.float32)}), [[4.0, 4.0]])


def test_an_inlined_model_that_passes_its_input_through() -> None:
    source = ir.Value(name="x", shape=ir.Shape(["n", 2]), type=ir.TensorType(ir.DataType.FLOAT))
    passing = ir.Model(ir.Graph([source], [source], nodes=[], opset_imports={"": 23}), ir_version=11)
    graph = Graph()
    x = matrix(graph, "a", "b")
    assert graph.inline(passing, {"x": x}) == {"x": x}


def test_an_inlined_model_of_another_opset_is_refused() -> None:
    other = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=11)
    with pytest.raises(ExportError, match="opset 17 of domain ''"):
        Graph().inline(other, {})


def test_names_are_unique_and_say_where_a_node_belongs(X: Any, y: Any) -> None:
    model = MultimodalClassifier(
        [("image", MeanColor(), "picture"), ("facts", LogisticRegression(), ["weight"])], fusion=Stacking(cv=2)
    ).fit(X, y)
    outputs = to_graph(model)
    onnx_model = outputs.graph.to_model({"probabilities": (outputs.probabilities, 2)})
    names = [node.name for node in onnx_model.graph]
    assert len(set(names)) == len(names)
    values = [value.name for node in onnx_model.graph for value in node.outputs]
    assert len(set(values)) == len(values)
    for prefix in ("image/", "facts/LogisticRegression/", "Stacking/", "Stacking/LogisticRegression/"):
        assert any(name.startswith(prefix) for name in names), prefix
    (output,) = onnx_model.graph.outputs
    assert (output.name, output.shape, output.dtype) == ("probabilities", ir.Shape(["batch", 2]), ir.DataType.FLOAT)
    assert [value.name for value in onnx_model.graph.inputs] == [
        "image.pixels", "image.present", "facts.features", "facts.present",
    ]  # fmt: skip


def test_names_are_numbered_past_those_that_are_taken() -> None:
    graph = Graph()
    with graph.scope("scope"):
        given = [graph.constant(np.zeros(9), name).name for name in ("a", "a_2", "a", "a", "a_2", "b", "a")]
    assert given == [f"scope/{name}" for name in ("a", "a_2", "a_3", "a_4", "a_2_2", "b", "a_5")]
    assert graph.constant(np.zeros(9), "a").name == "a"


class Lookups(set[str]):
    """A set that counts how often it is asked."""

    n_asked = 0

    def __contains__(self, name: object) -> bool:
        self.n_asked += 1
        return super().__contains__(name)


def test_naming_many_operators_costs_one_try_each() -> None:
    graph = Graph()
    graph._names = names = Lookups()
    value = graph.constant(np.zeros(9), "value")
    for _ in range(1000):
        value = graph.op("Neg", value)
    assert value.name == "Neg_1000_output"
    assert names.n_asked == len(names) == 1001


def test_an_input_may_be_the_output() -> None:
    graph = Graph()
    model = graph.to_model({"probabilities": (matrix(graph, "a", "b"), 2)})
    np.testing.assert_array_equal(run(model, **{"facts.features": np.ones((3, 2), np.float32)}), np.ones((3, 2)))


# --- parts from elsewhere


def test_a_method_of_a_foreign_estimator(X: Any, y: Any, tmp_path: Any) -> None:
    for estimator in (on_column("picture", MeanColor()), MultimodalClassifier([("image", MeanColor(), "picture")])):
        manifest = export_onnx(estimator.fit(X, y), tmp_path / "model.onnx", verify=X)
        assert manifest.parity["max_abs_difference"] < 1e-6
        assert manifest.feeds[0].preprocessor == ImagePreprocessor(size=4)


def test_a_foreign_estimator_registers_a_function(X: Any, y: Any, tmp_path: Any) -> None:
    class Squared(TransformerMixin, BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> Squared:
            self.n_features_in_ = X.shape[1]
            return self

        def transform(self, X: Any) -> Any:
            return X**2

    model = on_column(["weight", "price"], make_pipeline(StandardScaler(), Squared(), LogisticRegression())).fit(X, y)
    with pytest.raises(ExportError, match="Squared"):
        export_onnx(model, tmp_path / "model.onnx")

    @to_graph.register(Squared)
    def _squared(estimator: Squared, source: Any = None) -> Outputs:
        assert isinstance(source, Tensor)
        graph = source.graph
        return Outputs(graph, transformed=graph.op("Mul", source.value, source.value), present=source.present)

    assert export_onnx(model, tmp_path / "model.onnx", verify=X).parity["n_rows"] == 20


def test_members_on_one_column_share_their_inputs(X: Any, y: Any) -> None:
    model = MultimodalClassifier(
        [
            ("one", MeanColor(seed=1), "picture"),
            ("two", MeanColor(seed=2), "picture"),
            ("large", MeanColor(size=6), "picture"),
        ]
    ).fit(X, y)
    outputs = to_graph(model)
    onnx_model = outputs.graph.to_model({"probabilities": (outputs.probabilities, 2)})
    inputs = [value.name for value in onnx_model.graph.inputs]
    assert inputs == ["one.pixels", "one.present", "large.pixels", "large.present"]
    assert op_types(onnx_model)["ReduceMean"] == 2, "the mean colour of one and two is taken once"
    assert op_types(onnx_model)["MatMul"] == 3


def test_equal_members_are_computed_once(X: Any, y: Any) -> None:
    model = MultimodalClassifier([("one", MeanColor(), "picture"), ("two", MeanColor(), "picture")]).fit(X, y)
    outputs = to_graph(model)
    assert op_types(outputs.graph.to_model({"probabilities": (outputs.probabilities, 2)}))["Softmax"] == 1


def test_nested_compositions_name_their_inputs_by_path(X: Any, y: Any, tmp_path: Any) -> None:
    inner = MultimodalClassifier([("image", MeanColor(), "picture"), ("facts", LogisticRegression(), ["weight"])])
    outer = MultimodalClassifier(
        [("inner", inner, ["picture", "weight"]), ("price", LogisticRegression(), ["price"])], fusion=Stacking(cv=2)
    ).fit(X, y)
    gaps = X.copy()
    gaps.loc[:3, "picture"] = None
    gaps.loc[2:5, "weight"] = np.nan
    gaps.loc[[3, 9], "price"] = np.nan
    manifest = export_onnx(outer, tmp_path / "model.onnx", verify=gaps)
    assert [feed.name for feed in manifest.feeds] == ["inner.image", "inner.facts", "price"]


@pytest.mark.parametrize("fusion", [SoftVoting([1, 2]), Stacking(cv=2)], ids=["SoftVoting", "Stacking"])
def test_a_null_struct_is_as_missing_in_the_graph_as_in_the_estimator(y: Any, tmp_path: Any, fusion: Any) -> None:
    data = (tmp_path / "picture.png").as_posix()
    Image.new("RGB", (4, 4), (250, 20, 20)).save(data)
    structs = [{"bytes": None, "path": data}] * 19 + [{"bytes": None, "path": None}]
    frame = pl.DataFrame({"picture": structs, "weight": np.linspace(-1, 1, 20)})
    model = MultimodalClassifier(
        [("image", MeanColor(), "picture"), ("facts", LogisticRegression(), ["weight"])], fusion=fusion
    ).fit(frame, y)
    # export_onnx raises ParityError if they differ.
    assert export_onnx(model, tmp_path / "model.onnx", verify=frame).parity["n_rows"] == 20


# --- parts of the joints


def test_outputs_of_fewer_classes() -> None:
    graph = Graph()
    x = matrix(graph, "a", "b")
    two, four = Classification(np.array(["x", "z"])), Classification(np.array(["w", "x", "y", "z"]))
    aligned = graph_outputs("a member", None, Outputs(graph, probabilities=x, task=two), four)
    model = graph.to_model({"probabilities": (aligned, 4)})
    got = run(model, **{"facts.features": np.array([[0.25, 0.75]], np.float32)})
    assert got.tolist() == [[0.0, 0.25, 0.0, 0.75]]
    assert graph_outputs("a member", None, Outputs(graph, probabilities=x, task=two), two) is x


def test_any_present() -> None:
    graph = Graph()
    columns = [graph.present(graph.feed(name, [name], numbers(name))) for name in "abc"]
    value = graph.op("Cast", any_present(graph, columns), to=graph.FLOAT)
    model = graph.to_model({"probabilities": (value, 1)})
    present = {f"{name}.present": np.array(p) for name, p in zip("abc", np.eye(3, 4, dtype=bool), strict=True)}
    assert run(model, **present).tolist() == [[1], [1], [1], [0]]
    assert any_present(graph, columns[:1]) is columns[0]


def test_frames_of_members() -> None:
    outer = Frame()
    inner = outer.member("text", "name", {"name": "string"})
    assert (inner.graph, inner.name, inner.columns, inner.column_list()) == (outer.graph, "text", "name", ["name"])
    assert inner.member("deep", ["a", "b"], None).name == "text.deep"
    assert outer.column_list() == []


# --- what has no form


def on_numbers(estimator: Any) -> Any:
    return on_column(["weight", "price"], estimator)


TEXT = pd.DataFrame({"name": ["red apple", "fast car"] * 10, "weight": np.arange(20.0), "price": np.arange(20.0) % 3})


def fitted(estimator: Any) -> Any:
    return estimator.fit(TEXT, np.array(["fruit", "vehicle"] * 10))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            on_numbers(make_pipeline(FunctionTransformer(np.cosh), LogisticRegression())),
            "cannot convert FunctionTransformer",
        ),
    ],
    ids=["a Python function"],
)
def test_what_has_no_form_is_named(tmp_path: Any, estimator: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(fitted(estimator), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_numbers_and_strings_in_one_matrix_are_refused() -> None:
    class Mixed(BaseEstimator):
        def fit(self, X: Any, y: Any = None) -> Mixed:
            self.n_features_in_ = 2
            return self

    source = Frame(columns=["name", "weight"], kinds={"name": "string", "weight": "float"})
    with pytest.raises(
        ExportError, match=r"Mixed takes numbers and strings at once .*put a ColumnTransformer before it"
    ):
        to_graph(Mixed().fit(TEXT), source)


def test_rows_without_column_names_are_refused(tmp_path: Any) -> None:
    numeric = TEXT[["weight", "price"]].to_numpy()
    labels = ["fruit", "vehicle"] * 10
    for estimator in (LogisticRegression(), GaussianNB(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(ExportError, match=r"fitted on rows without column names.*on_column"):
            export_onnx(estimator.fit(numeric, labels), tmp_path / "model.onnx")


def test_a_composition_behind_a_matrix_is_refused(X: Any, y: Any) -> None:
    model = MultimodalClassifier([("facts", LogisticRegression(), ["weight"])]).fit(X, y)
    graph = Graph()
    with pytest.raises(ExportError, match="takes columns of X, and stands behind a step that makes a matrix"):
        to_graph(model, Tensor(graph, matrix(graph, "weight")))


def test_neither_probabilities_nor_a_transform(X: Any) -> None:
    clusters = DBSCAN().fit(X[["weight", "price"]])
    graph = Graph()
    with pytest.raises(ExportError, match="DBSCAN"):
        to_graph(clusters, Tensor(graph, matrix(graph, "weight", "price")))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        GaussianNB(),
        on_column("weight", LogisticRegression()),
        MultimodalClassifier([("facts", LogisticRegression(), ["weight"])]),
        VotingClassifier([("facts", LogisticRegression())]),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_unfitted(tmp_path: Any, estimator: Any) -> None:
    with pytest.raises(NotFittedError):
        export_onnx(estimator, tmp_path / "model.onnx")


def test_a_feed_that_the_graph_does_not_use_is_not_asked_for(X: Any, y: Any, tmp_path: Any) -> None:
    class Constant(MeanColor):
        def __onnx_graph__(self, source: Any) -> Outputs:
            graph = source.graph
            outputs = super().__onnx_graph__(source)
            graph.feed("idle", ["price"], numbers("price"))
            return outputs

    model = MultimodalClassifier([("image", Constant(), "picture")]).fit(X, y)
    manifest = export_onnx(model, tmp_path / "model.onnx")
    assert manifest.columns == ["picture"]
    assert OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(X[["picture"]]).shape == (20, 2)
