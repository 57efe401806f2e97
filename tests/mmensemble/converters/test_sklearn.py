from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, Stacking, export_onnx, on_column
from mmensemble.exceptions import DataError, ExportError
from mmensemble.scoring import score_file

LABELS = np.array(["one", "three", "two"])


def rows(seed: int = 0, n: int = 48, n_classes: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    frame = pd.DataFrame(
        {
            "id": [f"row {i}" for i in range(n)],
            "a": rng.normal(size=n) + y,
            "b": rng.normal(size=n) - (y == 1),
            "count": rng.integers(0, 9, n) + y,
            "kind": np.array(["red", "green", "blue"])[(y + (rng.random(n) < 0.3)) % 3],
            "size": np.array(["S", "M"])[rng.integers(0, 2, n)],
        }
    )
    return frame, LABELS[y]


NEW, _ = rows(seed=1)


def assert_exports(estimator: Any, tmp_path: Path, X: Any = NEW, *, atol: float = 1e-5) -> OnnxPredictor:
    """Export, and compare every row's probabilities and label with the estimator's."""
    export_onnx(estimator, tmp_path / "model.onnx")
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    expected = estimator.predict_proba(X)
    np.testing.assert_allclose(predictor.predict_proba(X), expected, rtol=0, atol=atol)
    assert len(np.unique(expected.round(3), axis=0)) > 3, "rows that all score alike show nothing"
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > 1e-6  # in float32 a tie may fall either way
    assert clear.mean() > 0.5
    assert predictor.predict(X)[clear].tolist() == estimator.predict(X)[clear].tolist()
    assert predictor.classes_.tolist() == estimator.classes_.tolist()
    return predictor


NUMERIC = {
    "LogisticRegression": LogisticRegression(),
    "LogisticRegression without intercept": LogisticRegression(fit_intercept=False),
    "LogisticRegressionCV": LogisticRegressionCV(
        Cs=2, cv=2, use_legacy_attributes=False, scoring="neg_log_loss", l1_ratios=(0,)
    ),
    "scaled": make_pipeline(StandardScaler(), LogisticRegression()),
    "passthrough": Pipeline([("nothing", "passthrough"), ("scale", StandardScaler()), ("lr", LogisticRegression())]),
    "imputed": make_pipeline(SimpleImputer(), LogisticRegression()),
    "RandomForest": RandomForestClassifier(8, random_state=0),
    "HistGradientBoosting": HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=3),
    "KNeighbors": KNeighborsClassifier(3),
    "GaussianNB": GaussianNB(),
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NUMERIC)
def test_numeric(tmp_path: Path, name: str, n_classes: int) -> None:
    X, y = rows(n_classes=n_classes)
    assert_exports(on_column(["a", "b", "count"], clone(NUMERIC[name])).fit(X, y), tmp_path)


def with_some_missing(X: pd.DataFrame) -> pd.DataFrame:
    """Rows that lack a or b, and none that lack both."""
    gaps = X.copy()
    gaps.loc[::3, "a"] = np.nan
    gaps.loc[1::3, "b"] = np.nan
    return gaps


@pytest.mark.parametrize("name", ["HistGradientBoosting", "imputed"])
def test_partly_missing_numbers_reach_the_estimator(tmp_path: Path, name: str) -> None:
    X, y = rows()
    model = on_column(["a", "b"], clone(NUMERIC[name])).fit(with_some_missing(X), y)
    assert_exports(model, tmp_path, with_some_missing(NEW))


def test_a_forest_that_learned_where_nan_goes_scores_alike_or_is_refused(tmp_path: Path) -> None:
    X, y = rows()
    model = on_column(["a", "b"], clone(NUMERIC["RandomForest"])).fit(with_some_missing(X), y)
    refusal = None
    try:
        export_onnx(model, tmp_path / "model.onnx")
    except ExportError as error:
        refusal = str(error)
    if refusal is None:
        assert_exports(model, tmp_path, with_some_missing(NEW))
    else:
        assert "RandomForestClassifier" in refusal
        assert "missing" in refusal


@pytest.mark.parametrize("name", ["HistGradientBoosting", "imputed"])
def test_a_row_without_any_number_is_imputed_as_in_the_estimator(tmp_path: Path, name: str) -> None:
    # Outside a MultimodalClassifier nobody takes care of missing modalities but the estimator itself.
    X, y = rows()
    new = NEW.copy()
    new.loc[:5, ["a", "b"]] = np.nan
    assert_exports(on_column(["a", "b"], clone(NUMERIC[name])).fit(with_some_missing(X), y), tmp_path, new)


