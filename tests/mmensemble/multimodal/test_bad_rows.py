"""A bad row is told by its number in what the caller gave, and by the member that does not take it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mmensemble import (
    LinearFusion,
    MultimodalClassifier,
    MultimodalRegressor,
    SoftVoting,
    Stacking,
    SuperLearner,
    member_disagreement,
)
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import naming_rows

N = 60
LABELS = np.array(["a", "b"])[np.arange(N) % 2]
RNG = np.random.default_rng(0)
X = pd.DataFrame(
    {
        "text": [f"{'red' if label == 'a' else 'blue'} {i % 7}" for i, label in enumerate(LABELS)],
        "weight": RNG.normal(size=N) + (LABELS == "a"),
        "price": RNG.normal(size=N),
    }
)
BAD = 47


def composition(fusion: Any = None, facts: Any = None) -> MultimodalClassifier:
    return MultimodalClassifier(
        [
            ("text", make_pipeline(TfidfVectorizer(), LogisticRegression()), "text"),
            ("facts", GaussianNB() if facts is None else facts, ["weight", "price"]),
        ],
        fusion=SoftVoting() if fusion is None else fusion,
    )


def with_cell(column: str, cell: Any) -> pd.DataFrame:
    frame = X.astype({column: object}) if not isinstance(cell, float) else X.copy()
    frame.loc[BAD, column] = cell
    return frame


class RefusesInFolds(GaussianNB):
    """Takes any row where it is fitted on all of them."""

    def fit(self, X: pd.DataFrame, y: Any, sample_weight: Any = None) -> RefusesInFolds:
        rows = X["weight"].to_numpy()
        if (rows > 1000).any() and len(rows) < N - 2:
            raise DataError("too heavy", row=int(rows.argmax()), column="weight")
        return super().fit(X, y)


class Weighs(StandardScaler):
    """Features that want to see `y`, and so are fitted on each fold by `LinearFusion`."""

    def fit(self, X: pd.DataFrame, y: Any) -> Weighs:
        return super().fit(RefusesInFolds().fit(X, y) and X)

    def fit_transform(self, X: pd.DataFrame, y: Any) -> Any:
        return self.fit(X, y).transform(X)


@pytest.mark.parametrize("to_frame", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("fusion", "facts"),
    [
        (Stacking(cv=3), RefusesInFolds()),
        (SuperLearner([SoftVoting()], cv=3), RefusesInFolds()),
        (LinearFusion(cv=3), make_pipeline(Weighs(), GaussianNB())),
        (SuperLearner([LinearFusion(cv=3)], cv=3), make_pipeline(Weighs(), GaussianNB())),
    ],
    ids=["Stacking", "SuperLearner", "LinearFusion", "a candidate with members of its own"],
)
def test_a_bad_row_of_a_fold_has_its_number_in_the_whole(fusion: Any, facts: Any, to_frame: Any) -> None:
    heavy = with_cell("weight", 1e6)
    heavy.loc[3, ["weight", "price"]] = np.nan  # a row that the member does not see
    model = composition(fusion, facts)
    with pytest.raises(DataError, match="too heavy") as caught:
        model.fit(to_frame(heavy), LABELS)
    assert (caught.value.row, caught.value.column) == (BAD, "weight")


@pytest.mark.parametrize(
    "fusion", [SoftVoting(), Stacking(cv=3), SuperLearner([Stacking()], cv=3)], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize("to_frame", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
@pytest.mark.parametrize(
    ("facts", "column", "cell", "message"),
    [
        (LogisticRegression(), "price", float("nan"), r"LogisticRegression\) takes no NaN; put a SimpleImputer before"),
        (KNeighborsClassifier(), "weight", float("inf"), r"KNeighborsClassifier\) takes no infinite number; replace"),
        (make_pipeline(SimpleImputer(), LogisticRegression()), "price", float("-inf"), r"Log.*\) takes no infinite n"),
    ],
)
def test_a_cell_that_scikit_learn_refuses_is_found(
    fusion: Any, facts: Any, column: str, cell: float, message: str, to_frame: Any
) -> None:
    model, bad = composition(fusion, facts), with_cell(column, cell)
    bad.loc[3, "text"] = None
    fitted = composition(fusion, facts).fit(X, LABELS)
    for call in (lambda: model.fit(to_frame(bad), LABELS), lambda: fitted.predict(to_frame(bad))):
        with pytest.raises(DataError, match=rf"row {BAD}, column '{column}': member 'facts' \({message}"):
            call()


def test_texts_where_there_should_be_numbers_and_the_other_way_round() -> None:
    with pytest.raises(
        DataError, match=r"row 47, column 'price': member 'facts' \(Log.*\) takes numbers, not 'dear'; m"
    ):
        composition(facts=LogisticRegression()).fit(with_cell("price", "dear"), LABELS)
    with pytest.raises(DataError, match=r"row 47, column 'text': member 'text' \(Log.*\) takes texts, not 5$"):
        composition().fit(with_cell("text", 5), LABELS)


def facts_of(*columns: str) -> Pipeline:
    others = [column for column in ("kind", "size", "price") if column not in columns]
    encoders = make_column_transformer((OneHotEncoder(), list(columns)), (StandardScaler(), others))
    return make_pipeline(encoders, LogisticRegression())


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("price", "12 EUR", "takes numbers, not '12 EUR'"),
        ("size", "4x", "takes numbers, not '4x'"),
        ("kind", "purple", "does not know the category 'purple'"),
    ],
)
def test_the_cell_that_an_error_quotes(column: str, cell: str, message: str) -> None:
    """Others are no numbers either, or are not known, and are meant so."""
    X = pd.DataFrame({"kind": ["red", "blue"] * 30, "size": [3, 4] * 30, "price": [1.0, 2.5] * 30})
    model = MultimodalClassifier([("facts", facts_of("kind"), list(X))]).fit(X, [0, 1] * 30)
    bad = X.astype({column: object})
    bad.loc[7, column] = cell
    with pytest.raises(DataError, match=rf"row 7, column '{column}': member 'facts' \(Log.*\) {message}"):
        model.predict(bad)


def test_a_number_that_is_no_known_category() -> None:
    X = pd.DataFrame({"kind": ["red", "blue"] * 30, "size": [3, 4] * 30, "price": [1.0, 2.5] * 30})
    model = MultimodalClassifier([("facts", facts_of("kind", "size"), list(X))]).fit(X, [0, 1] * 30)
    X.loc[9, "size"] = 5
    with pytest.raises(DataError, match=r"row 9, column 'size': member 'facts' .* does not know the category 5"):
        model.predict(X)


def test_the_name_of_a_column_for_y() -> None:
    X = pd.DataFrame({"a": [0.0, 1.0] * 3, "kind": ["x", "y"] * 3})
    with pytest.raises(DataError, match=r"not the name 'kind'; give X\['kind'\] as y"):
        MultimodalClassifier([("a", LogisticRegression(), ["a"])]).fit(X, "kind")


def test_several_missing_cells_are_counted() -> None:
    gaps = with_cell("price", float("nan"))
    gaps.loc[[50, 51], "weight"] = np.nan
    with pytest.raises(DataError, match=r"row 47, column 'price': .* takes no NaN, and this is the first of 3 missing"):
        composition(facts=LogisticRegression()).fit(gaps, LABELS)


def test_a_member_of_a_member() -> None:
    bad = with_cell("price", float("nan"))
    bad.loc[3, ["weight", "price"]] = np.nan
    inner = MultimodalClassifier([("deep", LogisticRegression(), ["weight", "price"])])
    with pytest.raises(DataError, match=r"row 47, column 'price': member 'deep' .*takes no NaN"):
        composition(Stacking(cv=3), inner).fit(bad, LABELS)


def test_a_regression() -> None:
    model = MultimodalRegressor([("facts", LinearRegression(), ["weight", "price"])])
    with pytest.raises(DataError, match=r"row 47, column 'price': member 'facts' \(LinearRegression\) takes no NaN"):
        model.fit(with_cell("price", float("nan")), np.arange(N))


def test_an_error_that_is_of_no_cell_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="n_neighbors") as caught:
        composition(facts=KNeighborsClassifier(500)).fit(X, LABELS).predict(X)
    assert not isinstance(caught.value, DataError)
    assert caught.value.__notes__ == ["This was member 'facts' (KNeighborsClassifier) of the composition."]


def test_members_that_are_asked_by_themselves() -> None:
    bad = X.copy()

    class Reads(KNeighborsClassifier):
        def predict(self, X: pd.DataFrame) -> Any:
            raise DataError("too heavy", row=int(np.flatnonzero(X["weight"] == bad["weight"][BAD])[0]))

    bad.loc[2, ["weight", "price"]] = np.nan
    with pytest.raises(DataError, match="row 47: too heavy"):
        member_disagreement(composition(facts=Reads()).fit(X, LABELS), bad, LABELS)


# A part of a frame


def test_a_part_of_a_frame_tells_what_the_index_calls_the_row() -> None:
    bad = with_cell("price", float("nan"))
    with pytest.raises(DataError, match=r"row 7, column 'price': member 'facts'.*\(row 7 is 47 of") as caught:
        composition(Stacking(cv=3), LogisticRegression()).fit(bad[40:], LABELS[40:])
    assert (caught.value.row, caught.value.label) == (7, 47)
    named = bad.set_axis([f"item {i}" for i in range(N)])
    with pytest.raises(DataError, match=r"row 47, column 'price'.*\(row 47 is 'item 47' of"):
        composition(facts=LogisticRegression()).fit(X, LABELS).predict(named)
    with pytest.raises(DataError, match=r"^row 47, column"):
        composition(facts=LogisticRegression()).fit(bad, LABELS)


def test_a_search_shows_the_row_of_the_whole() -> None:
    """scikit-learn tells of fits that fail in one warning, and goes on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = cross_val_score(
            composition(facts=LogisticRegression()), with_cell("price", float("nan")), LABELS, cv=3
        )
    assert np.isnan(scores).all()
    (warning,) = [w for w in caught if issubclass(w.category, FitFailedWarning)]
    said = str(warning.message)
    assert "column 'price': member 'facts' (LogisticRegression) takes no NaN" in said
    assert "is 47 of the index)" in said


def test_rows_without_an_index_have_no_label() -> None:
    for rows in (["a", "b"], np.array(["a", "b"]), pl.Series(["a", "b"])):
        with pytest.raises(DataError, match=r"^row 1: bad$"), naming_rows(rows):
            raise DataError("bad", row=1)


# Columns of one name


def test_columns_of_one_name_are_named() -> None:
    twice = pd.concat([X, X[["price"]], X[["text"]]], axis=1)
    message = "several columns of the frame have the same name: 'text', 'price'; rename or drop"
    with pytest.raises(DataError, match=message):
        composition().fit(twice, LABELS)
    with pytest.raises(DataError, match=message):
        composition().fit(X, LABELS).predict(twice)
    with pytest.raises(ConfigurationError, match=r"member 'facts' names a column twice: \['price', 'price'\]"):
        MultimodalClassifier([("facts", GaussianNB(), ["price", "price"])]).fit(X, LABELS)
