from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mmensemble import export_onnx, score_file
from mmensemble.exceptions import ConfigurationError
from mmensemble.scoring.report.profile import Measure


def frame(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(["a", "b", "c"], size=n, p=[0.6, 0.3, 0.1])
    return pd.DataFrame({"price": rng.normal(size=n) + shift, "weight": rng.gamma(2.0, size=n), "kind": kinds})


@pytest.fixture(scope="module")
def fitted() -> Any:
    X = frame(500, 0)
    model = make_pipeline(
        ColumnTransformer([("numbers", StandardScaler(), ["price", "weight"]), ("kinds", OneHotEncoder(), ["kind"])]),
        LogisticRegression(),
    )
    return model.fit(X, np.where(X["price"] > 0, "dear", "cheap"))


def test_the_profile_is_that_of_the_rows_given(fitted: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert export_onnx(fitted, path).profile is None
    assert export_onnx(fitted, path, verify=frame(50, 1), profile=False).profile is None
    of_verify = export_onnx(fitted, path, verify=frame(50, 1)).profile
    assert of_verify is not None
    assert (of_verify.source, of_verify.n_rows) == ("verify", 50)
    profile = export_onnx(fitted, path, verify=frame(50, 1), profile=frame(3000, 0)).profile
    assert profile is not None
    assert (profile.source, profile.n_rows, profile.n_scored) == ("profile", 3000, 2048)
    kinds = profile.inputs[Measure("kind", "category")]
    assert kinds.categories == ("a", "b", "c")
    assert set(profile.predictions[Measure("prediction", "category")].categories or ()) == {"dear", "cheap"}
    with pytest.raises(ConfigurationError, match="profile must be rows"):
        export_onnx(fitted, path, profile=True)
    with pytest.raises(ConfigurationError, match="profile has 0 rows"):
        export_onnx(fitted, path, profile=frame(0, 0))


def test_drift_from_the_rows_of_the_fit(fitted: Any, tmp_path: Path) -> None:
    export_onnx(fitted, tmp_path / "model.onnx", profile=frame(500, 0))
    frame(800, 2).to_csv(tmp_path / "same.csv", index=False)
    frame(800, 3, shift=1.0).to_csv(tmp_path / "dearer.csv", index=False)
    same, dearer = (
        score_file(tmp_path / "model.onnx", tmp_path / name, tmp_path / f"scores_{name}", device="cpu", max_drift=0.1)
        for name in ("same.csv", "dearer.csv")
    )
    assert same.drifted == ()
    assert set(dearer.drifted) >= {"price (number)", "prediction (category)"}
    assert not {"weight (number)", "kind (category)"} & set(dearer.drifted)
