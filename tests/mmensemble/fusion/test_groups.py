"""Folds of a composition: by groups, by a column of X, by a splitter that sees X, by a list of row numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmensemble import (
    EnsembleSelection,
    MultimodalClassifier,
    MultimodalRegressor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
)
from mmensemble.datasets import load_openmoji
from mmensemble.exceptions import ConfigurationError, DataError

N_GROUPS, SIZE = 30, 4
N = N_GROUPS * SIZE
RNG = np.random.default_rng(0)
ORDER = RNG.permutation(N)
GROUPS = np.repeat([f"item {number}" for number in range(N_GROUPS)], SIZE)[ORDER]
Y = RNG.permutation(np.repeat(["no", "yes"], N_GROUPS // 2)).repeat(SIZE)[ORDER]
X = pd.DataFrame({"a": RNG.normal(size=N) + (Y == "yes"), "b": RNG.normal(size=N), "item": GROUPS})
GAPS = X.assign(a=X["a"].where(RNG.random(N) > 0.3), b=X["b"].where(RNG.random(N) > 0.3))
LINEAR = LogisticRegression()
FOLDS = [(fitting[::-1], held_out) for fitting, held_out in GroupKFold(5).split(X, Y, GROUPS)]


def composition(fusion: Any, member: Any = LINEAR) -> MultimodalClassifier:
    return MultimodalClassifier([("a", member, ["a"]), ("b", member, ["b"])], fusion=fusion)


class ByItem(GroupKFold):
    """Reads the groups out of X."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Any]:
        assert set(y) == {"no", "yes"}, "the labels, not their numbers"
        return super().split(X, y, X["item"])


SAME_FOLDS: dict[str, tuple[Any, Any]] = {
    "splitter and groups": (GroupKFold(5), GROUPS),
    "number and groups": (5, GROUPS),
    "no number and groups": (None, pd.Series(GROUPS)),
    "column": ("item", None),
    "splitter that reads a column": (ByItem(5), None),
    "row numbers": (FOLDS, None),
    "masks": ([tuple(np.isin(np.arange(N), part) for part in fold) for fold in FOLDS], None),
}


