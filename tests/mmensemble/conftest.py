"""A small model file of three modalities, made by hand, and rows for it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mmensemble.preprocessing import ImagePreprocessor, PromptPreprocessor, TabularPreprocessor, TextPreprocessor
from mmensemble.scoring import Feed, Manifest
from mmensemble.scoring.manifest import METADATA_KEY
from mmensemble.tasks import Classification, Generation

CLASSES = ["apple", "pear", "plum"]
WORDS = ["red", "green", "blue", "apple", "pear", "plum", "a", "ripe"]


def save_model(path: Path, manifest_json: str | None) -> Path:
    """Text: mean of token vectors; image: mean colour; facts: their values, NaN as 0. All added, then a softmax."""
    n_tokens = 400
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.normal(size=(n_tokens, 3)).astype(np.float32) * 3,
        "weights": np.array([[1.0, -1.0, 0.0], [0.0, 0.5, -0.5]], dtype=np.float32),
        "zero": np.float32(0),
        "scale": np.float32(1 / 255),
        "axis_1": np.array([1]),
        "axis_2": np.array([2]),
        "axes_1_2": np.array([1, 2]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "text.input_ids"], ["vectors"]),
        helper.make_node("Cast", ["text.attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis_2"], ["mask_3d"]),
        helper.make_node("Mul", ["vectors", "mask_3d"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axis_1"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "axis_1"], ["count"], keepdims=1),
        helper.make_node("Div", ["summed", "count"], ["text_logits"]),
        helper.make_node("Cast", ["image.pixels"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes_1_2"], ["image_logits"], keepdims=0),
        helper.make_node("IsNaN", ["facts.features"], ["absent"]),
        helper.make_node("Where", ["absent", "zero", "facts.features"], ["features"]),
        helper.make_node("MatMul", ["features", "weights"], ["facts_logits"]),
    ]
    # facts.present is left out, as the exporter prunes what a graph does not use.
    for name in ("text", "image"):
        nodes += [
            helper.make_node("Cast", [f"{name}.present"], [f"{name}_there"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}_there", "axis_1"], [f"{name}_there_2d"]),
            helper.make_node("Mul", [f"{name}_logits", f"{name}_there_2d"], [f"{name}_part"]),
        ]
    nodes += [
        helper.make_node("Sum", ["text_part", "image_part", "facts_logits"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("text.input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("text.attention_mask", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("text.present", TensorProto.BOOL, ["batch"]),
        helper.make_tensor_value_info("image.pixels", TensorProto.UINT8, ["batch", 8, 8, 3]),
        helper.make_tensor_value_info("image.present", TensorProto.BOOL, ["batch"]),
        helper.make_tensor_value_info("facts.features", TensorProto.FLOAT, ["batch", 2]),
    ]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if manifest_json is not None:
        helper.set_model_props(model, {METADATA_KEY: manifest_json})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def save_generator(path: Path) -> Path:
    """The scores of the next token are a row of a table, that of the last token; so they are exact in any batch."""
    n_tokens = 300
    table = np.random.default_rng(0).normal(size=(n_tokens, n_tokens)).astype(np.float32) * 2
    table[:, 1] = 3.0  # ends a text now and then
    text = PromptPreprocessor.train([" ".join(WORDS)] * 3, vocab_size=n_tokens, max_length=64)
    task = Generation(vocab_size=n_tokens, end_ids=[1], start_ids=[], max_length=64, state={}, encoded={})
    nodes = [
        helper.make_node("Gather", ["text.input_ids", "last"], ["token"], axis=1),
        helper.make_node("Gather", ["table", "token"], ["logits"]),
    ]
    ids = helper.make_tensor_value_info("text.input_ids", TensorProto.INT64, ["batch", "length"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", n_tokens])
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array(-1), "last")]
    graph = helper.make_graph(nodes, "writer", [ids], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: Manifest(task, [Feed("text", ("title",), text)]).to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def png(red: int, green: int, blue: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (10, 12), (red, green, blue)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def write_model() -> Callable[[Path, str | None], Path]:
    return save_model


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    text = TextPreprocessor.train([" ".join(WORDS)] * 3, vocab_size=300, max_length=600)
    return Manifest(
        task=Classification(np.array(CLASSES, dtype=object)),
        feeds=[
            Feed("text", ("title",), text),
            Feed("image", ("picture",), ImagePreprocessor(size=8)),
            Feed("facts", ("weight", "price"), TabularPreprocessor({"weight": "float", "price": "float"})),
        ],
        provenance={"mmensemble": "0.1.0", "precision": "fp32"},
        parity={"max_abs_difference": 1e-7},
    )


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "tiny.onnx", manifest.to_json())


@pytest.fixture(scope="session")
def generator_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_generator(tmp_path_factory.mktemp("generator") / "generator.onnx")


@pytest.fixture(scope="session")
def foreign_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("foreign") / "foreign.onnx", None)


@pytest.fixture(scope="session")
def rows() -> dict[str, list[Any]]:
    """1,500 rows, so three windows: texts of 1 to 300 words, some cells missing, none bad."""
    rng = np.random.default_rng(1)
    n = 1500
    pictures = [png(*rng.integers(0, 256, 3).tolist()) for _ in range(20)]
    lengths = np.where(rng.random(n) < 0.03, 300, rng.integers(1, 8, n))
    columns: dict[str, list[Any]] = {
        "id": list(range(n)),
        "title": [" ".join(rng.choice(WORDS, length)) for length in lengths],
        "picture": [pictures[i] for i in rng.integers(0, len(pictures), n)],
        "weight": rng.normal(size=n).tolist(),
        "price": rng.normal(size=n).tolist(),
    }
    for column in ("title", "picture", "weight", "price"):
        for row in rng.choice(n, 100, replace=False):
            columns[column][row] = None
    return columns


@pytest.fixture(scope="session")
def expected(manifest: Manifest, rows: dict[str, list[Any]]) -> np.ndarray:
    """The model in numpy, one row at a time."""
    table = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32) * 3
    weights = np.array([[1.0, -1.0, 0.0], [0.0, 0.5, -0.5]])
    text, image, _ = (feed.preprocessor for feed in manifest.feeds)
    titles, pictures = text.encode(rows["title"]), image.encode(rows["picture"])
    logits = np.zeros((len(rows["id"]), 3))
    for row in range(len(logits)):
        logits[row] = np.array([rows["weight"][row] or 0, rows["price"][row] or 0]) @ weights
        if titles.present[row]:
            logits[row] += table[titles.items[row]].mean(axis=0)
        if pictures.present[row]:
            logits[row] += pictures.items[row].mean(axis=(0, 1)) / 255
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
