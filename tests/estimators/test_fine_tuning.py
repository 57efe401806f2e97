"""Pretrained networks that are trained: from the solved head on, the best epochs averaged, in the time there is."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor, nn

from mmensemble import ConfigurationError, MultimodalClassifier, SoftVoting, SuperLearner
from mmensemble.time_limits import time_limit
from mmensemble_estimators import ConcatFusion, ImageClassifier, ImageRegressor, TextClassifier
from mmensemble_estimators.base import estimator as fitting

N, SIZE = 240, 8
COLOURS = np.random.default_rng(0).integers(0, 256, (N, 3)).astype(np.uint8)
PICTURES = [np.tile(colour, (4, 4, 1)) for colour in COLOURS]
# No linear model of the colour tells them apart.
KINDS = np.where((COLOURS[:, 0] > 128) ^ (COLOURS[:, 1] > 128), "odd", "even")
GROUPS = np.arange(N) // 4
NUMBERS = np.abs(COLOURS[:, 0] - 128.0) + COLOURS[:, 2]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(SIZE, SIZE)

    def forward(self, states: Tensor) -> Tensor:
        return states + torch.tanh(self.layer(states))


class Body(nn.Module):
    """A backbone whose weights are always the same at first: a layer, and two blocks."""

    slow = 0.0

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Linear(3, SIZE)
            self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, pixel_values: Tensor) -> Tensor:
        if self.training:
            time.sleep(self.slow)
        states = self.first(4 * pixel_values.mean(dim=(2, 3)) - 2)
        for block in self.blocks:
            states = block(states)
        return states


class Slow(Body):
    """Of which a step takes 10 milliseconds at least."""

    slow = 0.01


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    settings = {"backbone": Body, "image_size": 32, "max_epochs": 4, "learning_rate": 0.02, "augmentation": ()}
    return cls(**{**settings, "device": "cpu", "random_state": 0, **params})


@pytest.fixture(scope="module")
def frozen() -> Any:
    return image(fine_tune="head").fit(PICTURES, KINDS)


@pytest.fixture(scope="module")
def tuned() -> Any:
    return image(max_epochs=20).fit(PICTURES, KINDS)


# Where it starts


@pytest.mark.parametrize("fine_tune", ["all", "lora"])
def test_the_first_step_is_taken_from_the_frozen_solution(frozen: Any, fine_tune: str) -> None:
    still = image(fine_tune=fine_tune, learning_rate=1e-12, max_epochs=1, early_stopping=False)
    np.testing.assert_allclose(
        still.fit(PICTURES, KINDS).predict_proba(PICTURES), frozen.predict_proba(PICTURES), atol=1e-5
    )


def test_of_numbers_too() -> None:
    frozen = image(ImageRegressor, fine_tune="head").fit(PICTURES, NUMBERS)
    still = image(ImageRegressor, learning_rate=1e-12, max_epochs=1, early_stopping=False).fit(PICTURES, NUMBERS)
    np.testing.assert_allclose(still.predict(PICTURES), frozen.predict(PICTURES), rtol=1e-4)


def test_training_goes_beyond_the_frozen_solution(frozen: Any, tuned: Any) -> None:
    assert frozen.score(PICTURES, KINDS) < 0.8 < 0.9 < tuned.score(PICTURES, KINDS)
    history = tuned.history_
    assert history["epoch"].tolist() == list(range(len(history)))
    assert np.isnan(history["train_loss"].iloc[0])
    assert history["valid_loss"].min() < 0.5 * history["valid_loss"].iloc[0]


def test_the_same_twice_and_with_time_to_spare(tuned: Any) -> None:
    again = image(max_epochs=20, time_limit=1e6).fit(PICTURES, KINDS)
    np.testing.assert_array_equal(again.predict_proba(PICTURES), tuned.predict_proba(PICTURES))
    assert not again.timed_out_


def test_a_solution_that_training_spoils_is_kept_and_that_of_all_rows(frozen: Any) -> None:
    wild = image(learning_rate=30.0, max_epochs=3).fit(PICTURES, KINDS)
    assert wild.history_.query("kept")["epoch"].tolist() == [0]
    np.testing.assert_allclose(wild.predict_proba(PICTURES), frozen.predict_proba(PICTURES), atol=1e-5)


def test_probabilities_are_calibrated_on_the_rows_that_were_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels are half noise, so that a network that learns them by heart is far too sure."""
    noisy = np.where(np.random.default_rng(3).random(N) < 0.4, "odd", KINDS)
    seen = []
    calibrate = fitting.calibrate_head

    def watched(model: Any, raw: np.ndarray, target: np.ndarray, weight: np.ndarray) -> None:
        before = model.target_.outputs(raw)
        calibrate(model, raw, target, weight)
        head = model.module_.head.linear
        seen.append((before, target, head.weight.detach().clone()))

    monkeypatch.setattr(fitting, "calibrate_head", watched)
    model = image(max_epochs=10).fit(PICTURES, noisy)
    ((before, target, weight),) = seen
    rows = np.sort(validating_rows(monkeypatch, clone(model).set_params(max_epochs=1), PICTURES, noisy))
    after = model.predict_proba([PICTURES[row] for row in rows])
    labels = np.searchsorted(model.classes_, noisy[rows])
    assert log_loss(labels, after) <= log_loss(target, before) + 1e-6
    assert torch.equal(weight, model.module_.head.linear.weight)


