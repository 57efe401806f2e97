from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit, StratifiedKFold, cross_val_predict
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from mmensemble import EnsembleSelection, MultimodalClassifier, MultimodalRegressor
from mmensemble.exceptions import ConfigurationError
from tests.mmensemble.fusion.shared_folds import shared_folds

N = 60
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.arange(N) % 3)
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - 2 * (KIND == 1), "c": RNG.normal(size=N)})
GAPS = X.where(RNG.random(X.shape) > 0.25)
Y = np.array(["x", "y", "z"])[KIND]
NUMBERS = 50 + 3 * KIND + RNG.normal(size=N)
MEMBERS = [
    ("a", LogisticRegression(), ["a"]),
    ("b", GaussianNB(), ["b"]),
    ("c", DecisionTreeClassifier(max_depth=2, random_state=0), ["c"]),
]
REGRESSORS = [("a", LinearRegression(), ["a"]), ("b", Ridge(), ["b"]), ("c", Ridge(3.0), ["c"])]


def held_out(members: list[Any], frame: pd.DataFrame, y: np.ndarray, **method: Any) -> list[np.ndarray]:
    """Out-of-fold outputs per member, NaN where its column is missing."""
    made = []
    for _, estimator, columns in members:
        there = frame[columns].notna().all(axis=1).to_numpy()
        folds = shared_folds(there, y, 3)
        outputs = cross_val_predict(estimator, frame[columns][there], y[there], cv=folds, **method)
        full = np.full((len(y), *outputs.shape[1:]), np.nan)
        full[there] = outputs
        made.append(full)
    return made


