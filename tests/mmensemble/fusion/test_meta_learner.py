"""The meta-learner that stacking has by default: what it sees, and how strong its penalty is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from mmensemble import MultimodalClassifier, MultimodalRegressor, Stacking
from mmensemble.fusion.held_out import HeldOut
from mmensemble.fusion.meta_learner import chosen_strength
from mmensemble.tasks import Classification

N = 120
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.repeat([0, 1, 2], [60, 36, 24]))
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - 2 * (KIND == 1)})
Y = np.array(["x", "y", "z"])[KIND]
CV = StratifiedKFold(4, shuffle=True, random_state=0)
MEMBERS = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]
STRENGTHS = [0.03, 0.1, 0.3, 1.0, 3.0]


def evidence(p: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Probabilities, and logarithms of their ratios to the prior, in units of the largest loss of a class."""
    first = p[:, 1:] if p.shape[1] == 2 else p
    return np.hstack([first, np.log(np.maximum(p / share, 1e-3)) / np.log(1000)])


def features(y: np.ndarray, outputs: list[np.ndarray]) -> np.ndarray:
    share = np.array([np.mean(label == y) for label in np.unique(y)])
    return np.hstack([evidence(p, share) for p in outputs])


@pytest.mark.parametrize("y", [Y, Y == "y"], ids=["classes", "two classes"])
def test_the_penalty_is_chosen_by_the_log_loss_of_held_out_rows(y: np.ndarray) -> None:
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(cv=CV)).fit(X, y)
    train = features(y, [cross_val_predict(e, X[c], y, cv=CV, method="predict_proba") for _, e, c in MEMBERS])
    losses = []
    for strength in STRENGTHS:
        final = LogisticRegression(C=strength, max_iter=1000)
        losses.append(log_loss(y, cross_val_predict(final, train, y, cv=CV, method="predict_proba")))
    expected = STRENGTHS[int(np.argmin(losses))]
    assert model.fusion_.strength_ == model.fusion_.final_estimator_.C == expected
    final = LogisticRegression(C=expected, max_iter=1000).fit(train, y)
    new = features(
        y, [member.predict_proba(X[c]) for member, (_, _, c) in zip(model.estimators_, MEMBERS, strict=True)]
    )
    np.testing.assert_allclose(model.predict_proba(X), final.predict_proba(new), atol=1e-6)


def strength(features: np.ndarray, weight: np.ndarray | None = None, folds: Any = None) -> float:
    folds = list(CV.split(X, Y)) if folds is None else folds
    known = HeldOut(np.zeros((1, N, 3)), np.ones((1, N, 1), dtype=bool), KIND, X, weight, folds)
    return chosen_strength(Classification(np.unique(Y)), features, known)


def test_noise_gets_a_strong_penalty_and_certainty_a_weak_one() -> None:
    assert strength(RNG.normal(size=(N, 20))) == 0.03
    assert strength(np.eye(3)[KIND]) == 3.0


def test_rows_of_weight_0_have_no_say() -> None:
    """Half of the rows are sure, and the others, which do not count, are noise."""
    counts = np.arange(N) % 2
    features = np.where(counts[:, None], np.eye(3)[KIND], 3 * RNG.normal(size=(N, 3)))
    assert strength(features, counts.astype(float)) == 3.0
    assert strength(features) < 3


def test_without_two_folds_to_choose_by() -> None:
    rows = np.arange(N)
    assert strength(np.eye(3)[KIND], folds=[(rows[:60], rows[60:])]) == 1.0
    # A fold of one class cannot be learned from.
    first = np.flatnonzero(KIND == 0)
    assert strength(np.eye(3)[KIND], folds=[(first, np.flatnonzero(KIND)), (np.flatnonzero(KIND), first)]) == 1.0


def test_groups_are_kept_together_in_the_choice() -> None:
    """Members that recall an item from its other rows are believed, unless items are held out as wholes."""
    rng = np.random.default_rng(2)
    item = rng.normal(size=(40, 2)).repeat(5, axis=0)
    frame = pd.DataFrame(item + 0.01 * rng.normal(size=item.shape), columns=["a", "b"])
    y, groups = rng.permutation(np.arange(40) % 2).repeat(5), np.arange(40).repeat(5)
    members = [(name, KNeighborsClassifier(3), ["a", "b"]) for name in ("one", "other")]
    shuffled = StratifiedKFold(5, shuffle=True, random_state=0)
    parted = MultimodalClassifier(members, fusion=Stacking(cv=shuffled)).fit(frame, y).fusion_.strength_
    whole = MultimodalClassifier(members, fusion=Stacking(cv=GroupKFold(5))).fit(frame, y, groups=groups)
    assert whole.fusion_.strength_ < parted


