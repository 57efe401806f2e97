"""Stacking with columns passed through, of numbers, of several labels, and with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import (
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from mmensemble import MultimodalClassifier, MultimodalRegressor, Stacking, on_column
from mmensemble.exceptions import ConfigurationError, DataError
from tests.mmensemble.fusion.test_stacking import filled_outputs

N = 60
MEMBERS = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]
REGRESSORS = [
    ("a", LinearRegression(), ["a"]),
    ("b", DecisionTreeRegressor(max_depth=2, random_state=0), ["b"]),
]


def rows(n_classes: int = 3, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(N) % n_classes)
    frame = pd.DataFrame({"a": rng.normal(size=N) + y, "b": rng.normal(size=N) - (y == 1)})
    # What float32 holds, as the columns that are passed through are float32 in both the library and its graphs.
    return frame.astype(np.float32).astype(float), np.array(["one", "three", "two"])[y]


def numbers(X: pd.DataFrame, seed: int = 5) -> np.ndarray:
    return 100 + 7 * X["a"].to_numpy() + np.random.default_rng(seed).normal(size=len(X))


def with_gaps(X: pd.DataFrame, seed: int = 2) -> pd.DataFrame:
    return X.where(np.random.default_rng(seed).random(X.shape) > 0.3)


def on_columns(members: list[Any]) -> list[Any]:
    return [(name, on_column(columns, estimator)) for name, estimator, columns in members]


# As in scikit-learn


@pytest.mark.parametrize("n_classes", [2, 3])
def test_passthrough_is_as_in_scikit_learn(n_classes: int) -> None:
    X, y = rows(n_classes)
    final = make_pipeline(StandardScaler(), LogisticRegression())
    ours = MultimodalClassifier(MEMBERS, fusion=Stacking(final, cv=3, passthrough=True)).fit(X, y)
    theirs = StackingClassifier(on_columns(MEMBERS), final, cv=3, passthrough=True).fit(X, y)
    new, _ = rows(n_classes, seed=1)
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), rtol=0, atol=1e-12)
    assert ours.fusion_.passthrough_ == ["a", "b"]
    without = MultimodalClassifier(MEMBERS, fusion=Stacking(final, cv=3)).fit(X, y)
    assert not np.allclose(ours.predict_proba(new), without.predict_proba(new))


@pytest.mark.parametrize("passthrough", [False, True])
@pytest.mark.parametrize("final", [RidgeCV(), Ridge(0.1)], ids=["chosen", "ridge"])
@pytest.mark.parametrize("cv", [5, KFold(3, shuffle=True, random_state=0)], ids=["5", "shuffled"])
def test_regressors_are_as_in_scikit_learn(cv: Any, final: Any, passthrough: bool) -> None:
    X, _ = rows()
    y = numbers(X)
    ours = MultimodalRegressor(REGRESSORS, fusion=Stacking(final, cv=cv, passthrough=passthrough)).fit(X, y)
    theirs = StackingRegressor(on_columns(REGRESSORS), final, cv=cv, passthrough=passthrough).fit(X, y)
    new, _ = rows(seed=1)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-12)
    if not passthrough:
        np.testing.assert_array_equal(ours.transform(new), theirs.transform(new))


# Columns that are passed through


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_chosen_columns_with_gaps(kind: Any) -> None:
    """Against the formula: what is expected of a member where it is missing, the column's mean where a number is."""
    X, y = rows()
    X = with_gaps(X.assign(extra=np.arange(N) % 7.0, other=0.0, name="n"))
    frame = X if kind is pd.DataFrame else pl.from_pandas(X)
    fusion = Stacking(LogisticRegression(), cv=3, passthrough=["extra", "a"])
    model = MultimodalClassifier(MEMBERS, fusion=fusion).fit(frame, y)
    train, test = filled_outputs(X, y, X, cv=3)
    passed = X[["extra", "a"]].fillna(X[["extra", "a"]].mean()).to_numpy()
    some = X[["a", "b"]].notna().any(axis=1).to_numpy()
    final = LogisticRegression().fit(np.hstack([*train, passed])[some], y[some])
    expected = final.predict_proba(np.hstack([*test, passed]))
    expected[~some] = [(y == label).mean() for label in final.classes_]
    # The means are rounded to no float32 here, the columns are.
    np.testing.assert_allclose(model.predict_proba(frame), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.fusion_.passthrough_means_, X[["extra", "a"]].mean(), rtol=1e-6)


