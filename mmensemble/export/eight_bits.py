"""Which layers of encoders can have 8 bits, and how ONNX Runtime's tools give them these."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from mmensemble.export.branches import laid_open
from mmensemble.graph import ENCODER_SCOPE
from mmensemble.scoring.providers import quiet_runtime

__all__ = [
    "ACTIVATIONS",
    "Ranges",
    "activation_ranges",
    "embeddings",
    "float_convolutions",
    "in_encoder",
    "int8_layers",
    "observed",
    "to_int8",
]

# Of values by name: the least and the largest.
Ranges = dict[str, tuple[np.ndarray, np.ndarray]]

_PRODUCTS = ("MatMul", "Gemm")
# A smaller table is not worth the three operators that look up a row of it.
_LEAST_NUMBERS = 2**16
# They cut values off, which a range does as well: the tools leave them out behind a convolution of 8 bits.
ACTIVATIONS = ("Relu", "Clip")
# In a network of convolutions these pass 8-bit values on, so that nothing is converted back and forth between them.
_AROUND_CONVOLUTIONS = ("Conv", *ACTIVATIONS, "MaxPool", "Add")


def in_encoder(node: onnx.NodeProto) -> bool:
    """Tell whether a node belongs to the encoder of a neural network."""
    return ENCODER_SCOPE in node.name.split("/")[:-1]


def int8_layers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the matrix products of encoders by constant weights, by name; those in branches are not seen."""
    return _layers(model, _PRODUCTS)


def float_convolutions(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the convolutions of encoders, which int8 leaves in float32 where there are no rows to calibrate on.

    Those in branches are not seen; see `mmensemble.export.branches.laid_open`.
    """
    return _layers(model, ("Conv",))


def embeddings(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the look-ups of encoders in large tables that nothing else reads, by name; not those in branches."""
    large = {
        initializer.name
        for initializer in model.graph.initializer
        if initializer.data_type == onnx.TensorProto.FLOAT
        and len(initializer.dims) == 2
        and np.prod(initializer.dims) >= _LEAST_NUMBERS
    }
    # A product takes a copy of what it shares with a look-up.
    for node in model.graph.node:
        if node.op_type == "Gather" and in_encoder(node) and not any(a.name == "axis" and a.i for a in node.attribute):
            large -= set(node.input[1:])
        else:
            large -= set(node.input[:1] if node.op_type in _PRODUCTS else node.input)
    return {
        node.name: node
        for node in model.graph.node
        if node.op_type == "Gather" and in_encoder(node) and node.input[0] in large
    }


def _layers(model: onnx.ModelProto, kinds: Collection[str]) -> dict[str, onnx.NodeProto]:
    constants = {initializer.name for initializer in model.graph.initializer}
    return {
        node.name: node
        for node in model.graph.node
        if node.op_type in kinds and in_encoder(node) and node.input[1] in constants
    }


def to_int8(
    source: Path, folder: Path, kept: Collection[str], ranges: Ranges | None, *, external: bool
) -> onnx.ModelProto:
    """Return a float32 model with 8 bits in the layers of encoders.

    Parameters
    ----------
    source : Path
        A model without branches.
    folder : Path
        For what the tools write.
    kept : collection of str
        Names of layers to keep in float32.
    ranges : dict or None
        Of `activation_ranges`; None keeps all convolutions in float32.
    external : bool
        Write weights beside the files.
    """
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData, quantize_dynamic

    model = onnx.load(source)
    _with_own_weights(model)
    del model.graph.value_info[:]  # the quantizer infers shapes anew, and trips over the ones that are there
    path = folder / "float32"
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data")
    if external:
        model = onnx.load(path)  # saving has taken the weights out of it
    every = {node.name for node in model.graph.node}
    products = set(int8_layers(model)) - set(kept)
    around = set() if ranges is None else _around_convolutions(model, kept)
    if around and ranges is not None:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=sorted(every - around),
            op_types_to_quantize=list(_AROUND_CONVOLUTIONS),
            extra_options={},
        )
        quantizer.quantize_model()
        path = folder / "convolutions"
        quantizer.model.save_model_to_file(path, external)
    if products:
        excluded = every - products
        step = folder / "products"
        quantize_dynamic(
            path,
            step,
            op_types_to_quantize=list(_PRODUCTS),
            # The quantizer turns a Gemm into a MatMul of another name before it looks at this list.
            nodes_to_exclude=sorted(excluded | {f"{name}_MatMul" for name in excluded}),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
            extra_options={"MatMulConstBOnly": True},
        )
        path = step
    model = onnx.load(path)
    _round_rows(model, kept)
    return model