def test_a_row_that_the_estimator_refuses_is_an_error_of_its_row(tmp_path: Path) -> None:
    # Without an imputer scikit-learn refuses NaN. The file must not answer with NaN and the first label instead.
    X, y = rows()
    model = MultimodalClassifier([("facts", LogisticRegression(), ["a", "b"])]).fit(X, y)
    new = NEW.head(4).copy()
    new.loc[2, "a"] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.predict_proba(new)
    export_onnx(model, tmp_path / "model.onnx")
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    with pytest.raises(DataError, match="row 2"):
        predictor.predict_proba(new)
    new.to_parquet(tmp_path / "items.parquet")
    assert score_file(predictor, tmp_path / "items.parquet", tmp_path / "scores.parquet").n_errors == 1
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert scores["error"].notna().tolist() == [False, False, True, False]
    assert scores["prediction"].isna().tolist() == [False, False, True, False]


def column_transformer() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore"), ["kind", "size"]),
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["a", "b"]),
        ]
    )


@pytest.mark.parametrize("final", [LogisticRegression(), RandomForestClassifier(5, random_state=0)], ids=["LR", "RF"])
def test_column_transformer(tmp_path: Path, final: Any) -> None:
    X, y = rows()
    X.loc[::5, "a"] = np.nan
    new = NEW.copy()
    new.loc[::4, "a"] = np.nan
    new.loc[3, "kind"] = "a colour that nobody has seen"
    columns = ["kind", "a", "size", "b"]
    pipeline = make_pipeline(column_transformer(), final)
    for model in (
        on_column(columns, clone(pipeline)),
        MultimodalClassifier([("facts", clone(pipeline), columns), ("b", LogisticRegression(), ["b"])]),
    ):
        assert_exports(model.fit(X, y), tmp_path, new)


def test_integers_and_booleans_as_columns(tmp_path: Path) -> None:
    X, y = rows()
    new = NEW.copy()
    for frame in (X, new):
        frame["flag"] = frame["count"] > 4
        frame["small"] = frame["count"].astype(np.int8)
    model = on_column(["flag", "small", "a"], LogisticRegression()).fit(X, y)
    assert_exports(model, tmp_path, new)