def test_a_partial_fit_solves_nothing() -> None:
    model = image().partial_fit(PICTURES, KINDS)
    assert model.module_.head.norm is None
    assert len(model.history_) == 1


def test_what_was_averaged_is_stored(tuned: Any, tmp_path: Path) -> None:
    tuned.save(tmp_path / "model")
    loaded = ImageClassifier.load(tmp_path / "model", backbone=Body)
    np.testing.assert_allclose(loaded.predict_proba(PICTURES), tuned.predict_proba(PICTURES), rtol=1e-6)
    pd.testing.assert_frame_equal(loaded.history_, tuned.history_)


@pytest.mark.parametrize(("name", "value"), [("layer_decay", 0.0), ("layer_decay", 1.5), ("early_stopping", "yes")])
def test_bad_parameters(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be"):
        image(**{name: value}).fit(PICTURES, KINDS)


# Which rows say when to stop


def validating_rows(monkeypatch: pytest.MonkeyPatch, model: Any, X: Any, y: Any, **metadata: Any) -> Any:
    """The rows that a fit sets aside."""
    seen = {}

    class Watched(fitting.TrainingData):
        def __init__(self, rows: np.ndarray, batch: Any, *rest: Any, **more: Any) -> None:
            super().__init__(rows, batch, *rest, **more)
            seen[batch.__name__] = rows

    monkeypatch.setattr(fitting, "TrainingData", Watched)
    model.fit(X, y, **metadata)
    return seen.get("batch")


def test_whole_groups_in_the_classes_proportions(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = validating_rows(monkeypatch, image(max_epochs=1), PICTURES, KINDS, groups=GROUPS)
    assert not set(GROUPS[rows]) & set(np.delete(GROUPS, rows))
    assert abs(len(rows) - 0.1 * N) <= 4
    assert abs((KINDS[rows] == "odd").mean() - (KINDS == "odd").mean()) < 0.1


def test_the_same_text_is_not_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"item {number // 2}" for number in range(200)]
    model = TextClassifier(max_epochs=1, vocab_size=300, max_length=8, early_stopping=True, random_state=0)
    rows = validating_rows(monkeypatch, model, texts, np.arange(200) // 2 % 2)
    assert len(rows) == 20
    assert len({texts[row] for row in rows}) == 10


def test_few_rows_are_all_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert validating_rows(monkeypatch, image(max_epochs=1), PICTURES[:100], KINDS[:100]) is None


# In the time there is


def test_a_fit_that_is_cut_says_so() -> None:
    model = image(backbone=Slow, max_epochs=500, time_limit=1.0)
    with pytest.warns(ConvergenceWarning, match="time_limit=1.0 ended the training of this ImageClassifier early"):
        model.fit(PICTURES, KINDS)
    assert model.timed_out_
    history = model.history_
    assert 1 < len(history) < 500
    assert history["cut"].tolist() == [False] * (len(history) - 1) + [True]
    # What is left is the best there was, and not worse than the solved head.
    assert model.history_.query("kept")["valid_loss"].min() <= history["valid_loss"].iloc[0]


@pytest.mark.parametrize("early_stopping", [True, False])
def test_without_time_for_an_epoch_the_solved_head_stays(frozen: Any, early_stopping: bool) -> None:
    model = image(backbone=Slow, batch_size=1, time_limit=0.3, early_stopping=early_stopping)
    with pytest.warns(ConvergenceWarning, match="time_limit"):
        model.fit(PICTURES, KINDS)
    assert model.timed_out_
    assert model.history_.query("kept")["epoch"].tolist() == [0]
    np.testing.assert_allclose(model.predict_proba(PICTURES), frozen.predict_proba(PICTURES), atol=1e-5)


def test_from_scratch_too() -> None:
    texts = ["red apple", "fast car"] * 20
    model = TextClassifier(max_epochs=10_000, vocab_size=300, max_length=8, time_limit=1.0, random_state=0)
    with pytest.warns(ConvergenceWarning, match="TextClassifier early"):
        model.fit(texts, [0, 1] * 20)
    assert model.timed_out_
    assert model.score(texts, [0, 1] * 20) == 1.0


def test_a_frozen_network_is_never_cut() -> None:
    with time_limit(0.0):
        assert not image(fine_tune="head").fit(PICTURES, KINDS).timed_out_


def test_one_that_is_not_cut_knows_no_limit(tuned: Any) -> None:
    assert "cut" not in tuned.history_
    assert not tuned.timed_out_


@pytest.mark.parametrize("value", [0, -1.0, "1", True, float("inf")])
def test_a_bad_time_limit(value: Any) -> None:
    X = pd.DataFrame({"picture": PICTURES})
    for model in (image(time_limit=value), MultimodalClassifier([("a", image(), "picture")], time_limit=value)):
        with pytest.raises(ConfigurationError, match="time_limit must be a number of seconds above 0"):
            model.fit(X if isinstance(model, MultimodalClassifier) else PICTURES, KINDS)


# In compositions


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    return pd.DataFrame({"picture": PICTURES, "blue": COLOURS[:, 2].astype(float)})


def members(**params: Any) -> list[tuple[str, Any, Any]]:
    return [
        ("slow", image(backbone=Slow, **params), "picture"),
        ("other", image(backbone=Slow, **params), "picture"),
        ("blue", LogisticRegression(), ["blue"]),
    ]


def test_a_composition_shares_its_time_out(X: pd.DataFrame) -> None:
    model = MultimodalClassifier(members(max_epochs=1000), fusion=SoftVoting(), time_limit=3.0)
    with pytest.warns(ConvergenceWarning, match="time_limit=3.0 ended the training of slow, other early"):
        model.fit(X, KINDS)
    assert model.timed_out_ == ["slow", "other"]
    slow, other, blue = model.estimators_
    assert slow.timed_out_
    assert other.timed_out_
    # Each has had its share: neither has all epochs, nor none.
    assert min(len(slow.history_), len(other.history_)) > 1
    assert not hasattr(blue, "timed_out_")
    assert slow.time_limit is None


def test_folds_have_their_share(X: pd.DataFrame) -> None:
    model = MultimodalClassifier(members(max_epochs=1000), fusion=SuperLearner(cv=2), time_limit=4.0)
    with pytest.warns(ConvergenceWarning, match="slow, other"):
        model.fit(X, KINDS)
    assert [len(estimator.history_) > 1 for estimator in model.estimators_[:2]] == [True, True]


def test_time_to_spare_changes_nothing(X: pd.DataFrame) -> None:
    model = MultimodalClassifier(members(max_epochs=1), fusion=SoftVoting())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limited = clone(model).set_params(time_limit=1e6).fit(X, KINDS)
    assert limited.timed_out_ == []
    np.testing.assert_array_equal(limited.predict_proba(X), model.fit(X, KINDS).predict_proba(X))


def test_a_joint_fusion_is_cut(X: pd.DataFrame) -> None:
    fusion = ConcatFusion(max_epochs=1000, time_limit=1.0, random_state=0)
    with pytest.warns(ConvergenceWarning, match="ended the training of ConcatFusion early"):
        model = MultimodalClassifier(members(), fusion=fusion).fit(X, KINDS)
    assert model.fusion_.timed_out_
    assert model.timed_out_ == []
    assert log_loss(KINDS, model.predict_proba(X)) < 0.7


def test_a_composition_cuts_its_joint_fusion(X: pd.DataFrame) -> None:
    fusion = ConcatFusion(max_epochs=1000, random_state=0)
    with pytest.warns(ConvergenceWarning, match="ended the training of ConcatFusion early"):
        model = MultimodalClassifier(members(), fusion=fusion, time_limit=1.0).fit(X, KINDS)
    assert model.timed_out_ == ["ConcatFusion"]


def test_the_cache_keeps_no_fit_that_was_cut_by_a_composition(X: pd.DataFrame, tmp_path: Path) -> None:
    model = MultimodalClassifier(members(max_epochs=60), fusion=SoftVoting(), time_limit=1.0, cache=tmp_path)
    with pytest.warns(ConvergenceWarning, match="slow, other"):
        model.fit(X, KINDS)
    full = clone(model).set_params(time_limit=None, estimators=members(max_epochs=2)).fit(X, KINDS)
    assert not any(estimator.timed_out_ for estimator in full.estimators_[:2])
    again = clone(full).set_params(time_limit=1e-3).fit(X, KINDS)
    assert again.timed_out_ == []  # what was finished before is found
