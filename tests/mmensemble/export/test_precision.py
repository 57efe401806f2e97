from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pandas as pd
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmensemble import ConfigurationError, ExportError, MultimodalClassifier, OnnxPredictor, ParityError, export_onnx
from mmensemble.export import left_in_float
from mmensemble.export.eight_bits import embeddings, float_convolutions, int8_layers
from mmensemble.export.left_in_float import by_class, fewest
from mmensemble.export.parity import ParityCheck
from mmensemble.export.precision import convert
from mmensemble.export.sensitivity import sensitivities
from mmensemble.graph import ENCODER_SCOPE, Graph
from mmensemble.preprocessing import TensorSpec
from mmensemble_estimators import TextClassifier
from tests.instances import BY_ID

Fitted = Callable[[str], Any]
Scored = Callable[[str], np.ndarray]
Exported = Callable[..., Path]
HALVED = 0.75  # a file of mostly encoder weights in half precision is smaller than this share


def kinds(model: onnx.ModelProto, *, encoder: bool) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node if (ENCODER_SCOPE in n.name.split("/")) == encoder)


def n_quantised(path: Path) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("instance_id", ["text", "image", "concat_fusion", "text_regressor", "cross_attention_fusion"])
def test_half_precision(scored: Scored, exported: Exported, items: pd.DataFrame, instance_id: str) -> None:
    path, instance = exported(instance_id, "fp16"), BY_ID[instance_id]
    predictor = OnnxPredictor(path, device="cpu")
    assert predictor.manifest.provenance["precision"] == "fp16"
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    assert path.stat().st_size < HALVED * exported(instance_id).stat().st_size
    assert any(i.data_type == TensorProto.FLOAT16 for i in model.graph.initializer)
    assert all(v.type.tensor_type.elem_type != TensorProto.FLOAT16 for v in [*model.graph.input, *model.graph.output])
    halves = {i.name for i in model.graph.initializer if i.data_type == TensorProto.FLOAT16}
    outside = [n for n in model.graph.node if ENCODER_SCOPE not in n.name.split("/") and n.op_type not in ("Cast",)]
    assert outside
    assert not any(halves & set(n.input) for n in outside)
    scores, expected = instance.scores(predictor, instance.of(items)), scored(instance_id)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-2 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("instance_id", ["soft_voting", "stacking", "concat_fusion"])
def test_what_is_float_never_passes_half_precision(exported: Exported, instance_id: str) -> None:
    graph = onnx.load(exported(instance_id, "fp16")).graph
    inside = {n.output[0] for n in graph.node if ENCODER_SCOPE in n.name.split("/")}
    read_inside = {name for n in graph.node if ENCODER_SCOPE in n.name.split("/") for name in n.input}
    halved = [n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT16]
    assert all(n.output[0] in inside | read_inside for n in halved)


