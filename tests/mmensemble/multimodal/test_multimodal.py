from __future__ import annotations

import re
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr

from mmensemble import (
    EnsembleSelection,
    HardVoting,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
)
from mmensemble.exceptions import ConfigurationError, DataError

WORDS = {"fruit": ["apple", "pear", "plum"], "vehicle": ["car", "bus", "tram"], "tool": ["saw", "axe", "file"]}


def items(n: int = 36, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of three classes, whose name and numbers say both, not quite, which one it is."""
    rng = np.random.default_rng(seed)
    y = np.repeat(list(WORDS), n // 3)
    frame = pd.DataFrame(
        {
            "id": np.arange(n),
            "name": [f"{rng.choice(['old', 'new'])} {rng.choice(WORDS[label])}" for label in y],
            "weight": rng.normal(size=n) + 2 * (y == "vehicle"),
            "price": rng.normal(size=n) + 2 * (y == "tool"),
        }
    )
    order = rng.permutation(n)
    return frame.iloc[order].reset_index(drop=True), y[order]


def text_member() -> Pipeline:
    return make_pipeline(TfidfVectorizer(), LogisticRegression())


def facts_member() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression())


def composition(**parameters: Any) -> MultimodalClassifier:
    return MultimodalClassifier(
        [("text", text_member(), "name"), ("facts", facts_member(), ["weight", "price"])], **parameters
    )


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    return items()[0]


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return items()[1]


FUSIONS = {
    "SoftVoting": SoftVoting(),
    "HardVoting": HardVoting(),
    "ProductOfExperts": ProductOfExperts(),
    "EnsembleSelection": EnsembleSelection(n_rounds=5, cv=2),
    "LogOpinionPool": LogOpinionPool(cv=2),
    "Stacking": Stacking(cv=2),
    "SuperLearner": SuperLearner(cv=2),
}


@pytest.fixture(params=FUSIONS)
def fusion(request: pytest.FixtureRequest) -> Any:
    return FUSIONS[request.param]


# --- the contract


def test_fit_predict(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion)
    assert model.fit(X, y) is model
    assert model.classes_.tolist() == ["fruit", "tool", "vehicle"]
    assert model.feature_names_in_.tolist() == ["id", "name", "weight", "price"]
    assert model.n_features_in_ == 4
    probabilities = model.predict_proba(X)
    assert probabilities.shape == (36, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert model.predict(X).tolist() == model.classes_[probabilities.argmax(axis=1)].tolist()
    assert model.score(X, y) == (model.predict(X) == y).mean() > 0.8


def test_the_default_compares() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"])
    y = np.where(X["a"] + rng.normal(size=100) > 0, "yes", "no")
    members = [(name, LogisticRegression(), [name]) for name in X]
    model = MultimodalClassifier(members).fit(X, y)
    assert model.fusion is None
    assert isinstance(model.fusion_, SuperLearner)
    asked = MultimodalClassifier(members, fusion=SuperLearner()).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), asked.predict_proba(X))


@pytest.mark.parametrize("few", ["members", "rows", "rows of a class", "rows of a class with a member", "groups"])
def test_the_default_where_little_can_be_compared(few: str) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"])
    y, groups = rng.permutation(np.arange(100) % 2), np.arange(100) // 10
    if few == "rows of a class":
        y = np.where(np.arange(100) < 9, 2, y)
    if few == "rows of a class with a member":
        X["b"] = X["b"].where((y == 0) | (y.cumsum() < 10))
    rows = slice(0, 49 if few == "rows" else 100)
    members = [(name, LogisticRegression(), [name]) for name in X][: 1 if few == "members" else 2]
    related = groups // 2 if few == "groups" else groups
    model = MultimodalClassifier(members).fit(X[rows], y[rows], groups=related[rows] if few == "groups" else None)
    assert isinstance(model.fusion_, SoftVoting if few in ("members", "rows") else LinearFusion)
    enough = [(name, LogisticRegression(), [name]) for name in X]
    full = pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"])
    again = MultimodalClassifier(enough).fit(full, np.arange(100) % 2, groups=groups)
    assert isinstance(again.fusion_, SuperLearner)


def test_the_default_of_members_without_features_for_a_linear_model() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": np.where(rng.random(100) < 0.2, np.nan, rng.normal(size=100)), "b": rng.normal(size=100)})
    y = np.where(np.arange(100) < 9, 2, np.arange(100) % 2)
    model = MultimodalClassifier([("a", HistGradientBoostingClassifier(), ["a", "b"]), ("b", GaussianNB(), ["b"])])
    assert isinstance(model.fit(X, y).fusion_, SoftVoting)
    bad = X.assign(b=X["b"].astype(object).where(X.index != 7, "much"))
    with pytest.raises(DataError, match="row 7"):
        model.fit(bad, y)


def test_the_default_of_few_rows_is_soft_voting(X: Any, y: Any) -> None:
    model = composition().fit(X, y)
    assert model.fusion is None
    assert isinstance(model.fusion_, SoftVoting)
    np.testing.assert_array_equal(model.predict_proba(X), composition(fusion=SoftVoting()).fit(X, y).predict_proba(X))


def test_fitting_changes_no_parameter(X: Any, y: Any, fusion: Any) -> None:
    member = text_member()
    model = MultimodalClassifier([("text", member, "name")], fusion=fusion).fit(X, y)
    assert model.estimators[0][1] is member
    assert not hasattr(member[-1], "coef_")
    assert model.fusion is fusion
    assert not hasattr(fusion, "members_")
    assert model.fusion_ is not fusion


def test_fitted_members(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion).fit(X, y)
    assert [type(estimator[0]) for estimator in model.estimators_] == [TfidfVectorizer, StandardScaler]
    assert list(model.named_estimators_) == ["text", "facts"]
    assert model.named_estimators_.facts is model.estimators_[1]
    alone = text_member().fit(X["name"], y)
    np.testing.assert_array_equal(model.named_estimators_.text.predict_proba(X["name"]), alone.predict_proba(X["name"]))


def test_transform_gives_the_members_probabilities(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion).fit(X, y)
    names = [f"{member}_{label}" for member in ("text", "facts") for label in model.classes_]
    assert model.get_feature_names_out().tolist() == [f"multimodalclassifier_{name}" for name in names]
    out = model.transform(X)
    members = model.named_estimators_
    np.testing.assert_array_equal(out[:, :3], members.text.predict_proba(X["name"]))
    np.testing.assert_array_equal(out[:, 3:], members.facts.predict_proba(X[["weight", "price"]]))
    framed = model.set_output(transform="pandas").transform(X)
    assert framed.columns.tolist() == model.get_feature_names_out().tolist()
    np.testing.assert_array_equal(framed.to_numpy(), out)
    assert type(model.set_output(transform="polars").transform(pl.from_pandas(X))) is pl.DataFrame


def test_unfitted(X: Any) -> None:
    for method in ("predict", "predict_proba", "transform"):
        with pytest.raises(NotFittedError):
            getattr(composition(), method)(X)
    with pytest.raises(NotFittedError):
        composition().get_feature_names_out()


@pytest.mark.parametrize("labels", [[10, 20, 30], [False, True, True], ["a", "b", "c"]], ids=["int", "bool", "str"])
def test_labels_of_any_dtype(X: Any, y: Any, fusion: Any, labels: list[Any]) -> None:
    relabelled = np.array(labels)[np.unique(y, return_inverse=True)[1]]
    model = composition(fusion=fusion).fit(X, relabelled)
    assert model.classes_.tolist() == sorted(set(labels))
    assert model.predict(X).dtype == relabelled.dtype
    assert model.score(X, relabelled) > 0.6


def test_a_list_or_a_series_of_labels_and_a_non_default_index(X: Any, y: Any) -> None:
    expected = composition().fit(X, y).predict_proba(X)
    shuffled = X.set_index(np.arange(len(X))[::-1] * 5)
    for labels in (y.tolist(), pd.Series(y), pd.Series(y, index=shuffled.index), pl.Series(y.tolist())):
        np.testing.assert_array_equal(composition().fit(shuffled, labels).predict_proba(shuffled), expected)


def test_polars_equals_pandas(X: Any, y: Any, fusion: Any) -> None:
    missing = X.copy()
    missing.loc[::5, "name"] = None
    missing.loc[::7, ["weight", "price"]] = np.nan
    theirs = pl.from_pandas(missing)
    assert theirs["name"].null_count() > 0
    from_pandas = composition(fusion=fusion).fit(missing, y)
    from_polars = composition(fusion=fusion).fit(theirs, y)
    expected = from_pandas.predict_proba(missing)
    np.testing.assert_allclose(from_polars.predict_proba(theirs), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(from_polars.predict_proba(missing), expected, rtol=0, atol=1e-12)
    assert from_polars.feature_names_in_.tolist() == from_pandas.feature_names_in_.tolist()


def test_sample_weight_reaches_every_member(X: Any, y: Any) -> None:
    model = MultimodalClassifier(
        [("facts", LogisticRegression(), ["weight", "price"]), ("one", LogisticRegression(), ["weight"])]
    )
    weight = np.where(y == "fruit", 5.0, 1.0)
    weighted = clone(model).fit(X, y, sample_weight=weight)
    for (_, _, columns), fitted in zip(model.estimators, weighted.estimators_, strict=True):
        expected = LogisticRegression().fit(X[columns], y, weight)
        np.testing.assert_array_equal(fitted.coef_, expected.coef_)
        assert not np.allclose(expected.coef_, LogisticRegression().fit(X[columns], y).coef_)
    share = weight[y == "fruit"].sum() / weight.sum()
    assert weighted.fusion_.prior_[0] == pytest.approx(share)


def test_sample_weight_reaches_the_last_step_of_a_pipeline(X: Any, y: Any, fusion: Any) -> None:
    # A pipeline by itself takes no sample_weight, and most members are pipelines.
    weight = np.where(y == "fruit", 5.0, 1.0)
    model = composition(fusion=fusion).fit(X, y, sample_weight=weight)
    expected = facts_member().fit(X[["weight", "price"]], y, logisticregression__sample_weight=weight)
    np.testing.assert_array_equal(model.named_estimators_.facts[-1].coef_, expected[-1].coef_)


def test_joblib_round_trip(X: Any, y: Any, fusion: Any, tmp_path: Any) -> None:
    model = composition(fusion=fusion).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    np.testing.assert_array_equal(joblib.load(tmp_path / "model.joblib").predict_proba(X), model.predict_proba(X))


def test_no_rows_to_predict(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion).fit(X, y)
    assert model.predict_proba(X[:0]).shape == (0, 3)
    assert model.predict(X[:0]).shape == (0,)
    assert model.transform(X[:0]).shape == (0, 6)


# --- parameters


def test_nested_parameters() -> None:
    model = composition(fusion=SoftVoting(weights=[1, 2]))
    parameters = model.get_params()
    assert parameters["text__logisticregression__C"] == 1.0
    assert parameters["fusion__weights"] == [1, 2]
    assert isinstance(parameters["facts"], Pipeline)
    own = {"estimators", "fusion", "cache", "n_jobs", "time_limit", "on_error", "verbose"}
    assert set(model.get_params(deep=False)) == own
    assert model.set_params(text__logisticregression__C=7.0, fusion__weights=None, n_jobs=2) is model
    assert model.estimators[0][1][-1].C == 7.0
    assert model.estimators[0][2] == "name"
    assert model.fusion.weights is None
    assert model.n_jobs == 2
    with pytest.raises(ValueError, match="nonsense"):
        model.set_params(nonsense=1)


def test_parameters_of_the_default_strategy() -> None:
    model = composition(fusion=None).set_params(fusion__cv=3)
    assert isinstance(model.fusion, SuperLearner)
    assert model.fusion.cv == 3
    assert model.set_params(fusion=None, fusion__cv=4).fusion.cv == 4
    with pytest.raises(ValueError, match="weights"):
        composition(fusion=None).set_params(fusion__weights=[1, 2])


def test_a_member_is_replaced(X: Any, y: Any) -> None:
    model = composition().set_params(facts=DummyClassifier())
    assert model.estimators[1][2] == ["weight", "price"], "the columns stay"
    assert isinstance(model.fit(X, y).named_estimators_.facts, DummyClassifier)


def test_a_member_is_dropped(X: Any, y: Any, fusion: Any) -> None:
    model = composition(fusion=fusion).set_params(text="drop").fit(X, y)
    assert list(model.named_estimators_) == ["facts"]
    only = MultimodalClassifier([("facts", facts_member(), ["weight", "price"])], fusion=fusion).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), only.predict_proba(X))
    # A column of a dropped member need not be there.
    assert model.predict(X[["weight", "price"]]).tolist() == only.predict(X).tolist()


def test_a_dropped_member_takes_its_weight_with_it(X: Any, y: Any) -> None:
    # As in VotingClassifier, so that a search can drop a member of a weighted vote.
    weighted = composition(fusion=SoftVoting(weights=[3, 1])).set_params(text="drop").fit(X, y)
    np.testing.assert_array_equal(
        weighted.predict_proba(X), composition().set_params(text="drop").fit(X, y).predict_proba(X)
    )


def test_clone_of_a_misshapen_composition_fails_in_fit_only(X: Any, y: Any) -> None:
    model = clone(MultimodalClassifier([("text", text_member())]))
    assert "MultimodalClassifier" in repr(model)
    with pytest.raises(ConfigurationError, match="list of \\(name, estimator, column or columns\\)"):
        model.fit(X, y)


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        (None, "list of"),
        ([], "there is none to fit"),
        ([("text", "drop", "name")], "there is none to fit"),
        ([("text", text_member())], "list of"),
        (["text"], "list of"),
        (text_member(), "list of"),
        ([("text", "dorp", "name"), ("facts", facts_member(), ["weight"])], "'text'"),
        ([("text", text_member(), 3)], "member 'text': the columns must be"),
        ([("text", text_member(), [])], "member 'text': the columns must be"),
        ([("text", text_member(), [0, 1])], "member 'text': the columns must be"),
        ([("text", text_member(), None)], "member 'text': the columns must be"),
        ([("text", RidgeClassifier(), ["weight"])], r"member 'text' \(RidgeClassifier\) has no predict_proba"),
        ([("text", TfidfVectorizer(), "name")], r"member 'text' \(TfidfVectorizer\) has no predict_proba"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:30],
)
def test_misshapen_estimators(X: Any, y: Any, fusion: Any, estimators: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultimodalClassifier(estimators, fusion=fusion).fit(X, y)


@pytest.mark.parametrize(
    ("names", "message"),
    [(("a", "a"), "unique"), (("a__b", "c"), "__"), (("fusion", "c"), "conflict")],
)
def test_names_that_cannot_be(X: Any, y: Any, names: tuple[str, str], message: str) -> None:
    model = MultimodalClassifier([(name, LogisticRegression(), ["weight"]) for name in names])
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


@pytest.mark.parametrize("fusion", ["soft", SoftVoting, LogisticRegression()], ids=["str", "class", "estimator"])
def test_what_is_no_strategy(X: Any, y: Any, fusion: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"fusion must be a strategy such as SoftVoting\(\)"):
        composition(fusion=fusion).fit(X, y)


# --- bad data


def test_an_empty_frame(X: Any, y: Any, fusion: Any) -> None:
    with pytest.raises(DataError, match="0 rows were given to fit"):
        composition(fusion=fusion).fit(X[:0], y[:0])


@pytest.mark.parametrize("wrong", [np.zeros((36, 2)), ["a"] * 36, {"name": ["a"] * 36}], ids=["array", "list", "dict"])
def test_no_frame(X: Any, y: Any, wrong: Any) -> None:
    message = f"X must be a DataFrame .pandas or polars., not {type(wrong).__name__}"
    with pytest.raises(DataError, match=message):
        composition().fit(wrong, y)
    with pytest.raises(DataError, match=message):
        composition().fit(X, y).predict(wrong)


@pytest.mark.parametrize(
    ("estimator", "columns", "message"),
    [
        (make_pipeline(TfidfVectorizer(), LogisticRegression()), ["text"], "TfidfVectorizer takes the texts .* 'text'"),
        (
            make_pipeline(StandardScaler(), LogisticRegression()),
            "number",
            r"StandardScaler takes a table; .*\['number'\]",
        ),
        (LogisticRegression(), "number", r"LogisticRegression takes a table"),
    ],
)
def test_a_list_where_a_string_belongs_and_the_other_way_round(estimator: Any, columns: Any, message: str) -> None:
    X = pd.DataFrame({"text": ["red apple", "fast car"] * 5, "number": [1.0, 2.0] * 5})
    with pytest.raises(ConfigurationError, match=f"member 'm': {message}"):
        MultimodalClassifier([("m", estimator, columns)]).fit(X, ["a", "b"] * 5)
    wrapped = GridSearchCV(estimator, {}, cv=2)  # which says nothing of what it takes
    other = "text" if columns == ["text"] else ["number"]
    assert MultimodalClassifier([("m", wrapped, other)]).fit(X, ["a", "b"] * 5).predict(X).tolist() == ["a", "b"] * 5


def test_a_wrong_column(X: Any, y: Any, fusion: Any) -> None:
    columns = r"the columns are \['id', 'name', 'weight'\]"
    with pytest.raises(DataError, match=f"column 'price': member 'facts' wants a column .* {columns}") as caught:
        composition(fusion=fusion).fit(X.drop(columns="price"), y)
    assert caught.value.column == "price"
    model = composition(fusion=fusion).fit(X, y)
    with pytest.raises(DataError, match=f"column 'price': .*{columns}"):
        model.predict_proba(X.drop(columns="price"))
    # Which other columns there are, and in which order, does not matter.
    fewer = X[["price", "weight", "name"]].assign(other=1)
    np.testing.assert_array_equal(model.predict_proba(fewer), model.predict_proba(X))


def test_one_class(X: Any, fusion: Any) -> None:
    with pytest.raises(DataError, match=r"y holds one class only \('fruit'\)"):
        composition(fusion=fusion).fit(X, ["fruit"] * len(X))


def test_y_of_another_length_or_shape(X: Any, y: Any) -> None:
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[36, 35\]"):
        composition().fit(X, y[:-1])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        composition().fit(X, np.column_stack([y, y]))
    with pytest.raises(ValueError, match="Unknown label type"):
        composition().fit(X, np.linspace(0, 1, 36))
    with pytest.raises(ValueError, match=r"sample_weight\.shape"):
        composition().fit(X, y, np.ones(35))


def test_a_label_seen_once(X: Any, y: Any) -> None:
    rare = y.copy()
    rare[0] = "rarity"
    with pytest.raises(DataError, match=r"class 'rarity' has 1 row with member 'text'.*SoftVoting"):
        composition(fusion=Stacking(cv=2)).fit(X, rare)
    assert "rarity" in composition().fit(X, rare).classes_


def test_a_label_seen_once_with_one_member(X: Any, y: Any) -> None:
    rare, gaps = y.copy(), X.copy()
    rare[:2] = "rarity"
    gaps.loc[0, ["weight", "price"]] = np.nan
    with pytest.raises(DataError, match="class 'rarity' has 1 row with member 'facts'"):
        composition(fusion=Stacking(cv=2)).fit(gaps, rare)


def test_a_member_that_no_row_has(X: Any, y: Any, fusion: Any) -> None:
    with pytest.raises(DataError, match="every row misses member 'text'; leave it out") as caught:
        composition(fusion=fusion).fit(X.assign(name=None), y)
    assert caught.value.column == "name"


# --- missing modalities


def test_members_are_fitted_on_the_rows_that_they_have(X: Any, y: Any) -> None:
    gaps = X.copy()
    gaps.loc[:9, "name"] = None
    gaps.loc[20:25, ["weight", "price"]] = np.nan
    model = composition().fit(gaps, y)
    text = text_member().fit(gaps["name"][10:], y[10:])
    np.testing.assert_array_equal(model.named_estimators_.text.predict_proba(X["name"]), text.predict_proba(X["name"]))
    assert model.named_estimators_.facts[0].n_samples_seen_ == len(X) - 6
    alone = model.predict_proba(gaps)[:10]
    np.testing.assert_allclose(
        alone, model.named_estimators_.facts.predict_proba(gaps[["weight", "price"]][:10]), atol=1e-12
    )


def test_a_member_that_never_saw_a_class(X: Any, y: Any, fusion: Any) -> None:
    gaps = X.copy()
    gaps.loc[y == "tool", "name"] = None
    model = composition(fusion=fusion).fit(gaps, y)
    assert model.named_estimators_.text.classes_.tolist() == [0, 1]
    assert model.fusion_.members_[0].labels[0].tolist() == ["fruit", "vehicle"]
    assert model.classes_.tolist() == ["fruit", "tool", "vehicle"]
    known = text_member().fit(gaps["name"][y != "tool"], y[y != "tool"]).predict_proba(X["name"])
    text = model.transform(X)[:, :3]
    np.testing.assert_array_equal(text[:, [0, 2]], known)
    assert not text[:, 1].any()
    assert (model.predict(gaps) == y).mean() > 0.6
    np.testing.assert_allclose(model.predict_proba(gaps).sum(axis=1), 1)


def test_rows_that_miss_everything_get_the_prior(X: Any, y: Any, fusion: Any) -> None:
    uneven = y.copy()
    uneven[y == "tool"] = "fruit"
    model = composition(fusion=fusion).fit(X, uneven)
    nothing = X.assign(name=None, weight=np.nan, price=np.nan)
    np.testing.assert_allclose(model.predict_proba(nothing), [[2 / 3, 1 / 3]] * len(X))
    assert set(model.predict(nothing)) == {"fruit"}
    assert not model.transform(nothing).any()


# --- in scikit-learn


def test_splitters_and_cross_validation(X: Any, y: Any, fusion: Any) -> None:
    X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    assert composition(fusion=fusion).fit(X_train, y_train).score(X_test, y_test) > 0.5
    scores = cross_val_score(composition(fusion=fusion), X, y, cv=3)
    assert (scores > 0.5).all()
    np.testing.assert_array_equal(cross_val_score(composition(fusion=fusion), pl.from_pandas(X), y, cv=3), scores)


def test_grid_search_over_strategies(X: Any, y: Any) -> None:
    grid = [
        {"fusion": [SoftVoting()], "fusion__weights": [[1, 0], [0, 1]]},
        {"fusion": [Stacking(cv=2)], "text__logisticregression__C": [0.1, 1.0]},
        {"text": ["drop"]},
    ]
    search = GridSearchCV(composition(), grid, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 5
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]
    assert scores[1] == pytest.approx(scores[4]), "a vote of weight 0 is none"
    assert search.predict_proba(X).shape == (36, 3)
    assert search.best_estimator_.score(X, y) == search.score(X, y)


def test_grid_search_over_all_strategies_and_inside_them(X: Any, y: Any) -> None:
    grid = [
        {"fusion": list(FUSIONS.values())},
        {"fusion": [EnsembleSelection(cv=2)], "fusion__n_rounds": np.array([1, 3])},
        {"fusion": [Stacking(LogisticRegression(), cv=2)], "fusion__final_estimator__C": [0.1, 1.0]},
    ]
    search = GridSearchCV(composition(), grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == len(FUSIONS) + 4
    assert (search.cv_results_["mean_test_score"] > 1 / 3).all()
    assert search.best_estimator_.fusion_.task_.classes.tolist() == ["fruit", "tool", "vehicle"]


def test_as_a_member_of_itself(X: Any, y: Any, fusion: Any) -> None:
    inner = composition(fusion=fusion)
    outer = MultimodalClassifier(
        [("both", inner, ["name", "weight", "price"]), ("id", LogisticRegression(), ["weight"])],
        fusion=SoftVoting(weights=[3, 1]),
    )
    gaps = X.copy()
    gaps.loc[::4, "name"] = None
    gaps.loc[::6, "weight"] = np.nan
    gaps["price"] = gaps["price"].where(gaps["weight"].notna())
    outer.fit(gaps, y)
    both, nothing = outer.named_estimators_.both, (gaps["name"].isna() & gaps["weight"].isna()).to_numpy()
    assert nothing.sum() == 3
    # The outer composition keeps from the inner one the rows that miss all that it reads.
    alone = clone(inner).fit(gaps.loc[~nothing, ["name", "weight", "price"]], y[~nothing])
    np.testing.assert_allclose(both.predict_proba(gaps), alone.predict_proba(gaps))
    assert outer.get_params()["both__text__logisticregression__C"] == 1.0
    probabilities = outer.predict_proba(gaps)
    without_facts = gaps["weight"].isna().to_numpy()
    np.testing.assert_allclose(
        probabilities[without_facts & ~nothing], alone.predict_proba(gaps)[without_facts & ~nothing]
    )
    np.testing.assert_allclose(probabilities[nothing], [outer.fusion_.prior_] * 3)


def test_two_jobs(X: Any, y: Any) -> None:
    np.testing.assert_array_equal(
        composition(n_jobs=2).fit(X, y).predict_proba(X), composition().fit(X, y).predict_proba(X)
    )


def test_html_repr(X: Any, y: Any) -> None:
    for model in (composition(), composition().set_params(text="drop"), composition(fusion=Stacking()).fit(X, y)):
        html = estimator_html_repr(model)
        assert "MultimodalClassifier" in html
        assert "facts" in html
        assert "StandardScaler" in html
        assert "price" in html


def test_verbose_tells_how_long_fitting_took(X: Any, y: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for silent in (0, False):
        composition(verbose=silent).fit(X, y)
        assert capsys.readouterr() == ("", "")
    composition(verbose=True).fit(X, y)
    told = capsys.readouterr()
    assert told.out == ""
    assert "MultimodalClassifier: fit took 0." in told.err


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("limit", [None, 3600.0])
def test_the_log_has_each_fit(
    X: Any, y: Any, caplog: pytest.LogCaptureFixture, n_jobs: int | None, limit: float | None
) -> None:
    with caplog.at_level("INFO", logger="mmensemble"):
        model = composition(fusion=Stacking(cv=3), n_jobs=n_jobs, time_limit=limit).fit(X, y)
    said = [record.getMessage() for record in caplog.records]
    fits = [re.sub(r" took [0-9.]+ s$", "", message) for message in said if message.startswith("member ")]
    text, facts = "member 1 of 2 (text)", "member 2 of 2 (facts)"
    folds = [f"fold {number} of 3" for number in (1, 2, 3)]
    assert sorted(fits) == sorted([text, facts, *(f"{name}, {fold}" for name in (text, facts) for fold in folds)])
    assert said[-2].startswith("Stacking(cv=3)")
    assert said[-1].startswith("MultimodalClassifier: fit took")
    quiet = composition(fusion=Stacking(cv=3), verbose=0).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), quiet.predict_proba(X))


def test_labels_that_are_forgotten(X: Any) -> None:
    with pytest.raises(DataError, match="requires y"):
        composition().fit(X, None)


def test_a_union_takes_what_its_transformers_take() -> None:
    X = pd.DataFrame({"text": ["red apple", "fast car"] * 5, "number": [1.0, 2.0] * 5})
    union = make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char_wb"))
    model = MultimodalClassifier([("m", make_pipeline(union, LogisticRegression()), "text")])
    assert model.fit(X, ["a", "b"] * 5).predict(X).tolist() == ["a", "b"] * 5
    with pytest.raises(ConfigurationError, match="member 'm': TfidfVectorizer takes the texts"):
        MultimodalClassifier([("m", make_pipeline(union, LogisticRegression()), ["text"])]).fit(X, ["a", "b"] * 5)
