from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, softmax
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from mmensemble import MultimodalClassifier, MultimodalRegressor, ProductOfExperts, export_onnx
from mmensemble.exceptions import ConfigurationError
from tests.mmensemble.fusion.shared_folds import shared_folds

N = 60
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.arange(N) % 3)
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - (KIND == 1)})
GAPS = X.where(RNG.random(X.shape) > 0.3)
HAS = GAPS.notna().to_numpy()
Y = np.array(["x", "y", "z"])[KIND]
MULTILABEL = np.column_stack([KIND == 0, KIND != 1]).astype(int)
COLUMNS = np.column_stack([Y, np.where(KIND == 0, "zero", "more")])
NUMBERS = 50 + 3 * KIND + RNG.normal(size=N)
MEMBERS = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]


def members_of(estimator: Any) -> list[Any]:
    return [("a", estimator, ["a"]), ("b", estimator, ["b"])]


def test_product_of_probabilities() -> None:
    model = MultimodalClassifier(MEMBERS, fusion=ProductOfExperts()).fit(X, Y)
    product = model.estimators_[0].predict_proba(X[["a"]]) * model.estimators_[1].predict_proba(X[["b"]])
    np.testing.assert_allclose(model.predict_proba(X), product / product.sum(axis=1, keepdims=True), rtol=0, atol=1e-12)


def test_missing_experts_say_nothing() -> None:
    model = MultimodalClassifier(MEMBERS, fusion=ProductOfExperts()).fit(GAPS, Y)
    assert {tuple(row) for row in HAS.tolist()} == {(False, False), (False, True), (True, False), (True, True)}
    for i, p in enumerate(model.predict_proba(GAPS)):
        product = np.ones(3)
        for m, name in enumerate("ab"):
            if HAS[i, m]:
                product = product * model.estimators_[m].predict_proba(GAPS[[name]].iloc[[i]])[0]
        np.testing.assert_allclose(p, product / product.sum(), rtol=0, atol=1e-12)


def test_labels_are_multiplied_by_adding_logits() -> None:
    linear = OneVsRestClassifier(LogisticRegression())
    model = MultimodalClassifier(members_of(linear), fusion=ProductOfExperts()).fit(GAPS, MULTILABEL)
    logits = np.zeros((N, 2))
    for m, name in enumerate("ab"):
        rows = HAS[:, m]
        logits[rows] += logit(model.estimators_[m].predict_proba(GAPS[[name]][rows]))
    expected = np.where(HAS.any(axis=1, keepdims=True), expit(logits), MULTILABEL.mean(axis=0))
    np.testing.assert_allclose(model.predict_proba(GAPS), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(model.predict(GAPS), (expected > 0.5).astype(int))


def test_columns_of_labels_are_multiplied_one_by_one() -> None:
    linear = MultiOutputClassifier(LogisticRegression())
    model = MultimodalClassifier(members_of(linear), fusion=ProductOfExperts()).fit(X, COLUMNS)
    parts = zip(*(e.predict_proba(X[[c]]) for e, c in zip(model.estimators_, "ab", strict=True)), strict=True)
    for made, (one, other) in zip(model.predict_proba(X), parts, strict=True):
        np.testing.assert_allclose(made, softmax(np.log(one) + np.log(other), axis=1), rtol=0, atol=1e-12)


class Certain(GaussianNB):
    """Gives its class the probability 1."""

    def predict_proba(self, X: Any) -> np.ndarray:
        return (super().predict(X)[:, None] == self.classes_).astype(float)


def test_one_expert_rules_a_class_out_and_none_makes_it_nan() -> None:
    model = MultimodalClassifier([("a", Certain(), ["a"]), MEMBERS[1]], fusion=ProductOfExperts()).fit(X, Y)
    probabilities = model.predict_proba(X)
    assert model.predict(X).tolist() == model.classes_[model.estimators_[0].predict(X[["a"]])].tolist()
    np.testing.assert_allclose(probabilities.max(axis=1), 1, atol=1e-6)
    # Two that exclude each other's class: what neither of them says has no chance.
    both = MultimodalClassifier(members_of(Certain()), fusion=ProductOfExperts()).fit(X, Y)
    one, other = (e.predict(X[[c]]) for e, c in zip(both.estimators_, "ab", strict=True))
    for p, label, another in zip(both.predict_proba(X), one, other, strict=True):
        assert p[list({label, another})].sum() == pytest.approx(1)


def precision(estimator: Any, column: str, y: np.ndarray, cv: Any, weight: np.ndarray | None = None) -> np.ndarray:
    rows = GAPS[column].notna().to_numpy()
    held_out = cross_val_predict(estimator, GAPS[[column]][rows], y[rows], cv=shared_folds(rows, y, cv))
    return 1 / np.average((held_out - y[rows]) ** 2, axis=0, weights=weight)


@pytest.mark.parametrize("cv", [5, KFold(3, shuffle=True, random_state=1)], ids=["5", "shuffled"])
@pytest.mark.parametrize("y", [NUMBERS, np.column_stack([NUMBERS, 1e-3 * KIND])], ids=["one", "two"])
def test_product_of_gaussians(y: np.ndarray, cv: Any) -> None:
    regressors = [("a", LinearRegression(), ["a"]), ("b", Ridge(100.0), ["b"])]
    model = MultimodalRegressor(regressors, fusion=ProductOfExperts(cv=cv)).fit(GAPS, y)
    precisions = np.stack([precision(e, c, y, cv).reshape(-1) for _, e, (c,) in regressors])
    np.testing.assert_allclose(model.fusion_.precision_, precisions, rtol=1e-10)
    means = model.transform(GAPS).reshape(N, 2, -1)
    # The product of two normal densities, where both are there.
    weights = precisions[None] * HAS[:, :, None]
    expected = (weights * means).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-300)
    expected[~HAS.any(axis=1)] = y.mean(axis=0)
    np.testing.assert_allclose(model.predict(GAPS), expected.reshape(y.shape), rtol=1e-10)
    both = HAS.all(axis=1)
    assert (precisions[0] > precisions[1]).all()
    assert (weights[both] > 0).all()


