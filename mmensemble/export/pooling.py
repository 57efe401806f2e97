"""Maximum pooling by operators that GPUs run.

ONNX defines MaxPool anew in opset 22, and ONNX Runtime's CUDA provider has no kernel for that (pull request 27715 of
microsoft/onnxruntime is open): the feature maps would go to the CPU and back. On a CPU its own MaxPool is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["pool_by_gathering"]


def pool_by_gathering(model: onnx.ModelProto) -> None:
    """Replace each MaxPool over maps of known size by the maximum of what Gather takes, axis by axis; exactly equal.

    Parameters
    ----------
    model : ModelProto
        With inferred shapes; changed.
    """
    graph = model.graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info)
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        windows = _windows(node, shapes.get(node.input[0], [])) if node.op_type == "MaxPool" else None
        if windows is None:
            nodes.append(node)
            continue
        value = node.input[0]
        for axis, places in windows.items():
            parts = []
            for shift, indices in enumerate(places):
                name = f"{node.name}/axis_{axis}/Gather_{shift + 1}"
                graph.initializer.append(numpy_helper.from_array(indices, f"{name}_indices"))
                nodes.append(
                    helper.make_node("Gather", [value, f"{name}_indices"], [f"{name}_output"], name, axis=axis)
                )
                parts.append(f"{name}_output")
            name = f"{node.name}/axis_{axis}/Max"
            value = node.output[0] if axis == max(windows) else f"{name}_output"
            nodes.append(helper.make_node("Max", parts, [value], name))
    del graph.node[:]
    graph.node.extend(nodes)


def _windows(node: onnx.NodeProto, shape: list[int]) -> dict[int, list[np.ndarray]] | None:
    """Return, by axis, which places to take for each place of the kernel; None where that is not known."""
    settings: dict[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = settings["kernel_shape"]
    n_axes, sizes = len(kernel), shape[2:]
    plain = (
        settings.get("auto_pad", b"NOTSET") == b"NOTSET"
        and not settings.get("ceil_mode", 0)
        and set(settings.get("dilations", [1])) == {1}
        and len(node.output) == 1
    )
    if not plain or len(sizes) != n_axes or not all(sizes):
        return None
    strides, pads = settings.get("strides", [1] * n_axes), settings.get("pads", [0] * (2 * n_axes))
    windows = {}
    for number, (size, width, stride) in enumerate(zip(sizes, kernel, strides, strict=True)):
        before, after = pads[number], pads[number + n_axes]
        starts = np.arange((size + before + after - width) // stride + 1) * stride - before
        # A place beyond the edge counts for nothing, and the one at the edge is in the same window.
        windows[number + 2] = [np.clip(starts + shift, 0, size - 1) for shift in range(width)]
    return windows
