"""Members that are found by looking at the columns."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from mmensemble import (
    ConfigurationError,
    DataError,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    SoftVoting,
    Stacking,
    export_onnx,
    infer_members,
)
from mmensemble.multimodal import inferring
from mmensemble_estimators import ImageClassifier, TextClassifier, TextRegressor

N = 60
RNG = np.random.default_rng(0)
Y = np.array(["good", "bad"])[RNG.permutation(N) % 2]
NAMES = ["apple", "car", "dog", "house", "tree", "river", "stone"]


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


COLUMNS: dict[str, Any] = {
    "id": range(N),
    "code": [f"A-{i:04x}" for i in range(N)],
    "constant": ["same"] * N,
    "nothing": [None] * N,
    "review": [" ".join(RNG.choice(NAMES, 5)) + f" {i}" for i in range(N)],
    "color": RNG.choice(["red", "blue"], N),
    "flag": RNG.random(N) > 0.5,
    "price": RNG.normal(size=N),
    "day": pd.date_range("2026-01-01", periods=N),
    "tags": [["a", "b"]] * N,
    "picture": [png(i) for i in range(N)],
    "struct": [{"bytes": png(i), "path": None} for i in range(N)],
    "array": [np.zeros((4, 4, 3), np.uint8)] * N,
    "raw": [b"neither"] * N,
    "verdict": ["yes" if label == "good" else "no" for label in Y],
    "written": [f"{i / 7:.3f}" for i in range(N)],
}
KINDS = {
    "review": "review, review_words",
    "color": "facts",
    "flag": "facts",
    "price": "facts",
    "picture": "picture",
    "struct": "struct",
    "array": "array",
}
WHY = {
    "id": "a number of the row",
    "code": "codes",
    "constant": "the same in all rows",
    "nothing": "no cell",
    "day": "dates",
    "tags": "a list",
    "raw": "no picture, sound or film",
    "verdict": "y in other words",
    "written": "convert them to float",
}


def frame(*names: str) -> pd.DataFrame:
    return pd.DataFrame({name: COLUMNS[name] for name in names or COLUMNS})


def test_every_column_is_read_or_left_out_for_a_reason() -> None:
    members = infer_members(frame(), Y)
    assert {column: read for column, read, _ in members.reasons if read} == KINDS
    left_out = {column: why for column, read, why in members.reasons if not read}
    assert left_out.keys() == WHY.keys()
    for column, why in WHY.items():
        assert left_out[column].startswith("left out: ")
        assert why in left_out[column]
    assert [name for name, *_ in members] == ["review", "review_words", "picture", "struct", "array", "facts"]
    table = repr(members).splitlines()
    assert len(table) == 1 + len(COLUMNS)
    assert [line.split()[0] for line in table] == ["column", *COLUMNS]


def test_polars_gives_the_same() -> None:
    columns = ("id", "review", "color", "flag", "price", "picture")
    assert infer_members(pl.DataFrame({c: list(COLUMNS[c]) for c in columns}), Y).reasons == (
        infer_members(frame(*columns), Y).reasons
    )


def test_paths_are_told_by_what_they_name(tmp_path: Path) -> None:
    for i in range(N):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    X = pd.DataFrame({"file": [str(tmp_path / f"{i}.png") for i in range(N)]})
    [(name, estimator, column)] = infer_members(X, Y)
    assert (name, type(estimator), column) == ("file", ImageClassifier, "file")
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"row 0, column 'file': .*0\.png' looks like the path of a picture"):
        infer_members(X, Y)


def test_a_mixed_column_is_an_error() -> None:
    X = pd.DataFrame({"a": ["text"] * 40 + [1.5] * 20})
    with pytest.raises(DataError, match=r"row 40, column 'a': this cell is a number, and most .* is a string"):
        infer_members(X, Y)
    with pytest.raises(DataError, match="no column of X is of use"):
        infer_members(frame("id", "constant"), Y)
    with pytest.raises(DataError, match="must be a DataFrame"):
        infer_members([[1.0]], Y)


def test_what_determines_numbers_is_left_out() -> None:
    y = RNG.normal(size=N)
    X = pd.DataFrame({"fahrenheit": 32 + 1.8 * y, "near": y + RNG.normal(size=N), "review": COLUMNS["review"]})
    members = infer_members(X, y)
    assert [read for _, read, _ in members.reasons] == ["", "facts", "review, review_words"]
    assert isinstance(members[0][1], TextRegressor)
    assert isinstance(infer_members(X, (y > 0).astype(int))[0][1], TextClassifier)


def test_members_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferring, "_recommendations", {})
    monkeypatch.setattr("importlib.import_module", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"column 'picture' holds a picture .*mmensemble\[train\]"):
        infer_members(frame("picture"), Y)
    inferring.recommends("picture")(lambda n_rows, regression: (LogisticRegression(C=n_rows), "of a guest"))
    [(_, estimator, _)] = found = infer_members(frame("picture"), Y)
    assert estimator.C == N
    assert "of a guest" in repr(found)


def test_the_list_can_be_edited_cloned_and_pickled() -> None:
    members = infer_members(frame("color", "price", "id"), Y)
    model = MultimodalClassifier(members, fusion=SoftVoting())
    members.append(("more", LogisticRegression(), ["price"]))
    assert repr(clone(model).estimators) == repr(members) == repr(pickle.loads(pickle.dumps(members)))
    assert model.fit(frame("color", "price"), Y).predict_proba(frame("color", "price")).shape == (N, 2)


@pytest.fixture(params=[lambda X: X, pl.from_pandas], ids=["pandas", "polars"])
def made(request: pytest.FixtureRequest) -> Callable[[pd.DataFrame], Any]:
    return request.param


def test_auto(made: Callable[[pd.DataFrame], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    X = frame("color", "price", "flag", "id").assign(price=COLUMNS["price"] + 2 * (Y == "good"))
    X.loc[3, "price"] = np.nan
    model = MultimodalClassifier("auto", verbose=True).fit(made(X), Y)
    assert model.get_params()["estimators"] == "auto"
    assert [columns for *_, columns in model.inferred_estimators_] == [["price", "flag", "color"]]
    assert "a number of the row" in capsys.readouterr().err
    assert model.score(made(X), Y) > 0.6
    export_onnx(model, tmp_path / "auto.onnx", verify=made(X))
    scored = OnnxPredictor(tmp_path / "auto.onnx").predict_proba(made(X))
    np.testing.assert_allclose(scored, model.predict_proba(made(X)), atol=1e-5)
    assert "price" in model._repr_html_()
    assert clone(model).set_params(fusion=SoftVoting()).fit(made(X), Y).predict(made(X)).shape == (N,)


def test_auto_in_a_search_and_for_numbers() -> None:
    X = frame("color", "price", "flag")
    search = GridSearchCV(MultimodalClassifier("auto"), {"fusion": [SoftVoting(), Stacking(cv=2)]}, cv=2)
    assert search.fit(X, Y).best_estimator_.inferred_estimators_.reasons[0][0] == "color"
    y = COLUMNS["price"] + RNG.normal(size=N)
    assert MultimodalRegressor("auto").fit(X, y).score(X, y) > 0.3
    both = np.column_stack([y, 2 * y + RNG.normal(size=N)])
    assert MultimodalRegressor("auto").fit(X, both).predict(X).shape == (N, 2)
    labels = np.column_stack([y > 0, Y == "good"]).astype(int)
    assert MultimodalClassifier("auto").fit(X, labels).predict(X).shape == (N, 2)
    with pytest.raises(ConfigurationError, match="'auto' or a list"):
        MultimodalClassifier("automatic").fit(X, Y)