def test_variance_is_by_sample_weight() -> None:
    weight = np.linspace(0.2, 2, N)
    model = MultimodalRegressor([("a", DummyRegressor(strategy="constant", constant=50.0), ["a"])])
    model = model.set_params(fusion=ProductOfExperts()).fit(X, NUMBERS, weight)
    np.testing.assert_allclose(
        1 / model.fusion_.precision_, [[((NUMBERS - 50) ** 2 * weight).sum() / weight.sum()]], rtol=1e-12
    )


def test_a_perfect_member_decides() -> None:
    frame = X.assign(truth=NUMBERS)
    members = [("truth", LinearRegression(), ["truth"]), ("a", Ridge(), ["a"])]
    model = MultimodalRegressor(members, fusion=ProductOfExperts()).fit(frame, NUMBERS)
    np.testing.assert_allclose(model.predict(frame), NUMBERS, rtol=1e-6)
    without = frame.assign(truth=np.nan)
    np.testing.assert_allclose(model.predict(without), model.estimators_[1].predict(X[["a"]]))


def test_two_perfect_members_of_a_constant() -> None:
    constant = np.full(N, 7.0)
    members = members_of(DummyRegressor())
    model = MultimodalRegressor(members, fusion=ProductOfExperts()).fit(X, constant)
    np.testing.assert_allclose(model.predict(X), constant)


def test_classification_has_no_use_for_cv() -> None:
    rare = Y.astype(object)
    rare[0] = "rare"
    assert "rare" in MultimodalClassifier(MEMBERS, fusion=ProductOfExperts(cv=1)).fit(X, rare).classes_
    with pytest.raises(ConfigurationError, match="cv must be at least 2, not 1"):
        MultimodalRegressor([("a", Ridge(), ["a"])], fusion=ProductOfExperts(cv=1)).fit(X, NUMBERS)


# Classes that a member never saw


def test_no_expert_rules_out_a_class_that_it_never_saw(tmp_path: Path) -> None:
    frame = X.assign(a=X["a"].where(KIND != 1))  # no row of class y has an a
    model = MultimodalClassifier(MEMBERS, fusion=ProductOfExperts()).fit(frame, Y)
    first, second = (member.predict_proba(X[[name]]) for member, name in zip(model.estimators_, "ab", strict=True))
    share = (KIND == 1).mean()
    given = np.column_stack([first[:, 0] * (1 - share), np.full(N, share), first[:, 1] * (1 - share)])
    expected = given * second
    np.testing.assert_allclose(model.predict_proba(X), expected / expected.sum(axis=1, keepdims=True), atol=1e-12)
    assert (model.predict(X) == "y").any()
    export_onnx(model, tmp_path / "model.onnx", verify=X)


def test_columns_of_labels_that_a_member_never_saw(tmp_path: Path) -> None:
    frame = X.assign(a=X["a"].where(KIND != 1))
    linear = MultiOutputClassifier(LogisticRegression())
    columns = np.column_stack([Y, np.where(np.arange(N) % 2, "odd", "even")])
    model = MultimodalClassifier(members_of(linear), fusion=ProductOfExperts()).fit(frame, columns)
    kinds, parities = model.predict_proba(X)
    assert (kinds.argmax(axis=1) == 1).any()
    both = [member.predict_proba(X[[name]])[1] for member, name in zip(model.estimators_, "ab", strict=True)]
    np.testing.assert_allclose(parities, softmax(np.log(both[0]) + np.log(both[1]), axis=1), atol=1e-12)
    export_onnx(model, tmp_path / "model.onnx", verify=X)


def test_a_label_that_a_member_never_saw(tmp_path: Path) -> None:
    frame = X.assign(a=X["a"].where(KIND != 0))  # no row of the first label has an a
    model = MultimodalClassifier(members_of(DecisionTreeClassifier(max_depth=2)), fusion=ProductOfExperts())
    model.fit(frame, MULTILABEL)
    said = model.estimators_[1].predict_proba(X[["b"]])[0][:, 1].clip(1e-6, 1 - 1e-6)
    expected = expit(logit(said) + logit((KIND == 0).mean()))
    np.testing.assert_allclose(model.predict_proba(X)[:, 0], expected, atol=1e-12)
    export_onnx(model, tmp_path / "model.onnx", verify=X)
