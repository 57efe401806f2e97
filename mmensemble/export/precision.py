"""Weights and arithmetic of less than 32 bits: fp16 for GPUs, int8 for CPUs, by ONNX Runtime's own tools.

Only encoders of neural networks are converted: the nodes in their scope. Heads, fusion layers, meta-learners and the
arithmetic of voting are a small share of the work, and stay in float32 at every precision; so do inputs and outputs,
but for the state of a generator.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import TopologicalSortPass

from mmensemble.exceptions import ExportError
from mmensemble.export.branches import closed, laid_open
from mmensemble.export.pooling import pool_by_gathering
from mmensemble.graph import ENCODER_SCOPE
from mmensemble.scoring.providers import quiet_runtime

__all__ = ["PRECISIONS", "Precision", "convert", "float_convolutions", "int8_layers", "sensitivities"]

Precision = Literal["fp32", "fp16", "int8"]
Batches = Callable[[], Iterable[dict[str, np.ndarray]]]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

_TOOLS = os.path.dirname(onnxruntime.__file__) + os.sep
_PRODUCTS = ("MatMul", "Gemm")
_TINY = 1e-30
# In a network of convolutions these pass 8-bit values on, so that nothing is converted back and forth between them.
_AROUND_CONVOLUTIONS = ("Conv", "Relu", "MaxPool", "Add")


def convert(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    kept: Collection[str] = (),
    calibration: Batches | None = None,
    external: bool = False,
    state: Collection[str] = (),
) -> None:
    """Write a model file at another precision.

    Parameters
    ----------
    source : Path
        A float32 model, whose weights may lie beside it.
    target : Path
        The file to write, in the same folder.
    precision : {"fp32", "fp16", "int8"}
        ``"fp16"``: weights and arithmetic of encoders in half precision, for GPUs. ``"int8"``: the matrix products of
        encoders with 8-bit weights, one scale per column, and activations that are scaled as they come (Jacob et al.
        2018); convolutions with scales measured by `calibration`, and in float without it.
    kept : collection of str, default=()
        Names of nodes to keep in float32.
    calibration : callable, default=None
        → batches of inputs, on which the range of every activation around convolutions is measured.
    external : bool, default=False
        Put weights beside the files, as ``<name>.data``, where one file cannot hold them.
    state : collection of str, default=()
        Inputs and outputs that a generator gives from one run to the next, which need not stay in float32.

    Raises
    ------
    ExportError
        If ONNX Runtime's tools cannot convert the model.
    """
    try:
        with _quiet(), tempfile.TemporaryDirectory(dir=target.parent) as folder, laid_open(source) as (path, branches):
            if precision == "int8":
                model = _to_int8(path, Path(folder), set(kept), calibration, external)
            else:
                model = onnx.load(path) if precision == "fp32" else _to_half(path, state)
            # The tools leave types behind that are not right, and nodes in no order.
            del model.graph.value_info[:]
            converted = ir.from_proto(model)
            TopologicalSortPass()(converted)
            closed(converted, branches)
            TopologicalSortPass()(converted)
            target.with_name(f"{target.name}.data").unlink(missing_ok=True)
            ir.save(converted, target, external_data=f"{target.name}.data" if external else None)
    except Exception as error:  # the tools raise anything
        raise ExportError(f"the model cannot be converted to {precision}: {error}") from error


def _in_encoder(node: onnx.NodeProto) -> bool:
    return ENCODER_SCOPE in node.name.split("/")[:-1]


def _to_half(source: Path, state: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source, load_external_data=False)
    blocked = [node.name for node in model.graph.node if not _in_encoder(node)]
    # Constants like 1e-12 become 0 in half precision and may be divided by; the tool raises them to its least value.
    # It is given the path, since it cannot infer the shapes of a model in memory that is too large for one file.
    # A state that passes from step to step stays in half precision, or each step would convert all of it twice.
    kept = [value.name for value in (*model.graph.input, *model.graph.output) if value.name not in state]
    converted = convert_float_to_float16(str(source), keep_io_types=kept, node_block_list=blocked)
    # Where two float nodes read one half value, the tool casts it twice, under one name.
    nodes = {tuple(node.output): node for node in converted.graph.node}
    del converted.graph.node[:]
    converted.graph.node.extend(nodes.values())
    _without_detours(converted.graph)
    pool_by_gathering(converted)
    return converted


def _without_detours(graph: onnx.GraphProto) -> None:
    """Let a float node read what another float node gives, and not that value cut to half precision and back.

    The tool keeps nodes in float, but takes every value from one to the next by two casts, in which numbers above 65504
    become infinite; inputs and outputs of the graph as well.
    """
    made_half = {  # value in half precision → the same in float, as it was
        node.output[0]: node.input[0]
        for node in graph.node
        if node.name.endswith("_cast_to_fp16_node") or node.name.startswith("graph_input_cast")
    }
    made_half |= {
        weight.name: weight.name for weight in graph.initializer if weight.data_type == onnx.TensorProto.FLOAT
    }
    by_nodes = {name for node in graph.node for name in node.output}
    straight: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for node in graph.node:
        source = made_half.get(node.input[0]) if node.input else None
        if source is None:
            continue
        if node.name.endswith("_cast_to_fp32_node"):
            straight[node.output[0]] = source
        elif node.name.startswith("graph_output_cast"):
            if source in by_nodes and source not in outputs:
                outputs[source] = node.output[0]  # which keeps its name, so the value takes that
            else:
                node.input[0] = source
    gone = {*straight, *outputs.values()}
    renamed = {name: outputs.get(source, source) for name, source in straight.items()} | outputs
    kept = [node for node in graph.node if node.output[0] not in gone]
    for node in kept:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    read = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in kept if node.output[0] in read or node.output[0] not in made_half)


def _to_int8(
    source: Path, folder: Path, kept: set[str], calibration: Batches | None, external: bool
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    model = onnx.load(source)
    _with_own_weights(model)
    del model.graph.value_info[:]  # the quantizer infers shapes anew, and trips over the ones that are there
    path = folder / "float32"
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data")
    every = {node.name for node in model.graph.node}
    convolutions = set() if calibration is None else _around_convolutions(model) - kept
    if convolutions and calibration is not None:
        step = folder / "convolutions"
        quantize_static(
            path,
            step,
            _Reader(calibration()),
            op_types_to_quantize=list(_AROUND_CONVOLUTIONS),
            nodes_to_exclude=sorted(every - convolutions),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=external,
        )
        path = step
    products = set(int8_layers(model)) - kept
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
    return onnx.load(path)


def _around_convolutions(model: onnx.ModelProto) -> set[str]:
    """Return the nodes to quantise with measured ranges: convolutions, and in networks of them what lies between."""
    by_encoder: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if _in_encoder(node):
            by_encoder.setdefault(node.name[: node.name.index(ENCODER_SCOPE)], []).append(node)
    chosen = set()
    for nodes in by_encoder.values():
        counts = {kind: sum(node.op_type == kind for node in nodes) for kind in ("Conv", "MatMul")}
        wanted = _AROUND_CONVOLUTIONS if counts["Conv"] > counts["MatMul"] else ("Conv",)
        chosen |= {node.name for node in nodes if node.op_type in wanted}
    return chosen


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


def float_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the convolutions of encoders, which int8 leaves in float32 where there are no rows to calibrate on.

    Those in branches are not seen; see `mmensemble.export.branches.laid_open`.
    """
    return [node.name for node in model.graph.node if node.op_type == "Conv" and _in_encoder(node)]