def test_outputs_of_float_nodes(tmp_path: Path) -> None:
    """One that stays in float and is read on, and a generator's state, which passes on in half precision."""
    value = helper.make_tensor_value_info
    weight = np.eye(4, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "one"], ["a"], name="head/Add"),
            helper.make_node("Neg", ["a"], ["next.b"], name="head/Neg"),
            helper.make_node("Abs", ["a"], ["c"], name="head/Abs"),
            helper.make_node("MatMul", ["a", "weight"], ["next.d"], name=f"{ENCODER_SCOPE}/MatMul"),
        ],
        "outputs",
        [value("x", TensorProto.FLOAT, ["batch", 4])],
        [value(name, TensorProto.FLOAT, ["batch", 4]) for name in ("a", "next.b", "c", "next.d")],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.float32([1.0]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "fp32.onnx")
    convert(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx", "fp16", state=["next.b", "next.d"])
    onnx.checker.check_model(tmp_path / "fp16.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "fp16.onnx", providers=["CPUExecutionProvider"])
    x = np.float32([[-1e6, 0.0, 1 / 3, 2.0]])
    a, b, c, d = session.run(["a", "next.b", "c", "next.d"], {"x": x})
    np.testing.assert_array_equal(a, x + 1)
    np.testing.assert_array_equal(c, np.abs(x + 1))
    for state, expected in ((b, -(x + 1)), (d, x + 1)):
        assert state.dtype == np.float16
        np.testing.assert_allclose(state[:, 1:], expected[:, 1:], rtol=1e-3)


def with_a_branch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Write a model like an encoder-decoder's: the encoder runs on a condition, and shares weights with the decoder."""
    graph = Graph()
    x = graph.further_input("text", "x", TensorSpec("float32", ("batch", 4)))
    s = graph.further_input("state", "x", TensorSpec("float32", ("batch", 4)))
    encode = graph.further_input("decoder", "encode", TensorSpec("bool", ()))
    shared, own = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    weight = graph.constant(shared, "shared")
    encoded: dict[str, Any] = {}
    with graph.only_if(encode, encoded), graph.scope("encode"), graph.scope(ENCODER_SCOPE):
        product = graph.op("MatMul", graph.op("MatMul", x, weight), graph.constant(own, "own"))
        encoded["x"] = (graph.op("Relu", product), TensorSpec("float32", ("batch", 4)))
    with graph.scope(ENCODER_SCOPE):
        step = graph.op("MatMul", s, weight)
    with graph.scope("head"):
        logits = graph.op("Add", step, graph.op("ReduceSum", weight, graph.constant([0])))
    ir.save(graph.to_model({"encoded.x": encoded["x"], "logits": (logits, 4)}), path)
    return shared, own


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_runs_on_a_condition(tmp_path: Path, precision: Any, external: bool) -> None:
    shared, own = with_a_branch(tmp_path / "m.onnx")
    if external:
        ir.save(ir.load(tmp_path / "m.onnx"), tmp_path / "m.onnx", external_data="m.onnx.data")
    converted = tmp_path / "converted.onnx"
    convert(
        tmp_path / "m.onnx",
        converted,
        precision,
        state=["state.x", "encoded.x"] * (precision == "fp16"),
        external=external,
    )
    onnx.checker.check_model(converted, full_check=True)
    assert {file.name.removesuffix(".data") for file in tmp_path.iterdir()} == {"m.onnx", "converted.onnx"}
    graph = onnx.load(converted).graph
    (condition,) = (node for node in graph.node if node.op_type == "If")
    branch = next(attribute.g for attribute in condition.attribute if attribute.name == "then_branch")
    product = {"int8": "MatMulInteger"}.get(precision, "MatMul")
    assert [sum(node.op_type == product for node in nodes) for nodes in (branch.node, graph.node)] == [2, 1]
    dtype = np.float16 if precision == "fp16" else np.float32
    session = onnxruntime.InferenceSession(converted, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    inputs = {"text.x": x, "state.x": x.astype(dtype)}
    encoded, logits = session.run(["encoded.x", "logits"], {**inputs, "decoder.encode": np.asarray(True)})
    nothing, again = session.run(["encoded.x", "logits"], {**inputs, "decoder.encode": np.asarray(False)})
    assert (encoded.dtype, nothing.dtype, nothing.shape) == (dtype, dtype, (0, 4))
    allowed = {"fp32": 1e-6, "fp16": 2e-2, "int8": 0.2}[precision]
    np.testing.assert_allclose(encoded, np.maximum(x @ shared @ own, 0), atol=allowed)
    np.testing.assert_allclose(logits, x @ shared + shared.sum(axis=0), atol=allowed)
    np.testing.assert_array_equal(again, logits)


def test_layers_that_run_on_a_condition_are_ranked(tmp_path: Path) -> None:
    with_a_branch(tmp_path / "m.onnx")
    x = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    ranked = sensitivities(tmp_path / "m.onnx", [{"text.x": x, "state.x": x, "decoder.encode": np.asarray(False)}])
    assert sorted(ranked) == [
        f"encode/{ENCODER_SCOPE}/MatMul",
        f"encode/{ENCODER_SCOPE}/MatMul_2",
        f"{ENCODER_SCOPE}/MatMul",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_members_may_be_called_what_a_state_is_called(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"price": rng.normal(size=60), "name": [f"item {number}" for number in range(60)]})
    members: list[Any] = [
        ("state", make_pipeline(StandardScaler(), LogisticRegression()), ["price"]),
        ("encoded", TextClassifier(max_epochs=1, random_state=0), "name"),
    ]
    model = MultimodalClassifier(members).fit(X, np.where(X["price"] > 0, "dear", "cheap"))
    manifest = export_onnx(model, tmp_path / "fp16.onnx", precision="fp16", verify=X)
    assert manifest.parity["max_abs_difference"] < 1e-2
    session = onnxruntime.InferenceSession(tmp_path / "fp16.onnx", providers=["CPUExecutionProvider"])
    assert {node.name: node.type for node in session.get_inputs()}["state.features"] == "tensor(double)"


@pytest.mark.parametrize("with_text", [False, True])
def test_numbers_that_half_precision_does_not_hold(tmp_path: Path, with_text: bool) -> None:
    rng = np.random.default_rng(0)
    price = rng.normal(5e6, 1e6, 60)  # half precision ends at 65504
    X = pd.DataFrame({"price": price, "name": [f"item {number}" for number in range(60)]})
    members: list[Any] = [("price", make_pipeline(StandardScaler(), LogisticRegression()), ["price"])]
    if with_text:
        members.append(("name", TextClassifier(max_epochs=1, random_state=0), "name"))
    model = MultimodalClassifier(members).fit(X, np.where(price > 5e6, "dear", "cheap"))
    manifest = export_onnx(model, tmp_path / "fp16.onnx", precision="fp16", verify=X)
    assert manifest.parity["max_abs_difference"] < (1e-3 if with_text else 1e-6)


@pytest.mark.parametrize("instance_id", ["text", "text_bert", "concat_fusion", "text_regressor"])
def test_int8_quantises_the_products_of_encoders_only(
    fitted: Fitted, scored: Scored, items: pd.DataFrame, tmp_path: Path, instance_id: str
) -> None:
    instance = BY_ID[instance_id]
    X = instance.of(items)
    # These networks are hardly trained: all classes are about as likely, and labels change easily.
    manifest = export_onnx(fitted(instance_id), tmp_path / "m.onnx", precision="int8", verify=X, tolerance=0.5)
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    model = onnx.load(tmp_path / "m.onnx")
    assert kinds(model, encoder=True)["MatMulInteger"] + len(manifest.parity["float_layers"]) >= 8
    assert kinds(model, encoder=True)["MatMulInteger"]
    assert not kinds(model, encoder=False)["MatMulInteger"]
    scores = instance.scores(OnnxPredictor(tmp_path / "m.onnx", device="cpu"), X)
    expected = scored(instance_id)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=0.1 * max(1.0, np.abs(expected).max()))


def lookups(tables: dict[str, np.ndarray], nodes: list[tuple[str, list[str], str]], path: Path) -> onnx.ModelProto:
    """Save a graph of nodes in an encoder over a row of ids."""
    made = [
        helper.make_node(kind, inputs, [output], name=f"text/{ENCODER_SCOPE}/{output}")
        for kind, inputs, output in nodes
    ]
    graph = helper.make_graph(
        made,
        "lookups",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return model


def test_tables_have_a_scale_for_each_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = (rng.normal(size=(600, 120)) * 10 ** rng.uniform(-4, 4, (600, 1))).astype(np.float32)
    table[0] = 0  # of what pads
    tables = {"large": table, "small": table[:9], "added": table, "tied": table}
    nodes = [
        ("Gather", ["large", "ids"], "once"),
        ("Gather", ["large", "ids"], "again"),
        ("Gather", ["small", "ids"], "of_few"),
        ("Gather", ["added", "ids"], "read_elsewhere"),
        ("ReduceSum", ["added"], "whole"),
        ("Gather", ["tied", "ids"], "word"),
        ("Transpose", ["word"], "columns"),
        ("MatMul", ["columns", "word"], "product"),
        ("Sum", ["once", "again", "of_few", "read_elsewhere", "word", "whole"], "sum"),
    ]
    whole, eight = tmp_path / "whole.onnx", tmp_path / "eight.onnx"
    model = lookups(tables, nodes, whole)
    scope = f"text/{ENCODER_SCOPE}"
    assert list(embeddings(model)) == [f"{scope}/once", f"{scope}/again", f"{scope}/word"]
    convert(whole, eight, "int8", kept=[f"{scope}/word"])
    kept = {weight.name: weight.data_type for weight in onnx.load(eight).graph.initializer}
    assert kept.pop("large") == TensorProto.INT8
    assert set(kept.values()) == {TensorProto.FLOAT}
    ids = np.arange(9)
    found, expected = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})[0]
        for path in (whole, eight)
    )
    errors = np.abs(found - expected).max(axis=1)
    assert errors[0] == 0
    assert (errors <= 2 * np.abs(table[:9]).max(axis=1) / 127 / 2 + 1e-3).all()


