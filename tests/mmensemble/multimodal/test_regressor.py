from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from mmensemble import (
    EnsembleSelection,
    HardVoting,
    LogOpinionPool,
    MultimodalClassifier,
    MultimodalRegressor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
)
from mmensemble.exceptions import ConfigurationError, DataError

N = 40
FACTS = ["weight", "price"]
STRATEGIES = [
    SoftVoting(),
    HardVoting(),
    ProductOfExperts(cv=3),
    LogOpinionPool(cv=3),
    EnsembleSelection(n_rounds=4, cv=3),
    Stacking(cv=3),
    SuperLearner(cv=3),
]
every_strategy = pytest.mark.parametrize("fusion", STRATEGIES, ids=lambda fusion: type(fusion).__name__)


def text() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), Ridge())


def composition(**parameters: Any) -> MultimodalRegressor:
    return MultimodalRegressor([("text", text(), "name"), ("facts", LinearRegression(), FACTS)], **parameters)


@pytest.fixture
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = rng.choice(["red", "green", "blue"], size=(N, 2))
    frame = pd.DataFrame({"name": [" ".join(pair) for pair in words], "weight": rng.normal(size=N)})
    return frame.assign(price=rng.normal(size=N))


@pytest.fixture
def y(X: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=N)
    return 500 + 30 * X["weight"].to_numpy() + 40 * X["name"].str.count("red").to_numpy() + noise


@every_strategy
def test_fit_predict(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion)
    assert is_regressor(model)
    assert model.fit(X, y) is model
    predicted = model.predict(X)
    assert predicted.shape == (N,)
    assert predicted.dtype == np.float64
    assert model.score(X, y) == r2_score(y, predicted) > 0.2
    assert not hasattr(model, "predict_proba")
    assert not hasattr(model, "classes_")
    assert list(model.named_estimators_) == ["text", "facts"]
    assert not hasattr(model.estimators[1][1], "coef_"), "the member that was given is not fitted"
    names = ["multimodalregressor_text_prediction", "multimodalregressor_facts_prediction"]
    assert model.get_feature_names_out().tolist() == names
    framed = model.set_output(transform="pandas").transform(X)
    assert framed.columns.tolist() == names
    np.testing.assert_array_equal(
        framed["multimodalregressor_text_prediction"], model.estimators_[0].predict(X["name"])
    )


def test_the_default_averages(X: Any, y: Any) -> None:
    model = composition().fit(X, y)
    expected = (model.estimators_[0].predict(X["name"]) + model.estimators_[1].predict(X[FACTS])) / 2
    np.testing.assert_allclose(model.predict(X), expected)


@every_strategy
def test_two_targets(X: Any, y: Any, fusion: Any) -> None:
    table = np.column_stack([y, 1e-3 * X["price"]])
    model = composition(fusion=fusion).fit(X, table)
    assert model.predict(X).shape == (N, 2)
    assert model.score(X, table) == pytest.approx(r2_score(table, model.predict(X)))
    assert model.get_feature_names_out()[-1] == "multimodalregressor_facts_prediction_1"
    alone = composition(fusion=fusion).fit(X, y).predict(X)
    if not isinstance(fusion, (Stacking, EnsembleSelection, SuperLearner)):  # these learn from both targets together
        np.testing.assert_allclose(model.predict(X)[:, 0], alone)


@every_strategy
def test_containers_of_numbers(X: Any, y: Any, fusion: Any) -> None:
    expected = composition(fusion=fusion).fit(X, y).predict(X)
    for given in (y.tolist(), pd.Series(y, index=np.arange(N)[::-1]), pl.Series(y)):
        np.testing.assert_array_equal(composition(fusion=fusion).fit(X, given).predict(X), expected)
    theirs = pl.from_pandas(X)
    np.testing.assert_allclose(composition(fusion=fusion).fit(theirs, y).predict(theirs), expected, rtol=1e-10)
    column = composition(fusion=fusion).fit(X, pd.DataFrame({"y": y})).predict(X)
    assert column.shape == (N, 1)
    np.testing.assert_allclose(column[:, 0], expected, rtol=1e-10)


