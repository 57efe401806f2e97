"""Folders of pictures as rows: each file is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmensemble import ConfigurationError, DataError, OnnxPredictor, export_onnx, on_column, score_dataset
from mmensemble.cli import main
from mmensemble_estimators import ImageClassifier

OPTIONS: dict[str, Any] = {"device": "cpu"}
NAMES = ["a.png", "b.JPG", "day=1/c.png", "day=2/d.png", "day=2/deep/e.webp"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("media") / "pictures", np.random.default_rng(0)
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no row")
    (folder / ".hidden.png").write_bytes(b"no row")
    return folder


@pytest.fixture(scope="module")
def model(pictures: Path) -> Path:
    X = pd.DataFrame({"picture": [str(pictures / name) for name in NAMES] * 2})
    y = ["cat", "dog", "cat", "dog", "cat"] * 2
    leaf = ImageClassifier(image_size=32, max_epochs=1, random_state=0)
    export_onnx(on_column("picture", leaf).fit(X, y), pictures.parent / "model.onnx", verify=X)
    return pictures.parent / "model.onnx"


def expected(model: Path, pictures: Path) -> np.ndarray:
    return OnnxPredictor(model, device="cpu").predict_proba({"picture": [str(pictures / name) for name in NAMES]})


def probabilities(scores: pa.Table) -> np.ndarray:
    return np.column_stack([scores["probability_cat"], scores["probability_dog"]])


@pytest.mark.parametrize("target", ["scores.parquet", "scores/"])
def test_each_file_is_a_row(model: Path, pictures: Path, tmp_path: Path, target: str) -> None:
    report = score_dataset(model, pictures, f"{tmp_path}/{target}", **OPTIONS)
    assert (report.n_rows, report.n_errors) == (6, 1)
    scores = pq.read_table(tmp_path / target.rstrip("/"), partitioning=None)
    assert scores.schema.names == ["path", "prediction", "probability_cat", "probability_dog", "error"]
    scores = scores.sort_by("path")
    assert scores["path"].to_pylist() == sorted(str(pictures / name) for name in [*NAMES, "broken.png"])
    bad = [error is not None for error in scores["error"].to_pylist()]
    assert bad == [path.endswith("broken.png") for path in scores["path"].to_pylist()]
    good = scores.filter(pa.array(np.invert(bad)))
    np.testing.assert_allclose(probabilities(good), expected(model, pictures), atol=1e-6)


def test_folders_name_columns_and_finished_files_are_skipped(model: Path, pictures: Path, tmp_path: Path) -> None:
    job = {**OPTIONS, "keep": ["day"], "fragment_rows": 1}
    score_dataset(model, f"{pictures}/day=*/**/*", tmp_path / "out", **job)
    scores = pq.read_table(tmp_path / "out", partitioning=None)
    assert scores["day"].to_pylist() == ["1", "2", "2"]
    assert score_dataset(model, f"{pictures}/day=*/**/*", tmp_path / "out", **job).n_resumed == 3


def test_a_list_of_files_and_one_alone(model: Path, pictures: Path, tmp_path: Path) -> None:
    files = [pictures / "day=2/d.png", pictures / "a.png"]
    score_dataset(model, files, tmp_path / "some.csv", **OPTIONS)
    assert pd.read_csv(tmp_path / "some.csv")["path"].tolist() == [str(file) for file in files]
    score_dataset(model, files[0], tmp_path / "one.csv", **OPTIONS)
    assert pd.read_csv(tmp_path / "one.csv")["path"].tolist() == [str(files[0])]


def test_elsewhere(model: Path, pictures: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(pictures), "/media-rows", recursive=True)
    try:
        report = score_dataset(model, "memory://media-rows", tmp_path / "out", **OPTIONS)
        assert (report.n_rows, report.n_errors) == (6, 1)
        scores = pq.read_table(tmp_path / "out", partitioning=None).sort_by("path")
        assert scores["path"][0].as_py() == "memory://media-rows/a.png"
        good = scores.filter(scores["error"].is_null())
        np.testing.assert_allclose(probabilities(good), expected(model, pictures), atol=1e-6)
    finally:
        memory.rm("/media-rows", recursive=True)


def test_a_file_that_goes_away_costs_its_row(model: Path, pictures: Path, tmp_path: Path) -> None:
    from mmensemble.scoring.engines.media import MediaReader

    memory = fsspec.filesystem("memory")
    memory.pipe("/media-gone/a.png", (pictures / "a.png").read_bytes())
    uris = ["memory://media-gone/a.png", "memory://media-gone/b.png"]
    try:
        tables = list(MediaReader(uris, "error").tables(["path", "content"], 10))
        assert [table["content"][0].as_py() is None for table in tables] == [False, True]
        assert "b.png cannot be fetched" in tables[1].column(2)[0].as_py()
        skipping = MediaReader(uris, "skip")
        assert sum(table.num_rows for table in skipping.tables(["path", "content"], 10)) == 1
        assert skipping.n_skipped == 1
        with pytest.raises(FileNotFoundError):
            list(MediaReader(uris).tables(["content"], 10))
    finally:
        memory.rm("/media-gone", recursive=True)


def test_files_of_rows_go_first(model: Path, pictures: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.png").write_bytes((pictures / "a.png").read_bytes())
    pd.DataFrame({"picture": [str(pictures / "a.png")] * 3}).to_parquet(rows / "rows.parquet")
    assert score_dataset(model, rows, tmp_path / "out", **OPTIONS).n_rows == 3
    with pytest.raises(ConfigurationError, match="some of the files are rows themselves"):
        score_dataset(model, [rows / "a.png", rows / "rows.parquet"], tmp_path / "mixed", **OPTIONS)


def test_what_is_refused(model: Path, pictures: Path, tmp_path: Path, model_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lies in the target"):
        score_dataset(model, pictures, pictures, **OPTIONS)
    with pytest.raises(DataError, match=r"no file of rows.*nor is there a file that is a row itself, .avif"):
        score_dataset(model, tmp_path, tmp_path / "out", **OPTIONS)
    with pytest.raises(DataError, match="has no file of rows: Parquet"):  # it reads a text and numbers too
        score_dataset(model_path, pictures, tmp_path / "out", **OPTIONS)


def test_command(model: Path, pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.csv"
    with pytest.raises(SystemExit) as ended:
        main(["score", str(model), str(pictures), "-o", str(target), "--device", "cpu"])
    assert ended.value.code == 0
    assert pd.read_csv(target)["path"].str.endswith("broken.png").sum() == 1
