"""Sample weights reach the estimators through scikit-learn's metadata routing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier, VotingRegressor
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score

from mmensemble import on_column
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor

TEXTS = [f"{colour} {thing}" for colour in ("red", "green", "ripe") for thing in ("apple", "car", "pear", "bus")]
GREYS = np.linspace(0, 240, len(TEXTS)).astype(np.uint8)
FRAME = pd.DataFrame({"name": TEXTS, "picture": [np.full((32, 32), grey, dtype=np.uint8) for grey in GREYS]})
KINDS = np.array(["fruit", "vehicle"] * (len(TEXTS) // 2))
WEIGHT = np.arange(float(len(TEXTS))) % 4
CV = StratifiedKFold(3)

TEXT: dict[str, Any] = {"max_epochs": 2, "vocab_size": 280, "max_length": 16, "learning_rate": 1e-2, "random_state": 0}
IMAGE: dict[str, Any] = {"max_epochs": 2, "image_size": 32, "random_state": 0}

LEAVES = [
    ("name", TextClassifier(**TEXT), KINDS),
    ("name", TextRegressor(**TEXT), np.arange(float(len(TEXTS)))),
    ("picture", ImageClassifier(**IMAGE), KINDS),
    ("picture", ImageRegressor(**IMAGE), np.arange(float(len(TEXTS)))),
]
leaves = pytest.mark.parametrize(("column", "leaf", "y"), LEAVES, ids=[type(leaf).__name__ for _, leaf, _ in LEAVES])


@pytest.fixture(autouse=True)
def _routing() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def requesting(leaf: Any) -> Any:
    return clone(leaf).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)


def outputs(estimator: Any, X: Any) -> np.ndarray:
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@leaves
def test_through_a_pipeline(column: str, leaf: Any, y: np.ndarray) -> None:
    direct = clone(leaf).fit(FRAME[column], y, sample_weight=WEIGHT)
    pipeline = on_column(column, requesting(leaf)).fit(FRAME, y, sample_weight=WEIGHT)
    np.testing.assert_array_equal(outputs(pipeline, FRAME), outputs(direct, FRAME[column]))
    unweighted = clone(leaf).fit(FRAME[column], y)
    assert np.abs(outputs(pipeline, FRAME) - outputs(unweighted, FRAME[column])).max() > 1e-4
    scored = pipeline.score(FRAME, y, sample_weight=WEIGHT)
    assert scored == direct.score(FRAME[column], y, sample_weight=WEIGHT) != direct.score(FRAME[column], y)


def test_under_another_name() -> None:
    direct = TextClassifier(**TEXT).fit(TEXTS, KINDS, sample_weight=WEIGHT)
    leaf = TextClassifier(**TEXT).set_fit_request(sample_weight="importance")
    pipeline = on_column("name", leaf).fit(FRAME, KINDS, importance=WEIGHT)
    np.testing.assert_array_equal(pipeline.predict_proba(FRAME), direct.predict_proba(TEXTS))


def test_weights_that_nobody_asked_for_or_refused() -> None:
    with pytest.raises(UnsetMetadataPassedError, match=r"TextClassifier\.fit"):
        on_column("name", TextClassifier(**TEXT)).fit(FRAME, KINDS, sample_weight=WEIGHT)
    refusing = TextClassifier(**TEXT).set_fit_request(sample_weight=False)
    with pytest.raises(TypeError, match="not routed"):
        on_column("name", refusing).fit(FRAME, KINDS, sample_weight=WEIGHT)


def test_requests_name_every_weight() -> None:
    for _, leaf, _ in LEAVES:
        requests = leaf.get_metadata_routing()
        for method in ("fit", "partial_fit", "score"):
            assert "sample_weight" in getattr(requests, method).requests
    assert "classes" in TextClassifier().get_metadata_routing().partial_fit.requests


def test_through_a_search() -> None:
    search = GridSearchCV(
        on_column("name", requesting(TextClassifier(**TEXT))), {"estimator__batch_size": [4, 8]}, cv=CV
    ).fit(FRAME, KINDS, sample_weight=WEIGHT)
    size = search.best_params_["estimator__batch_size"]
    direct = TextClassifier(**TEXT, batch_size=size).fit(TEXTS, KINDS, sample_weight=WEIGHT)
    np.testing.assert_array_equal(search.predict_proba(FRAME), direct.predict_proba(TEXTS))
    for fold, (fit, held_out) in enumerate(CV.split(TEXTS, KINDS)):
        leaf = TextClassifier(**TEXT, batch_size=4).fit(FRAME["name"].iloc[fit], KINDS[fit], sample_weight=WEIGHT[fit])
        expected = accuracy_score(
            KINDS[held_out], leaf.predict(FRAME["name"].iloc[held_out]), sample_weight=WEIGHT[held_out]
        )
        assert search.cv_results_[f"split{fold}_test_score"][0] == pytest.approx(expected)


def test_through_cross_validation() -> None:
    weighted = cross_val_score(
        requesting(TextClassifier(**TEXT)), FRAME["name"], KINDS, cv=CV, params={"sample_weight": WEIGHT}
    )
    for score, (fit, held_out) in zip(weighted, CV.split(TEXTS, KINDS), strict=True):
        leaf = TextClassifier(**TEXT).fit(FRAME["name"].iloc[fit], KINDS[fit], sample_weight=WEIGHT[fit])
        X, y = FRAME["name"].iloc[held_out], KINDS[held_out]
        assert score == pytest.approx(leaf.score(X, y, sample_weight=WEIGHT[held_out]))


def test_through_voting_only_to_who_asked() -> None:
    asking = on_column("name", requesting(TextClassifier(**TEXT)))
    refusing = on_column("picture", ImageClassifier(**IMAGE).set_fit_request(sample_weight=False))
    voting = VotingClassifier([("asking", asking), ("refusing", refusing)], voting="soft")
    voting.fit(FRAME, KINDS, sample_weight=WEIGHT)
    text = TextClassifier(**TEXT).fit(TEXTS, KINDS, sample_weight=WEIGHT)
    image = ImageClassifier(**IMAGE).fit(FRAME["picture"], KINDS)
    expected = (text.predict_proba(TEXTS) + image.predict_proba(FRAME["picture"])) / 2
    np.testing.assert_allclose(voting.predict_proba(FRAME), expected, atol=1e-7)


def test_through_voting_of_regressors() -> None:
    y = np.arange(float(len(TEXTS)))
    voting = VotingRegressor([("text", on_column("name", requesting(TextRegressor(**TEXT))))])
    voting.fit(FRAME, y, sample_weight=WEIGHT)
    direct = TextRegressor(**TEXT).fit(TEXTS, y, sample_weight=WEIGHT)
    np.testing.assert_allclose(voting.predict(FRAME), direct.predict(TEXTS))


@pytest.mark.parametrize("meta", ["stacking", "calibration"])
def test_through_stacking_and_calibration(meta: str) -> None:
    leaf = on_column("name", requesting(TextClassifier(**TEXT)))
    final = LogisticRegression().set_fit_request(sample_weight=True)
    composed = {
        "stacking": lambda: StackingClassifier([("text", leaf)], final, cv=CV),
        "calibration": lambda: CalibratedClassifierCV(leaf, cv=CV, ensemble=False),
    }[meta]()
    composed.fit(FRAME, KINDS, sample_weight=WEIGHT)
    fitted = composed.estimators_[0] if meta == "stacking" else composed.calibrated_classifiers_[0].estimator
    direct = TextClassifier(**TEXT).fit(TEXTS, KINDS, sample_weight=WEIGHT)
    np.testing.assert_array_equal(fitted.predict_proba(FRAME), direct.predict_proba(TEXTS))
