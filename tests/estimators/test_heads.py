"""Heads on frozen backbones: solved, with the penalty that cross-validation prefers, and trained by `partial_fit`."""

from __future__ import annotations

import functools
import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, cross_val_score
from torch import Tensor, nn

import mmensemble_estimators
from mmensemble import DataError, MultimodalClassifier, SoftVoting, on_column
from mmensemble.linear import descent, pareto_scale
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor

SIZE, N = 16, 60
COLOURS = np.random.default_rng(0).integers(0, 256, (N, 3)).astype(np.uint8)
PICTURES = [np.tile(colour, (8, 8, 1)) for colour in COLOURS]
KINDS = np.array(["red", "green", "blue"])[COLOURS.astype(int).argmax(axis=1)]
NUMBERS = COLOURS[:, 0] / 50.0 + np.random.default_rng(1).normal(size=N)
FRAME = pd.DataFrame({"picture": PICTURES, "item": np.arange(N) // 3})
WEIGHT = np.random.default_rng(2).integers(0, 4, N).astype(float)


class Colour(nn.Module):
    """A backbone with weights that do not change: random features of a picture's mean colour."""

    def __init__(self, bad: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(3, SIZE, generator=torch.Generator().manual_seed(0)))
        self.bad = bad

    def forward(self, pixel_values: Tensor) -> Tensor:
        embedding = torch.tanh(pixel_values.mean(dim=(2, 3)) @ self.weight) + 3
        return embedding / (1 - self.bad * (pixel_values.amax(dim=(1, 2, 3)) == 0).unsqueeze(1))


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    return cls(**{"backbone": Colour, "fine_tune": "head", "image_size": 32, "device": "cpu", **params})


def state_of(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}


def features_of(model: Any) -> np.ndarray:
    """What the linear layer sees, in float64."""
    embedding = model.transform(PICTURES).astype(float)
    return embedding / np.sqrt((embedding**2).mean(axis=1, keepdims=True))


def same(one: Any, other: Any) -> bool:
    states = state_of(one), state_of(other)
    return all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


# What is solved


@pytest.mark.parametrize("balanced", [False, True])
def test_a_logistic_regression_of_the_embeddings(balanced: bool) -> None:
    class_weight = {"red": 0.5, "green": 3.0, "blue": 1.0} if balanced else None
    model = image(class_weight=class_weight).fit(PICTURES, KINDS, sample_weight=WEIGHT)
    rows = WEIGHT > 0
    X = features_of(model)
    weight = WEIGHT * pd.Series(KINDS).map(class_weight or dict.fromkeys(KINDS, 1)).to_numpy()
    scaled = X - np.average(X[rows], axis=0, weights=weight[rows])
    scaled /= np.sqrt(np.sqrt(np.average(scaled[rows] ** 2, axis=0, weights=weight[rows])))
    penalty = model.history_.loc[model.history_["chosen"], "penalty"].item()
    expected = LogisticRegression(C=1 / penalty, tol=1e-9, max_iter=10_000).fit(scaled[rows], KINDS[rows], weight[rows])
    np.testing.assert_allclose(model.predict_proba(PICTURES), expected.predict_proba(scaled), atol=1e-4)
    assert model.score(PICTURES, KINDS) > 0.9


@pytest.mark.parametrize("two", [False, True])
def test_a_ridge_regression_of_the_embeddings(two: bool) -> None:
    y = np.column_stack([NUMBERS, 1e3 * COLOURS[:, 1]]) if two else NUMBERS
    model = image(ImageRegressor).fit(PICTURES, y)
    X = features_of(model)
    X = (X - X.mean(axis=0)) / np.sqrt(X.std(axis=0))
    alphas = model.history_["penalty"].unique()
    expected = RidgeCV(alphas, alpha_per_target=True).fit(X, y)
    chosen = model.history_[model.history_["chosen"]]
    assert (chosen["penalty"].to_numpy() >= expected.alpha_).all()
    least = model.history_.groupby("part")["valid_loss"].min()
    assert (chosen["valid_loss"].to_numpy() <= 1.001 * least.to_numpy()).all()
    np.testing.assert_allclose(model.predict(PICTURES), expected.predict(X), atol=0.02 * np.std(y, axis=0).max())
    assert model.score(PICTURES, y) > 0.7


def test_columns_are_solved_side_by_side() -> None:
    dark = np.where(COLOURS.mean(axis=1) < 120, "dark", "light")
    both = image().fit(PICTURES, np.column_stack([KINDS, dark]))
    for number, column in enumerate([KINDS, dark]):
        alone = image().fit(PICTURES, column)
        ours, theirs = both.predict_proba(PICTURES)[number], alone.predict_proba(PICTURES)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert both.history_["part"].unique().tolist() == [0, 1]


def test_labels_are_solved_side_by_side() -> None:
    Y = (COLOURS[:, :2] > 128).astype(int)
    both = image().fit(PICTURES, Y)
    chosen = both.history_[both.history_["chosen"]]
    assert chosen["part"].tolist() == [0, 1]
    for number in range(2):
        alone = image().fit(PICTURES, Y[:, number])
        penalties = alone.history_.loc[alone.history_["chosen"], "penalty"]
        if penalties.item() == pytest.approx(chosen["penalty"].iloc[number]):
            np.testing.assert_allclose(
                both.predict_proba(PICTURES)[:, number], alone.predict_proba(PICTURES)[:, 1], atol=1e-4
            )
    assert both.score(PICTURES, Y) > 0.8


@pytest.mark.parametrize("modality", ["Text", "Image", "Audio", "Video"])
@pytest.mark.parametrize("kind", ["Classifier", "Regressor"])
def test_all_of_them_take_groups(modality: str, kind: str) -> None:
    cls = getattr(mmensemble_estimators, modality + kind)
    assert list(inspect.signature(cls.fit).parameters) == ["self", "X", "y", "sample_weight", "groups"]


# What has no say in it


def test_nothing_is_drawn_or_trained() -> None:
    expected = image(random_state=0).fit(PICTURES, KINDS)
    for params in (
        {"random_state": 1},
        {"max_epochs": 1},
        {"learning_rate": 1.0},
        {"label_smoothing": 0.5},
        {"weight_decay": 0.5},
        {"warmup_fraction": 0.9},
        {"early_stopping": True, "validation_fraction": 0.5},
    ):
        assert same(image(**params).fit(PICTURES, KINDS), expected), params


def test_rows_that_are_missing_or_weigh_nothing() -> None:
    expected = image().fit(PICTURES[2:], KINDS[2:])
    assert same(image().fit([None, *PICTURES[1:]], KINDS, sample_weight=[1.0, 0.0] + [1.0] * (N - 2)), expected)
    weighted = image().fit(PICTURES, KINDS, sample_weight=np.full(N, 1e-6))
    np.testing.assert_allclose(
        weighted.predict_proba(PICTURES), image().fit(PICTURES, KINDS).predict_proba(PICTURES), atol=1e-5
    )


def test_history_is_the_path() -> None:
    history = image().fit(PICTURES, KINDS).history_
    assert history.columns.tolist() == ["part", "penalty", "valid_loss", "chosen"]
    assert history["penalty"].is_monotonic_decreasing
    best = history[history["chosen"]].iloc[0]
    assert best["valid_loss"] <= 1.001 * history["valid_loss"].min() + 1e-4
    few = image().fit(PICTURES[:2], ["a", "b"]).history_
    assert few["chosen"].tolist() == [True]
    assert few["valid_loss"].isna().all()


def test_saved_with_its_history(tmp_path: Path) -> None:
    model = image().fit(PICTURES, KINDS)
    model.save(tmp_path / "model")
    loaded = ImageClassifier.load(tmp_path / "model", backbone=Colour)
    assert same(loaded, model)
    pd.testing.assert_frame_equal(loaded.history_, model.history_)


def test_calibrated() -> None:
    model = CalibratedClassifierCV(image(), method="temperature", cv=3).fit(FRAME["picture"], KINDS)
    assert model.score(FRAME["picture"], KINDS) > 0.8


# Groups


@pytest.fixture
def learned_by_heart() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Pictures that recur three times, with labels that have nothing to do with them."""
    rng = np.random.default_rng(3)
    items = np.tile(np.arange(30), 3)
    pictures = [np.tile(colour, (8, 8, 1)) for colour in rng.integers(0, 256, (30, 3)).astype(np.uint8)]
    return [pictures[item] for item in items], np.tile(rng.integers(0, 2, 30), 3), items


@pytest.mark.parametrize("cls", [ImageClassifier, ImageRegressor])
def test_groups_are_held_out_together(learned_by_heart: Any, cls: Any) -> None:
    X, y, groups = learned_by_heart
    without, by_groups = image(cls).fit(X, y), image(cls).fit(X, y, groups=groups)
    penalties = [m.history_.loc[m.history_["chosen"], "penalty"].item() for m in (without, by_groups)]
    assert penalties[0] < penalties[1]
    assert without.history_["valid_loss"].min() < by_groups.history_["valid_loss"].min()


def test_groups_reach_heads_in_a_composition(learned_by_heart: Any) -> None:
    X, y, groups = learned_by_heart
    expected = image().fit(X, y, groups=groups)
    model = MultimodalClassifier([("image", image(), "picture")], fusion=SoftVoting())
    model.fit(pd.DataFrame({"picture": X}), y, groups=groups)
    assert same(model.named_estimators_["image"], expected)


def test_groups_are_routed_without_being_asked_for(learned_by_heart: Any) -> None:
    X, y, groups = learned_by_heart
    expected = image().fit(X, y, groups=groups)
    frame = pd.DataFrame({"picture": X})
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = on_column("picture", image()).fit(frame, y, groups=groups)
        scores = cross_val_score(
            on_column("picture", image(ImageRegressor)), frame, y, cv=GroupKFold(3), params={"groups": groups}
        )
    assert same(pipeline[-1], expected)
    assert np.isfinite(scores).all()


def test_groups_are_as_many_as_rows() -> None:
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        image().fit(PICTURES, KINDS, groups=[1, 2])


# Going on from it


def test_partial_fit_trains_what_was_solved() -> None:
    model = image(random_state=0).fit(PICTURES, KINDS)
    before = model.predict_proba(PICTURES)
    model.partial_fit(PICTURES[:9], KINDS[:9])
    assert model.history_["epoch"].tolist() == [1]
    assert model.partial_fit(PICTURES[:9], KINDS[:9]).history_["epoch"].tolist() == [1, 2]
    assert np.abs(model.predict_proba(PICTURES) - before).max() > 1e-3
    assert model.score(PICTURES, KINDS) > 0.8
    assert model.fit(PICTURES, KINDS).history_["chosen"].sum() == 1


def test_warm_start_solves_anew_on_the_network_that_is_there() -> None:
    texts = ["red apple", "green apple", "fast car", "slow car"] * 4
    kinds = ["fruit", "fruit", "vehicle", "vehicle"] * 4
    model = TextClassifier(vocab_size=300, max_epochs=3, warm_start=True, random_state=0).fit(texts, kinds)
    trained = {name: value for name, value in state_of(model).items() if name.startswith("encoder.")}
    kept = {name: value.copy() for name, value in trained.items()}
    model.set_params(fine_tune="head").fit(texts, kinds)
    for name, value in kept.items():
        np.testing.assert_array_equal(state_of(model)[name], value)
    assert model.history_["chosen"].sum() == 1
    # That head does not normalise, as the training left it.
    assert model.module_.head.norm is None
    assert model.predict(texts).tolist() == kinds


# What goes wrong


def test_an_embedding_that_is_no_number_is_named() -> None:
    black = [*PICTURES[:20], np.zeros((8, 8, 3), dtype=np.uint8), *PICTURES[20:]]
    frame = pd.DataFrame({"picture": [None, *black]})
    broken = functools.partial(Colour, bad=1.0)
    model = image(backbone=broken)
    with pytest.raises(DataError, match="row 21, column 'picture': the backbone's embedding of the row is NaN or inf"):
        model.fit(frame["picture"], np.insert(KINDS, 20, ["red", "red"]))


def test_what_has_not_converged_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "MAX_ITERATIONS", 1)
    with pytest.warns(ConvergenceWarning, match="the solution of the head of ImageClassifier has not converged"):
        image().fit(PICTURES, KINDS)


def test_a_constant_backbone_predicts_the_shares() -> None:
    class Constant(Colour):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return torch.full((len(pixel_values), SIZE), 0.1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = image(backbone=Constant).fit(PICTURES, KINDS)
    np.testing.assert_allclose(model.predict_proba(PICTURES[:2]), np.tile(model.class_prior_, (2, 1)), atol=1e-6)
    assert np.isinf(pareto_scale(np.full((5, 2), 0.1))).all()


def test_texts() -> None:
    texts = [f"{colour} {thing}" for colour in ("red", "green", "ripe") for thing in ("apple", "car", "pear", "bus")]
    y = np.array(["fruit", "vehicle"] * 6)
    assert TextClassifier(fine_tune="head", vocab_size=300, random_state=0).fit(texts, y).score(texts, y) > 0.7
    assert (
        TextRegressor(fine_tune="head", vocab_size=300, random_state=0)
        .fit(texts, y == "fruit")
        .score(texts, y == "fruit")
        > 0.2
    )
