"""The code of the page on the file runs without mmensemble, and says what `OnnxPredictor` says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, export_onnx
from mmensemble_estimators import ImageClassifier

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "file.md"


def test_the_code_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = np.array(["apple", "car"] * 10)
    X = pd.DataFrame(
        {
            "picture": [rng.integers(0, 255, (40, 50, 3), dtype=np.uint8) for _ in y],
            "weight": rng.normal(size=len(y)),
            "price": rng.normal(size=len(y)),
        }
    )
    members: list[Any] = [
        ("image", ImageClassifier(image_size=32, max_epochs=1, random_state=0), "picture"),
        ("facts", make_pipeline(StandardScaler(), LogisticRegression()), ["weight", "price"]),
    ]
    export_onnx(MultimodalClassifier(members, fusion=SoftVoting()).fit(X, y), tmp_path / "model.onnx", verify=X)
    Image.fromarray(X["picture"][3]).save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), namespace)
    row = {"picture": ["picture.png"], "weight": [0.4], "price": [12.5]}
    predictor = OnnxPredictor("model.onnx", device="cpu")
    np.testing.assert_allclose(namespace["probabilities"], predictor.predict_proba(row), atol=1e-6)
    assert namespace["label"] == predictor.predict(row)[0]


def test_the_keys_of_the_manifest(tmp_path: Path) -> None:
    X = pd.DataFrame({"weight": [0.1, 0.9] * 10})
    model = MultimodalClassifier([("facts", LogisticRegression(), ["weight"])]).fit(X, ["apple", "car"] * 10)
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=X)
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8").split("## Inputs")[0], re.MULTILINE))
    written = set(json.loads(manifest.to_json()))
    assert named == written - {"sealed"}
    assert str(tmp_path) not in manifest.to_json()
