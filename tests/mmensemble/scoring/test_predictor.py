from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmensemble.exceptions import ConfigurationError, DataError, MmensembleError, ModelFileError
from mmensemble.files.seal import seal
from mmensemble.preprocessing import TabularPreprocessor
from mmensemble.scoring import Feed, Manifest, OnnxPredictor, open_model
from mmensemble.scoring.manifest import METADATA_KEY
from mmensemble.tasks import Classification

Rows = dict[str, list[Any]]
WriteModel = Callable[[Path, str | None], Path]


@pytest.fixture(scope="module")
def predictor(model_path: Path) -> OnnxPredictor:
    return OnnxPredictor(model_path, device="cpu", n_threads=2)


@pytest.fixture
def strings_path(tmp_path: Path) -> Path:
    """A model of one string column: "yes" where the cell is "y"."""
    manifest = Manifest(
        task=Classification(np.array([False, True])),
        feeds=[Feed("answer", ("answer",), TabularPreprocessor({"answer": "string"}))],
    )
    nodes = [
        helper.make_node("Equal", ["answer.features", "y"], ["is_y"]),
        helper.make_node("Cast", ["is_y"], ["yes"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "yes"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "strings",
        [helper.make_tensor_value_info("answer.features", TensorProto.STRING, ["batch", 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(np.array(["y"], dtype=object), "y"),
            numpy_helper.from_array(np.ones(1, dtype=np.float32), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "strings.onnx")
    return tmp_path / "strings.onnx"


def test_attributes(predictor: OnnxPredictor, manifest: Manifest) -> None:
    assert predictor.classes_.tolist() == ["apple", "pear", "plum"]
    assert predictor.manifest == manifest
    assert predictor.device == "cpu"
    assert predictor.n_threads == 2
    assert predictor.window_size == 512


@pytest.mark.parametrize("batch_size", [1, 7, 64, 2000])
def test_scores_do_not_depend_on_the_batch_size(
    model_path: Path, rows: Rows, expected: np.ndarray, batch_size: int
) -> None:
    predictor = OnnxPredictor(model_path, device="cpu", batch_size=batch_size)
    probabilities = predictor.predict_proba(rows)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_batches_at_once_score_as_one_after_the_other(
    model_path: Path, rows: Rows, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, together = (OnnxPredictor(model_path, device="cpu", n_threads=n, batch_size=16) for n in (1, 3))
    np.testing.assert_allclose(alone.predict_proba(rows), expected, atol=1e-5)
    assert "_one_thread" not in vars(together._model)
    together.predict_proba({name: cells[:16] for name, cells in rows.items()})
    assert "_one_thread" not in vars(together._model), "one batch needs no second session"
    np.testing.assert_allclose(together.predict_proba(rows), alone.predict_proba(rows), atol=1e-6)
    assert "_one_thread" in vars(together._model)
    assert "_one_thread" not in vars(alone._model)
    assert "_model" not in vars(pickle.loads(pickle.dumps(together)))
    monkeypatch.setattr(open_model, "_HELD_TWICE", 10)
    large = OnnxPredictor(model_path, device="cpu", n_threads=3, batch_size=16)
    np.testing.assert_allclose(large.predict_proba(rows), expected, atol=1e-5)
    assert "_one_thread" not in vars(large._model), "its weights would be held twice"


def test_weights_beside_the_file_count(
    model_path: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model_path.read_bytes())
    monkeypatch.setattr(open_model, "_HELD_TWICE", path.stat().st_size + 10)
    (tmp_path / "model.onnx.data").write_bytes(bytes(11))
    large = OnnxPredictor(path, device="cpu", n_threads=3, batch_size=16)
    large.predict_proba(rows)
    assert "_one_thread" not in vars(large._model)
    (tmp_path / "model.onnx.data").write_bytes(bytes(10))
    large.predict_proba(rows)
    assert "_one_thread" in vars(large._model)


@pytest.mark.parametrize(
    "container", [pd.DataFrame, pl.DataFrame, pa.table, dict], ids=["pandas", "polars", "arrow", "dict"]
)
def test_any_frame(
    predictor: OnnxPredictor, rows: Rows, expected: np.ndarray, container: Callable[[Rows], Any]
) -> None:
    X = container(rows)
    np.testing.assert_allclose(predictor.predict_proba(X), expected, atol=1e-5)
    assert predictor.predict(X).tolist() == predictor.classes_[expected.argmax(axis=1)].tolist()


def test_rows_are_counted_by_position_and_not_by_index(
    predictor: OnnxPredictor, rows: Rows, expected: np.ndarray
) -> None:
    frame = pd.DataFrame(rows, index=np.arange(1500)[::-1])
    np.testing.assert_allclose(predictor.predict_proba(frame), expected, atol=1e-5)
    columns = {name: frame[name] for name in frame}
    np.testing.assert_allclose(predictor.predict_proba(columns), expected, atol=1e-5)


def test_no_rows(predictor: OnnxPredictor, rows: Rows) -> None:
    X = pd.DataFrame(rows).iloc[:0]
    assert predictor.predict_proba(X).shape == (0, 3)
    assert predictor.predict_proba(X).dtype == np.float32
    assert predictor.predict(X).shape == (0,)


def test_a_row_that_misses_everything(predictor: OnnxPredictor) -> None:
    X = {"title": [None], "picture": [float("nan")], "weight": [None], "price": [pd.NA]}
    np.testing.assert_allclose(predictor.predict_proba(X), [[1 / 3] * 3], atol=1e-6)


def test_one_column_may_be_a_plain_sequence(strings_path: Path) -> None:
    predictor = OnnxPredictor(strings_path, device="cpu")
    cells = ["y", "n", "y"]
    for X in (
        cells,
        tuple(cells),
        np.array(cells),
        pd.Series(cells),
        pl.Series(cells),
        pd.DataFrame({"answer": cells}),
    ):
        labels = predictor.predict(X)
        assert labels.tolist() == [True, False, True]
        assert labels.dtype == bool
    assert predictor.predict_proba([]).shape == (0, 2)


def test_a_missing_column_is_named(predictor: OnnxPredictor, rows: Rows) -> None:
    with pytest.raises(DataError, match=r"column 'picture': there is no such column; .*'title'") as caught:
        predictor.predict_proba(pd.DataFrame(rows).drop(columns="picture"))
    assert caught.value.column == "picture"


@pytest.mark.parametrize("X", [["a", "b"], np.zeros((3, 2)), pd.Series(["a"])], ids=["list", "array", "series"])
def test_several_columns_need_names(predictor: OnnxPredictor, X: object) -> None:
    with pytest.raises(DataError, match=r"the model reads the columns \['title', 'picture', 'weight', 'price'\]"):
        predictor.predict_proba(X)


def test_columns_of_different_lengths(predictor: OnnxPredictor) -> None:
    with pytest.raises(DataError, match="different lengths"):
        predictor.predict_proba({"title": ["a", "b"], "picture": [None], "weight": [1], "price": [1]})


def test_a_bad_row_is_raised_by_its_number(predictor: OnnxPredictor, rows: Rows) -> None:
    X = {**rows, "picture": [*rows["picture"][:1234], b"no image", *rows["picture"][1235:]]}
    with pytest.raises(DataError, match="row 1234, column 'picture': the image cannot be read") as caught:
        predictor.predict_proba(X)
    assert (caught.value.row, caught.value.column) == (1234, "picture")


def test_score_batches(predictor: OnnxPredictor, rows: Rows, expected: np.ndarray) -> None:
    frame = pd.DataFrame(rows)
    scored = list(predictor.score_batches(frame[start : start + 100] for start in range(0, 1500, 100)))
    assert len(scored) == 15
    np.testing.assert_allclose(np.concatenate([w.outputs for w in scored]), expected, atol=1e-5)
    assert all(error is None for window in scored for error in window.errors)


def test_binding_scores_as_running_does(predictor: OnnxPredictor, rows: Rows) -> None:
    arrays: dict[str, np.ndarray] = {}
    for feed in predictor.manifest.feeds:
        encoded = feed.preprocessor.encode(*(rows[column][:10] for column in feed.columns))
        arrays |= {f"{feed.name}.{k}": v for k, v in feed.preprocessor.collate(encoded, slice(None)).items()}
    session, names = predictor._model.session, predictor.input_names
    # A CPU session binds too, so the path that only a GPU takes is checked here.
    bound = open_model._run(session, "cuda", names, arrays, ["probabilities"])
    np.testing.assert_array_equal(bound, open_model._run(session, "cpu", names, arrays, ["probabilities"]))


def test_a_batch_on_which_the_runtime_fails(predictor: OnnxPredictor) -> None:
    arrays = {node.name: np.zeros((2, 2)) for node in predictor._model.session.get_inputs()}
    with pytest.raises(MmensembleError, match="failed on 'cpu' in a batch of 2 rows"):
        open_model._run(predictor._model.session, "cpu", list(arrays), arrays, ["probabilities"])


def test_a_pickle_holds_no_session_and_opens_the_file_again(
    model_path: Path, rows: Rows, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_path.parent)
    predictor = OnnxPredictor(model_path.name, device="cpu", batch_size=5, n_threads=1)
    predictor.predict_proba({name: cells[:5] for name, cells in rows.items()})
    pickled = pickle.dumps(predictor)
    assert len(pickled) < 1000
    monkeypatch.chdir("/")
    copy = pickle.loads(pickled)
    assert "_model" not in copy.__dict__
    np.testing.assert_allclose(copy.predict_proba(rows), expected, atol=1e-5)
    assert (copy.batch_size, copy.n_threads, copy.device) == (5, 1, "cpu")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        OnnxPredictor(tmp_path / "none.onnx")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file(tmp_path: Path, model_path: Path, share: float) -> None:
    content = model_path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        OnnxPredictor(tmp_path / "cut.onnx", device="cpu")


@pytest.mark.parametrize("content", [b"no onnx at all", pickle.dumps({"a": 1}), b"\0" * 100])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"other\.onnx cannot be opened"):
        OnnxPredictor(tmp_path / "other.onnx", device="cpu")


def test_a_foreign_model(foreign_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"was not written by mmensemble\.export_onnx"):
        OnnxPredictor(foreign_path, device="cpu")


def test_a_newer_and_a_damaged_manifest(tmp_path: Path, manifest: Manifest, write_model: WriteModel) -> None:
    newer = json.dumps({**json.loads(manifest.to_json()), "format_version": 99})
    with pytest.raises(ModelFileError, match="format version 99"):
        OnnxPredictor(write_model(tmp_path / "newer.onnx", newer), device="cpu")
    with pytest.raises(ModelFileError, match="manifest is damaged"):
        OnnxPredictor(write_model(tmp_path / "damaged.onnx", '{"format_version": 1}'), device="cpu")


def test_an_older_manifest(tmp_path: Path, manifest: Manifest, write_model: WriteModel) -> None:
    state = json.loads(manifest.to_json())
    older = write_model(tmp_path / "older.onnx", json.dumps({**state, "format_version": 1}))
    assert OnnxPredictor(older, device="cpu").manifest == manifest
    generation = {"name": "generation", "vocab_size": 9, "end_ids": [1], "start_ids": [], "max_length": 5}
    spec = {"dtype": "float32", "shape": ["batch", 2, "past", 4]}
    generation |= {"state": {"key.0": spec, "value.0": spec}, "encoded": {}, "tokenizer": None}
    with pytest.raises(ModelFileError, match="writes texts as in format version 1; export the model again"):
        Manifest.from_json(json.dumps({**state, "format_version": 1, "task": generation}))


def test_a_manifest_that_does_not_fit_the_graph(tmp_path: Path, manifest: Manifest, write_model: WriteModel) -> None:
    less = dataclasses.replace(manifest, feeds=manifest.feeds[:2])
    with pytest.raises(ModelFileError, match=r"does not fit its manifest .*facts\.features"):
        OnnxPredictor(write_model(tmp_path / "less.onnx", less.to_json()), device="cpu")


def test_damaged_bytes_are_no_other_scores(tmp_path: Path, manifest: Manifest, write_model: WriteModel) -> None:
    path = write_model(tmp_path / "sealed.onnx", manifest.to_json(sealed=True))
    with pytest.raises(ModelFileError, match="has lost its checksum"):
        OnnxPredictor(path, device="cpu")
    seal(path)
    assert OnnxPredictor(path, device="cpu").manifest == manifest
    content = path.read_bytes()
    for at in range(7, len(content) - 32, len(content) // 40):  # the last 32 are those of weights, which there are none
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(ModelFileError):
            OnnxPredictor(path, device="cpu")


def test_metadata_that_are_not_utf8(tmp_path: Path, model_path: Path) -> None:
    content = model_path.read_bytes()
    at = content.index(b'"format_version"')
    (tmp_path / "bad.onnx").write_bytes(content[: at + 3] + b"\xff" + content[at + 4 :])
    with pytest.raises(ModelFileError, match="its metadata are not UTF-8"):
        OnnxPredictor(tmp_path / "bad.onnx", device="cpu")


@pytest.mark.parametrize(
    ("feed", "changed", "message"),
    [
        (1, {"size": 9}, r"takes image\.pixels as tensor\(uint8\) of shape \['batch', 8, 8, 3\], and its manifest"),
        (1, {"size": 10**6}, "takes 3000000000000 bytes for a row"),
        (1, {"size": "8"}, "image preprocessor has size = '8'"),
        (1, {"size": -8}, "image preprocessor has size = -8"),
        (2, {"dtype": "float64"}, r"takes facts\.features as tensor\(float\) .* gives float64"),
        (0, {"tokenizer": "{"}, "manifest is damaged"),
        (0, {"tokenizer": '{"pre_tokenizer": {"pattern": {"Regex": "(a+)+$"}}}'}, "a pattern that may take forever"),
        (0, {"max_length": -1}, "manifest is damaged"),
    ],
)
def test_a_manifest_of_values_that_cannot_be(
    tmp_path: Path, manifest: Manifest, write_model: WriteModel, feed: int, changed: dict[str, Any], message: str
) -> None:
    state = json.loads(manifest.to_json())
    state["feeds"][feed]["preprocessor"].update(changed)
    with pytest.raises(ModelFileError, match=message):
        OnnxPredictor(write_model(tmp_path / "odd.onnx", json.dumps(state)), device="cpu")


def test_a_manifest_of_other_columns_or_classes(tmp_path: Path, manifest: Manifest, write_model: WriteModel) -> None:
    state = json.loads(manifest.to_json())
    state["feeds"][1]["columns"] = []
    with pytest.raises(ModelFileError, match="manifest is damaged"):
        OnnxPredictor(write_model(tmp_path / "odd.onnx", json.dumps(state)), device="cpu")
    fewer = dataclasses.replace(manifest, task=Classification(np.array(["a", "b"], dtype=object)))
    with pytest.raises(ModelFileError, match="gives 3 columns, and its manifest has 2"):
        OnnxPredictor(write_model(tmp_path / "fewer.onnx", fewer.to_json()), device="cpu")


@pytest.mark.parametrize("name", ["batch_size", "n_threads"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "4"])
def test_numbers_that_cannot_be(model_path: Path, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be an integer of at least 1"):
        OnnxPredictor(model_path, **{name: value})


def test_scoring_loads_none_of_the_training_side(model_path: Path, tmp_path: Path) -> None:
    program = """
import sys
import mmensemble
from mmensemble import OnnxPredictor, score_file
training = {"torch", "transformers", "sklearn", "joblib", "scipy", "onnx", "skl2onnx", "pandas", "polars"}
predictor = OnnxPredictor(sys.argv[1])
predictor.predict({"title": ["a"], "picture": [None], "weight": [1.0], "price": [None]})
print(sorted((training | {"pyarrow", "tqdm"}) & set(sys.modules)))
# pyarrow loads pandas where it finds it, so here it finds none, as in an install for scoring.
class NoPandas:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoPandas())
with open("in.csv", "w") as file:
    file.write("title,picture,weight,price\\na,,1,2\\n")
print(score_file(predictor, "in.csv", "out.parquet", progress=True).n_rows)
print(sorted(training & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(model_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["[]", "1", "[]", ""]
