from __future__ import annotations

import copy
import math
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmensemble import ConfigurationError, DeviceError
from mmensemble_estimators.training.checkpoints import PATIENCE
from mmensemble_estimators.training.loop import (
    TrainingData,
    TrainingSettings,
    _WeightedLoss,
    resolve_device,
    run_in_batches,
    seeded,
    train,
)

CPU = torch.device("cpu")
N = 24


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(x).relu())
        return output


@pytest.fixture
def network() -> Linear:
    with seeded(0, CPU):
        return Linear()


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)


def data_of(points: np.ndarray, target: np.ndarray, rows: Any = None, weight: Any = None) -> TrainingData:
    rows = np.arange(len(points)) if rows is None else np.asarray(rows)
    weight = np.ones(len(points)) if weight is None else np.asarray(weight)
    return TrainingData(rows, lambda r: {"x": points[r]}, target, weight)


def settings(max_epochs: int = 3, **changes: Any) -> TrainingSettings:
    chosen = {"batch_size": 8, "warmup_fraction": 0.1, "device": CPU, **changes}
    return TrainingSettings(max_epochs=max_epochs, **chosen)


def fit(
    network: nn.Module, data: TrainingData, how: TrainingSettings, learning_rate: float = 0.05, **kwargs: Any
) -> list[dict[str, Any]]:
    groups = kwargs.pop("learning_rates", [("*", learning_rate, 0.0)])
    with seeded(1, CPU):
        return train(network, data, how, loss=nn.CrossEntropyLoss(reduction="none"), learning_rates=groups, **kwargs)


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in module.state_dict().items()}


def test_training_lowers_the_loss_and_records_it(network: Linear, points: np.ndarray) -> None:
    history = fit(network, data_of(points, (points[:, 0] > 0).astype(int)), settings(20))
    assert history["epoch"].tolist() == list(range(1, 21))
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]
    assert set(history.columns) == {"epoch", "train_loss", "dur"}
    assert not network.training


def test_first_epoch_loss_is_the_cross_entropy(network: Linear, points: np.ndarray) -> None:
    """One step over all rows: the recorded loss is that of the untrained network."""
    target = (points[:, 0] > 0).astype(int)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(network(torch.from_numpy(points)), torch.from_numpy(target)).item()
    history = fit(network, data_of(points, target), settings(1, batch_size=N))
    assert history["train_loss"].iloc[0] == pytest.approx(expected, rel=1e-5)


def test_each_step_has_its_rate_and_a_clipped_gradient(
    network: Linear, points: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, norms = [], []
    step = torch.optim.AdamW.step

    def recording(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        result = step(self, *args, **kwargs)
        norms.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).norm().item())
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    target = (points[:, 0] > 0).astype(int)
    fit(network, data_of(1000 * points, target), settings(4, warmup_fraction=0.25), learning_rate=0.1)
    falling = [0.05 * (1 + math.cos(math.pi * i / 9)) for i in range(9)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, *falling])
    assert max(norms) == pytest.approx(1.0, abs=1e-4)


