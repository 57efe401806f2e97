"""Language models as model files: the same texts as the estimator, by a step with a cache, without torch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from transformers import LlamaConfig

from mmensemble import (
    ConfigurationError,
    DataError,
    ExportError,
    OnnxPredictor,
    ParityError,
    export_onnx,
    generate_file,
)
from mmensemble.cli import main
from mmensemble.files.reading import TableReader
from mmensemble_estimators import CausalLM
from tests.mmensemble.export.cuda_kernels import GENERATION_KERNELS

TEXTS = ["red apple", "green apple", "fast car", "slow car", "größer — ещё, très long"] * 6
PROMPTS = ["gre", "f", None, "größer", "", "s", "red apple r"]
SMALL: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 2,
    "embedding_size": 32,
    "vocab_size": 300,
    "max_length": 48,
    "max_epochs": 25,
    "batch_size": 6,
    "learning_rate": 5e-3,
    "random_state": 0,
}


@cache
def fitted(name: str) -> CausalLM:
    llama = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    backbone = llama if name == "llama" else "gpt"
    return CausalLM(**SMALL, backbone=backbone).fit(pd.Series(TEXTS, name="line"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("generators")

    @cache
    def export(name: str) -> Path:
        path = folder / f"{name}.onnx"
        export_onnx(fitted(name), path, verify=[*TEXTS[:5], "", None])
        return path

    return export


@pytest.mark.parametrize("name", ["gpt", "llama"])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"random_state": 1, "num_return_sequences": 3, "temperature": 2.0},
        {"random_state": 2, "top_k": 20, "top_p": 0.95, "temperature": 1.5},
        {"num_beams": 3, "num_return_sequences": 2},
    ],
)
def test_it_writes_what_the_estimator_writes(exported: Callable[[str], Path], name: str, settings: dict) -> None:
    predictor = OnnxPredictor(exported(name), device="cpu", batch_size=4)
    expected = fitted(name).generate(PROMPTS, max_new_tokens=16, **settings)
    written = predictor.generate(PROMPTS, max_new_tokens=16, **settings)
    assert written.dtype == object
    assert written.tolist() == expected.tolist()
    frame = pd.DataFrame({"other": range(len(PROMPTS)), "line": PROMPTS})
    assert predictor.generate(frame, max_new_tokens=16, **settings).tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_what_verify_measured(exported: Callable[[str], Path], name: str) -> None:
    parity = OnnxPredictor(exported(name), device="cpu").manifest.parity
    assert parity["n_rows"] == 6
    assert parity["n_tokens"] == 6 * 16
    assert parity["equal_tokens"] == 1.0
    assert 0 < parity["max_abs_difference"] < 1e-4


def test_a_step_costs_one_position_of_the_head(exported: Callable[[str], Path]) -> None:
    """The head's product is of the last position alone, and attention is one operator for each layer."""
    graph = onnx.load(exported("gpt")).graph
    assert sum(node.op_type == "Attention" for node in graph.node) == 2
    inferred = onnx.shape_inference.infer_shapes(onnx.load(exported("gpt"))).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in inferred.value_info}
    head = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")][-1]
    assert len(shapes[head.input[0]]) == 2
    names = [value.name for value in graph.input]
    assert names == [
        "text.input_ids",
        "text.attention_mask",
        "decoder.past",
        *(f"state.{k}.{n}" for n in "01" for k in ("key", "value")),
    ]
    outputs = ["logits", *(name.replace("state", "next") for name in names[3:])]
    assert [value.name for value in graph.output] == outputs


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"num_beams": 2}])
def test_room_is_made_as_texts_grow(
    exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    monkeypatch.setattr("mmensemble.scoring.generation.onnx_decoder.ROOM", 5)
    predictor = OnnxPredictor(exported("llama"), device="cpu")
    expected = fitted("llama").generate(PROMPTS, max_new_tokens=30, **settings)
    assert predictor.generate(PROMPTS, max_new_tokens=30, **settings).tolist() == expected.tolist()


def test_a_file_of_prompts_is_taken_up_where_it_stopped(
    exported: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers of keys and values, in two threads, that grow several times: as all rows at once get them."""
    monkeypatch.setattr("mmensemble.scoring.generation.onnx_decoder.ROOM", 5)
    lines = [PROMPTS[row % len(PROMPTS)] for row in range(60)]
    prompts, out, whole = (tmp_path / f"{name}.parquet" for name in ("prompts", "out", "whole"))
    pd.DataFrame({"line": lines}).to_parquet(prompts)
    predictor = OnnxPredictor(exported("llama"), device="cpu", batch_size=2, n_threads=2)
    assert predictor.window_size == 8
    settings: dict[str, Any] = {"max_new_tokens": 16, "temperature": 1.5, "random_state": 1}
    tables = TableReader.tables

    def breaks(self: TableReader, columns: Any, size: int) -> Iterator[Any]:
        yield from islice(tables(self, columns, size), 6)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(TableReader, "tables", breaks)
        with pytest.raises(KeyboardInterrupt):
            generate_file(predictor, prompts, out, **settings)
    report = generate_file(predictor, prompts, out, **settings)
    assert report.n_resumed in range(8, 48, 8)
    assert generate_file(predictor, prompts, whole, **settings).n_resumed == 0
    assert out.read_bytes() == whole.read_bytes()
    expected = predictor.generate(lines, **settings)[:, 0]
    assert pq.read_table(out)["generated"].to_pylist() == expected.tolist()
    assert expected.tolist() == fitted("llama").generate(lines, **settings)[:, 0].tolist()


def test_keys_and_values_are_written_in_place(exported: Callable[[str], Path]) -> None:
    decoder = OnnxPredictor(exported("gpt"), device="cpu").token_decoder()
    _, state = decoder.prefill({"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.ones((1, 3), dtype=np.int64)})
    place = {name: value.data_ptr() for name, value in state.values.items()}
    filled = []
    for _ in range(3):
        _, state = decoder.step(np.array([8]), state)
        filled.append([int(np.any(value.numpy(), axis=(0, 1, 3)).sum()) for value in state.values.values()])
    assert {name: value.data_ptr() for name, value in state.values.items()} == place
    assert filled == [[places] * 4 for places in (4, 5, 6)]


def test_keys_and_values_that_heads_share_are_not_copied_for_each(exported: Callable[[str], Path]) -> None:
    graph = onnx.load(exported("llama")).graph
    attention = [node for node in graph.node if node.op_type == "Attention"]
    scattered = {node.output[0] for node in graph.node if node.op_type == "TensorScatter"}
    assert len(attention) == 2
    assert {name for node in attention for name in node.input[1:3]} == scattered


def test_normalisation_and_rotary_embeddings_are_single_operators(exported: Callable[[str], Path]) -> None:
    used = {node.op_type for node in onnx.load(exported("llama")).graph.node}
    assert {"RMSNormalization", "RotaryEmbedding"} <= used <= GENERATION_KERNELS


def test_predicting_and_writing_are_told_apart(exported: Callable[[str], Path]) -> None:
    predictor = OnnxPredictor(exported("gpt"), device="cpu")
    for method in ("predict", "predict_proba", "score_batches", "classes_"):
        assert not hasattr(predictor, method)
        with pytest.raises(
            AttributeError, match="writes texts and has neither predict nor predict_proba; use generate"
        ):
            getattr(predictor, method)
    assert hasattr(predictor, "generate")
    with pytest.raises(DataError, match=r"row 1, column 'line'"):
        predictor.generate(["a", 3])
    with pytest.raises(DataError, match="no such column"):
        predictor.generate(pd.DataFrame({"other": ["a"]}))
    with pytest.raises(ConfigurationError, match="too many"):
        predictor.generate(["a"], max_new_tokens=48)
    assert predictor.generate([]).shape == (0, 1)


def test_a_file_that_writes_scores_no_file(exported: Callable[[str], Path], tmp_path: Path) -> None:
    pd.DataFrame({"line": ["a"]}).to_csv(tmp_path / "in.csv", index=False)
    command = ["score", str(exported("gpt")), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code != 0
    assert "writes texts and has no scores; use generate_file (mmensemble generate)" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.csv").exists()


def test_a_pickled_predictor_writes_the_same(exported: Callable[[str], Path]) -> None:
    predictor = OnnxPredictor(exported("gpt"), device="cpu")
    again = pickle.loads(pickle.dumps(predictor))
    assert again.generate(["gre"], temperature=0).tolist() == predictor.generate(["gre"], temperature=0).tolist()


def test_inspect(exported: Callable[[str], Path]) -> None:
    shown = CliRunner().invoke(main, ["inspect", str(exported("gpt"))], catch_exceptions=False).output
    assert "task:     generation of at most 48 tokens, vocabulary of 300" in shown
    assert "text: prompt from line" in shown
    assert "state.key.0  float32  (batch, 2, capacity, 16)" in shown
    facts = json.loads(CliRunner().invoke(main, ["inspect", str(exported("gpt")), "--json"]).output)
    assert facts["task"] == "generation"
    assert facts["generation"]["end_ids"] == [1]
    assert "tokenizer" not in facts["generation"]


def test_it_needs_neither_torch_nor_scikit_learn(exported: Callable[[str], Path]) -> None:
    script = (
        "import sys\n"
        "from mmensemble import OnnxPredictor\n"
        "print(OnnxPredictor(sys.argv[1], device='cpu').generate(['gre'], temperature=0)[0, 0])\n"
        "print(sorted({'torch', 'transformers', 'sklearn', 'joblib', 'onnx', 'scipy'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", script, exported("gpt")], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [fitted("gpt").generate(["gre"], temperature=0)[0, 0], "[]"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions(tmp_path: Path, precision: Any) -> None:
    path = tmp_path / "model.onnx"
    manifest = export_onnx(fitted("gpt"), path, precision=precision, verify=TEXTS[:5])
    assert manifest.parity["equal_tokens"] >= 0.9
    dtype = "float16" if precision == "fp16" else "float32"
    assert {spec.dtype for spec in manifest.task.state.values()} == {dtype}
    casts = [node for node in onnx.load(path).graph.node if node.op_type == "Cast" and "state" in node.input[0]]
    assert not casts
    written = OnnxPredictor(path, device="cpu").generate(TEXTS[:5], temperature=0)
    assert (written == fitted("gpt").generate(TEXTS[:5], temperature=0)).mean() >= 0.8


def test_verify_that_cannot_pass(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigurationError, match="leave out verify_y"):
        export_onnx(fitted("gpt"), path, verify=TEXTS, verify_y=TEXTS)
    with pytest.raises(ConfigurationError, match="every row of verify is missing"):
        export_onnx(fitted("gpt"), path, verify=[None])
    with pytest.raises(ParityError, match="log-probabilities of next tokens differ"):
        export_onnx(FrozenEstimator(fitted("gpt")), path, verify=TEXTS[:2], tolerance=1e-12)
    assert not path.exists()


def test_without_a_classifier_behind_it_a_pipeline_has_nothing_to_give(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="neither probabilities nor labels nor numbers"):
        export_onnx(make_pipeline(FrozenEstimator(fitted("gpt"))), tmp_path / "model.onnx")