def greedy(
    outputs: list[np.ndarray], prior: Any, n_rounds: int, loss: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, list[float]]:
    """Caruana et al. (2004), in the most literal way: a bag of members, averaged anew for each candidate."""
    bag: list[int] = []
    losses: list[float] = []
    for _ in range(n_rounds):
        tried = []
        for candidate in range(len(outputs)):
            votes = np.stack([outputs[m] for m in [*bag, candidate]])
            there = ~np.isnan(votes)
            average = np.where(there, votes, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
            tried.append(loss(np.where(there.any(axis=0), average, prior)))
        bag.append(int(np.argmin(tried)))
        losses.append(min(tried))
    best = bag[: int(np.argmin(losses)) + 1]
    return np.bincount(best, minlength=len(outputs)) / len(best), losses


@pytest.mark.parametrize("weight", [None, RNG.random(N)], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("frame", [X, GAPS], ids=["complete", "gaps"])
def test_classes(frame: pd.DataFrame, weight: Any) -> None:
    # Members that take no weights into account, so that cross_val_predict makes the same outputs.
    members = [(name, IgnoresWeights(estimator), columns) for name, estimator, columns in MEMBERS]
    model = MultimodalClassifier(members, fusion=EnsembleSelection(n_rounds=12, cv=3)).fit(frame, Y, weight)
    some = frame.notna().any(axis=1).to_numpy()
    shares = np.array([np.average(label == Y, weights=weight) for label in "xyz"])

    def loss(average: np.ndarray) -> float:
        # scikit-learn clips at the machine's epsilon; none of these is near.
        return log_loss(Y[some], average[some], sample_weight=None if weight is None else weight[some])

    outputs = held_out(MEMBERS, frame, Y, method="predict_proba")
    expected, losses = greedy(outputs, shares, 12, loss)
    np.testing.assert_allclose(model.fusion_.losses_, losses, rtol=1e-10)
    np.testing.assert_allclose(model.fusion_.weights_, expected)
    assert np.count_nonzero(expected) > 1

    made = [np.full((N, 3), np.nan) for _ in members]
    for m, (fitted, (_, _, columns)) in enumerate(zip(model.estimators_, MEMBERS, strict=True)):
        rows = frame[columns].notna().all(axis=1).to_numpy()
        made[m][rows] = fitted.predict_proba(frame[columns][rows])
    total = np.nansum([w * p for w, p in zip(expected, made, strict=True)], axis=0)
    votes = np.sum([w * ~np.isnan(p[:, :1]) for w, p in zip(expected, made, strict=True)], axis=0)
    np.testing.assert_allclose(
        model.predict_proba(frame), np.where(votes > 0, total / np.maximum(votes, 1e-9), shares), rtol=0, atol=1e-12
    )


class IgnoresWeights(GaussianNB):
    """Fits another classifier without the weights."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> IgnoresWeights:
        self.inner.fit(X, y)
        self.classes_ = self.inner.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.inner.predict_proba(X)


@pytest.mark.parametrize("y", [NUMBERS, np.column_stack([NUMBERS, 1e-3 * RNG.normal(size=N) + X["b"] / 100])])
@pytest.mark.parametrize("frame", [X, GAPS], ids=["complete", "gaps"])
def test_numbers(frame: pd.DataFrame, y: np.ndarray) -> None:
    model = MultimodalRegressor(REGRESSORS, fusion=EnsembleSelection(n_rounds=12, cv=3)).fit(frame, y)
    some = frame.notna().any(axis=1).to_numpy()

    def loss(average: np.ndarray) -> float:
        return float((((average - y)[some] ** 2).mean(axis=0) / y[some].var(axis=0)).mean())

    expected, losses = greedy(held_out(REGRESSORS, frame, y), y.mean(axis=0), 12, loss)
    np.testing.assert_allclose(model.fusion_.losses_, losses, rtol=1e-10)
    np.testing.assert_allclose(model.fusion_.weights_, expected)


def test_columns_of_labels() -> None:
    y = np.column_stack([Y, np.where(KIND == 0, "zero", "more")])
    members = [(name, MultiOutputClassifier(LogisticRegression()), [name]) for name in "abc"]
    model = MultimodalClassifier(members, fusion=EnsembleSelection(n_rounds=6, cv=3)).fit(X, y)
    # cross_val_predict has no rows of class probabilities for such folds: one call per column.
    parts = [
        [cross_val_predict(LogisticRegression(), X[[c]], y[:, k], cv=_Folds(), method="predict_proba") for c in "abc"]
        for k in (0, 1)
    ]
    outputs = [np.hstack([parts[0][m], parts[1][m]]) for m in range(3)]

    def loss(average: np.ndarray) -> float:
        return (log_loss(y[:, 0], average[:, :3]) + log_loss(y[:, 1], average[:, 3:])) / 2

    expected, losses = greedy(outputs, 0, 6, loss)
    np.testing.assert_allclose(model.fusion_.losses_, losses, rtol=1e-10)
    np.testing.assert_allclose(model.fusion_.weights_, expected)


class _Folds:
    """Three blocks of rows, as KFold makes them, whatever y is."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        for block in np.array_split(np.arange(N), 3):
            yield np.setdiff1d(np.arange(N), block), block

    def get_n_splits(self, *args: Any) -> int:
        return 3


def test_a_useless_member_gets_nothing() -> None:
    members = [MEMBERS[1], ("noise", LogisticRegression(C=100.0), ["c"])]
    frame = X.assign(b=KIND + 0.1 * X["c"])
    model = MultimodalClassifier(members, fusion=EnsembleSelection(cv=3)).fit(frame, Y)
    np.testing.assert_array_equal(model.fusion_.weights_, [1, 0])
    np.testing.assert_allclose(model.predict_proba(frame), model.estimators_[0].predict_proba(frame[["b"]]))
    # A row that has the useless one only gets the classes' share.
    np.testing.assert_allclose(model.predict_proba(frame.assign(b=np.nan)), [model.fusion_.prior_] * N)


def test_the_best_round_is_kept() -> None:
    model = MultimodalClassifier(MEMBERS, fusion=EnsembleSelection(n_rounds=30, cv=3)).fit(X, Y)
    losses = model.fusion_.losses_
    best = int(losses.argmin()) + 1
    assert losses.shape == (30,)
    assert best < 30, "later rounds are worse"
    counts = model.fusion_.weights_ * best
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    fewer = MultimodalClassifier(MEMBERS, fusion=EnsembleSelection(n_rounds=best, cv=3)).fit(X, Y)
    np.testing.assert_array_equal(fewer.fusion_.weights_, model.fusion_.weights_)
    one = MultimodalClassifier(MEMBERS, fusion=EnsembleSelection(n_rounds=1, cv=3)).fit(X, Y)
    assert sorted(one.fusion_.weights_) == [0, 0, 1]


def test_the_first_of_equals_is_added() -> None:
    members = [("one", LogisticRegression(), ["a"]), ("same", LogisticRegression(), ["a"])]
    model = MultimodalClassifier(members, fusion=EnsembleSelection(n_rounds=5, cv=3)).fit(X, Y)
    np.testing.assert_array_equal(model.fusion_.weights_, [1, 0])


def test_a_constant_target() -> None:
    members = [("a", DummyRegressor(), ["a"]), ("b", DummyRegressor(), ["b"])]
    model = MultimodalRegressor(members, fusion=EnsembleSelection(n_rounds=3, cv=3)).fit(X, np.full(N, 5.0))
    np.testing.assert_allclose(model.predict(X), 5)


def test_targets_are_weighed_in_units_of_their_weighted_variance() -> None:
    """A row of weight 3 is the row three times, also where it decides how far a target spreads."""
    y = np.column_stack([NUMBERS, X["b"] + 0.1 * X["c"]])
    wild = np.arange(N) % 4 == 0
    y[wild, 1] *= 30
    times, fold = np.where(wild, 1, 3), np.arange(N) % 3
    order = np.repeat(np.arange(N), times)
    one, other = (EnsembleSelection(n_rounds=4, cv=PredefinedSplit(f)) for f in (fold, fold[order]))
    weighted = MultimodalRegressor(REGRESSORS, fusion=one).fit(X, y, times.astype(float))
    repeated = MultimodalRegressor(REGRESSORS, fusion=other).fit(X.iloc[order], y[order])
    np.testing.assert_allclose(weighted.fusion_.losses_, repeated.fusion_.losses_, rtol=1e-9)


@pytest.mark.parametrize("n_rounds", [0, -1, 2.0, "5", None, True])
def test_numbers_of_rounds_that_cannot_be(n_rounds: Any) -> None:
    with pytest.raises(ConfigurationError, match="n_rounds must be an integer of at least 1"):
        MultimodalClassifier(MEMBERS, fusion=EnsembleSelection(n_rounds=n_rounds)).fit(X, Y)


def test_number_of_rounds_out_of_an_array() -> None:
    for n_rounds in np.arange(1, 3):
        model = MultimodalClassifier(MEMBERS, fusion=EnsembleSelection(n_rounds=n_rounds, cv=3)).fit(X, Y)
        assert model.fusion_.losses_.shape == (n_rounds,)


def test_folds_are_those_of_the_splitter() -> None:
    splitter = StratifiedKFold(4, shuffle=True, random_state=3)
    members = [MEMBERS[0]]
    model = MultimodalClassifier(members, fusion=EnsembleSelection(n_rounds=1, cv=splitter)).fit(X, Y)
    outputs = cross_val_predict(LogisticRegression(), X[["a"]], Y, cv=splitter, method="predict_proba")
    assert model.fusion_.losses_[0] == pytest.approx(log_loss(Y, outputs), rel=1e-12)
