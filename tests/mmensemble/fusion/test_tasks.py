"""What holds for every late strategy and every kind of `y`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import PredefinedSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

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
from mmensemble.fusion import candidates

N = 60
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.arange(N) % 3)
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - (KIND == 1)})
GAPS = X.where(RNG.random(X.shape) > 0.35)
LABELS = np.array(["p", "q", "r"])[KIND]
NUMBER = 50 + 3 * KIND + RNG.normal(size=N)

TARGETS: dict[str, Any] = {
    "two classes": KIND == 1,
    "classes": LABELS,
    "multilabel": np.column_stack([KIND == 0, KIND != 1, RNG.random(N) < 0.5]).astype(int),
    "columns": np.column_stack([LABELS, np.where(KIND == 1, "one", "other")]),
    "mixed columns": pd.DataFrame({"s": LABELS, "i": 10 * (KIND % 2), "b": KIND == 2}),
    "number": NUMBER,
    "one target": NUMBER[:, None],
    "targets": np.column_stack([NUMBER, 1e-3 * RNG.normal(size=N)]),
}
NUMBERS = ("number", "one target", "targets")

STRATEGIES: dict[str, Callable[[Any], Any]] = {
    "SoftVoting": lambda cv: SoftVoting([2, 1]),
    "HardVoting": lambda cv: HardVoting([2, 1.5]),
    "ProductOfExperts": lambda cv: ProductOfExperts(cv=cv),
    "LogOpinionPool": lambda cv: LogOpinionPool(cv=cv),
    "EnsembleSelection": lambda cv: EnsembleSelection(n_rounds=6, cv=cv),
    "Stacking": lambda cv: Stacking(cv=cv),
    "Stacking with passthrough": lambda cv: Stacking(cv=cv, passthrough=True),
    "SuperLearner": lambda cv: SuperLearner(cv=cv),
}


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return STRATEGIES[request.param]


@pytest.fixture(params=TARGETS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def tree(kind: str) -> Any:
    cls = DecisionTreeRegressor if kind in NUMBERS else DecisionTreeClassifier
    return cls(max_depth=2, random_state=0)


def composition(kind: str, fusion: Any, member: Any = None) -> Any:
    cls = MultimodalRegressor if kind in NUMBERS else MultimodalClassifier
    members = [(name, tree(kind) if member is None else member, [name]) for name in "ab"]
    return cls(members, fusion=fusion)


def scores(model: Any, frame: pd.DataFrame) -> np.ndarray:
    if isinstance(model, MultimodalRegressor):
        return model.predict(frame).reshape(len(frame), -1)
    made = model.predict_proba(frame)
    return np.hstack(made) if isinstance(made, list) else made


def prior(kind: str, y: Any, weight: Any = None) -> np.ndarray:
    table = np.asarray(y).reshape(N, -1)
    if kind in NUMBERS or kind == "multilabel":
        return np.average(table.astype(float), axis=0, weights=weight)
    return np.concatenate(
        [[np.average(c == label, weights=weight) for label in sorted(set(c.tolist()))] for c in table.T]
    )


def test_shapes_predictions_and_score(strategy: Any, kind: str) -> None:
    y = TARGETS[kind]
    model = composition(kind, strategy(3)).fit(X, y)
    predicted, truth = model.predict(X), np.asarray(y)
    assert predicted.shape == truth.shape
    if kind in NUMBERS:
        assert model.score(X, y) == pytest.approx(r2_score(y, predicted))
        assert model.transform(X).shape == (N, 2 * truth.reshape(N, -1).shape[1])
        assert not hasattr(model, "classes_")
        return
    probabilities = model.predict_proba(X)
    assert model.score(X, y) == pytest.approx(np.mean((truth == predicted).reshape(N, -1).all(axis=1)))
    assert model.score(X, y, KIND) == pytest.approx(
        np.average((truth == predicted).reshape(N, -1).all(axis=1), weights=KIND)
    )
    if kind == "multilabel":
        assert model.classes_.tolist() == [0, 1, 2]
        assert probabilities.shape == (N, 3)
        np.testing.assert_array_equal(predicted, probabilities > 0.5)
        return
    columns = truth.reshape(N, -1).T
    listed = probabilities if isinstance(probabilities, list) else [probabilities]
    classes = model.classes_ if isinstance(model.classes_, list) else [model.classes_]
    for column, made, labels, answer in zip(columns, listed, classes, predicted.reshape(N, -1).T, strict=True):
        assert labels.tolist() == sorted(set(column.tolist()))
        assert made.shape == (N, len(labels))
        np.testing.assert_allclose(made.sum(axis=1), 1)
        assert answer.tolist() == labels[made.argmax(axis=1)].tolist()
    names = model.get_feature_names_out()
    assert len(names) == len(set(names)) == model.transform(X).shape[1]


def test_members_of_scikit_learn_learn_columns_of_several_dtypes(strategy: Any) -> None:
    """As if the columns were strings, whose order is the same here."""
    y = TARGETS["mixed columns"]
    strings = y.assign(i=y["i"].map({0: "a", 10: "b"}), b=y["b"].map({False: "a", True: "b"}))
    for member in (tree("classes"), MultiOutputClassifier(LogisticRegression())):
        mixed = composition("mixed columns", strategy(3), member).fit(GAPS, y)
        plain = composition("columns", strategy(3), member).fit(GAPS, strings)
        np.testing.assert_allclose(scores(mixed, GAPS), scores(plain, GAPS), rtol=0, atol=1e-12)
        assert [c.tolist() for c in mixed.classes_] == [["p", "q", "r"], [0, 10], [False, True]]
        first = mixed.predict(GAPS)[0].tolist()
        assert [type(value) for value in first] == [str, int, bool]


def test_missing_modalities(strategy: Any, kind: str) -> None:
    y = TARGETS[kind]
    weight = np.linspace(0.2, 2, N)
    model = composition(kind, strategy(3)).fit(GAPS, y, weight)
    made = scores(model, GAPS)
    assert np.isfinite(made).all()
    nothing = GAPS.isna().all(axis=1).to_numpy()
    assert nothing.sum() == 2
    np.testing.assert_allclose(made[nothing], [prior(kind, y, weight)] * nothing.sum(), rtol=1e-12)
    # A row's prediction does not depend on the others.
    np.testing.assert_allclose(scores(model, GAPS[17:23]), made[17:23], rtol=1e-12)
    np.testing.assert_allclose(scores(model, GAPS[nothing]), made[nothing], rtol=1e-12)
    assert model.predict(GAPS[:0]).shape == (0, *np.shape(y)[1:])


def test_a_weight_of_2_is_the_row_twice(strategy: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # To a LinearFusion weights are shares; see there.
    monkeypatch.setattr(candidates, "makes_features", lambda estimator: False)
    y = np.asarray(TARGETS[kind])
    times = np.random.default_rng(1).integers(1, 4, N)
    fold = np.arange(N) % 3
    weighted, repeated = strategy(PredefinedSplit(fold)), strategy(PredefinedSplit(np.repeat(fold, times)))
    order = np.repeat(np.arange(N), times)
    one = composition(kind, weighted).fit(X, y, times.astype(float))
    other = composition(kind, repeated).fit(X.iloc[order], y[order])
    np.testing.assert_allclose(scores(one, GAPS), scores(other, GAPS), rtol=1e-6)
    unweighted = composition(kind, weighted).fit(X, y)
    assert not np.allclose(scores(one, GAPS), scores(unweighted, GAPS))


def test_random_forest_gives_lists_of_labels(strategy: Any) -> None:
    y = TARGETS["multilabel"]
    forest = RandomForestClassifier(5, random_state=0)
    model = composition("multilabel", strategy(3), forest).fit(X, y)
    per_label = model.estimators_[0].predict_proba(X[["a"]])
    np.testing.assert_allclose(model.transform(X)[:, :3], np.column_stack([p[:, 1] for p in per_label]))
    rare = y.copy()
    rare[:, 2] = np.arange(N) < 2  # in one fold only: members fitted without it have no column for it
    made = composition("multilabel", strategy(3), forest).fit(X, rare).predict_proba(X)
    assert ((made >= 0) & (made <= 1)).all()
    assert (made[:, 2] < 0.5).sum() > N / 2


def test_members_that_miss_classes_of_a_column(strategy: Any) -> None:
    """In one column of labels, and only for one member; folds miss classes too, as the rows are sorted."""
    order = np.argsort(LABELS, kind="stable")
    frame, y = X.iloc[order].reset_index(drop=True), TARGETS["columns"][order]
    frame["a"] = frame["a"].where(y[:, 0] != "q")
    model = composition("columns", strategy(3)).fit(frame, y)
    assert [c.tolist() for c in model.estimators_[0].classes_] == [[0, 1], [0]]
    assert [labels.tolist() for labels in model.fusion_.members_[0].labels] == [["p", "r"], ["other"]]
    a = model.transform(frame)[:, :5]
    assert (a[:, [1, 3]] == 0).all()
    for made in model.predict_proba(frame):
        np.testing.assert_allclose(made.sum(axis=1), 1)


def test_two_levels_of_nesting(strategy: Any, kind: str) -> None:
    y = TARGETS[kind]
    innermost = composition(kind, strategy(3))
    cls = type(innermost)
    middle = cls([("in", innermost, ["a", "b"]), ("a", tree(kind), ["a"])])
    outer = cls([("mid", middle, ["a", "b"]), ("b", tree(kind), ["b"])], fusion=SoftVoting([3, 1])).fit(GAPS, y)
    nothing = GAPS.isna().all(axis=1).to_numpy()
    # By hand: each level is fitted on the rows that have any of its columns.
    rows = ~nothing
    inner = composition(kind, strategy(3)).fit(GAPS[rows], y[rows])
    levels = {"in": scores(inner, GAPS)}
    for name in "ab":
        there = GAPS[name].notna().to_numpy()
        alone = cls([(name, tree(kind), [name])]).fit(
            GAPS[there], np.asarray(y)[there] if kind != "mixed columns" else y[there]
        )
        levels[name] = np.where(there[:, None], scores(alone, GAPS), np.nan)
    middle_scores = np.nanmean(np.stack([levels["in"], levels["a"]]), axis=0)
    b = levels["b"]
    expected = np.where(np.isnan(b), middle_scores, (3 * middle_scores + b) / 4)
    np.testing.assert_allclose(scores(outer, GAPS)[rows], expected[rows], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scores(outer, GAPS)[nothing], [prior(kind, y)] * nothing.sum())


def test_dropped_member(strategy: Any, kind: str) -> None:
    y = TARGETS[kind]
    model = composition(kind, strategy(3)).set_params(b="drop").fit(X, y)
    fusion = strategy(3)
    if hasattr(fusion, "weights"):
        fusion.set_params(weights=None)
    alone = type(model)([("a", tree(kind), ["a"])], fusion=fusion).fit(X, y)
    np.testing.assert_allclose(scores(model, X), scores(alone, X), rtol=1e-12)


def test_two_jobs() -> None:
    one, two = (
        composition("mixed columns", Stacking(cv=3)).set_params(n_jobs=n).fit(GAPS, TARGETS["mixed columns"])
        for n in (None, 2)
    )
    np.testing.assert_array_equal(scores(one, GAPS), scores(two, GAPS))
    # What went wrong in another process is told as it is in this one.
    model = composition("classes", EnsembleSelection(cv=3), KNeighborsClassifier()).set_params(n_jobs=2)
    with pytest.raises(ConfigurationError, match="takes no sample_weight") as caught:
        model.fit(X, LABELS, np.ones(N))
    assert "This was member" in caught.value.__notes__[0]


# What cannot work


def test_members_of_another_kind(strategy: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"member 'a' \(Ridge\) has no predict_proba, which"):
        composition("classes", strategy(3), Ridge()).fit(X, LABELS)
    with pytest.raises(ConfigurationError, match=r"member 'a' \(LogisticRegression\) must be a regressor"):
        composition("number", strategy(3), LogisticRegression()).fit(X, NUMBER)
    with pytest.raises(ConfigurationError, match=r"member 'a' \(ProbableRidge\) must be a classifier"):
        composition("classes", strategy(3), ProbableRidge()).fit(X, LABELS)


class ProbableRidge(Ridge):
    """A regressor with a predict_proba, as some libraries have it."""

    predict_proba = Ridge.predict


def test_members_that_cannot_learn_the_task_are_named(strategy: Any) -> None:
    with pytest.raises(ValueError, match="y should be a 1d array") as caught:
        composition("multilabel", strategy(3), LogisticRegression()).fit(X, TARGETS["multilabel"])
    assert caught.value.__notes__ == ["This was member 'a' (LogisticRegression) of the composition."]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_number_that_is_missing_names_the_member(strategy: Any, n_jobs: int | None) -> None:
    members = [
        ("a", DecisionTreeClassifier(), ["a"]),
        ("both", make_pipeline(StandardScaler(), LogisticRegression()), ["a", "b"]),
    ]
    half = X.copy()
    half.loc[3, "b"] = np.nan
    model = MultimodalClassifier(members, fusion=strategy(3))
    for call in (lambda: clone(model).fit(half, LABELS), lambda: clone(model).fit(X, LABELS).predict(half)):
        with pytest.raises(
            DataError, match=r"member 'both' \(LogisticRegression\) takes no NaN; put a Simple"
        ) as caught:
            call()
        assert (caught.value.row, caught.value.column) == (3, "b")


def test_weights_for_members_that_take_none(strategy: Any) -> None:
    for kind, member in (("classes", KNeighborsClassifier()), ("number", KNeighborsRegressor())):
        name = type(member).__name__
        with pytest.raises(ConfigurationError, match=f"{name} takes no sample_weight") as caught:
            composition(kind, strategy(3), member).fit(X, TARGETS[kind], np.ones(N))
        assert caught.value.__notes__ == [f"This was member 'a' ({name}) of the composition."]
        assert np.isfinite(scores(composition(kind, strategy(3), member).fit(X, TARGETS[kind]), X)).all()


def test_weights_that_are_all_0(strategy: Any, kind: str) -> None:
    y = TARGETS[kind]
    with pytest.raises(ValueError, match=r"[Ss]ample weights"):
        composition(kind, strategy(3)).fit(X, y, np.zeros(N))
    only_without_b = np.where(GAPS["b"].isna(), 1.0, 0.0)
    with pytest.raises(DataError, match="every row with member 'b' has the weight 0; leave the member out") as caught:
        composition(kind, strategy(3)).fit(GAPS, y, only_without_b)
    assert caught.value.column == "b"


def test_weights_that_are_negative(strategy: Any) -> None:
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        composition("classes", strategy(3)).fit(X, LABELS, np.r_[-1.0, np.ones(N - 1)])


def test_one_class(strategy: Any) -> None:
    for y in (["same"] * N, np.column_stack([LABELS, ["same"] * N]), pd.DataFrame({"s": LABELS, "i": 3})):
        with pytest.raises(DataError, match="one class only"):
            composition("classes", strategy(3)).fit(X, y)


def test_a_label_that_all_rows_have() -> None:
    y = np.column_stack([TARGETS["multilabel"], np.ones(N, dtype=int)])
    for fusion in (SoftVoting(), HardVoting(), ProductOfExperts(), EnsembleSelection(n_rounds=2, cv=3)):
        made = composition("multilabel", fusion).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(made[:, 3], 1, atol=1e-5)
    with pytest.warns(UserWarning, match="Label 3 is present in all training examples"):
        made = composition("multilabel", Stacking(cv=3)).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(made[:, 3], 1)


def test_one_vs_rest_members(strategy: Any) -> None:
    linear = OneVsRestClassifier(LogisticRegression())
    for kind in ("classes", "multilabel"):
        model = composition(kind, strategy(3), linear).fit(GAPS, TARGETS[kind])
        a = model.estimators_[0].predict_proba(X[["a"]])
        np.testing.assert_array_equal(model.transform(X)[:, : a.shape[1]], a)
