"""The rates of layers, and the average of the best epochs."""

from __future__ import annotations

import fnmatch
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, GPT2Config, ResNetConfig

from mmensemble.time_limits import TimeLimit
from mmensemble_estimators import ImageClassifier
from mmensemble_estimators.base.embedding import layer_rates
from mmensemble_estimators.training.checkpoints import Checkpoints
from mmensemble_estimators.training.fine_tuning import layer_patterns
from mmensemble_estimators.training.loop import TrainingData, TrainingSettings, seeded, train
from mmensemble_estimators.training.schedule import Schedule

CPU = torch.device("cpu")


def layers_of(module: nn.Module) -> list[list[str]]:
    """The names of parameters by the first pattern that fits, layer by layer."""
    patterns = layer_patterns(module)
    layers: list[list[str]] = [[] for _ in patterns]
    for name, _ in module.named_parameters():
        fits = [n for n, layer in enumerate(patterns) if any(fnmatch.fnmatch(name, pattern) for pattern in layer)]
        assert len(fits) == 1, name
        layers[fits[0]].append(name)
    return layers


def test_layers_of_a_bert() -> None:
    config = BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8)
    layers = layers_of(AutoModel.from_config(config))
    assert len(layers) == 5
    assert {name.split(".")[0] for name in layers[0]} == {"embeddings"}
    assert all(name.startswith("encoder.layer.1.") for name in layers[2])
    assert {name.split(".")[0] for name in layers[4]} == {"pooler"}


def test_layers_of_a_gpt() -> None:
    layers = layers_of(AutoModel.from_config(GPT2Config(vocab_size=50, n_embd=8, n_layer=2, n_head=2)))
    assert [layer[0].split(".")[0] for layer in layers] == ["wte", "h", "h", "ln_f"]


def test_layers_of_a_resnet_are_its_stages() -> None:
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 8], depths=[1, 2, 2], layer_type="basic")
    layers = layers_of(AutoModel.from_config(config))
    assert len(layers) == 4
    assert all(name.startswith("embedder.") for name in layers[0])
    for number, layer in enumerate(layers[1:]):
        assert all(name.startswith(f"encoder.stages.{number}.") for name in layer)


def test_a_module_without_a_list_is_one_layer() -> None:
    assert layer_patterns(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), "encoder.") == [["encoder.*"]]


class TwoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(2))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        states = self.first(pixel_values.mean(dim=(2, 3)))
        for block in self.blocks:
            states = block(states)
        return states


def test_rates_fall_from_the_head_to_the_first_layer() -> None:
    pictures = [np.full((4, 4, 3), 10 * n, np.uint8) for n in range(12)]
    settings: dict[str, Any] = {"learning_rate": 1.0, "image_size": 32, "max_epochs": 1, "weight_decay": 0.1}
    model = ImageClassifier(backbone=TwoBlocks, layer_decay=0.5, early_stopping=False, random_state=0, **settings)
    model.set_params(learning_rate=1e-9).fit(pictures, [0, 1] * 6)
    rates = layer_rates(model.set_params(learning_rate=1.0))
    found = {}
    for name, _ in model.module_.named_parameters():
        found[name] = next(rate for pattern, rate, _ in rates if fnmatch.fnmatch(name, pattern))
    assert found["head.linear.weight"] == 1.0
    assert found["encoder.backbone.blocks.1.0.weight"] == 0.5
    assert found["encoder.backbone.blocks.0.0.weight"] == 0.25
    assert found["encoder.backbone.first.weight"] == 0.125
    assert {decay for _, _, decay in rates} == {0.1}
    assert layer_rates(ImageClassifier(random_state=0)) == [("*", 2e-3, 0.01)]


# The average of the best epochs


def trained(monkeypatch: pytest.MonkeyPatch, learning_rate: float = 0.3) -> tuple[nn.Module, Any, TrainingData]:
    points = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    target = (points[:, 0] + np.random.default_rng(1).normal(size=60) > 0).astype(int)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.layer(x))

    def rows(chosen: Any) -> TrainingData:
        return TrainingData(np.asarray(chosen), lambda r: {"x": points[r]}, target, np.ones(60))

    with seeded(0, CPU):
        network = Net()
        history = train(
            network,
            rows(range(30)),
            TrainingSettings(12, 5, 0.1, CPU),
            loss=nn.CrossEntropyLoss(reduction="none"),
            learning_rates=[("*", learning_rate, 0.0)],
            validation=rows(range(30, 60)),
            solved=True,
        )
    return network, history, rows(range(30, 60))


def loss_of(network: nn.Module, data: TrainingData) -> float:
    inputs, (target, _) = data.collate(data.rows.tolist())
    with torch.no_grad():
        return nn.functional.cross_entropy(network.eval()(**inputs), target).item()


@pytest.mark.parametrize("learning_rate", [1e-3, 0.3, 1.0])
def test_averaging_is_never_worse_on_the_validation_rows(monkeypatch: pytest.MonkeyPatch, learning_rate: float) -> None:
    network, history, validation = trained(monkeypatch, learning_rate)
    assert 1 <= history["kept"].sum() <= 3
    assert loss_of(network, validation) <= history["valid_loss"].min() + 1e-6
    assert history["valid_loss"].idxmin() in history.query("kept").index


def test_weights_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is better together is the mean of the epochs' weights."""
    noted: list[dict[str, torch.Tensor]] = []
    keep = Checkpoints._note

    def note(self: Checkpoints, loss: float) -> None:
        noted.append({name: tensor.clone() for name, tensor in self.network.state_dict().items()})
        keep(self, loss)

    monkeypatch.setattr(Checkpoints, "_note", note)
    network, history, _ = trained(monkeypatch, 1.0)
    kept = [epoch for epoch in history.query("kept")["epoch"] if epoch]
    assert len(kept) == history["kept"].sum() > 1
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([noted[epoch - 1][name] for epoch in kept]).mean(dim=0))


# The schedule


def test_a_hurried_schedule_comes_to_its_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    schedule = Schedule(1000, 0.1, TimeLimit(200.0))
    schedule.on_train_begin(None)  # type: ignore[arg-type]
    factors: list[float] = []

    def step() -> None:
        factors.append(schedule.factor(len(factors)))
        now[0] += 1.0
        schedule.on_batch_end(None, training=True)  # type: ignore[arg-type]

    for _ in range(99):
        step()
    with pytest.raises(KeyboardInterrupt):
        step()
    assert schedule.cut
    assert len(factors) == 100
    assert factors[:10] == [pytest.approx((step + 1) / 101) for step in range(10)]  # as without a limit
    assert max(factors) > 0.9
    assert factors[-1] < 0.01


def test_a_schedule_with_time_enough_does_not_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    limited, free = Schedule(50, 0.1, TimeLimit(200.0)), Schedule(50, 0.1, None)
    limited.on_train_begin(None)  # type: ignore[arg-type]
    for step in range(50):
        assert limited.factor(step) == free.factor(step)
        now[0] += 1.5
        limited.on_batch_end(None, training=True)  # type: ignore[arg-type]
    assert not limited.cut