def test_a_column_of_numbers_that_are_all_missing() -> None:
    X, y = rows()
    frame = X.assign(extra=np.nan)
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(cv=3, passthrough=["extra"])).fit(frame, y)
    np.testing.assert_array_equal(model.fusion_.passthrough_means_, [0])
    assert np.isfinite(model.predict_proba(frame)).all()


def test_only_numeric_columns_of_members_are_passed_through() -> None:
    X, y = rows()
    frame = X.assign(word=np.where(X["a"] > 0, "up", "down"), flag=X["b"] > 0, unused=1.0)
    members = [
        ("flag", LogisticRegression(), ["flag", "a"]),
        ("word", _Words(), ["word", "a"]),
    ]
    model = MultimodalClassifier(members, fusion=Stacking(LogisticRegression(), cv=3, passthrough=True)).fit(frame, y)
    assert model.fusion_.passthrough_ == ["flag", "a"]
    assert model.fusion_.final_estimator_.n_features_in_ == 2 * 3 + 2


class _Words(GaussianNB):
    def fit(self, X: Any, y: Any) -> _Words:
        return super().fit(X[["a"]], y)

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(X[["a"]])


@pytest.mark.parametrize(
    ("passthrough", "error", "message"),
    [
        (["word"], ConfigurationError, r"passthrough takes numeric columns, and \['word'\] hold something else"),
        (["a", "nowhere"], DataError, "column 'nowhere': there is no such column"),
        ("a", ConfigurationError, "passthrough must be a bool or a list of columns, not 'a'"),
        (None, ConfigurationError, "passthrough must be a bool or a list of columns, not None"),
        ([0], ConfigurationError, "passthrough must be a bool or a list of columns"),
        (3, ConfigurationError, "passthrough must be a bool or a list of columns, not 3"),
    ],
)
def test_passthrough_that_cannot_be(passthrough: Any, error: type, message: str) -> None:
    X, y = rows()
    frame = X.assign(word="same")
    with pytest.raises(error, match=message):
        MultimodalClassifier(MEMBERS, fusion=Stacking(cv=3, passthrough=passthrough)).fit(frame, y)


def test_no_numeric_column_to_pass_through() -> None:
    X, y = rows()
    frame = pd.DataFrame({"word": np.where(X["a"] > 0, "up", "down")})
    with pytest.raises(ConfigurationError, match=r"passthrough=True finds no numeric column among .*\['word'\]"):
        MultimodalClassifier([("w", _Length(), ["word"])], fusion=Stacking(cv=3, passthrough=True)).fit(frame, y)


class _Length(GaussianNB):
    def fit(self, X: Any, y: Any) -> _Length:
        return super().fit(X["word"].str.len().to_frame(), y)

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(X["word"].str.len().to_frame())


def test_a_column_that_is_gone_and_a_cell_that_is_no_number() -> None:
    X, y = rows()
    frame = X.assign(extra=1.0)
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(cv=3, passthrough=["extra"])).fit(frame, y)
    with pytest.raises(DataError, match="column 'extra': there is no such column"):
        model.predict(X)
    strange = frame.astype({"extra": object})
    strange.loc[7, "extra"] = "much"
    with pytest.raises(DataError, match="row 7: column 'extra': 'much' is not a number"):
        model.predict(strange)


# Weights


def test_sample_weight_reaches_a_pipeline() -> None:
    X, y = rows()
    weight = np.linspace(0.1, 3, N)
    final = make_pipeline(StandardScaler(), LogisticRegression())
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(final, cv=3)).fit(X, y, weight)
    folds = list(_folds(y))
    features = np.zeros((N, 6))
    for m, (_, estimator, columns) in enumerate(MEMBERS):
        for fitting, held in folds:
            fitted = estimator.fit(X[columns].iloc[fitting], y[fitting], weight[fitting])
            features[held, 3 * m : 3 * m + 3] = fitted.predict_proba(X[columns].iloc[held])
    expected = final.fit(features, y, logisticregression__sample_weight=weight)
    np.testing.assert_allclose(model.fusion_.final_estimator_[-1].coef_, expected[-1].coef_, rtol=1e-6)


