"""How far 8 bits move what each layer gives, measured in one run of the float model for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx

from mmensemble.export.branches import laid_open
from mmensemble.export.eight_bits import ACTIVATIONS, float_convolutions, int8_layers, observed

__all__ = ["sensitivities"]

_TINY = 1e-30


def sensitivities(path: Path, batches: Iterable[dict[str, np.ndarray]], *, convolutions: bool = False) -> list[str]:
    """Rank the layers that int8 would take by how far 8 bits move their output on some rows, the worst first.

    The distance is ``‖f(X, W) − f(Q(X), Q(W))‖ / ‖f(X, W)‖``, the mean over columns of a product and channels of a
    convolution, with `X` as it comes in the float model, one scale for `X` and one per column or channel of `W`. What
    comes out of a convolution is rounded too, behind its activation.

    Parameters
    ----------
    path : Path
        A float32 model, whose weights may lie beside it.
    batches : iterable of dict
        Inputs.
    convolutions : bool, default=False
        Rank convolutions too.
    """
    with laid_open(path) as (opened, _):
        model = onnx.load(opened, load_external_data=False)
    layers = int8_layers(model)
    if convolutions:
        layers |= float_convolutions(model)
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for name in sorted({name for node in layers.values() for name in node.input[:2]}):
        if name not in weights:
            _rounded(model.graph, name)
    sums: dict[str, list[str]] = {}
    for index, (layer, node) in enumerate(layers.items()):
        weight = onnx.numpy_helper.to_array(weights[node.input[1]], base_dir=str(path.parent))
        last = node.op_type != "Conv" and not any(a.name == "transB" and a.i for a in node.attribute)
        prefix = f"_sensitivity_{index}"
        rounded = _rounded_weight(model.graph, node.input[1], weight, weight.ndim - 1 if last else 0, prefix)
        moved = _copied(model.graph, node, [f"{node.input[0]}.rounded", rounded, *node.input[2:]], f"{prefix}.moved")
        exact = node.output[0]
        axes = [0, 2, 3, 4][: weight.ndim - 1] if node.op_type == "Conv" else None
        if axes is not None:
            following = readers.get(exact, [])
            if len(following) == 1 and following[0].op_type in ACTIVATIONS:
                (activation,) = following
                moved = _copied(model.graph, activation, [moved, *activation.input[1:]], f"{prefix}.active")
                exact = activation.output[0]
            moved = _rounded(model.graph, moved)
        model.graph.node.append(onnx.helper.make_node("Sub", [exact, moved], [f"{prefix}.error"]))
        sums[layer] = [
            _sum_of_squares(model.graph, name, axes, f"{prefix}.{which}")
            for which, name in (("of_error", f"{prefix}.error"), ("of_exact", exact))
        ]
    errors: dict[str, list[float]] = {name: [] for name in layers}
    for values in observed(model, path, [name for pair in sums.values() for name in pair], batches):
        for layer, pair in sums.items():
            # Squares of whole columns: all axes but the last were not known when the graph was made.
            error, exact = (values[name].reshape(-1, values[name].shape[-1]).sum(axis=0) for name in pair)
            # A channel that is moved by as much as it holds is lost, and cannot be more than that.
            errors[layer].append(float(np.sqrt(np.minimum(error / np.maximum(exact, _TINY), 1)).mean()))
    return sorted(errors, key=lambda name: -float(np.mean(errors[name])))


def _rounded(graph: onnx.GraphProto, name: str) -> str:
    """Add a value as 8 bits hold it, with one scale."""
    eight = [f"{name}.{part}" for part in ("eight_bits", "scale", "zero_point")]
    graph.node.append(onnx.helper.make_node("DynamicQuantizeLinear", [name], eight))
    graph.node.append(onnx.helper.make_node("DequantizeLinear", eight, [f"{name}.rounded"]))
    return f"{name}.rounded"


def _rounded_weight(graph: onnx.GraphProto, name: str, weight: np.ndarray, axis: int, prefix: str) -> str:
    """Add a weight as 8 bits hold it, with a scale for each row, column or channel."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scale = np.maximum(np.abs(weight).max(axis=others) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{prefix}.scale"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{prefix}.zero_point"))
    scaling = [f"{prefix}.scale", f"{prefix}.zero_point"]
    for kind, read, given in (("Quantize", name, "eight_bits"), ("Dequantize", f"{prefix}.eight_bits", "weight")):
        graph.node.append(onnx.helper.make_node(f"{kind}Linear", [read, *scaling], [f"{prefix}.{given}"], axis=axis))
    return f"{prefix}.weight"


def _copied(graph: onnx.GraphProto, node: onnx.NodeProto, inputs: list[str], output: str) -> str:
    copied = graph.node.add()
    copied.CopyFrom(node)
    copied.name = output
    copied.input[:], copied.output[:] = inputs, [output]
    return output


def _sum_of_squares(graph: onnx.GraphProto, name: str, axes: list[int] | None, output: str) -> str:
    """Add the squares of a value, summed over some axes; None: over the first."""
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(axes or [0], np.int64), f"{output}.axes"))
    graph.node.append(onnx.helper.make_node("ReduceSumSquare", [name, f"{output}.axes"], [output], keepdims=0))
    return output
