from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from mmensemble import ColumnSelector, on_column
from mmensemble.exceptions import DataError
from mmensemble.learning.columns import column_kinds, present_rows, select_columns

COLUMNS = {
    "name": ["red apple", "fast car", "green apple", "slow car"] * 3,
    "weight": [0.1, 900.0, 0.2, 700.0] * 3,
    "sold": [True, False, False, True] * 3,
    "count": [1, 2, 3, 4] * 3,
}
Y = np.array(["fruit", "vehicle"] * 6)
FRAMES = {
    "pandas": pd.DataFrame(COLUMNS),
    "pandas, another index": pd.DataFrame(COLUMNS, index=np.arange(12)[::-1] * 3),
    "polars": pl.DataFrame(COLUMNS),
}


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest) -> Any:
    return FRAMES[request.param]


def text_classifier() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def test_on_column_with_a_string_gives_a_series(frame: Any) -> None:
    model = on_column("name", text_classifier()).fit(frame, Y)
    expected = text_classifier().fit(COLUMNS["name"], Y).predict_proba(COLUMNS["name"])
    np.testing.assert_array_equal(model.predict_proba(frame), expected)
    assert model.predict(frame).tolist() == Y.tolist()


def test_on_column_with_a_list_gives_a_frame(frame: Any) -> None:
    matrix = np.column_stack([COLUMNS["count"], COLUMNS["weight"]])
    model = on_column(["count", "weight"], LogisticRegression()).fit(frame, Y)
    np.testing.assert_allclose(model.predict_proba(frame), LogisticRegression().fit(matrix, Y).predict_proba(matrix))
    assert model[-1].n_features_in_ == 2
    assert model[-1].feature_names_in_.tolist() == ["count", "weight"]


def test_column_selector(frame: Any) -> None:
    selector = ColumnSelector(["weight", "name", "sold", "count"]).fit(frame)
    assert selector.kinds_ == {"weight": "float", "name": "string", "sold": "float", "count": "float"}
    assert selector.n_features_in_ == 4
    assert selector.feature_names_in_.tolist() == ["name", "weight", "sold", "count"]
    assert selector.get_feature_names_out().tolist() == ["weight", "name", "sold", "count"]
    chosen = selector.transform(frame)
    assert type(chosen) is type(frame)
    assert list(chosen.columns) == ["weight", "name", "sold", "count"]
    series = ColumnSelector("name").fit_transform(frame)
    assert series.ndim == 1 if hasattr(series, "ndim") else series.shape == (12,)
    assert list(series) == COLUMNS["name"]
    assert ColumnSelector("name").fit(frame).get_feature_names_out().tolist() == ["name"]


def test_column_selector_is_fitted_before_use(frame: Any) -> None:
    with pytest.raises(NotFittedError):
        ColumnSelector("name").transform(frame)


@pytest.mark.parametrize("columns", ["price", ["weight", "price"]])
def test_a_column_that_is_not_there(frame: Any, columns: Any) -> None:
    message = r"column 'price': there is no such column; the columns are \['name', 'weight', 'sold', 'count'\]"
    with pytest.raises(DataError, match=message):
        on_column(columns, LogisticRegression()).fit(frame, Y)


def test_a_column_that_is_not_there_any_more(frame: Any) -> None:
    model = on_column("name", text_classifier()).fit(frame, Y)
    with pytest.raises(DataError, match="column 'name'"):
        model.predict(frame[["weight"]])


@pytest.mark.parametrize("X", [np.zeros((4, 2)), ["a", "b"], pd.Series(["a", "b"])], ids=["array", "list", "series"])
def test_what_is_no_frame(X: Any) -> None:
    with pytest.raises(DataError, match=r"a DataFrame \(pandas or polars\) with the column\(s\) \['name'\]"):
        ColumnSelector("name").fit(X)


def test_parameters_clone_and_search() -> None:
    model = on_column("name", text_classifier())
    assert model.get_params()["columns__columns"] == "name"
    assert clone(model).set_params(columns__columns="title").get_params()["columns__columns"] == "title"
    frame = FRAMES["pandas, another index"].assign(title=COLUMNS["name"][1:] + COLUMNS["name"][:1])
    search = GridSearchCV(model, {"columns__columns": ["name", "title"]}, cv=2).fit(frame, Y)
    assert search.best_score_ == 1.0


def test_in_an_ensemble_of_scikit_learn(frame: Any) -> None:
    voting = VotingClassifier(
        [("text", on_column("name", text_classifier())), ("facts", on_column(["weight"], LogisticRegression()))],
        voting="soft",
    )
    assert cross_val_score(voting, frame, Y, cv=2).tolist() == [1.0, 1.0]


def test_column_kinds_and_selection(frame: Any) -> None:
    assert column_kinds(frame, "name") == {"name": "string"}
    assert column_kinds(frame, ["sold", "name"]) == {"sold": "float", "name": "string"}
    assert list(select_columns(frame, "count")) == COLUMNS["count"]


def test_present_rows() -> None:
    columns = {"name": ["a", None, None, "b"], "weight": [1.0, 2.0, None, None]}
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        assert present_rows(frame, "name").tolist() == [True, False, False, True]
        assert present_rows(frame, ["weight"]).tolist() == [True, True, False, False]
        assert present_rows(frame, ["name", "weight"]).tolist() == [True, True, False, True]
