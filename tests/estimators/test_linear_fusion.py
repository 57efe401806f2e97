"""What frozen networks bring to a linear fusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from mmensemble import ConfigurationError, LinearFusion, MultimodalClassifier, Stacking, on_column
from mmensemble_estimators import ConcatFusion
from mmensemble_estimators.base import embedding
from tests.instances import NUMBERS, Convolution, WordVectors, numbers, small_image, text_of


def model(text: Any, **params: Any) -> MultimodalClassifier:
    members = [("text", text, "name"), ("facts", numbers(), NUMBERS)]
    return MultimodalClassifier(members, fusion=LinearFusion(cv=2), **params)


def frozen_text() -> Any:
    return text_of(WordVectors, fine_tune="head")


def test_a_frozen_leaf_gives_what_it_transforms(items: pd.DataFrame, labels: np.ndarray) -> None:
    fitted = model(frozen_text()).fit(items, labels)
    there = items["name"].notna()
    member = fitted.named_estimators_["text"]
    own = frozen_text().fit(items["name"][there], labels[there]).transform(items["name"][there])
    np.testing.assert_allclose(member.transform(items["name"][there]), normalize(own), atol=1e-6)
    assert member[0].module_.head is None


@pytest.mark.parametrize("fine_tune", ["all", "lora"])
def test_a_leaf_that_would_be_trained_is_refused(items: pd.DataFrame, labels: np.ndarray, fine_tune: str) -> None:
    with pytest.raises(ConfigurationError, match=r"fine_tune='head'.*FrozenEstimator"):
        model(text_of(WordVectors, fine_tune=fine_tune)).fit(items, labels)


def test_a_leaf_that_was_fitted_before_is_taken(items: pd.DataFrame, labels: np.ndarray) -> None:
    there = items["name"].notna()
    before = text_of(WordVectors).fit(items["name"][there], labels[there])
    fitted = model(FrozenEstimator(before)).fit(items, labels)
    assert fitted.score(items, labels) > 0.5


def test_a_leaf_inside_a_pipeline(items: pd.DataFrame, labels: np.ndarray) -> None:
    picture = MultimodalClassifier(
        [("image", make_pipeline(small_image(fine_tune="head"), StandardScaler()), "picture")],
        fusion=LinearFusion(cv=2),
    ).fit(items, labels)
    assert picture.fusion_.members_[0].estimator[0].module_.head is None
    tied = on_column("name", frozen_text())
    members = [("text", tied, ["name"]), ("facts", numbers(), NUMBERS)]
    assert MultimodalClassifier(members, fusion=LinearFusion(cv=2)).fit(items, labels).score(items, labels) > 0.4


def test_a_search_embeds_each_row_once(
    items: pd.DataFrame, labels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    run = embedding.run

    def counted(estimator: Any, function: Any, encoded: Any, chosen: Any = None, **more: Any) -> Any:
        rows.append(len(encoded) if chosen is None else len(chosen))
        return run(estimator, function, encoded, chosen, **more)

    monkeypatch.setattr(embedding, "run", counted)
    monkeypatch.setattr("mmensemble_estimators.frozen.rows.WORTH_MULTIPLICATIONS", 0)
    image = small_image(fine_tune="head").set_params(backbone=FixedConvolution)
    members = [("image", image, "picture"), ("facts", numbers(), NUMBERS)]
    composition = MultimodalClassifier(members, cache=tmp_path)
    strategies = [LinearFusion(cv=2), LinearFusion(cv=3), Stacking(cv=2), ConcatFusion(max_epochs=1, random_state=0)]
    GridSearchCV(composition, {"fusion": strategies}, cv=2, refit=False, error_score="raise").fit(items, labels)
    assert sum(rows) <= items["picture"].notna().sum()


class FixedConvolution(Convolution):
    """The same weights at each call."""

    def __init__(self) -> None:
        super().__init__()
        for number, parameter in enumerate(self.parameters()):
            parameter.data.copy_(parameter.data.new_tensor(_fixed(tuple(parameter.shape), number)))


def _fixed(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) / 10