def test_int8_makes_a_file_of_embeddings_small(
    fitted: Fitted, scored: Scored, exported: Exported, items: pd.DataFrame, tmp_path: Path
) -> None:
    path, instance = tmp_path / "m.onnx", BY_ID["text_lstm"]
    X = instance.of(items)
    export_onnx(fitted("text_lstm"), path, precision="int8", verify=X, tolerance=0.5)
    assert path.stat().st_size < 0.5 * exported("text_lstm").stat().st_size
    assert kinds(onnx.load(path), encoder=True)["LSTM"] == 2
    scores = instance.scores(OnnxPredictor(path, device="cpu"), X)
    np.testing.assert_allclose(scores, scored("text_lstm"), rtol=0, atol=0.01)


def test_int8_of_convolutions_needs_rows_to_calibrate_on(
    fitted: Fitted, exported: Exported, items: pd.DataFrame, tmp_path: Path
) -> None:
    model, pictures = fitted("image"), items["picture"]
    with pytest.raises(ConfigurationError, match=r"its \d+ convolutions need rows to calibrate on: give calibrate"):
        export_onnx(model, tmp_path / "m.onnx", precision="int8")
    X = items.drop(columns="initial")
    mixed = export_onnx(fitted("soft_voting"), tmp_path / "m.onnx", precision="int8", verify=X, tolerance=0.5)
    assert any("Conv" in name for name in mixed.parity["float_layers"])
    manifest = export_onnx(
        model, tmp_path / "m.onnx", precision="int8", verify=pictures, calibrate=pictures, tolerance=0.5
    )
    assert n_quantised(tmp_path / "m.onnx") > 3
    assert (tmp_path / "m.onnx").stat().st_size < 0.5 * exported("image").stat().st_size
    assert manifest.parity["max_abs_difference"] < 0.1
    with pytest.raises(ConfigurationError, match="calibrate has 0 rows"):
        export_onnx(model, tmp_path / "other.onnx", precision="int8", calibrate=pictures[:0])


