from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from mmensemble import MultimodalClassifier, SoftVoting, on_column
from mmensemble.exceptions import ConfigurationError

MEMBERS = [
    ("a", LogisticRegression(), ["a"]),
    ("b", GaussianNB(), ["b"]),
    ("ab", LogisticRegression(C=0.1), ["a", "b"]),
]
WEIGHTS = [None, [1, 1, 1], [3, 1, 0.5], [0, 1, 2], (2.0, 0.0, 0.0), np.array([1.0, 2.0, 3.0])]


def rows(n_classes: int, seed: int = 0, n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    frame = pd.DataFrame({"a": rng.normal(size=n) + y, "b": rng.normal(size=n) - (y == 1)})
    return frame, np.array(["one", "three", "two"])[y]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_complete_rows_are_as_in_scikit_learn(n_classes: int, weights: Any) -> None:
    X, y = rows(n_classes)
    ours = MultimodalClassifier(MEMBERS, fusion=SoftVoting(weights)).fit(X, y)
    members = [(name, on_column(columns, estimator)) for name, estimator, columns in MEMBERS]
    theirs = VotingClassifier(members, voting="soft", weights=weights).fit(X, y)
    new, _ = rows(n_classes, seed=1)
    np.testing.assert_allclose(ours.predict_proba(new), theirs.predict_proba(new), rtol=0, atol=1e-15)
    assert ours.predict(new).tolist() == theirs.predict(new).tolist()
    np.testing.assert_array_equal(
        ours.transform(new), np.hstack(theirs.set_params(flatten_transform=False).transform(new))
    )


def with_gaps(X: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    gaps = X.copy()
    gaps["a"] = gaps["a"].where(rng.random(len(X)) > 0.3)
    gaps["b"] = gaps["b"].where(rng.random(len(X)) > 0.3)
    return gaps


@pytest.mark.parametrize("weights", [None, [3.0, 1.0]])
def test_missing_rows_renormalise(weights: Any) -> None:
    X, y = rows(3)
    X = with_gaps(X)
    model = MultimodalClassifier(MEMBERS[:2], fusion=SoftVoting(weights)).fit(X, y)
    prior = np.array([(y == label).mean() for label in model.classes_])
    n_voters = set()
    for i, p in enumerate(model.predict_proba(X)):
        row = X.iloc[[i]]
        votes = [
            (weight, estimator.predict_proba(row[columns])[0])
            for (_, _, columns), estimator, weight in zip(
                MEMBERS[:2], model.estimators_, weights or [1, 1], strict=True
            )
            if row[columns].notna().to_numpy().all()
        ]
        n_voters.add(len(votes))
        expected = sum(w * vote for w, vote in votes) / sum(w for w, _ in votes) if votes else prior
        np.testing.assert_allclose(p, expected, rtol=0, atol=1e-12)
    assert n_voters == {0, 1, 2}


def test_a_row_whose_only_vote_weighs_nothing() -> None:
    X, y = rows(2)
    model = MultimodalClassifier(MEMBERS[:2], fusion=SoftVoting([0.0, 1.0])).fit(X, y)
    alone = X.iloc[:5].assign(b=np.nan)
    probabilities = model.predict_proba(alone)
    # Nobody who may vote is there: the classes' share, as for a row that misses everything.
    np.testing.assert_allclose(probabilities, [[0.5, 0.5]] * 5)


def test_all_missing_gives_the_weighted_prior() -> None:
    X, y = rows(2)
    weight = np.where(y == "one", 3.0, 1.0)
    nothing = X.iloc[:4].assign(a=np.nan, b=None)
    model = MultimodalClassifier(MEMBERS[:1]).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(nothing), [[0.5, 0.5]] * 4)
    model.fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(model.predict_proba(nothing), [[0.75, 0.25]] * 4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"3 weights for 2 members \(\['a', 'b'\]\)"),
        ([1], "1 weights for 2 members"),
        ([], "0 weights for 2 members"),
        ([1, -1], "negative"),
        ([0, 0], "nor all 0"),
        ([1, float("nan")], "weights"),
        (["a", "b"], "weights"),
        (1.0, "weights"),
    ],
    ids=str,
)
def test_weights_that_cannot_be(weights: Any, message: str) -> None:
    X, y = rows(2)
    with pytest.raises(ConfigurationError, match=message):
        MultimodalClassifier(MEMBERS[:2], fusion=SoftVoting(weights)).fit(X, y)


def test_parameter_holder() -> None:
    fusion = SoftVoting([1, 2])
    assert clone(fusion).get_params() == {"weights": [1, 2]}
    assert repr(fusion) == "SoftVoting(weights=[1, 2])"
    assert SoftVoting().weights is None
