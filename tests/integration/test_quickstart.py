"""What `make demo` runs, on a sliver of the data."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmensemble import OnnxPredictor

MODELS = ["text alone", "words alone", "image alone", "ten lines by hand", "soft voting", "stacking", "the default"]
STRATEGIES = ["soft voting", "stacking", "super learner"]


@pytest.fixture(scope="module")
def items(quickstart: Any) -> pd.DataFrame:
    return pd.read_parquet(quickstart.folder / "items.parquet")


@pytest.fixture(scope="module")
def scores(quickstart: Any) -> pd.DataFrame:
    return pd.read_parquet(quickstart.folder / "scores.parquet")


@pytest.fixture(scope="module")
def results(quickstart: Any) -> dict[str, Any]:
    return json.loads((quickstart.folder / "results.json").read_text(encoding="utf-8"))


def test_it_writes_these_files_and_nothing_beside_them(quickstart: Any) -> None:
    assert sorted(path.name for path in quickstart.folder.iterdir()) == [
        "items.parquet", "model.onnx", "quickstart.png", "results.json", "scores.parquet",
    ]  # fmt: skip
    assert [path.name for path in quickstart.folder.parent.iterdir()] == ["output"]


def test_items(items: pd.DataFrame) -> None:
    assert len(items) == 150
    assert {"id", "name", "picture", "category"} <= set(items.columns)
    assert items["id"].is_unique
    assert items["picture"].map(lambda data: data[:4] == b"\x89PNG").all()
    assert items["category"].nunique() == 9


def test_scores(items: pd.DataFrame, scores: pd.DataFrame) -> None:
    classes = sorted(items["category"].unique())
    assert scores.columns.tolist() == ["id", "prediction", *(f"probability_{label}" for label in classes), "error"]
    assert scores["id"].tolist() == items["id"].tolist()
    assert scores["error"].isna().all()
    probabilities = scores.filter(like="probability_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert scores["prediction"].tolist() == np.array(classes)[probabilities.argmax(axis=1)].tolist()
    assert len(np.unique(probabilities.round(4), axis=0)) > 140, "rows score alike"


def test_results(results: dict[str, Any], quickstart: Any) -> None:
    assert list(results["table"]) == MODELS
    for row in results["table"].values():
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["macro-F1"] <= 1
        assert 0 < row["log loss"] < 10
    assert results["picked"] in STRATEGIES
    assert results["parity"]["n_rows"] == 150
    assert results["parity"]["max_abs_difference"] <= 1e-4
    assert results["parity"]["equal_labels"] == 1.0
    assert results["rows_per_second"]["torch"] > 0
    assert results["rows_per_second"]["ONNX"] > 0


def test_it_prints_the_table_and_what_it_did(results: dict[str, Any], quickstart: Any) -> None:
    for name, row in results["table"].items():
        numbers = r"\s+".join(f"{row[score]:.3f}".replace(".", r"\.") for score in ("accuracy", "macro-F1", "log loss"))
        assert re.search(rf"^ *{name}\s+{numbers}$", quickstart.printed, re.MULTILINE), name
    assert "SuperLearner() chose " in quickstart.printed
    assert f"picked: {results['picked']}" in quickstart.printed
    assert "100.0% of the labels are the estimator's" in quickstart.printed
    assert "$ mmensemble score " in quickstart.printed
    assert "rows per second on" in quickstart.printed


def test_the_table_agrees_with_the_files(results: dict[str, Any], items: pd.DataFrame, scores: pd.DataFrame) -> None:
    accuracy = (scores["prediction"].to_numpy() == items["category"].to_numpy()).mean()
    assert accuracy == pytest.approx(results["table"]["the default"]["accuracy"])


def test_figure(quickstart: Any) -> None:
    with Image.open(quickstart.folder / "quickstart.png") as image:
        assert image.format == "PNG"
        assert 900 < image.width < 3000
        assert 400 < image.height < 2000
        assert len(image.convert("RGB").getcolors(2**24)) > 50, "an empty figure"


def test_the_model_file(quickstart: Any, items: pd.DataFrame, scores: pd.DataFrame) -> None:
    predictor = OnnxPredictor(quickstart.folder / "model.onnx", device="cpu")
    assert predictor.manifest.columns == ["name", "picture"]
    assert {feed.preprocessor.kind for feed in predictor.manifest.feeds} == {"text", "image", "terms"}
    assert predictor.predict(items).tolist() == scores["prediction"].tolist()
    # The file scores rows that miss a modality, or both.
    few = items[["name", "picture"]].head(3).astype(object)
    few.loc[0, "name"] = None
    few.loc[1, "picture"] = None
    few.loc[2] = None
    probabilities = predictor.predict_proba(few)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    complete = predictor.predict_proba(items.head(3))
    assert (np.abs(probabilities - complete).max(axis=1) > 1e-3).all()