def test_only_the_given_rows_are_used(network: Linear, points: np.ndarray) -> None:
    target = (points[:, 0] > 0).astype(int)
    other = copy.deepcopy(network)
    spoilt = points.copy()
    spoilt[N // 2 :] = np.nan
    fit(network, data_of(points, target, rows=range(N // 2)), settings())
    fit(other, data_of(spoilt, target, rows=range(N // 2)), settings())
    for name, value in state_of(network).items():
        np.testing.assert_array_equal(value, state_of(other)[name])


@pytest.mark.parametrize("weights", [[2.0, 1.0, 1.0], [3.0, 0.0, 2.0]])
def test_weight_counts_as_repeated_rows(weights: list[float]) -> None:
    rng = torch.Generator().manual_seed(0)
    output, target = torch.randn(3, 4, generator=rng), torch.tensor([0, 3, 1])
    loss = _WeightedLoss(nn.CrossEntropyLoss(reduction="none"))
    repeated = torch.repeat_interleave(torch.arange(3), torch.tensor(weights).long())
    expected = nn.functional.cross_entropy(output[repeated], target[repeated])
    torch.testing.assert_close(loss(output, (target, torch.tensor(weights))), expected)


def test_batch_of_weight_0_has_loss_0() -> None:
    loss = _WeightedLoss(nn.CrossEntropyLoss(reduction="none"))
    assert loss(torch.ones(2, 3), (torch.tensor([0, 1]), torch.zeros(2))).item() == 0.0


def test_targets_and_weights_follow_their_rows(points: np.ndarray) -> None:
    data = data_of(points, np.arange(N), rows=[5, 9, 2], weight=np.arange(N) / 10)
    assert len(data) == 3
    inputs, (target, weight) = data.collate([data[2], data[0]])
    np.testing.assert_array_equal(inputs["x"].numpy(), points[[2, 5]])
    assert target.tolist() == [2, 5]
    assert weight.tolist() == pytest.approx([0.2, 0.5])


def test_frozen_parameters_stay(network: Linear, points: np.ndarray) -> None:
    network.body.requires_grad_(False)
    before = state_of(network)
    fit(network, data_of(points, (points[:, 0] > 0).astype(int)), settings())
    after = state_of(network)
    np.testing.assert_array_equal(after["body.weight"], before["body.weight"])
    assert (after["head.weight"] != before["head.weight"]).any()


def test_parameter_groups_have_learning_rates_of_their_own(network: Linear, points: np.ndarray) -> None:
    before = state_of(network)
    groups = [("body.*", 1e-12, 0.0), ("*", 0.05, 0.0)]
    fit(network, data_of(points, (points[:, 0] > 0).astype(int)), settings(), learning_rates=groups)
    after = state_of(network)
    np.testing.assert_allclose(after["body.weight"], before["body.weight"], atol=1e-6)
    assert np.abs(after["head.weight"] - before["head.weight"]).max() > 0.01


def test_early_stopping_restores_the_best_network(network: Linear, points: np.ndarray) -> None:
    """Labels are random, so that the loss of the held-out rows soon rises."""
    target = np.random.default_rng(3).integers(0, 2, N)
    validation = data_of(points, target, rows=range(16, N))
    history = fit(
        network, data_of(points, target, rows=range(16)), settings(60), learning_rate=0.1, validation=validation
    )
    losses = history["valid_loss"].tolist()
    assert len(history) < 60
    assert len(history) - 1 - int(np.argmin(losses)) == PATIENCE
    with torch.no_grad():
        output = network(torch.from_numpy(points[16:]))
        restored = nn.functional.cross_entropy(output, torch.from_numpy(target[16:])).item()
    assert restored == pytest.approx(min(losses), rel=1e-5)
    assert restored < losses[-1]


def test_non_finite_loss(network: Linear, points: np.ndarray) -> None:
    points[3] = np.inf
    with pytest.raises(ConfigurationError, match="loss became nan in epoch 1; lower learning_rate"):
        fit(network, data_of(points, np.arange(N) % 2), settings())


def test_bfloat16_training_keeps_float32_weights(network: Linear, points: np.ndarray) -> None:
    target = (points[:, 0] > 0).astype(int)
    other = copy.deepcopy(network)
    history = fit(network, data_of(points, target), settings(10, autocast=True))
    fit(other, data_of(points, target), settings(10))
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    assert (state_of(network)["head.weight"] != state_of(other)["head.weight"]).any()


def test_seeded_gives_the_random_state_back() -> None:
    before = torch.random.get_rng_state()
    with seeded(7, CPU):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded(7, CPU):
        assert torch.equal(torch.rand(3), first)
    with seeded(8, CPU):
        assert not torch.equal(torch.rand(3), first)


def test_threads_that_draw_seeded_wait_for_each_other() -> None:
    with seeded(7, CPU):
        alone = torch.rand(3)
    entered = threading.Event()

    def enter() -> None:
        with seeded(8, CPU):
            entered.set()

    other = threading.Thread(target=enter)
    with seeded(7, CPU):
        other.start()
        assert not entered.wait(0.5)
        assert torch.equal(torch.rand(3), alone)
    other.join()
    assert entered.is_set()


def test_resolve_device() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "", "meta:x"])
def test_device_that_does_not_work(device: str) -> None:
    with pytest.raises(DeviceError, match=r"does not work here .*device='auto' uses what works"):
        resolve_device(device)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_run_in_batches_keeps_the_order(points: np.ndarray, batch_size: int) -> None:
    order = np.random.default_rng(0).permutation(N)
    seen: list[int] = []

    def batch(rows: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(rows))
        return {"x": points[rows]}

    result = run_in_batches(lambda x: 2 * x, batch, order, batch_size=batch_size, device=CPU)
    np.testing.assert_array_equal(result, 2 * points)
    assert max(seen) <= batch_size
    assert sum(seen) == N