@every_strategy
def test_missing_modalities(X: Any, y: Any, fusion: Any, tmp_path: Any) -> None:
    gaps = X.copy()
    gaps.loc[:9, "name"] = None
    gaps.loc[5:14, FACTS] = np.nan
    weight = np.linspace(0.5, 2, N)
    model = composition(fusion=fusion).fit(gaps, y, sample_weight=weight)
    text_alone = text().fit(gaps["name"][10:], y[10:], ridge__sample_weight=weight[10:])
    np.testing.assert_allclose(model.estimators_[0].predict(X["name"]), text_alone.predict(X["name"]))
    predicted = model.predict(gaps)
    np.testing.assert_allclose(predicted[5:10], [np.average(y, weights=weight)] * 5)
    if isinstance(fusion, (SoftVoting, HardVoting, ProductOfExperts)):
        np.testing.assert_allclose(predicted[10:15], text_alone.predict(X["name"][10:15]))
    joblib.dump(model, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict(gaps), predicted)
    assert model.predict(gaps[:0]).shape == (0,)


def test_search(X: Any, y: Any) -> None:
    grid = [{"fusion": STRATEGIES}, {"fusion": [EnsembleSelection(cv=3)], "fusion__n_rounds": np.arange(1, 3)}]
    search = GridSearchCV(composition(), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 9
    assert search.score(X, y) == search.best_estimator_.score(X, y) > 0.5
    assert cross_val_score(composition(), X, y, cv=3).shape == (3,)


def test_outputs_are_named_as_the_columns_of_y(X: Any, y: Any) -> None:
    model = composition().fit(X, pd.DataFrame({"price": y, "weight": -y}))
    assert [name.split("_", 2)[2] for name in model.get_feature_names_out()] == [
        "prediction_price",
        "prediction_weight",
    ] * 2


def test_classifiers_and_regressors_are_not_mixed(X: Any, y: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"member 'facts' \(LogisticRegression\) must be a regressor"):
        composition().set_params(facts=LogisticRegression()).fit(X, y)
    with pytest.raises(ConfigurationError, match=r"'text' \(Pipeline\) has no predict_proba.*; it is a regressor"):
        MultimodalClassifier(composition().estimators).fit(X, y > 500)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.full(N, np.nan), "contains NaN"),
        (np.full(N, np.inf), "contains infinity"),
        (["a"] * N, "could not convert string to float"),
        (np.zeros((N, 2, 2)), "dim 3"),
        (np.zeros(N - 1), "inconsistent numbers of samples"),
    ],
)
def test_y_that_cannot_be(X: Any, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composition().fit(X, wrong)


def test_what_else_cannot_be(X: Any, y: Any) -> None:
    with pytest.raises(DataError, match="requires y"):
        composition().fit(X, None)
    with pytest.raises(DataError, match="0 rows were given to fit"):
        composition().fit(X[:0], y[:0])
    with pytest.raises(DataError, match="every row misses member 'text'"):
        composition().fit(X.assign(name=None), y)
    with pytest.raises(NotFittedError):
        composition().predict(X)
    with pytest.raises(DataError, match="column 'price': member 'facts' wants a column"):
        composition().fit(X[["name", "weight"]], y)


def test_parameters(X: Any, y: Any) -> None:
    model = clone(composition(fusion=SoftVoting([1, 2])))
    assert model.get_params()["fusion__weights"] == [1, 2]
    model.set_params(text__ridge__alpha=3.0, facts="drop").fit(X, y)
    expected = make_pipeline(TfidfVectorizer(), Ridge(3.0)).fit(X["name"], y)
    np.testing.assert_array_equal(model.predict(X), expected.predict(X["name"]))


def test_constant_target(X: Any) -> None:
    for fusion in STRATEGIES:
        model = composition(fusion=fusion).fit(X, np.full(N, 7.0))
        np.testing.assert_allclose(model.predict(X), 7)