def test_labels_of_the_verified_rows_decide(
    fitted: Fitted, items: pd.DataFrame, labels: np.ndarray, tmp_path: Path
) -> None:
    names = items["name"]
    manifest = export_onnx(
        fitted("text"), tmp_path / "m.onnx", precision="int8", verify=names, verify_y=labels, tolerance=0.3
    )
    parity = manifest.parity
    assert parity["reference_score"] == fitted("text").score(names, labels)
    assert parity["score"] == np.mean(OnnxPredictor(tmp_path / "m.onnx", device="cpu").predict(names) == labels)
    manifest = export_onnx(fitted("text"), tmp_path / "m.onnx", verify=names, verify_y=labels)
    assert manifest.parity["score"] == manifest.parity["reference_score"]
    with pytest.raises(ConfigurationError, match="verify_y"):
        export_onnx(fitted("text"), tmp_path / "m.onnx", verify_y=labels)


def recording(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note which layers are kept in float, try by try."""
    tried: list[list[str]] = []

    def recorded(source: Path, target: Path, precision: Any, *, kept: Any = (), **others: Any) -> None:
        tried.append(list(kept))
        convert(source, target, precision, kept=kept, **others)

    monkeypatch.setattr(left_in_float, "convert", recorded)
    return tried


def test_as_few_layers_stay_in_float_as_are_enough(
    fitted: Fitted, exported: Exported, items: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = recording(monkeypatch)
    whole = onnx.load(exported("text"))
    n_products = len(int8_layers(whole))
    n_layers = n_products + len(embeddings(whole))
    measure = ParityCheck.measure

    def demanding(enough: int) -> Any:
        def measured(self: ParityCheck, path: Path) -> dict[str, Any]:
            return {**measure(self, path), "error": 0.0 if len(tried[-1]) >= enough else 1.0}

        return measured

    for enough in (0, 1, n_layers // 2, n_layers):
        tried.clear()
        monkeypatch.setattr(ParityCheck, "measure", demanding(enough))
        with pytest.warns(UserWarning, match="only with all") if enough == n_layers else nullcontext():
            manifest = export_onnx(
                fitted("text"), tmp_path / "m.onnx", precision="int8", verify=items["name"], tolerance=0.1
            )
        kept = manifest.parity["float_layers"]
        assert len(kept) == enough
        products = kinds(onnx.load(tmp_path / "m.onnx"), encoder=True)["MatMulInteger"]
        assert products == max(0, n_products - enough), "tables stay last"
        assert tried[0] == []
        assert len(tried) <= 2 + 2 * n_layers.bit_length()
        assert all(one == longest[: len(one)] for longest in [max(tried, key=len)] for one in tried)


def test_a_tolerance_that_no_layer_can_meet(
    fitted: Fitted, items: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = recording(monkeypatch)
    message = r"with all \d+ layers that 8 bits could move in float32 \(.* and \d+ more\), .* precision='fp32'"
    with pytest.raises(ParityError, match=message):
        export_onnx(fitted("text"), tmp_path / "m.onnx", precision="int8", verify=items["name"], tolerance=-1.0)
    assert not list(tmp_path.iterdir())
    assert tried[0] == []


def test_convolutions_stay_in_float_where_they_matter(
    fitted: Fitted, exported: Exported, items: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions = list(float_convolutions(onnx.load(exported("image"))))
    measure = ParityCheck.measure
    tried = recording(monkeypatch)

    def measured(self: ParityCheck, path: Path) -> dict[str, Any]:
        enough = set(convolutions) <= set(tried[-1])
        return {**measure(self, path), "error": 0.0 if enough else 1.0}

    monkeypatch.setattr(ParityCheck, "measure", measured)
    pictures = items["picture"]
    options: dict[str, Any] = {"precision": "int8", "verify": pictures, "calibrate": pictures, "tolerance": 0.1}
    with pytest.warns(UserWarning, match=r"int8 stays within tolerance=0\.1 only with all"):
        manifest = export_onnx(fitted("image"), tmp_path / "m.onnx", **options)
    assert set(convolutions) <= set(manifest.parity["float_layers"])
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node)
    assert nodes["QuantizeLinear"] == 0, "nothing is rounded between convolutions in float32"
    float_file = OnnxPredictor(exported("image"), device="cpu").predict_proba(pictures)
    scores = OnnxPredictor(tmp_path / "m.onnx", device="cpu").predict_proba(pictures)
    np.testing.assert_allclose(scores, float_file, atol=1e-5)


def test_the_order_of_the_rows_does_not_matter(
    fitted: Fitted, exported: Exported, items: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left_in_float, "_MOST_CALIBRATED", 12)
    model, pictures = fitted("image"), items["picture"]
    kinds_seen = []
    by_class = pictures.iloc[np.argsort(model.predict(pictures), kind="stable")]
    for frame in (pictures, by_class, by_class.to_frame(), pl.from_pandas(by_class.to_frame())):
        chosen: list[Any] = []
        pick = left_in_float._chosen

        def noting(*args: Any, chosen: list[Any] = chosen, pick: Any = pick, **options: Any) -> Any:
            chosen.append(pick(*args, **options))
            return chosen[-1]

        with monkeypatch.context() as patch:
            patch.setattr(left_in_float, "_chosen", noting)
            export_onnx(model, tmp_path / "m.onnx", precision="int8", verify=False, calibrate=frame)
        (cells,) = chosen[0].values()
        kinds_seen.append(Counter(model.predict(list(cells)).tolist()))
    assert all(seen == kinds_seen[0] for seen in kinds_seen)
    assert sum(kinds_seen[0].values()) == 12


def test_rows_of_each_class() -> None:
    classes = np.repeat([0, 1, 2], [80, 15, 5])
    chosen = by_class(classes, 100, 30)
    assert np.bincount(classes[chosen]).tolist() == [13, 12, 5]
    assert len(set(chosen.tolist())) == 30
    assert sorted(by_class(None, 4, 9).tolist()) == [0, 1, 2, 3]


def test_the_fewest() -> None:
    ranked = [str(number) for number in range(40)]
    for enough in (1, 2, 3, 7, 16, 39, 40):
        asked: list[int] = []

        def is_enough(kept: list[str], enough: int = enough, asked: list[int] = asked) -> bool:
            asked.append(len(kept))
            return len(kept) >= enough

        kept = fewest(ranked, is_enough)
        assert enough <= len(kept) <= enough + 1
        assert kept == ranked[: len(kept)]
        assert len(asked) <= 12


def two_products(path: Path) -> None:
    """A model of two products, the second of which has weights that 8 bits hold badly."""
    rng = np.random.default_rng(0)
    good = rng.uniform(0.5, 1, (8, 4)).astype(np.float32)
    bad = good * 1e-4
    bad[0] = 1.0  # the other weights of each column are below half a step
    nodes = [
        helper.make_node("MatMul", ["x", "good"], ["a"], name=f"{ENCODER_SCOPE}/good"),
        helper.make_node("MatMul", ["x", "bad"], ["b"], name=f"{ENCODER_SCOPE}/bad"),
        helper.make_node("MatMul", ["x", "good"], ["c"], name="head/other"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "two",
        [value("x", TensorProto.FLOAT, ["batch", 8])],
        [value(name, TensorProto.FLOAT, ["batch", 4]) for name in "abc"],
        [numpy_helper.from_array(good, "good"), numpy_helper.from_array(bad, "bad")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), path)


def test_sensitivities(tmp_path: Path) -> None:
    path = tmp_path / "two.onnx"
    two_products(path)
    assert list(int8_layers(onnx.load(path))) == [f"{ENCODER_SCOPE}/good", f"{ENCODER_SCOPE}/bad"]
    rows = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)
    rows[:, 0] *= 1e-3
    assert sensitivities(path, [{"x": rows}]) == [f"{ENCODER_SCOPE}/bad", f"{ENCODER_SCOPE}/good"]
    assert [file.name for file in tmp_path.iterdir()] == ["two.onnx"]
    convert(path, tmp_path / "int8.onnx", "int8", kept=[f"{ENCODER_SCOPE}/bad"])
    products = Counter(node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node)
    assert (products["MatMulInteger"], products["MatMul"]) == (1, 2)


def test_the_tools_alone_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    two_products(tmp_path / "two.onnx")
    quantize = quantization.quantize_dynamic
    quantize(tmp_path / "two.onnx", tmp_path / "advised.onnx")
    assert "Please consider" in caplog.text, "the tools give no advice any more, and _quiet can go"
    caplog.clear()

    def with_others(*args: Any, **options: Any) -> None:
        logging.getLogger("other").warning("of another logger")
        logging.warning("of the same logger")  # noqa: LOG015
        thread = threading.Thread(target=quantize, args=(tmp_path / "two.onnx", tmp_path / "advised.onnx"))
        thread.start()
        thread.join()
        quantize(*args, **options)

    monkeypatch.setattr(quantization, "quantize_dynamic", with_others)
    convert(tmp_path / "two.onnx", tmp_path / "int8.onnx", "int8")
    *others, advice = caplog.messages
    assert others == ["of another logger", "of the same logger"]
    assert "Please consider" in advice, "what a thread of the user's logs is for the user"
    logging.warning("afterwards")  # noqa: LOG015
    assert caplog.messages[3:] == ["afterwards"]
    assert not logging.root.filters


def test_errors(fitted: Fitted, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'fp32', 'fp16', 'int8', not 'int4'"):
        export_onnx(fitted("text"), tmp_path / "m.onnx", precision="int4")  # type: ignore[arg-type]
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ExportError, match="cannot be converted to int8"):
        convert(broken, tmp_path / "int8.onnx", "int8")
    assert [file.name for file in tmp_path.iterdir()] == ["broken.onnx"]
