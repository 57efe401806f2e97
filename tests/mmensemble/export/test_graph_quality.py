"""What a graph looks like: single operators, standard ones, float32 where votes are counted, names that read well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import TensorProto
from torch import nn
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedConfig, T5Config, ViTConfig
from transformers.activations import FastGELUActivation, NewGELUActivation

from mmensemble import export_onnx
from mmensemble.graph import ENCODER_SCOPE
from mmensemble_estimators import ImageClassifier
from mmensemble_estimators.onnx.form import take_single_operators
from tests.instances import image_of, text_of

Fitted = Callable[[str], Any]
Exported = Callable[..., Path]

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TRANSFORMERS: dict[str, tuple[PreTrainedConfig, set[str]]] = {
    "bert": (BertConfig(max_position_embeddings=24, **SIZES), {"Gelu"}),
    # Its activation is "gelu_new", which transformers spells out.
    "gpt2": (GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=24), {"Gelu"}),
    "llama": (LlamaConfig(num_key_value_heads=1, max_position_embeddings=24, **SIZES), {"RotaryEmbedding"}),
    "t5": (
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"),
        {"Gelu", "RMSNormalization"},
    ),
    "vit": (ViTConfig(image_size=32, patch_size=16, **SIZES), {"Gelu"}),
}
# What attention and GELU are made of where they are no single operators.
CHAINS = {"Erf", "Tanh", "Pow", "Sqrt", "Softmax"}


def operators(path: Path, *, inside: bool) -> Counter[str]:
    """The operators inside of encoders, or outside of them; those that sum n-grams are neither."""
    nodes = [node for node in onnx.load(path).graph.node if "/n_grams/" not in node.name]
    return Counter(node.op_type for node in nodes if (ENCODER_SCOPE in node.name.split("/")) == inside)


# Single operators


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_attention_and_activations_of_any_transformer_are_single_operators(
    items: pd.DataFrame, labels: np.ndarray, tmp_path: Path, name: str
) -> None:
    config, others = TRANSFORMERS[name]
    model: Any = image_of(config) if isinstance(config, ViTConfig) else text_of(config)
    X = items["picture" if isinstance(model, ImageClassifier) else "name"]
    export_onnx(model.fit(X, labels), tmp_path / "model.onnx", verify=X, tolerance=1e-5)
    found = operators(tmp_path / "model.onnx", inside=True)
    assert found["Attention"] == 1
    assert others <= found.keys()
    assert not found.keys() & CHAINS


@pytest.mark.parametrize("instance_id", ["text", "text_bert", "image_vit"])
def test_attention_and_gelu_of_the_own_backbones_are_single_operators(exported: Exported, instance_id: str) -> None:
    found = operators(exported(instance_id), inside=True)
    assert found["Attention"] == found["Gelu"] == (4 if instance_id == "image_vit" else 2)
    assert not found.keys() & CHAINS


def test_an_lstm_is_one_operator_however_often_it_is_exported(
    fitted: Fitted, items: pd.DataFrame, tmp_path: Path
) -> None:
    # torch's exporter manages that once in a process.
    precisions: list[Any] = ["fp32", "fp16"]
    for precision in precisions:
        path = tmp_path / f"{precision}.onnx"
        export_onnx(fitted("text_lstm"), path, verify=items["name"], precision=precision)
        assert operators(path, inside=True)["LSTM"] == 2
        assert not operators(path, inside=True)["Loop"]


def test_the_resnet_is_convolutions_and_one_mean(exported: Exported) -> None:
    found = operators(exported("image"), inside=True)
    assert (found["Conv"], found["ReduceMean"], found["BatchNormalization"], found["Gather"]) == (9, 1, 0, 0)


def test_what_is_put_in_the_place_of_a_chain_computes_the_same() -> None:
    x = torch.randn(3, 5, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    network = nn.Sequential(NewGELUActivation(), nn.Sequential(FastGELUActivation()), nn.AdaptiveAvgPool2d((1, 1)))
    before, expected = list(network.modules()), network(x)
    take_single_operators(network)
    assert {type(m) for m in network.modules()} & {type(m) for m in before} == {nn.Sequential}
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)
    other = nn.Sequential(nn.AdaptiveAvgPool2d(2))
    take_single_operators(other)
    assert isinstance(other[0], nn.AdaptiveAvgPool2d), "that is no mean over all places"


# Standard operators, and float32 where votes are counted


@pytest.mark.parametrize("instance_id", ["soft_voting", "stacking", "concat_fusion", "stacking_classifier"])
def test_neural_members_and_linear_models_need_standard_operators_only(exported: Exported, instance_id: str) -> None:
    proto = onnx.load(exported(instance_id))
    assert [entry.domain for entry in proto.opset_import] == [""]
    assert {node.domain for node in proto.graph.node} == {""}


@pytest.mark.parametrize("instance_id", ["text", "stacking", "concat_fusion", "stacking_classifier"])
def test_linear_heads_and_meta_learners_are_gemm_and_softmax(exported: Exported, instance_id: str) -> None:
    nodes = onnx.load(exported(instance_id)).graph.node
    makers = {output: node for node in nodes for output in node.output}
    heads = [node for node in nodes if node.op_type == "Softmax" and ENCODER_SCOPE not in node.name.split("/")]
    assert heads
    before = [makers[head.input[0]] for head in heads]
    # What is computed in float64, of numbers in a table, is rounded behind the product.
    before = [makers[node.input[0]] if node.op_type == "Cast" else node for node in before]
    assert {node.op_type for node in before} == {"Gemm"}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("instance_id", ["soft_voting", "stacking"])
def test_votes_are_counted_in_float32_at_every_precision(exported: Exported, instance_id: str, precision: Any) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(exported(instance_id, precision))).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {TensorProto.FLOAT16, TensorProto.INT8} & set(types.values()), "the encoders are converted"
    outside = [node for node in graph.node if ENCODER_SCOPE not in node.name.split("/") and node.op_type != "Cast"]
    assert {"Softmax", "Where"} <= {node.op_type for node in outside}
    coarse = {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}
    for node in outside:
        assert not {types[name] for name in (*node.input, *node.output) if name} & coarse, node.name


# Names


@pytest.mark.parametrize("instance_id", ["soft_voting", "cross_attention_fusion", "stacking_classifier", "text_lstm"])
def test_names_say_what_is_what(exported: Exported, instance_id: str) -> None:
    graph = onnx.load(exported(instance_id)).graph
    nodes, weights = {node.name for node in graph.node}, {tensor.name for tensor in graph.initializer}
    assert len(nodes) == len(graph.node)
    for node in graph.node:
        kind = node.name.rsplit("/", 1)[-1]
        assert re.fullmatch(rf"{node.op_type}(_\d+)?", kind), "a node's last part is its operator"
        for number, output in enumerate(node.output):
            assert output in (f"{node.name}_output{number or ''}", "probabilities")
    assert not [name for name in nodes | weights if re.search(r"\bmodule\b|\bbackbone\b|\bval_\d|\bnode_", name)]


def test_weights_are_called_as_in_torch(fitted: Fitted, exported: Exported) -> None:
    for instance_id in ("text", "text_bert"):
        tensors = onnx.load(exported(instance_id)).graph.initializer
        shapes = {tensor.name: sorted(tensor.dims) for tensor in tensors if "constant" not in tensor.name}
        encoder = fitted(instance_id).module_.encoder
        backbone = encoder.backbone
        n_grams = {f"n_grams.{name}": tensor for name, tensor in encoder.n_grams.state_dict().items()}
        state = {**backbone.state_dict(), **dict(backbone.named_buffers()), **n_grams}
        named = {name.removeprefix(f"{ENCODER_SCOPE}/") for name in shapes if name.startswith(ENCODER_SCOPE)}
        assert named <= state.keys()
        assert all(sorted(state[name].shape) == shapes[f"{ENCODER_SCOPE}/{name}"] for name in named)
        assert n_grams.keys() <= named
        # transformers' BERT has a pooler, which is not used.
        assert not [name for name in dict(backbone.named_parameters()).keys() - named if not name.startswith("pooler.")]


def test_every_node_belongs_to_a_member_or_to_what_joins_them(exported: Exported) -> None:
    nodes = onnx.load(exported("concat_fusion")).graph.node
    assert {node.name.split("/")[0] for node in nodes} == {"text", "image", "facts", "ConcatFusion"}
