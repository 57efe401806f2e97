"""HardVoting, and both votings over regressors, against scikit-learn and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from mmensemble import HardVoting, MultimodalClassifier, MultimodalRegressor, SoftVoting, on_column
from mmensemble.exceptions import ConfigurationError

MEMBERS = [
    ("a", LogisticRegression(), ["a"]),
    ("b", GaussianNB(), ["b"]),
    ("ab", DecisionTreeClassifier(max_depth=2, random_state=0), ["a", "b"]),
]
REGRESSORS = [
    ("a", LinearRegression(), ["a"]),
    ("b", Ridge(), ["b"]),
    ("ab", DecisionTreeRegressor(max_depth=2, random_state=0), ["a", "b"]),
]
WEIGHTS = [None, [1, 1, 1], [3, 1, 0.5], [1, 1, 2], [0, 1, 2]]


def rows(n_classes: int, seed: int = 0, n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    frame = pd.DataFrame({"a": rng.normal(size=n) + y, "b": rng.normal(size=n) - (y == 1)})
    return frame, np.array(["one", "three", "two"])[y]


def number_rows(seed: int = 0, n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    return frame, 100 + 7 * frame["a"].to_numpy() + rng.normal(size=n)


def with_gaps(X: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return X.where(rng.random(X.shape) > 0.3)


def on_columns(members: list[Any]) -> list[Any]:
    return [(name, on_column(columns, estimator)) for name, estimator, columns in members]


# Classes


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_complete_rows_are_as_in_scikit_learn(n_classes: int, weights: Any) -> None:
    X, y = rows(n_classes)
    ours = MultimodalClassifier(MEMBERS, fusion=HardVoting(weights)).fit(X, y)
    theirs = VotingClassifier(on_columns(MEMBERS), voting="hard", weights=weights).fit(X, y)
    new, _ = rows(n_classes, seed=1)
    votes = theirs.transform(new)
    assert (votes != votes[:, :1]).any(), "the members disagree in some row"
    assert ours.predict(new).tolist() == theirs.predict(new).tolist()
    share = np.ones(3) if weights is None else np.asarray(weights) / np.mean(weights)
    expected = np.stack([np.bincount(row, weights=share, minlength=n_classes) / 3 for row in votes])
    np.testing.assert_allclose(ours.predict_proba(new), expected, rtol=0, atol=1e-12)


def test_a_tie_goes_to_the_first_class() -> None:
    X, y = rows(2)
    model = MultimodalClassifier(MEMBERS[:2], fusion=HardVoting()).fit(X, y)
    one, other = (estimator.predict(X[[c]]) for estimator, c in zip(model.estimators_, ("a", "b"), strict=True))
    tied = one != other
    assert tied.any()
    assert (model.predict_proba(X)[tied] == 0.5).all()
    assert set(model.predict(X)[tied]) == {"one"}


class Undecided(GaussianNB):
    """Finds all classes alike."""

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_a_member_that_is_undecided_votes_for_the_first_class() -> None:
    X, y = rows(3)
    model = MultimodalClassifier([("a", Undecided(), ["a"])], fusion=HardVoting()).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), [[1, 0, 0]] * len(X))


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]], ids=str)
def test_missing_rows_are_voted_on_by_the_others(weights: Any) -> None:
    X, y = rows(3)
    X = with_gaps(X)
    model = MultimodalClassifier(MEMBERS[:2], fusion=HardVoting(weights)).fit(X, y)
    n_voters = set()
    for i, p in enumerate(model.predict_proba(X)):
        votes = np.zeros(3)
        for estimator, column, weight in zip(model.estimators_, ("a", "b"), weights or [1, 1], strict=True):
            if not np.isnan(X.loc[i, column]):
                votes[estimator.predict(X[[column]].iloc[[i]])] += weight
        n_voters.add(X.iloc[i].notna().sum())
        np.testing.assert_allclose(p, votes / votes.sum() if votes.any() else [1 / 3] * 3, rtol=0, atol=1e-12)
    assert n_voters == {0, 1, 2}


def test_a_row_whose_only_vote_weighs_nothing_gets_the_prior() -> None:
    X, y = rows(2)
    y[y == "three"][:10] = "one"
    model = MultimodalClassifier(MEMBERS[:2], fusion=HardVoting([0, 1])).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X[:3].assign(b=np.nan)), [model.fusion_.prior_] * 3)


@pytest.mark.parametrize(("weights", "message"), [([1], "HardVoting has 1 weights for 2"), ([1, -1], "negative")])
def test_weights_that_cannot_be(weights: Any, message: str) -> None:
    X, y = rows(2)
    with pytest.raises(ConfigurationError, match=message):
        MultimodalClassifier(MEMBERS[:2], fusion=HardVoting(weights)).fit(X, y)


# Numbers


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_average_of_regressors_is_as_in_scikit_learn(weights: Any) -> None:
    X, y = number_rows()
    ours = MultimodalRegressor(REGRESSORS, fusion=SoftVoting(weights)).fit(X, y)
    theirs = VotingRegressor(on_columns(REGRESSORS), weights=weights).fit(X, y)
    new, truth = number_rows(seed=1)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-14)
    assert ours.score(new, truth) == pytest.approx(theirs.score(new, truth), abs=1e-12)
    np.testing.assert_array_equal(ours.transform(new), theirs.transform(new))


@pytest.mark.parametrize("weights", [None, [1, 1, 2], [3, 1, 1], [1, 2, 4], [0, 1, 1]], ids=str)
def test_weighted_median_of_whole_weights_is_the_median_of_repeated_values(weights: Any) -> None:
    X, y = number_rows()
    X = with_gaps(X)
    members = [("a", REGRESSORS[0][1], ["a"]), ("b", REGRESSORS[1][1], ["b"]), ("c", DecisionTreeRegressor(), ["c"])]
    X["c"] = with_gaps(X[["a"]].fillna(0), seed=3)["a"]
    model = MultimodalRegressor(members, fusion=HardVoting(weights)).fit(X, y)
    predictions, seen = model.transform(X), set()
    for row, values, there in zip(model.predict(X), predictions, X[["a", "b", "c"]].notna().to_numpy(), strict=True):
        voters = np.repeat(values[there], np.asarray(weights or [1, 1, 1])[there])
        seen.add(len(voters))
        assert row == pytest.approx(np.median(voters) if len(voters) else y.mean(), rel=1e-12)
    assert {0, 1, 2} <= seen or weights is not None


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean of the least and the greatest minimiser of the weighted sum of absolute deviations."""
    cost = np.array([(weights * np.abs(values - v)).sum() for v in values])
    best = values[(cost <= cost.min() + 1e-9) & (weights > 0)]
    return (best.min() + best.max()) / 2


@pytest.mark.parametrize("weights", [[0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [1.5, 2.5, 0.25]], ids=str)
def test_weighted_median_minimises_absolute_deviations(weights: list[float]) -> None:
    X, y = number_rows()
    table = np.column_stack([y, -(y**2)])
    model = MultimodalRegressor(REGRESSORS, fusion=HardVoting(weights)).fit(X, table)
    values = model.transform(X).reshape(len(X), 3, 2)
    expected = [[weighted_median(row[:, k], np.asarray(weights)) for k in (0, 1)] for row in values]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


def test_median_without_a_vote_is_the_mean_of_the_targets() -> None:
    X, y = number_rows()
    model = MultimodalRegressor(REGRESSORS[:2], fusion=HardVoting([0, 1])).fit(X, y)
    np.testing.assert_allclose(model.predict(X[:3].assign(b=np.nan)), [y.mean()] * 3)