def int8_layers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the matrix products of encoders by constant weights, by name; those in branches are not seen."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return {
        node.name: node
        for node in model.graph.node
        if node.op_type in _PRODUCTS and _in_encoder(node) and node.input[1] in constants
    }


def sensitivities(path: Path, batches: Iterable[dict[str, np.ndarray]]) -> list[str]:
    """Rank the layers that int8 would take by how far 8 bits move their output on some rows, the worst first.

    The distance is ``‖XW − Q(X)Q(W)‖ / ‖XW‖`` with `X` as it comes in the float model, one scale for `X` and one per
    column of `W`.
    """
    with laid_open(path) as (opened, _):
        model = onnx.load(opened, load_external_data=False)
    layers = int8_layers(model)
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    seen = sorted({node.input[0] for node in layers.values()})
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in seen if name not in known)
    watched = path.with_name(f"{path.name}.watched")  # in one folder with the weights that lie beside the model
    onnx.save(model, watched)
    with quiet_runtime():  # it would warn of every buffer of a generator that it copies
        session = onnxruntime.InferenceSession(watched, providers=["CPUExecutionProvider"])
    inputs = [node.name for node in session.get_inputs()]
    errors: dict[str, list[float]] = {name: [] for name in layers}
    for batch in batches:
        values = dict(zip(seen, session.run(seen, {name: batch[name] for name in inputs}), strict=True))
        for name, node in layers.items():
            weight = onnx.numpy_helper.to_array(weights[node.input[1]], base_dir=str(path.parent))
            if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
                weight = weight.T
            X = values[node.input[0]].reshape(-1, weight.shape[0])
            exact = X @ weight
            scales = 127 / np.maximum(np.abs(weight).max(axis=0), _TINY)
            rounded = _rounded(X, 255 / max(float(np.ptp(X)), _TINY)) @ _rounded(weight, scales)
            errors[name].append(float(np.linalg.norm(exact - rounded)) / max(float(np.linalg.norm(exact)), _TINY))
    watched.unlink()
    return sorted(errors, key=lambda name: -float(np.mean(errors[name])))


def _rounded(values: np.ndarray, scale: Any) -> np.ndarray:
    return np.asarray(np.rint(values * scale) / scale)


class _Reader:
    """Batches as ONNX Runtime's calibration wants them."""

    def __init__(self, batches: Iterable[dict[str, np.ndarray]]) -> None:
        self._batches: Iterator[dict[str, np.ndarray]] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Take part in calibration by strides, which is not used."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' advice to preprocess, which this module has done, off the user's screen.

    They log by the root logger, as others do: what comes from them in this thread is left out, and nothing else.
    """
    thread = threading.get_ident()

    def is_for_the_user(record: logging.LogRecord) -> bool:
        by_tools = record.thread == thread and record.pathname.startswith(_TOOLS)
        return record.levelno > logging.WARNING or not by_tools

    logging.root.addFilter(is_for_the_user)
    try:
        with quiet_runtime():
            yield
    finally:
        logging.root.removeFilter(is_for_the_user)
