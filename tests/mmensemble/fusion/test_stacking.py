from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from mmensemble import MultimodalClassifier, Stacking, on_column
from mmensemble.exceptions import ConfigurationError
from tests.mmensemble.fusion.shared_folds import shared_folds

MEMBERS = [("a", LogisticRegression(), ["a"]), ("b", GaussianNB(), ["b"])]
LINEAR = LogisticRegression()
SHUFFLED = StratifiedKFold(3, shuffle=True, random_state=0)


def rows(n_classes: int, seed: int = 0, n: int = 60) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    frame = pd.DataFrame({"a": rng.normal(size=n) + y, "b": rng.normal(size=n) - (y == 1)})
    return frame, np.array(["one", "three", "two"])[y]


@pytest.mark.parametrize(
    ("final_estimator", "cv"),
    [(LogisticRegression(), 5), (LogisticRegression(C=0.01), 3), (RandomForestClassifier(5, random_state=0), SHUFFLED)],
    ids=["usual", "weak", "forest on shuffled folds"],
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_complete_rows_are_as_in_scikit_learn(n_classes: int, final_estimator: Any, cv: Any) -> None:
    X, y = rows(n_classes)
    ours = MultimodalClassifier(MEMBERS, fusion=Stacking(final_estimator, cv)).fit(X, y)
    members = [(name, on_column(columns, estimator)) for name, estimator, columns in MEMBERS]
    theirs = StackingClassifier(members, final_estimator, cv=cv, stack_method="predict_proba").fit(X, y)
    new, _ = rows(n_classes, seed=1)
    np.testing.assert_array_equal(ours.predict_proba(new), theirs.predict_proba(new))
    assert ours.predict(new).tolist() == theirs.predict(new).tolist()
    first = 1 if n_classes == 2 else 0
    per_member = ours.transform(new).reshape(len(new), 2, n_classes)[:, :, first:]
    np.testing.assert_array_equal(per_member.reshape(len(new), -1), theirs.transform(new))


def test_sample_weight_is_as_in_scikit_learn() -> None:
    X, y = rows(3)
    weight = np.linspace(0.1, 3, len(y))
    ours = MultimodalClassifier(MEMBERS, fusion=Stacking(LINEAR, cv=3)).fit(X, y, sample_weight=weight)
    # Members without a column selector in front, for a pipeline takes no sample_weight.
    one = MultimodalClassifier(
        [("m", LogisticRegression(), ["a", "b"]), ("n", GaussianNB(), ["a", "b"])], fusion=Stacking(LINEAR, cv=3)
    ).fit(X, y, sample_weight=weight)
    theirs = StackingClassifier([("m", LogisticRegression()), ("n", GaussianNB())], cv=3).fit(
        X, y, sample_weight=weight
    )
    np.testing.assert_array_equal(one.predict_proba(X), theirs.predict_proba(X))
    unweighted = MultimodalClassifier(MEMBERS, fusion=Stacking(LINEAR, cv=3)).fit(X, y)
    assert not np.allclose(ours.predict_proba(X), unweighted.predict_proba(X))


def filled_outputs(X: pd.DataFrame, y: np.ndarray, new: pd.DataFrame, cv: int) -> tuple[list[Any], list[Any]]:
    """Return out-of-fold outputs and outputs for new rows; a missing member's are regressed on the other's."""
    k = len(np.unique(y))
    held_out, outputs, known = np.zeros((2, len(X), k)), np.zeros((2, len(new), k)), []
    for m, (_, estimator, columns) in enumerate(MEMBERS):
        there, new_there = X[columns].notna().all(axis=1).to_numpy(), new[columns].notna().all(axis=1).to_numpy()
        folds = shared_folds(there, y, cv)
        held_out[m, there] = cross_val_predict(estimator, X[columns][there], y[there], cv=folds, method="predict_proba")
        fitted = clone(estimator).fit(X[columns][there], y[there])
        outputs[m, new_there] = fitted.predict_proba(new[columns][new_there])
        known.append((there, new_there))
    both = known[0][0] & known[1][0]
    train, test = held_out.copy(), outputs.copy()
    for m, other in ((0, 1), (1, 0)):
        ridge = Ridge(1.0).fit(held_out[other, both], held_out[m, both])
        train[m, ~known[m][0]] = ridge.predict(held_out[other, ~known[m][0]])
        test[m, ~known[m][1]] = ridge.predict(outputs[other, ~known[m][1]])
    return list(train), list(test)


def reference(X: pd.DataFrame, y: np.ndarray, new: pd.DataFrame, cv: int) -> np.ndarray:
    """Stacking with what is expected of a member where its modality is missing; prior where all of them are."""
    first = 1 if len(set(y)) == 2 else 0
    labels = np.unique(y)
    train, test = filled_outputs(X, y, new, cv)
    some = X.notna().any(axis=1).to_numpy()
    final = LogisticRegression().fit(np.hstack([block[:, first:] for block in train])[some], y[some])
    probabilities = final.predict_proba(np.hstack([block[:, first:] for block in test]))
    probabilities[new.isna().all(axis=1)] = [(y == label).mean() for label in labels]
    return probabilities


@pytest.mark.parametrize("n_classes", [2, 3])
def test_missing_rows_are_filled(n_classes: int) -> None:
    X, y = rows(n_classes)
    new, _ = rows(n_classes, seed=1)
    rng = np.random.default_rng(2)
    for frame in (X, new):
        for column in ("a", "b"):
            frame.loc[rng.random(len(frame)) < 0.3, column] = np.nan
    assert new.isna().all(axis=1).any()
    assert X.isna().all(axis=1).any()
    model = MultimodalClassifier(MEMBERS, fusion=Stacking(LINEAR, cv=3)).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(new), reference(X, y, new, cv=3), rtol=0, atol=1e-9)


def test_the_meta_learner_sees_out_of_fold_predictions_only() -> None:
    """Members that know their fitting rows by heart and nothing else must not be believed."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=80), "b": rng.normal(size=80)})
    y = np.arange(80) % 2
    X["b"] += 1.5 * y
    by_heart = RandomForestClassifier(20, bootstrap=False, random_state=0)
    model = MultimodalClassifier(
        [("heart", by_heart, ["a"]), ("signal", LogisticRegression(), ["b"])], fusion=Stacking(LINEAR, cv=4)
    ).fit(X, y)
    assert model.named_estimators_.heart.score(X[["a"]], y) == 1.0
    heart, signal = model.fusion_.final_estimator_.coef_[0]
    assert signal > 3 * abs(heart)


@pytest.mark.parametrize(
    ("fusion", "message"),
    [
        (Stacking(cv=1), "cv must be at least 2, not 1"),
        (Stacking(cv=0), "cv must be at least 2, not 0"),
        (Stacking(RidgeClassifier()), r"final_estimator \(RidgeClassifier\) has no predict_proba"),
    ],
)
def test_parameters_that_cannot_be(fusion: Any, message: str) -> None:
    X, y = rows(2)
    with pytest.raises(ConfigurationError, match=message):
        MultimodalClassifier(MEMBERS, fusion=fusion).fit(X, y)


def test_more_folds_than_rows_of_a_class_is_scikit_learns_own_error() -> None:
    X, y = rows(2)
    with pytest.raises(ValueError, match="n_splits=50"):
        MultimodalClassifier(MEMBERS, fusion=Stacking(cv=50)).fit(X, y)


def test_parameter_holder() -> None:
    fusion = Stacking(LogisticRegression(C=2.0), cv=3)
    assert clone(fusion).get_params()["final_estimator__C"] == 2.0
    assert (Stacking().final_estimator, Stacking().cv) == (None, 5)
