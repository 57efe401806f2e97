"""What older versions wrote is still read, and answers as it did; `write_files.py` says how it was written."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import zlib
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

import mmensemble_estimators
from mmensemble import OnnxPredictor, export_onnx

FOLDER = Path(__file__).parent / "version_0_1_0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
VERSIONS = json.loads((FOLDER / "versions.json").read_text(encoding="utf-8"))

# By its path, so that this works from any folder; nothing is written when it is run under another name than __main__.
WRITER = runpy.run_path(str(Path(__file__).with_name("write_files.py")))

# The packages whose objects are for the version that pickled them, and how their modules' names begin.
PICKLED_PACKAGES = {
    "scikit-learn": b"sklearn.",
    "pandas": b"pandas.",
    "torch": b"torch.",
    "transformers": b"transformers.",
}


def files_in(folder: str) -> list[str]:
    return sorted(name for name in EXPECTED if name.startswith(f"{folder}/"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return WRITER["scored_rows"]()


def check_answers(name: str, model: Any, rows: pd.DataFrame, *, only: list[str] | None = None) -> None:
    """Compare what a model says of the rows with what is stored under a name."""
    column, expected = EXPECTED[name]["column"], EXPECTED[name]["answers"]
    answers = WRITER["answers"](model, rows if column is None else rows[column])
    assert only is not None or answers.keys() == expected.keys()
    for method in expected if only is None else only:
        if np.asarray(expected[method]).dtype.kind == "f":
            np.testing.assert_allclose(answers[method], expected[method], rtol=1e-5, atol=1e-5, err_msg=method)
        else:
            assert answers[method] == expected[method], method


def load_pickle(name: str) -> Any:
    content = zlib.decompress((FOLDER / name).read_bytes())
    for package, module in PICKLED_PACKAGES.items():
        installed, pickled = (
            version.partition("+")[0] for version in (importlib.metadata.version(package), VERSIONS[package])
        )
        if module in content and installed != pickled:
            pytest.skip(f"it holds objects of {package} {pickled}, which {package} {installed} need not read")
    return joblib.load(FOLDER / name)


def test_all_files_are_expected() -> None:
    pickles, onnx_files = (FOLDER.glob(pattern) for pattern in ("pickles/*", "onnx/*"))
    folders = [path.parent for path in FOLDER.glob("folders/*/estimator.json")]
    found = sorted(path.relative_to(FOLDER).as_posix() for path in [*pickles, *folders, *onnx_files])
    assert found == sorted(EXPECTED)


@pytest.mark.parametrize("name", files_in("pickles"))
def test_pickle(name: str, rows: pd.DataFrame) -> None:
    check_answers(name, load_pickle(name), rows)


@pytest.mark.parametrize("name", files_in("folders"))
def test_folder(name: str, rows: pd.DataFrame) -> None:
    kind = json.loads((FOLDER / name / "estimator.json").read_text(encoding="utf-8"))["class"]
    check_answers(name, getattr(mmensemble_estimators, kind).load(FOLDER / name), rows)


@pytest.mark.parametrize("name", files_in("onnx"))
def test_onnx_file(name: str, rows: pd.DataFrame) -> None:
    check_answers(name, OnnxPredictor(FOLDER / name, device="cpu"), rows)


# `mmensemble export` reads pickles.
@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("pickles/stacking_with_passthrough.joblib", ["predict", "predict_proba"]),
        ("pickles/stacking_of_numbers.joblib", ["predict"]),
        ("pickles/concat_fusion.joblib", ["predict", "predict_proba"]),
        ("pickles/causal_lm.joblib", ["greedy", "sampled", "beams"]),
    ],
)
def test_pickle_is_exported(name: str, methods: list[str], rows: pd.DataFrame, tmp_path: Path) -> None:
    export_onnx(load_pickle(name), tmp_path / "model.onnx")
    check_answers(name, OnnxPredictor(tmp_path / "model.onnx", device="cpu"), rows, only=methods)
