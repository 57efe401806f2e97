"""The operators of exported graphs are those that ONNX Runtime runs on a GPU; what stays on the CPU is listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import NodeProto, TensorProto

from mmensemble.graph import GENERATION_OPSET, OPSET
from tests.instances import BY_ID, INSTANCES
from tests.mmensemble.export.cuda_kernels import CUDA_KERNELS, GENERATION_KERNELS, LATER_KERNELS, WITHOUT_KERNEL

# Instance → the operators for which its rows leave the GPU. Networks of pictures have a MaxPool.
_WITH_PICTURES = [
    "attention_fusion",
    "bilinear_fusion",
    "calibrated",
    "captioner",
    "concat_fusion",
    "cross_attention_fusion",
    "grid_search",
    "hard_voting",
    "image",
    "image_callable",
    "image_on_column",
    "image_regressor",
    "image_regressor_of_two",
    "linear_fusion",
    "log_opinion_pool_of_regressors",
    "median_of_regressors",
    "super_learner",
    "super_learner_of_regressors",
    "pipeline_over_captioner",
    "pipeline_over_embedding",
    "same_column_twice",
    "soft_voting",
    "stacking_classifier",
    "stacking_with_passthrough",
    "video",
    "voting_classifier",
]
ON_CPU = {
    **{name: {"MaxPool"} for name in _WITH_PICTURES},
    "mixed_columns": {"TreeEnsembleRegressor"},
    "nested_with_forest": {"MaxPool", "TreeEnsembleRegressor"},
}

GENERATORS = {instance.id for instance in INSTANCES if instance.target == "texts"}

# Operators whose data is not their first input.
DATA_INPUT = {"Where": 1, "OneHot": 2}

# A float32 may become a float16, in an export of that precision.
TYPES: dict[int, set[str]] = {
    TensorProto.FLOAT: {"float", "float16"},
    TensorProto.FLOAT16: {"float16"},
    TensorProto.DOUBLE: {"double"},
    TensorProto.BOOL: {"bool"},
    TensorProto.INT64: {"int64"},
    TensorProto.UINT8: {"uint8"},
}


def types_of_values(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.input, *graph.value_info, *graph.output]
    return {
        **{value.name: value.type.tensor_type.elem_type for value in values},
        **{tensor.name: tensor.data_type for tensor in graph.initializer},
    }


def data_of(node: NodeProto) -> str:
    return node.output[0] if node.op_type == "ConstantOfShape" else node.input[DATA_INPUT.get(node.op_type, 0)]


def takes(node: NodeProto, types: dict[str, int]) -> bool:
    """Whether the CUDA provider has a kernel for the node's domain, its operator's definition and its data's type."""
    kernel = CUDA_KERNELS.get(node.op_type)
    if node.domain or kernel is None or not TYPES[types[data_of(node)]] <= kernel.types:
        return False
    since_version = onnx.defs.get_schema(node.op_type, OPSET).since_version
    return kernel.serves(since_version) or node.op_type in LATER_KERNELS


@pytest.fixture(
    params=[instance for instance in INSTANCES if instance.id not in GENERATORS], ids=lambda instance: instance.id
)
def instance_id(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param.id
    return chosen


def test_operators_have_cuda_kernels(instance_id: str, exported: Callable[[str], Path]) -> None:
    proto = onnx.shape_inference.infer_shapes(onnx.load(exported(instance_id)))
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [OPSET]
    assert not proto.functions
    types = types_of_values(proto.graph)
    assert {node.op_type for node in proto.graph.node if not takes(node, types)} == ON_CPU.get(instance_id, set())


def nodes_of(graph: onnx.GraphProto) -> Iterator[NodeProto]:
    """Yield a graph's nodes and those of its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from nodes_of(attribute.g)


@pytest.mark.parametrize("instance_id", sorted(GENERATORS))
def test_operators_of_generators_have_cuda_kernels(instance_id: str, exported: Callable[[str], Path]) -> None:
    proto = onnx.load(exported(instance_id))
    assert [entry.version for entry in proto.opset_import] == [GENERATION_OPSET]
    used = {node.op_type for node in nodes_of(proto.graph)}
    assert used - GENERATION_KERNELS == ON_CPU.get(instance_id, set())


@pytest.mark.parametrize("instance_id", ["image_callable", "soft_voting", "concat_fusion"])
def test_half_precision_never_leaves_the_gpu(instance_id: str, exported: Callable[..., Path]) -> None:
    assert ON_CPU[instance_id] == {"MaxPool"}
    proto = onnx.shape_inference.infer_shapes(onnx.load(exported(instance_id, "fp16")))
    types = types_of_values(proto.graph)
    assert [node.op_type for node in proto.graph.node if not takes(node, types)] == []


def test_the_lists_are_of_what_there_is() -> None:
    assert ON_CPU.keys() <= BY_ID.keys()
    assert set().union(*ON_CPU.values()) == WITHOUT_KERNEL.keys()


@pytest.mark.parametrize("operator", sorted(CUDA_KERNELS))
def test_kernels_that_came_later_or_not_at_all_are_those_of_older_definitions(operator: str) -> None:
    serves = CUDA_KERNELS[operator].serves(onnx.defs.get_schema(operator, OPSET).since_version)
    assert serves == (operator not in LATER_KERNELS and operator not in WITHOUT_KERNEL)
