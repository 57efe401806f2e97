"""torch networks as parts of an ONNX graph, by torch.onnx's exporter."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from mmensemble.exceptions import ExportError
from mmensemble.graph import OPSET, Graph
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.portable import on_cpu
from mmensemble_estimators.onnx.form import attention_in_groups, name_of, raise_opset, take_single_operators

__all__ = ["add_linear", "add_module", "typed"]

# The exporter specialises axes of length 0 and 1 in the example, so all dynamic ones are longer, and all differ.
EXAMPLE_BATCH = 2

_exporting = threading.Lock()


class _Named(nn.Module):
    """Positional arguments for a module that takes keywords: the exporter keeps the order of neither dicts nor both."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *arrays: Tensor) -> Any:
        return self.module(**dict(zip(self.names, arrays, strict=True)))


def add_linear(graph: Graph, value: ir.Value, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """Add a linear layer, weight (n_outputs, n_inputs), as one Gemm."""
    return graph.op("Gemm", value, graph.constant(weight, "weight"), graph.constant(bias, "bias"), transB=1)


def typed(value: ir.Value, shape: Sequence[int | str], dtype: ir.DataType) -> ir.Value:
    """Say a value's shape and type, by which `add_module` makes its example."""
    value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
    return value


def add_module(
    graph: Graph, module: nn.Module, inputs: Mapping[str, ir.Value], *, sizes: Mapping[str, int] | None = None
) -> list[ir.Value]:
    """Add a torch module to a graph.

    Parameters
    ----------
    graph : Graph
    module : nn.Module
        Keyword tensors → one tensor, or several. It is left as it is, on its device: another thread may predict by it.
    inputs : mapping of str to Value
        What each keyword is in the graph; its shape tells which axes are dynamic.
    sizes : mapping of str to int, default=None
        The lengths in the example of dynamic axes that depend on each other.

    Returns
    -------
    list of Value
        The module's outputs.

    Raises
    ------
    ExportError
        If torch cannot export the module.
    """
    encoder = getattr(module, "encoder", module)
    example_length = encoder.example_length if isinstance(encoder, Encoder) else Encoder.example_length
    examples, dynamic = [], []
    lengths = dict(sizes or {})
    for name, value in inputs.items():
        if value.shape is None or value.dtype is None:
            raise ExportError(f"the input {name!r} has no shape")
        shape, axes = [], {}
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                shape.append(size)
            else:
                shape.append(
                    EXAMPLE_BATCH if axis == 0 else lengths.setdefault(str(size), example_length + len(lengths))
                )
                axes[axis] = torch.export.Dim.DYNAMIC
        examples.append(torch.from_numpy(np.zeros(shape, dtype=value.dtype.numpy())))
        dynamic.append(axes)
    wrapper = on_cpu(_Named(module, list(inputs))).eval()
    take_single_operators(wrapper)
    try:
        with _exporter(), torch.no_grad():
            program = torch.onnx.export(
                wrapper,
                tuple(examples),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(tuple(dynamic),),
                input_names=list(inputs),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"torch cannot export {type(module).__name__}: {str(error).splitlines()[0]}") from error
    assert program is not None  # noqa: S101 - narrows the type
    raise_opset(program.model, graph.opset)
    return list(graph.inline(program.model, inputs, name_of=name_of).values())


@contextmanager
def _exporter() -> Iterator[None]:
    """Set torch's exporter up, its progress and its notes about optional packages kept off the user's screen.

    What is set is the process's, so threads that export wait for each other.
    """
    logger = logging.getLogger("torch.onnx")
    with _exporting, attention_in_groups(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
