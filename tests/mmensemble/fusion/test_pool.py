"""The logarithmic opinion pool, against the formula and a plain search for its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize, nnls
from scipy.special import expit, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from mmensemble import LogOpinionPool, MultimodalClassifier, MultimodalRegressor, OnnxPredictor, export_onnx

N = 240
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.repeat([0, 1, 2], [120, 80, 40]))
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - 2 * (KIND == 1), "c": RNG.normal(size=N)})
GAPS = X.where(RNG.random(X.shape) > 0.25)
Y = np.array(["x", "y", "z"])[KIND]
SHARE = np.array([np.mean(label == Y) for label in "xyz"])
CV = StratifiedKFold(4, shuffle=True, random_state=0)
MEMBERS = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]


def ratios(p: np.ndarray) -> np.ndarray:
    """By how much a member makes each class more probable, a factor of 1000 less at most."""
    return np.log(np.maximum(p / SHARE, 1e-3))


def pooled(weights: np.ndarray, evidence: list[np.ndarray]) -> np.ndarray:
    return softmax(np.log(SHARE) + sum(w * e for w, e in zip(weights, evidence, strict=True)), axis=1)


def searched(evidence: list[np.ndarray]) -> np.ndarray:
    """The weights of the lowest penalised log loss, found without gradients."""
    n_members, rows = len(evidence), np.arange(len(KIND))

    def loss(weights: np.ndarray) -> float:
        away = weights - 1 / n_members
        return -np.log(pooled(weights, evidence)[rows, KIND]).sum() + away @ away / 2

    start = np.full(n_members, 1 / n_members)
    found = minimize(loss, start, method="Nelder-Mead", bounds=[(0, None)] * n_members, options={"xatol": 1e-8})
    return found.x


def test_weights_minimise_the_log_loss_of_held_out_rows() -> None:
    model = MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
    held_out = [cross_val_predict(e, X[c], Y, cv=CV, method="predict_proba") for _, e, c in MEMBERS]
    expected = searched([ratios(p) for p in held_out])
    np.testing.assert_allclose(model.fusion_.weights_, expected, rtol=1e-4)
    assert (expected > 0.5).all(), "each tells what the other does not, so that the sum is not 1"
    made = [member.predict_proba(X[c]) for member, (_, _, c) in zip(model.estimators_, MEMBERS, strict=True)]
    np.testing.assert_allclose(model.predict_proba(X), pooled(expected, [ratios(p) for p in made]), atol=1e-4)


def test_what_is_expected_stands_in_for_a_missing_member() -> None:
    model = MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=CV)).fit(GAPS, Y)
    there = [GAPS[c].notna().all(axis=1).to_numpy() for _, _, c in MEMBERS]
    numbers = [np.cumsum(rows) - 1 for rows in there]
    held_out, made = np.zeros((2, N, 3)), np.zeros((2, N, 3))
    for m, (_, estimator, columns) in enumerate(MEMBERS):
        folds = [tuple(numbers[m][part[there[m][part]]] for part in fold) for fold in CV.split(X, Y)]
        cells, labels = GAPS[columns][there[m]], Y[there[m]]
        held_out[m, there[m]] = ratios(cross_val_predict(estimator, cells, labels, cv=folds, method="predict_proba"))
        made[m, there[m]] = ratios(estimator.fit(cells, labels).predict_proba(cells))
    both = there[0] & there[1]
    for m, other in ((0, 1), (1, 0)):
        ridge = Ridge(1.0).fit(held_out[other, both], held_out[m, both])
        for outputs in (held_out, made):
            outputs[m, ~there[m]] = ridge.predict(outputs[other, ~there[m]])
    some = there[0] | there[1]
    np.testing.assert_allclose(model.predict_proba(GAPS[~some]), [SHARE] * (~some).sum())
    np.testing.assert_allclose(
        model.predict_proba(GAPS)[some], pooled(model.fusion_.weights_, list(made))[some], rtol=1e-6
    )


class Sharpened(ClassifierMixin, BaseEstimator):
    """Says the truth about a column of log odds, at another temperature."""

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def fit(self, X: Any, y: Any) -> Sharpened:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        p = expit(self.power * np.asarray(X)[:, 0])
        return np.column_stack([1 - p, p])


@pytest.mark.parametrize("power", [0.25, 1.0, 4.0])
def test_the_sum_of_the_weights_is_a_temperature(power: float) -> None:
    rng = np.random.default_rng(1)
    odds = pd.DataFrame({"odds": rng.normal(scale=1.5, size=4000)})
    y = rng.random(4000) < expit(odds["odds"])
    fusion = MultimodalClassifier([("a", Sharpened(power), ["odds"])], fusion=LogOpinionPool()).fit(odds, y).fusion_
    assert fusion.weights_[0] * power == pytest.approx(1, abs=0.15)


def test_members_that_say_the_same_share_the_weight_of_one() -> None:
    one = MultimodalClassifier(MEMBERS[:1], fusion=LogOpinionPool(cv=CV)).fit(X, Y).fusion_.weights_
    twice = [("same", *MEMBERS[0][1:]), MEMBERS[0]]
    model = MultimodalClassifier(twice, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
    np.testing.assert_allclose(model.fusion_.weights_, np.repeat(one / 2, 2), rtol=0.02)


def test_a_useless_member_gets_nothing_and_is_not_exported(tmp_path: Path) -> None:
    members = [*MEMBERS, ("noise", LogisticRegression(C=1e4), ["c"])]
    frame = X.assign(c=np.random.default_rng(6).normal(size=N))
    model = MultimodalClassifier(members, fusion=LogOpinionPool(cv=CV)).fit(frame, Y)
    without = MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
    assert model.fusion_.weights_[2] == 0
    np.testing.assert_allclose(model.predict_proba(frame), without.predict_proba(X), atol=1e-2)
    assert export_onnx(model, tmp_path / "model.onnx", verify=frame).columns == ["a", "b"]


def test_no_member_can_rule_a_class_out(tmp_path: Path) -> None:
    """A tree says 0 where it has seen none of a class, and is wrong now and then."""
    members = [("a", MEMBERS[0][1], ["a"]), ("tree", DecisionTreeClassifier(random_state=0), ["b"])]
    model = MultimodalClassifier(members, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
    new = pd.DataFrame({"a": [4.0, -3.0], "b": [-2.0, -2.0], "c": 0.0})
    assert (model.estimators_[1].predict_proba(new[["b"]]) == 0).any()
    assert (model.predict_proba(new) > 0).all()
    export_onnx(model, tmp_path / "model.onnx", verify=new)
    made = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(new)
    np.testing.assert_allclose(made, model.predict_proba(new), rtol=1e-4)


def test_labels_have_weights_of_their_own() -> None:
    y = np.column_stack([KIND == 0, KIND == 1]).astype(int)
    members = [(name, MultiOutputClassifier(estimator), columns) for name, estimator, columns in MEMBERS]
    folds = list(CV.split(X, Y))
    model = MultimodalClassifier(members, fusion=LogOpinionPool(cv=folds)).fit(X, y)
    alone = [MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=folds)).fit(X, column) for column in y.T]
    expected = np.column_stack([each.fusion_.weights_ for each in alone])
    np.testing.assert_allclose(model.fusion_.weights_, expected, rtol=1e-5)
    assert abs(expected[:, 0] - expected[:, 1]).max() > 0.1
    columns = np.column_stack([each.predict_proba(X)[:, 1] for each in alone])
    np.testing.assert_allclose(model.predict_proba(X), columns, rtol=1e-5)
    as_columns = MultimodalClassifier(members, fusion=LogOpinionPool(cv=folds)).fit(X, np.where(y, "yes", "no"))
    np.testing.assert_allclose(as_columns.fusion_.weights_, expected, rtol=1e-5)
    np.testing.assert_allclose(np.column_stack([p[:, 1] for p in as_columns.predict_proba(X)]), columns, rtol=1e-5)


def test_a_label_of_which_members_are_sure_keeps_finite_weights() -> None:
    y = (X["a"] > 0).to_numpy()
    members = [(name, DecisionTreeClassifier(random_state=0), ["a"]) for name in ("one", "other")]
    model = MultimodalClassifier(members, fusion=LogOpinionPool()).fit(X, y)
    assert np.isfinite(model.fusion_.weights_).all()
    assert log_loss(y, model.predict_proba(X)) < 0.02


def test_numbers_have_the_average_of_the_lowest_squared_error() -> None:
    y = np.column_stack([3 * X["a"] + X["b"] + RNG.normal(size=N), 1e-3 * X["b"]])
    members = [("a", LinearRegression(), ["a"]), ("b", Ridge(), ["b"]), ("c", Ridge(3.0), ["c"])]
    cv = KFold(4, shuffle=True, random_state=0)
    model = MultimodalRegressor(members, fusion=LogOpinionPool(cv=cv)).fit(X, y)
    held_out = np.stack([cross_val_predict(e, X[c], y, cv=cv) for _, e, c in members])
    made = np.stack([e.fit(X[c], y).predict(X[c]) for _, e, c in members])
    for target, unit in ((0, 1.0), (1, 1e-3)):
        # Least squares with weights of at least 0, and their sum held at 1 by a row that counts for much.
        matrix = np.vstack([held_out[:, :, target].T / unit, np.full(3, 1e4)])
        expected, _ = nnls(matrix, np.append(y[:, target] / unit, 1e4))
        np.testing.assert_allclose(model.fusion_.weights_[:, target], expected, atol=1e-3)
        np.testing.assert_allclose(model.predict(X)[:, target], expected @ made[:, :, target], atol=5e-3 * unit)
    one = MultimodalRegressor(members, fusion=LogOpinionPool(cv=cv)).fit(X, y[:, 0])
    np.testing.assert_allclose(one.fusion_.weights_, model.fusion_.weights_[:, 0], atol=1e-6)
    # Where one is missing, the others' weights are scaled to 1.
    a, b = model.fusion_.weights_[:2, 0]
    gone = X[:5].assign(c=np.nan)
    np.testing.assert_allclose(model.predict(gone)[:, 0], (a * made[0] + b * made[1])[:5, 0] / (a + b), rtol=1e-6)


def test_logit_of_a_prior_of_1_is_finite() -> None:
    y = np.column_stack([KIND == 0, np.ones(N)]).astype(int)
    members = [(name, MultiOutputClassifier(GaussianNB()), columns) for name, _, columns in MEMBERS]
    made = MultimodalClassifier(members, fusion=LogOpinionPool(cv=3)).fit(X, y).predict_proba(X)
    assert (logit(np.minimum(made[:, 1], 1 - 1e-9)) > 10).all()
