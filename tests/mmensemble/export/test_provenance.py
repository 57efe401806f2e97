"""A file says what it was made from, and nothing of the host that it was made on."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from joblib import Memory
from sklearn.base import BaseEstimator
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mmensemble import MultimodalClassifier, SoftVoting, export_onnx
from mmensemble.cli import main
from mmensemble.export.provenance import described


class Holder(BaseEstimator):
    def __init__(self, value: Any = None, other: Any = None) -> None:
        self.value = value
        self.other = other


def function(X: Any) -> Any:
    return X


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/ada/models/minilm", "value='minilm'"),
        ("/home/ada/models/minilm/", "value='minilm'"),
        ("~/models/mini lm", "value='mini lm'"),
        (r"C:\Users\ada\minilm", "value='minilm'"),
        ("C:/Users/ada/minilm", "value='minilm'"),
        ("/it's ada's/minilm", 'value="minilm"'),
        (PurePosixPath("/home/ada/minilm"), "value=PurePosixPath('minilm')"),
        (PureWindowsPath("C:/Users/ada/minilm"), "value=PureWindowsPath('minilm')"),
        (["/home/ada/one", "/home/ada/two"], "value=['one', 'two']"),
        ("sentence-transformers/all-MiniLM-L6-v2", "value='sentence-transformers/all-MiniLM-L6-v2'"),
        ("(?u)\\b\\w+/\\w+\\b", None),
        (0.5, "value=0.5"),
        (function, "value=<function function>"),
        (Memory("/home/ada/cache", verbose=0), "value=Memory(location=joblib)"),
    ],
)
def test_paths_and_addresses(value: Any, shown: str | None) -> None:
    assert described(Holder(value)) == (repr(Holder(value)) if shown is None else f"Holder({shown})")


def test_a_file_and_what_is_shown_of_it(tmp_path: Path) -> None:
    X = pd.DataFrame({"name": ["red", "blue"] * 10, "n": [0.0, 1.0] * 10})
    model = MultimodalClassifier(
        [
            ("text", make_pipeline(TfidfVectorizer(), LogisticRegression()), "name"),
            ("n", make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), ["n"]),
        ],
        fusion=SoftVoting(),
        cache=tmp_path / "secret" / "cache",
    ).fit(X, ["a", "b"] * 10)
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=X)
    text = manifest.provenance["estimator"]
    assert "cache=PosixPath('cache')" in text or "cache=WindowsPath('cache')" in text
    assert "TfidfVectorizer()" in text
    for data in (text.encode(), (tmp_path / "model.onnx").read_bytes()):
        assert b"secret" not in data
        assert not re.search(rb" at 0x[0-9a-f]{6}", data)
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "model.onnx")]).output
    assert max(map(len, shown.splitlines())) < 500
    assert "  estimator: MultimodalClassifier(cache=" in shown
