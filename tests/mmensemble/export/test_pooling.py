from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mmensemble.export.pooling import pool_by_gathering


def pooling(shape: list[Any], **attributes: Any) -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)
        for name, axes in (("x", shape), ("y", [None] * len(shape)))
    )
    node = helper.make_node("MaxPool", ["x"], ["y"], name="pool/MaxPool", **attributes)
    graph = helper.make_graph([node], "pool", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [
        ([8, 8], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ([7, 10], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ([9, 5], {"kernel_shape": [2, 3], "strides": [2, 1]}),
        ([6, 7], {"kernel_shape": [4, 2], "pads": [3, 0, 2, 1], "strides": [3, 2]}),
        ([11], {"kernel_shape": [3], "strides": [2], "pads": [0, 1]}),
        ([4, 5, 6], {"kernel_shape": [2, 2, 2]}),
    ],
)
def test_the_same_maxima(sizes: list[int], attributes: dict[str, Any]) -> None:
    model = pooling(["n", 3, *sizes], **attributes)
    x = np.random.default_rng(0).normal(size=(2, 3, *sizes)).astype(np.float32) - 3
    expected = run(model, x)
    pool_by_gathering(model)
    assert {node.op_type for node in model.graph.node} == {"Gather", "Max"}
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, x), expected)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        (["n", 3, "height", 8], {"kernel_shape": [2, 2]}),
        (["n", 3, 8, 8], {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        (["n", 3, 8, 8], {"kernel_shape": [3, 3], "ceil_mode": 1}),
        (["n", 3, 8, 8], {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
    ],
)
def test_what_is_left_alone(shape: list[Any], attributes: dict[str, Any]) -> None:
    model = pooling(shape, **attributes)
    pool_by_gathering(model)
    assert [node.op_type for node in model.graph.node] == ["MaxPool"]