def activation_ranges(path: Path, batches: Iterable[dict[str, np.ndarray]]) -> Ranges:
    """Measure between which numbers the values around convolutions lie, in a float32 model on some rows."""
    with laid_open(path) as (opened, _):
        model = onnx.load(opened, load_external_data=False)
    around = _around_convolutions(model, ())
    constants = {initializer.name for initializer in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in around]
    # All that a tool asks the range of; of the others it need not be known that they are no numbers.
    names = {
        name
        for node in nodes
        for name in (*node.input[: 2 if node.op_type == "Add" else 1], node.output[0])
        if name and name not in constants
    }
    outputs = []
    for name in sorted(names):
        for kind in ("ReduceMin", "ReduceMax"):
            model.graph.node.append(onnx.helper.make_node(kind, [name], [f"{name}.{kind}"], keepdims=0))
            outputs.append(f"{name}.{kind}")
    ranges: Ranges = {}
    for values in observed(model, path, outputs, batches):
        for name in names:
            least, largest = values[f"{name}.ReduceMin"], values[f"{name}.ReduceMax"]
            known = ranges.get(name, (least, largest))
            ranges[name] = (np.minimum(known[0], least), np.maximum(known[1], largest))
    return ranges


def observed(
    model: onnx.ModelProto, path: Path, names: list[str], batches: Iterable[dict[str, np.ndarray]]
) -> Iterable[dict[str, np.ndarray]]:
    """Yield values from inside a model for each batch.

    Parameters
    ----------
    model : ModelProto
        Without its external data; changed.
    path : Path
        In the folder where these are.
    names : list of str
        Of the values.
    batches : iterable of dict
    """
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in known)
    watched = path.with_name(f"{path.name}.watched")
    onnx.save(model, watched)
    try:
        with quiet_runtime():  # it would warn of every buffer of a generator that it copies
            session = onnxruntime.InferenceSession(watched, providers=["CPUExecutionProvider"])
        inputs = [node.name for node in session.get_inputs()]
        for batch in batches:
            yield dict(zip(names, session.run(names, {name: batch[name] for name in inputs}), strict=True))
    finally:
        watched.unlink()


def _around_convolutions(model: onnx.ModelProto, kept: Collection[str]) -> set[str]:
    """Return the nodes to quantise with measured ranges: convolutions, and in networks of them what lies between.

    What lies between takes part where all that it reads has 8 bits already; elsewhere it would only add rounding.
    """
    by_encoder: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if in_encoder(node):
            by_encoder.setdefault(node.name[: node.name.index(ENCODER_SCOPE)], []).append(node)
    chosen = set()
    layers = float_convolutions(model)
    constants = {initializer.name for initializer in model.graph.initializer}
    for nodes in by_encoder.values():
        counts = {kind: sum(node.op_type == kind for node in nodes) for kind in ("Conv", "MatMul")}
        wanted = _AROUND_CONVOLUTIONS if counts["Conv"] > counts["MatMul"] else ("Conv",)
        eight: set[str] = set()
        for node in nodes:  # in topological order
            if node.op_type == "Conv":
                taken = node.name in layers and node.name not in kept
            else:
                computed = {name for name in node.input if name} - constants
                taken = node.op_type in wanted and computed <= eight
            if taken:
                chosen.add(node.name)
                eight.update(node.output)
    return chosen


def _round_rows(model: onnx.ModelProto, kept: Collection[str]) -> None:
    """Store tables as 8 bits with one scale for each row; what is looked up is multiplied by it."""
    found = embeddings(model)
    left = {node.input[0] for name, node in found.items() if name in kept}
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.name not in found or node.input[0] in left:
            nodes.append(node)
            continue
        table, ids = node.input
        scale = f"{table}.scale"
        if scale not in weights:
            rows = onnx.numpy_helper.to_array(weights[table])
            scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
            eight = np.rint(rows / scales).astype(np.int8)
            weights[table].CopyFrom(onnx.numpy_helper.from_array(eight, table))
            weights[scale] = model.graph.initializer.add()
            weights[scale].CopyFrom(onnx.numpy_helper.from_array(scales.astype(np.float32), scale))
        (output,) = node.output
        for kind, inputs, given in (
            ("Gather", (table, ids), "eight_bits"),
            ("Cast", (f"{output}.eight_bits",), "numbers"),
            ("Gather", (scale, ids), "scale"),
            ("Mul", (f"{output}.numbers", f"{output}.scale"), ""),
        ):
            made = onnx.helper.make_node(kind, inputs, [f"{output}.{given}" if given else output])
            made.name = f"{node.name}.{given}" if given else node.name
            if kind == "Cast":
                made.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
            nodes.append(made)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _with_own_weights(model: onnx.ModelProto) -> None:
    """Copy weights that a product shares with other operators, as a head and its token embedding do.

    The quantizer transposes a product's weights where they are.
    """
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    elsewhere = {name for node in model.graph.node if node.op_type not in _PRODUCTS for name in node.input}
    for node in int8_layers(model).values():
        name = node.input[1]
        if name in elsewhere:
            node.input[1] = f"{name}_of_product"
            if node.input[1] not in weights:
                copied = model.graph.initializer.add()
                copied.CopyFrom(weights[name])
                copied.name = node.input[1]
                weights[copied.name] = copied