def _folds(y: np.ndarray) -> Any:
    return StratifiedKFold(3).split(np.zeros(len(y)), y)


def test_what_stands_for_a_missing_member_is_weighted() -> None:
    X, y = rows()
    weight = np.random.default_rng(0).integers(1, 4, N)
    fold = np.arange(N) % 3
    extra = X.assign(extra=np.where(np.arange(N) % 5, np.arange(N) / N, np.nan))
    fusion = Stacking(cv=PredefinedSplit(fold), passthrough=["extra"])
    weighted = MultimodalClassifier(MEMBERS[1:], fusion=fusion).fit(extra, y, weight.astype(float))
    again = Stacking(cv=PredefinedSplit(np.repeat(fold, weight)), passthrough=["extra"])
    order = np.repeat(np.arange(N), weight)
    repeated = MultimodalClassifier(MEMBERS[1:], fusion=again).fit(extra.iloc[order], y[order])
    ours, others = weighted.fusion_.peer_regression_, repeated.fusion_.peer_regression_
    np.testing.assert_allclose(ours.intercept_, others.intercept_, rtol=1e-6)
    np.testing.assert_allclose(weighted.fusion_.passthrough_means_, repeated.fusion_.passthrough_means_, rtol=1e-9)


MULTILABEL = "multilabel"
COLUMNS = "columns"


def labels_of(kind: str, y: np.ndarray) -> np.ndarray:
    if kind == MULTILABEL:
        return np.column_stack([y == "one", y != "two"]).astype(int)
    return np.column_stack([y, np.where(y == "one", "first", "later")])


def test_meta_learner_that_knows_fewer_classes() -> None:
    """Rows of one class have no modality at all, so that the meta-learner never sees it."""
    X, y = rows()
    X[y == "two"] = np.nan
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(cv=3)).fit(X, y)
    assert model.fusion_.final_estimator_.classes_.tolist() == [0, 1]
    assert model.fusion_.final_labels_[0].tolist() == ["one", "three"]
    probabilities = model.predict_proba(X)
    missing = y == "two"
    assert (probabilities[~missing, 2] == 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(probabilities[missing], [model.fusion_.prior_] * missing.sum())


def test_composition_as_meta_learner_of_labels() -> None:
    X, y = rows()
    final = OneVsRestClassifier(GaussianNB())
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(final, cv=3)).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


# What cannot work


def test_meta_learner_without_weights() -> None:
    X, y = rows()
    with pytest.raises(ConfigurationError, match="KNeighborsClassifier takes no sample_weight") as caught:
        MultimodalClassifier(MEMBERS, fusion=Stacking(KNeighborsClassifier(), cv=3)).fit(X, y, np.ones(N))
    assert caught.value.__notes__ == ["This was the final_estimator of Stacking."]


def test_meta_learner_of_another_kind() -> None:
    X, y = rows()
    with pytest.raises(ConfigurationError, match=r"final_estimator \(Ridge\) has no predict_proba, which Stacking"):
        MultimodalClassifier(MEMBERS, fusion=Stacking(Ridge(), cv=3)).fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type: continuous") as caught:
        MultimodalRegressor(REGRESSORS, fusion=Stacking(LogisticRegression(), cv=3)).fit(X, numbers(X))
    assert "final_estimator" in caught.value.__notes__[0]


@pytest.mark.parametrize("cv", [ShuffleSplit(3, random_state=0), RepeatedKFold(n_splits=3, n_repeats=2)])
def test_folds_that_are_no_partition(cv: Any) -> None:
    X, y = rows()
    with pytest.raises(ConfigurationError, match=f"cv must leave each row out once.*{type(cv).__name__}"):
        MultimodalClassifier(MEMBERS, fusion=Stacking(cv=cv)).fit(X, y)


@pytest.mark.parametrize("cv", [1, 0, np.int64(1)])
def test_too_few_folds(cv: Any) -> None:
    X, _ = rows()
    with pytest.raises(ConfigurationError, match=f"cv must be at least 2, not {cv}"):
        MultimodalRegressor(REGRESSORS, fusion=Stacking(cv=cv)).fit(X, numbers(X))
