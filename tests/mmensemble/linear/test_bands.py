from __future__ import annotations

import numpy as np
import pytest

from mmensemble.linear import bands, solve_classes, solve_labels
from mmensemble.linear.bands import choose_bands, prior_variance
from mmensemble.linear.kernels import Folds
from mmensemble.linear.losses import LabelLoss, NumberLoss, SoftmaxLoss

N = 90
RNG = np.random.default_rng(0)
Y = np.arange(N) % 3
SIGNAL = np.eye(3)[Y] + 0.6 * RNG.normal(size=(N, 3))
NOISE = RNG.normal(size=(N, 40))
FOLDS = np.arange(N) // 3 % 5
WEIGHT = np.where(np.arange(N) % 2, 1.5, 0.5)


def kernel(X: np.ndarray) -> np.ndarray:
    centred = X - X.mean(axis=0)
    products = centred @ centred.T
    return products / (np.trace(products) / N)


@pytest.mark.parametrize("variance", [0.3, 30.0])
def test_a_kernel_holds_out_what_the_features_hold_out(variance: float) -> None:
    scale = np.trace((products := SIGNAL - SIGNAL.mean(axis=0)).T @ products) / N
    solved = Folds(SoftmaxLoss(Y, 3), WEIGHT, FOLDS, np.arange(5)).solve(variance * kernel(SIGNAL))
    total = 0.0
    for number in range(5):
        fitting, held_out = number != FOLDS, number == FOLDS
        model = solve_classes(SIGNAL[fitting], Y[fitting], 3, WEIGHT[fitting], penalty=scale / variance)
        raw = model.outputs(SIGNAL[held_out])
        losses = np.log(np.exp(raw).sum(axis=1)) - raw[np.arange(len(raw)), Y[held_out]]
        total += WEIGHT[held_out] @ losses
    assert solved.loss == pytest.approx(total, rel=1e-2)


def test_a_start_by_another_kernel_changes_nothing() -> None:
    folds = Folds(LabelLoss(np.stack([Y == 0, Y == 1]).astype(float), 2), WEIGHT, FOLDS, np.arange(5))
    start = folds.solve(kernel(NOISE) + kernel(SIGNAL))
    there = 10 * kernel(SIGNAL)
    assert folds.solve(there, start).loss == pytest.approx(folds.solve(there).loss, rel=3e-3)


def test_noise_is_turned_off_or_down_and_signal_is_not() -> None:
    found = []
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(size=(N, 40))
        choice = choose_bands([[kernel(noise), kernel(SIGNAL)]], [SoftmaxLoss(Y, 3)], WEIGHT, FOLDS)
        assert choice.steps[1] is not None
        assert choice.steps[0] is None or choice.steps[0] < choice.steps[1]
        assert choice.loss == choice.tried[choice.steps] <= 1.01 * min(choice.tried.values())
        found.append(choice.steps[0])
    assert None in found
    assert prior_variance(None) == 0


def test_penalties_of_blocks_differ_where_they_should() -> None:
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(N, 40))
    target = (2 * SIGNAL[:, 0] + 0.4 * wide @ rng.normal(size=40) / 6 + 0.3 * rng.normal(size=N))[None]
    loss = NumberLoss((target - target.mean()) / target.std(), 1)
    choice = choose_bands([[kernel(wide), kernel(SIGNAL)]], [loss], np.ones(N), FOLDS)
    together = min(loss for place, loss in choice.tried.items() if len(set(place)) == 1)
    assert choice.loss < 0.95 * together
    assert choice.steps[0] is None or choice.steps[0] < choice.steps[1]  # type: ignore[operator]


def test_a_kernel_for_each_fold_is_the_same_where_they_are_alike() -> None:
    blocks = [kernel(NOISE[:, :5]), kernel(SIGNAL)]
    once = choose_bands([blocks], [SoftmaxLoss(Y, 3)], WEIGHT, FOLDS)
    each = choose_bands([blocks] * 5, [SoftmaxLoss(Y, 3)], WEIGHT, FOLDS)
    assert each.steps == once.steps
    assert each.loss == pytest.approx(once.loss, rel=3e-3)


def test_solutions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "MOST_SOLUTIONS", 4)
    choice = choose_bands([[kernel(NOISE[:, [i]]) for i in range(6)]], [SoftmaxLoss(Y, 3)], WEIGHT, FOLDS)
    assert len(choice.tried) == 4


def test_a_class_that_one_fold_alone_holds_does_not_count() -> None:
    y = np.where(np.arange(N) == 7, 3, Y)
    choice = choose_bands([[kernel(SIGNAL)]], [SoftmaxLoss(y, 4)], WEIGHT, FOLDS)
    assert choice.loss < 1.5


def test_no_row_is_held_out() -> None:
    choice = choose_bands([[kernel(SIGNAL)]], [SoftmaxLoss(np.arange(N), N)], np.ones(N), FOLDS)
    assert np.isnan(choice.loss)


def test_labels_agree_with_their_features() -> None:
    labels = np.column_stack([Y == 0, Y == 2]).astype(float)
    loss = LabelLoss(labels.T, 2)
    variance, centred = 5.0, SIGNAL - SIGNAL.mean(axis=0)
    solved = Folds(loss, np.ones(N), FOLDS, np.array([2])).solve(variance * kernel(SIGNAL))
    fitting = FOLDS != 2
    penalty = np.trace(centred.T @ centred) / N / variance
    raw = solve_labels(SIGNAL[fitting], labels[fitting], penalty=penalty).outputs(SIGNAL)
    np.testing.assert_allclose(solved.raw[0].T, raw, atol=0.05)