@pytest.mark.parametrize("fusion", [SoftVoting(), SoftVoting([2, 0, 1]), Stacking(cv=2)], ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_compositions_with_missing_members(tmp_path: Path, fusion: Any, n_classes: int) -> None:
    X, y = rows(n_classes=n_classes)
    new = NEW.copy()
    rng = np.random.default_rng(0)
    for frame in (X, new):
        for column in ("a", "b", "count"):
            frame[column] = frame[column].where(rng.random(len(frame)) > 0.3)
    model = MultimodalClassifier(
        [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"]), ("count", LogisticRegression(), ["count"])],
        fusion=fusion,
    ).fit(X, y)
    assert new[["a", "b", "count"]].isna().all(axis=1).any()
    assert_exports(model, tmp_path, new)
    np.testing.assert_allclose(
        OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(pl.from_pandas(new)),
        model.predict_proba(new),
        atol=1e-5,
    )


@pytest.mark.parametrize("fusion", [SoftVoting(), Stacking(cv=2)], ids=str)
def test_a_member_that_never_saw_a_class(tmp_path: Path, fusion: Any) -> None:
    X, y = rows()
    X.loc[y == "three", "a"] = np.nan
    model = MultimodalClassifier(
        [("a", LogisticRegression(), ["a"]), ("b", LogisticRegression(), ["b"])], fusion=fusion
    ).fit(X, y)
    assert model.fusion_.members_[0].labels[0].tolist() == ["one", "two"]
    assert_exports(model, tmp_path)


@pytest.mark.parametrize(
    "final",
    [RandomForestClassifier(5, random_state=0), make_pipeline(StandardScaler(), LogisticRegression())],
    ids=["RandomForest", "pipeline"],
)
def test_meta_learners(tmp_path: Path, final: Any) -> None:
    X, y = rows()
    members = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]
    # A tree's thresholds lie between float64 probabilities; float32 ones may fall on the other side, so not exactly.
    assert_exports(MultimodalClassifier(members, fusion=Stacking(final, cv=2)).fit(X, y), tmp_path, atol=1e-4)


# --- scikit-learn's own ensembles


def members() -> list[tuple[str, Any]]:
    return [
        ("a", on_column(["a"], LogisticRegression())),
        ("b", on_column(["b", "count"], GaussianNB())),
        ("again", on_column(["a"], make_pipeline(StandardScaler(), LogisticRegression(C=0.1)))),
    ]


LABELINGS = {
    "strings": LABELS,
    "integers": np.array([10, 30, 20]),
    "encoded already": np.array([0, 1, 2]),
    "shifted": np.array([1, 2, 3]),
    "digits": np.array(["0", "1", "2"]),
    "objects": np.array(["one", "three", "two"], dtype=object),
}


@pytest.mark.parametrize("labels", LABELINGS)
@pytest.mark.parametrize("kind", ["voting", "stacking"])
def test_labels(tmp_path: Path, kind: str, labels: str) -> None:
    X, y = rows()
    y = LABELINGS[labels][np.unique(y, return_inverse=True)[1]]
    model: Any = VotingClassifier(members(), voting="soft") if kind == "voting" else StackingClassifier(members(), cv=2)
    assert_exports(model.fit(X, y), tmp_path)


@pytest.mark.parametrize("labels", [[False, True], [0, 1], [1, 2], [-1, 1], ["0", "1"], ["no", "yes"]], ids=str)
@pytest.mark.parametrize("kind", ["voting", "stacking", "composition"])
def test_binary_labels(tmp_path: Path, kind: str, labels: list[Any]) -> None:
    X, y = rows(n_classes=2)
    y = np.array(labels)[(y == "three").astype(int)]
    model: Any = {
        "voting": VotingClassifier(members(), voting="soft"),
        "stacking": StackingClassifier(members(), cv=2),
        "composition": MultimodalClassifier([("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]),
    }[kind]
    predictor = assert_exports(model.fit(X, y), tmp_path)
    assert predictor.predict(NEW).dtype.kind == y.dtype.kind


@pytest.mark.parametrize("weights", [None, [1, 2, 3], [0.5, 0, 0.25]], ids=str)
def test_voting(tmp_path: Path, weights: Any) -> None:
    X, y = rows()
    assert_exports(VotingClassifier(members(), voting="soft", weights=weights).fit(X, y), tmp_path)


@pytest.mark.parametrize("dropped", ["a", "b", "again"])
def test_voting_without_a_member(tmp_path: Path, dropped: str) -> None:
    X, y = rows()
    model = VotingClassifier(members(), voting="soft", weights=[1, 5, 2]).set_params(**{dropped: "drop"})
    assert_exports(model.fit(X, y), tmp_path)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("final", [None, GaussianNB()], ids=["default", "GaussianNB"])
def test_stacking(tmp_path: Path, n_classes: int, final: Any) -> None:
    X, y = rows(n_classes=n_classes)
    assert_exports(StackingClassifier(members(), final, cv=2).fit(X, y), tmp_path)
    dropped = StackingClassifier(members(), final, cv=2).set_params(b="drop")
    assert_exports(dropped.fit(X, y), tmp_path)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_stacking_on_prefit_members(tmp_path: Path, n_classes: int) -> None:
    X, y = rows(n_classes=n_classes)
    prefit = [(name, member.fit(X[:24], y[:24])) for name, member in members()]
    assert_exports(StackingClassifier(prefit, cv="prefit").fit(X[24:], y[24:]), tmp_path)


def test_frozen_members(tmp_path: Path) -> None:
    X, y = rows()
    frozen = [(name, FrozenEstimator(member.fit(X[:24], y[:24]))) for name, member in members()]
    assert_exports(VotingClassifier(frozen, voting="soft").fit(X[24:], y[24:]), tmp_path)
    assert_exports(StackingClassifier(frozen, cv=2).fit(X[24:], y[24:]), tmp_path)
    composition = MultimodalClassifier([("a", FrozenEstimator(LogisticRegression().fit(X[["a"]], y)), ["a"])])
    assert_exports(composition.fit(X, y), tmp_path)


def test_a_finished_search(tmp_path: Path) -> None:
    X, y = rows()
    model = MultimodalClassifier([("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])])
    search = GridSearchCV(model, {"fusion": [SoftVoting(), Stacking(cv=2)]}, cv=2).fit(X, y)
    predictor = assert_exports(search, tmp_path)
    assert "GridSearchCV" in predictor.manifest.provenance["estimator"]
    inner = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    assert_exports(on_column(["a", "b"], inner).fit(X, y), tmp_path)


def test_an_ensemble_of_ensembles(tmp_path: Path) -> None:
    X, y = rows()
    inner = StackingClassifier(members(), cv=2)
    model = VotingClassifier([("inner", inner), ("count", on_column(["count"], LogisticRegression()))], voting="soft")
    predictor = assert_exports(model.fit(X, y), tmp_path)
    assert [feed.name for feed in predictor.manifest.feeds] == ["inner.a", "inner.b", "count"]


def test_members_on_the_same_columns_share_an_input(tmp_path: Path) -> None:
    X, y = rows()
    predictor = assert_exports(VotingClassifier(members(), voting="soft").fit(X, y), tmp_path)
    feeds = predictor.manifest.feeds
    assert [(feed.name, feed.columns) for feed in feeds] == [("a", ("a",)), ("b", ("b", "count"))]
    assert predictor.manifest.columns == ["a", "b", "count"]


def test_on_column_alone_names_its_input_by_the_column(tmp_path: Path) -> None:
    X, y = rows()
    predictor = assert_exports(on_column(["a", "b"], LogisticRegression()).fit(X, y), tmp_path)
    assert [feed.name for feed in predictor.manifest.feeds] == ["a_b"]
