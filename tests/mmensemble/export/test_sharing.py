"""Two members on one frozen network: its weights are stored once and it runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from torch import nn
from transformers import AutoModel, BertConfig

from mmensemble import MultimodalClassifier, SoftVoting, export_onnx
from mmensemble_estimators import ConcatFusion, TextClassifier

NETWORK = BertConfig(
    vocab_size=400,
    hidden_size=96,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=384,
    max_position_embeddings=24,
)
HEAVY = ("Attention", "MatMul", "Gelu")


class Pretrained(nn.Module):
    """A network with weights that are the same at each call, like those of a folder."""

    def __init__(self) -> None:
        super().__init__()
        self.network = AutoModel.from_config(NETWORK)
        rng = np.random.default_rng(0)
        for parameter in self.network.parameters():
            values = rng.normal(0, 0.05, parameter.shape).astype(np.float32)
            parameter.data = parameter.data.new_tensor(values)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        mask = attention_mask.bool()[:, None, None, :].expand(-1, -1, input_ids.shape[1], -1)
        return self.network(input_ids=input_ids, attention_mask=mask).last_hidden_state[:, 0]


def members(*random_states: int) -> list[tuple[str, TextClassifier, str]]:
    params = {"fine_tune": "head", "max_epochs": 2, "vocab_size": 400, "max_length": 24}
    return [
        (f"member_{state}", TextClassifier(backbone=Pretrained, random_state=state, **params), "name")
        for state in random_states
    ]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    "fusion", [SoftVoting, lambda: ConcatFusion(max_epochs=2, random_state=0)], ids=["SoftVoting", "ConcatFusion"]
)
def test_two_members_on_one_frozen_network(
    items: pd.DataFrame, labels: np.ndarray, tmp_path: Path, fusion: Callable[[], Any]
) -> None:
    sizes, found = [], []
    for states in ((0,), (0, 1)):
        model = MultimodalClassifier(members(*states), fusion=fusion()).fit(items, labels)
        path = tmp_path / f"{len(states)}.onnx"
        export_onnx(model, path, verify=items, tolerance=1e-5)
        sizes.append(path.stat().st_size)
        found.append(operators(path))
    one, two = found
    assert {kind: two[kind] for kind in HEAVY} == {kind: one[kind] for kind in HEAVY}
    assert one["Attention"] == NETWORK.num_hidden_layers
    assert two.total() > one.total(), "what is each member's own is there twice"
    assert sizes[1] <= 1.15 * sizes[0]


def test_a_network_that_was_trained_further_is_not_shared(
    items: pd.DataFrame, labels: np.ndarray, tmp_path: Path
) -> None:
    apart = [(name, leaf.set_params(fine_tune="all", max_epochs=1), column) for name, leaf, column in members(0, 1)]
    export_onnx(MultimodalClassifier(apart).fit(items, labels), tmp_path / "m.onnx", verify=items)
    assert operators(tmp_path / "m.onnx")["Attention"] == 2 * NETWORK.num_hidden_layers
