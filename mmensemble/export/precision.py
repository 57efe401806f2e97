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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import TopologicalSortPass

from mmensemble.exceptions import ExportError
from mmensemble.export.branches import closed, laid_open
from mmensemble.export.eight_bits import Ranges, in_encoder, to_int8
from mmensemble.export.pooling import pool_by_gathering
from mmensemble.scoring.providers import quiet_runtime

__all__ = ["PRECISIONS", "Precision", "convert"]

Precision = Literal["fp32", "fp16", "int8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")

_TOOLS = os.path.dirname(onnxruntime.__file__) + os.sep


def convert(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    kept: Collection[str] = (),
    ranges: Ranges | None = None,
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
        2018); convolutions with scales of measured `ranges`, and in float without them.
    kept : collection of str, default=()
        Names of layers that int8 leaves in float32.
    ranges : dict, default=None
        Of values around convolutions, by `mmensemble.export.eight_bits.activation_ranges`.
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
                model = to_int8(path, Path(folder), kept, ranges, external=external)
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


def _to_half(source: Path, state: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source, load_external_data=False)
    blocked = [node.name for node in model.graph.node if not in_encoder(node)]
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
