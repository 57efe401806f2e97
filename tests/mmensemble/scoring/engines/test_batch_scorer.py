from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble import BatchScorer
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.scoring import Manifest
from mmensemble.scoring.engines.model_cache import local_model, model_digest
from mmensemble.tasks import Multilabel

SCORES = ["prediction", "probability_apple", "probability_pear", "probability_plum", "error"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMENSEMBLE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_table_gets_the_columns_of_score_file(model_path: Path, table: pa.Table, scored: pa.Table) -> None:
    scorer = BatchScorer(model_path, keep=["id"], device="cpu")
    assert scorer(table).equals(scored)
    assert scorer.schema(table.schema) == scored.schema
    assert scorer(table.slice(0, 0)).equals(scored.slice(0, 0))
    assert scorer(table.slice(3, 1).to_batches()[0])["error"].to_pylist()[0].startswith("column 'picture': the image")


def test_a_stream_of_batches(model_path: Path, table: pa.Table, scored: pa.Table) -> None:
    batches = list(BatchScorer(model_path, keep=["id"], device="cpu").iterate(table.to_batches(max_chunksize=130)))
    assert all(isinstance(batch, pa.RecordBatch) for batch in batches)
    streamed = pa.Table.from_batches(batches)
    assert streamed.select(["id", "prediction", "error"]).equals(scored.select(["id", "prediction", "error"]))
    for name in SCORES[1:4]:
        np.testing.assert_allclose(
            streamed[name].to_pandas(), scored[name].to_pandas(), atol=1e-6, err_msg="other batches, other rounding"
        )
    assert list(BatchScorer(model_path).iterate([])) == []


def test_it_is_pickled_by_its_parameters(
    model_path: Path, table: pa.Table, scored: pa.Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(model_path.parent)
    scorer = BatchScorer(model_path.name, keep=["id"], device="cpu")
    scorer(table[:1])
    pickled = pickle.dumps(scorer)
    assert len(pickled) < 500
    monkeypatch.chdir(tmp_path)  # as a worker does
    assert pickle.loads(pickled)(table).equals(scored)


def test_the_most_probable_classes(model_path: Path, table: pa.Table, scored: pa.Table) -> None:
    top = BatchScorer(model_path, top_k=2, device="cpu")(table)
    assert top.column_names == ["prediction", "top_1", "top_1_probability", "top_2", "top_2_probability", "error"]
    assert top["top_1"].equals(top["prediction"])
    probabilities = np.column_stack([scored[name].to_numpy() for name in SCORES[1:4]])
    for place in (1, 2):
        expected = np.sort(probabilities, axis=1)[:, -place]
        np.testing.assert_array_equal(top[f"top_{place}_probability"].to_numpy(), expected)
    assert [row for row, label in enumerate(top["top_2"].to_pylist()) if label is None] == [3, 700, 1499]
    assert len(BatchScorer(model_path, top_k=9, device="cpu").schema(table.schema)) == 8


def test_what_cannot_work(
    model_path: Path,
    generator_path: Path,
    table: pa.Table,
    write_model: Callable[[Path, str | None], Path],
    manifest: Manifest,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigurationError, match="on_error must be"):
        BatchScorer(model_path, on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="top_k must be at least 1"):
        BatchScorer(model_path, top_k=0)
    labels = write_model(tmp_path / "labels.onnx", Manifest(Multilabel(3), manifest.feeds).to_json())
    with pytest.raises(ConfigurationError, match="top_k needs probabilities of classes"):
        BatchScorer(labels, top_k=2)(table)
    with pytest.raises(ConfigurationError, match=r"a batch is dict; .* batch_format='pyarrow'"):
        BatchScorer(model_path)({"title": ["a"]})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="writes texts"):
        BatchScorer(generator_path)(table)
    with pytest.raises(DataError, match="no such column in the table"):
        BatchScorer(model_path, keep=["none"])(table)
    with pytest.raises(DataError, match="no such column in the input"):
        BatchScorer(model_path, keep=["none"]).schema(table.schema)
    with pytest.raises(DataError, match="row 700, column 'picture'"):
        list(
            BatchScorer(model_path, on_error="raise").iterate(
                [table.slice(600, 50), *([table.slice(50, 1)] * 650), table.slice(700)]
            )
        )
    with pytest.raises(FileNotFoundError, match="on this machine; a worker of a cluster needs"):
        BatchScorer(tmp_path / "none.onnx")(table)


def test_the_bytes_of_a_model(model_path: Path, table: pa.Table, scored: pa.Table, data: Path) -> None:
    scorer = BatchScorer(model_path.read_bytes(), keep=["id"], device="cpu")
    assert pickle.loads(pickle.dumps(scorer))(table).equals(scored)
    assert repr(scorer).startswith(f"BatchScorer(<{model_path.stat().st_size} bytes>")
    (cached,) = data.rglob("*.onnx")
    assert cached.read_bytes() == model_path.read_bytes()


def test_a_uri_is_fetched_once_and_again_when_it_changes(model_path: Path, data: Path, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/models/tiny.onnx", model_path.read_bytes())
    try:
        fetched = local_model("memory://models/tiny.onnx")
        assert fetched.is_relative_to(data)
        written = fetched.stat().st_mtime_ns
        assert local_model("memory://models/tiny.onnx") == fetched
        assert fetched.stat().st_mtime_ns == written
        fetched.write_bytes(b"damaged")
        assert local_model("memory://models/tiny.onnx").read_bytes() == model_path.read_bytes()
        memory.pipe("/models/tiny.onnx", model_path.read_bytes() + b"more")
        assert local_model("memory://models/tiny.onnx") != fetched
    finally:
        memory.rm("/models", recursive=True)
    with pytest.raises(FileNotFoundError, match="no model file memory://models/tiny"):
        local_model("memory://models/tiny.onnx")
    assert local_model(f"file://{model_path}") == model_path


def test_external_data_comes_along(model_path: Path, table: pa.Table, tmp_path: Path, data: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    big = tmp_path / "big.onnx"
    onnx.save_model(
        onnx.load(model_path), big, save_as_external_data=True, location="big.onnx.data", size_threshold=1024
    )
    for path in (big, tmp_path / "big.onnx.data"):
        memory.pipe(f"/models/{path.name}", path.read_bytes())
    try:
        fetched = local_model("memory://models/big.onnx")
        assert model_digest(fetched) == model_digest(big) != model_digest(model_path)
        assert BatchScorer("memory://models/big.onnx", device="cpu")(table).equals(
            BatchScorer(model_path, device="cpu")(table)
        )
        (fetched.parent / "big.onnx.data").write_bytes(b"damaged")
        assert model_digest(local_model("memory://models/big.onnx")) == model_digest(big)
    finally:
        memory.rm("/models", recursive=True)


def test_columns_of_spark(model_path: Path, table: pa.Table) -> None:
    types = pytest.importorskip("pyspark.sql.types")
    pandas_types = pytest.importorskip("pyspark.sql.pandas.types")
    schema = BatchScorer(model_path, keep=["id"]).spark_schema(pandas_types.from_arrow_schema(table.schema))
    assert schema.fieldNames() == ["id", *SCORES]
    assert schema["id"].dataType == types.LongType()
    assert schema["probability_apple"].dataType == types.FloatType()


def test_it_loads_neither_torch_nor_scikit_learn(model_path: Path, table: pa.Table, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "rows.parquet")
    code = (
        "import sys, pyarrow.parquet as pq; from mmensemble import BatchScorer\n"
        "scored = BatchScorer(sys.argv[1])(pq.read_table(sys.argv[2])); assert scored.num_rows == 1500\n"
        "assert not {'torch', 'sklearn', 'transformers', 'joblib', 'ray', 'pyspark'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, model_path, tmp_path / "rows.parquet"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
