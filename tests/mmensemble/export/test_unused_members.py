"""A member that cannot change the result is not in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from mmensemble import HardVoting, MultimodalClassifier, MultimodalRegressor, OnnxPredictor, SoftVoting, export_onnx


@pytest.fixture
def rows() -> pd.DataFrame:
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    X.loc[0, "a"] = X.loc[1, "b"] = X.loc[2, "c"] = X.loc[3, ["a", "c"]] = X.loc[4] = np.nan
    return X


@pytest.mark.parametrize("fusion", [SoftVoting(weights=[1, 0, 2]), HardVoting(weights=[1, 0, 1.5])])
@pytest.mark.parametrize("regression", [False, True])
def test_a_member_of_weight_0_is_left_out(rows: pd.DataFrame, tmp_path: Path, fusion: Any, regression: bool) -> None:
    y = np.nan_to_num(rows["a"] + rows["b"] - rows["c"])
    final, composition = (
        (LinearRegression(), MultimodalRegressor) if regression else (LogisticRegression(), MultimodalClassifier)
    )
    model = composition([(name, final, [name]) for name in rows], fusion=fusion).fit(rows, y if regression else y > 0)
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=rows)
    assert manifest.columns == ["a", "c"]
    assert manifest.parity["max_abs_difference"] < 1e-5
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    np.testing.assert_allclose(predictor.predict(rows.drop(columns="b")), model.predict(rows), rtol=1e-5)