@pytest.fixture(params=SAME_FOLDS)
def cv_and_groups(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return SAME_FOLDS[request.param]


@pytest.mark.parametrize("frame", [X, GAPS], ids=["complete", "gaps"])
def test_ways_to_give_the_same_folds(frame: pd.DataFrame, cv_and_groups: tuple[Any, Any]) -> None:
    cv, groups = cv_and_groups
    for strategy in (Stacking, EnsembleSelection):
        wanted = composition(strategy(cv=GroupKFold(5))).fit(frame, Y, groups=GROUPS).predict_proba(frame)
        made = composition(strategy(cv=cv)).fit(frame, Y, groups=groups).predict_proba(frame)
        np.testing.assert_allclose(made, wanted, rtol=1e-12)


def test_no_member_is_fitted_on_relatives_of_the_rows_that_it_predicts(cv_and_groups: tuple[Any, Any]) -> None:
    cv, groups = cv_and_groups
    KnowsItsGroups.parted = 0
    members = [("items", KnowsItsGroups(), ["item"]), ("a", LINEAR, ["a"])]
    MultimodalClassifier(members, fusion=Stacking(cv=cv)).fit(X, Y, groups=groups)
    assert KnowsItsGroups.parted == 0
    with pytest.warns(UserWarning, match="column 'item'"):
        MultimodalClassifier(members, fusion=Stacking()).fit(X, Y)
    assert KnowsItsGroups.parted > 0


class KnowsItsGroups(ClassifierMixin, BaseEstimator):
    """Counts the rows whose group it was fitted on."""

    parted = 0

    def fit(self, X: Any, y: Any) -> KnowsItsGroups:
        self.classes_, self.items_ = np.unique(y), set(X["item"])
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        KnowsItsGroups.parted += X["item"].isin(self.items_).sum()
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_of_numbers() -> None:
    y = X["a"].to_numpy()
    for strategy in (Stacking, EnsembleSelection, ProductOfExperts):
        models = [
            MultimodalRegressor([("b", LinearRegression(), ["b"])], fusion=strategy(cv=cv)).fit(GAPS, y, groups=groups)
            for cv, groups in ((GroupKFold(5), GROUPS), ("item", None))
        ]
        np.testing.assert_allclose(*(model.predict(GAPS) for model in models))


def test_a_column_of_polars_and_of_few_groups() -> None:
    frame = pl.from_pandas(X.assign(half=np.where(np.arange(N) % 2, "odd", "even")))
    composition(Stacking(cv="half")).fit(frame, Y)  # 2 folds
    for column, message in (("nowhere", "no such column"), ("same", "all rows are of one group")):
        with pytest.raises(DataError, match=message) as caught:
            composition(Stacking(cv=column)).fit(X.assign(same=1), Y)
        assert caught.value.column == column
    with pytest.raises(DataError, match="row 3, column 'item': the group of the row is missing"):
        composition(Stacking(cv="item")).fit(X.assign(item=X["item"].where(np.arange(N) != 3)), Y)


def test_groups_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        composition(Stacking()).fit(X, Y, groups=GROUPS[:-1])
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        composition(Stacking(cv=GroupKFold(3))).fit(X, Y)
    with pytest.raises(ConfigurationError, match=r"cv must leave each row out once.*this list does not"):
        composition(Stacking(cv=FOLDS[1:])).fit(X, Y)


# Members that take groups themselves


def test_nested_compositions_and_searches_get_groups() -> None:
    inner = composition(Stacking(cv=GroupKFold(3)))
    search = GridSearchCV(LINEAR, {"C": [0.1, 1.0]}, cv=GroupKFold(3))
    scaled = make_pipeline(StandardScaler(), search)
    members = [("inner", inner, ["a", "b"]), ("search", search, ["a"]), ("scaled", scaled, ["b"])]
    model = MultimodalClassifier(members, fusion=Stacking(cv=GroupKFold(4))).fit(GAPS, Y, groups=GROUPS)
    some = GAPS[["a", "b"]].notna().any(axis=1)
    alone = composition(Stacking(cv=GroupKFold(3))).fit(GAPS[some], Y[some], groups=GROUPS[some])
    np.testing.assert_allclose(
        model.named_estimators_.inner.predict_proba(GAPS[some]), alone.predict_proba(GAPS[some]), rtol=1e-9
    )


# From outside


def test_a_column_of_groups_goes_through_searches() -> None:
    search = GridSearchCV(composition(Stacking()), {"fusion__cv": ["item", ByItem(3)]}, cv=ByItem(3)).fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_metadata_routing() -> None:
    model = composition(Stacking(cv=GroupKFold(3)))
    with sklearn.config_context(enable_metadata_routing=True):
        requesting = model.set_fit_request(groups=True)
        for params, cv in (({"groups": GROUPS}, GroupKFold(3)), ({"groups": GROUPS}, StratifiedKFold(3))):
            scores = cross_validate(requesting, X, Y, cv=cv, params=params)["test_score"]
            assert np.isfinite(scores).all()
        search = GridSearchCV(requesting, {"fusion__cv": [GroupKFold(2), 3]}, cv=GroupKFold(3), error_score="raise")
        search.fit(X, Y, groups=GROUPS)
        pipeline = make_pipeline("passthrough", requesting).fit(X, Y, groups=GROUPS)
        with pytest.raises(ValueError, match="groups"):
            cross_val_score(composition(Stacking()), X, Y, params={"groups": GROUPS}, error_score="raise")
    direct = composition(Stacking(cv=GroupKFold(3))).fit(X, Y, groups=GROUPS)
    np.testing.assert_array_equal(pipeline.predict_proba(X), direct.predict_proba(X))
    best = composition(Stacking(cv=search.best_params_["fusion__cv"])).fit(X, Y, groups=GROUPS)
    np.testing.assert_array_equal(search.predict_proba(X), best.predict_proba(X))


# Groups that nobody named


def items(n: int = N_GROUPS) -> pd.DataFrame:
    names = [f"a {group}, picture {RNG.integers(9)}" for group in GROUPS]
    return X.assign(name=names).iloc[: n * SIZE]


def named(fusion: Any) -> MultimodalClassifier:
    words = make_pipeline(TfidfVectorizer(), LogisticRegression())
    return MultimodalClassifier([("name", words, "name"), ("a", LINEAR, ["a"])], fusion=fusion)


def test_related_rows_are_warned_of() -> None:
    frame = items()
    for fusion in (Stacking(), EnsembleSelection(cv=3)):
        with pytest.warns(UserWarning, match="column 'item' of X looks as if it named groups") as caught:
            named(fusion).fit(frame, Y)
        assert caught[0].filename == __file__
    numbers = np.unique(GROUPS, return_inverse=True)[1]
    with pytest.warns(UserWarning, match="column 'item'"):
        MultimodalRegressor(
            [("name", make_pipeline(TfidfVectorizer(), LinearRegression()), "name")], fusion=Stacking()
        ).fit(frame.assign(item=numbers), numbers + 0.1 * RNG.normal(size=N))


def warned_of_groups(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(warning.message) for warning in caught if "named groups" in str(warning.message)]


def test_rows_that_are_not_related_are_not_warned_of() -> None:
    frame = items()
    cases = {
        "groups": (named(Stacking(cv="item")), frame, Y, None),
        "groups of fit": (named(Stacking()), frame, Y, GROUPS),
        "splitter": (named(Stacking(cv=StratifiedKFold(3))), frame, Y, None),
        "no folds": (named(SoftVoting()), frame, Y, None),
        "relatives with other labels": (named(Stacking()), frame, RNG.permutation(Y), None),
        "other texts": (named(Stacking()), frame.assign(name=[f"{i} {i + 1}x" for i in range(N)]), Y, None),
        "numbers alone": (composition(Stacking()), X, Y, None),
        "few kinds": (named(Stacking()), frame.assign(item=Y, name=Y), Y, None),
    }
    for case, (model, X_, y, groups) in cases.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X_, y, groups=groups)
        assert not warned_of_groups(caught), case


def test_openmoji_is_not_warned_of() -> None:
    emoji = load_openmoji(size=32)
    frame, y = emoji.frame.assign(category=emoji.target), emoji.target.astype(str)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MultimodalClassifier([("name", Constant(), "name")], fusion=EnsembleSelection(n_rounds=1)).fit(frame, y)
    assert not warned_of_groups(caught)


class Constant(ClassifierMixin, BaseEstimator):
    """Finds all classes alike."""

    def fit(self, X: Any, y: Any) -> Constant:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))