def test_of_several_labels() -> None:
    table = np.column_stack([KIND == 0, KIND != 1]).astype(int)
    for y, wrapper in ((table, OneVsRestClassifier), (np.where(table, "yes", "no"), MultiOutputClassifier)):
        members = [(name, MultiOutputClassifier(GaussianNB()), columns) for name, _, columns in MEMBERS]
        folds = list(CV.split(X, Y))
        model = MultimodalClassifier(members, fusion=Stacking(cv=folds)).fit(X, y)
        assert isinstance(model.fusion_.final_estimator_, wrapper)
        blocks = []
        for _, _, columns in MEMBERS:
            said = [
                cross_val_predict(GaussianNB(), X[columns], y[:, k], cv=folds, method="predict_proba") for k in (0, 1)
            ]
            share = [np.array([np.mean(label == y[:, k]) for label in np.unique(y[:, k])]) for k in (0, 1)]
            logs = [np.log(np.maximum(p / s, 1e-3)) / np.log(1000) for p, s in zip(said, share, strict=True)]
            if wrapper is OneVsRestClassifier:
                logs = [part[:, 1:] - part[:, :1] for part in logs]
            blocks.append(np.hstack([*(p[:, 1:] for p in said), *logs]))
        for k, fitted in enumerate(model.fusion_.final_estimator_.estimators_):
            expected = LogisticRegression(C=model.fusion_.strength_, max_iter=1000).fit(np.hstack(blocks), y[:, k])
            np.testing.assert_allclose(fitted.coef_, expected.coef_, rtol=1e-3, atol=1e-4)


def test_of_numbers() -> None:
    """One penalty for all, in units of each feature's spread, so that targets of any unit are learned."""
    y = np.column_stack([3 * X["a"] + RNG.normal(size=N), 1e-3 * (X["b"] + RNG.normal(size=N))])
    members = [("a", LinearRegression(), ["a"]), ("b", Ridge(), ["b"])]
    cv = KFold(4, shuffle=True, random_state=0)
    model = MultimodalRegressor(members, fusion=Stacking(cv=cv)).fit(X, y)
    train = np.hstack([cross_val_predict(e, X[c], y, cv=cv) for _, e, c in members])
    mean, scale = train.mean(axis=0), train.std(axis=0)

    def fitted(strength: float, rows: Any) -> Ridge:
        z = train[rows]
        return Ridge(strength * len(z)).fit((z - z.mean(axis=0)) / z.std(axis=0), y[rows])

    losses = []
    for strength in (1.0, 0.1, 0.01, 0.001, 0.0001):
        made = np.zeros_like(y)
        for rows, rest in cv.split(X):
            z = train[rows]
            made[rest] = fitted(strength, rows).predict((train[rest] - z.mean(axis=0)) / z.std(axis=0))
        losses.append(((made - y) ** 2 / y.var(axis=0)).mean())
    assert model.fusion_.strength_ == (1.0, 0.1, 0.01, 0.001, 0.0001)[int(np.argmin(losses))]
    new = np.hstack([e.predict(X[c]) for e, (_, _, c) in zip(model.estimators_, members, strict=True)])
    expected = fitted(model.fusion_.strength_, slice(None)).predict((new - mean) / scale)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-6)
    assert model.score(X, y) > 0.5
    other_units = MultimodalRegressor(members, fusion=Stacking(cv=cv)).fit(X, y * [1e-3, 1e6])
    np.testing.assert_allclose(other_units.predict(X), model.predict(X) * [1e-3, 1e6], rtol=1e-3)


def test_it_is_calibrated_where_members_are_not() -> None:
    """Members that are far too sure, and one that a logistic regression of probabilities cannot undo."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(600, 4))
    y = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((600, 1))).argmax(axis=1)
    frame = pd.DataFrame({str(k): logits[:, k] for k in range(4)})
    columns = list(frame)

    class TooSure(LogisticRegression):
        def predict_proba(self, X: Any) -> np.ndarray:
            return softmax(4 * self.decision_function(X), axis=1)

    members = [(name, TooSure(), columns[:3] if name == "one" else columns[1:]) for name in ("one", "other")]
    fitting, new = slice(0, 400), slice(400, None)
    scores = {}
    for name, final in (("default", None), ("logistic", LogisticRegression())):
        model = MultimodalClassifier(members, fusion=Stacking(final)).fit(frame[fitting], y[fitting])
        scores[name] = log_loss(y[new], model.predict_proba(frame[new]))
    assert scores["default"] < scores["logistic"]
