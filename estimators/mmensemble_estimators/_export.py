"""torch networks as parts of an ONNX graph, by torch.onnx's exporter."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mmensemble.exceptions import ExportError
from mmensemble.export.graph import ENCODER_SCOPE, OPSET, Frame, Graph, Outputs, Source, any_present, to_graph
from mmensemble_estimators._base import TorchEstimator
from mmensemble_estimators._leaf import TorchLeaf
from mmensemble_estimators._members import Standardize
from mmensemble_estimators._network import SMALLEST_NORM
from mmensemble_estimators._onnx_form import name_of, raise_opset, single_operators
from mmensemble_estimators.backbones.encoder import Encoder

if TYPE_CHECKING:
    from mmensemble_estimators._joint import JointFusion, JointNetwork

__all__ = ["add_linear", "add_module", "joint_graph", "leaf_feed", "leaf_graph"]

# The exporter specialises axes of length 0 and 1 in the example, so all dynamic ones are longer, and all differ.
EXAMPLE_BATCH = 2


class _Named(nn.Module):
    """Positional arguments for a module that takes keywords: the exporter keeps the order of neither dicts nor both."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, *arrays: Tensor) -> Any:
        return self.module(**dict(zip(self.names, arrays, strict=True)))


def leaf_graph(estimator: TorchEstimator, source: Source) -> Outputs:
    """Add a leaf estimator: its encoder, its head, what its target makes of that, and what a missing row gets."""
    check_is_fitted(estimator)
    graph = source.graph
    inputs, present = leaf_feed(estimator, source)
    with graph.scope(ENCODER_SCOPE):
        (embedding,) = add_module(graph, estimator.module_.encoder, inputs)
    zeros = graph.constant(np.zeros((1, 1), dtype=np.float32), "missing_embedding")
    transformed = graph.op("Where", present, embedding, zeros)
    head = estimator.module_.head
    if head is None:
        return Outputs(graph, transformed=transformed, present=present)
    with graph.scope("head"):
        weight = head.linear.weight.detach().cpu().numpy()
        if head.norm is not None:
            norm = graph.op("ReduceL2", embedding, graph.constant(np.array([1]), "axes"), keepdims=1)
            smallest = graph.constant(np.array([[SMALLEST_NORM]], dtype=np.float32), "smallest_norm")
            embedding = graph.op("Div", embedding, graph.op("Max", norm, smallest))
            weight = weight * np.float32(head.norm)
        raw = add_linear(graph, embedding, weight, head.linear.bias.detach().cpu().numpy())
        target = estimator._target
        fill = graph.constant(target.fill.astype(np.float32)[None], "prior")
        scores = graph.op("Where", present, target.graph(graph, raw), fill)
    return Outputs(graph, **{target.task.output: scores}, transformed=transformed, present=present, task=target.task)


class _Fuse(nn.Module):
    """A joint network from its representations on, without the head.

    Keywords: ``present`` (batch, n_modalities), and for each modality ``<m>`` (batch, size), or ``<m>`` (batch, length,
    size) and ``<m>.mask`` (batch, length).
    """

    def __init__(self, network: JointNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, present: Tensor, **parts: Tensor) -> Tensor:
        encoded: list[Any] = []
        for m in range(len(self.network.encoders)):
            part = parts[str(m)]
            if not self.network.fuser.token_level:
                encoded.append(part)
            elif f"{m}.mask" in parts:
                encoded.append((part, parts[f"{m}.mask"]))
            else:
                encoded.append((part.unsqueeze(1), torch.ones_like(part[:, :1], dtype=torch.bool)))
        fused: Tensor = self.network.fuser(self.network.with_missing(encoded, present))
        return fused


class _Tokens(nn.Module):
    """An encoder's `tokens`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.encoder.tokens(**inputs)


def joint_graph(fusion: JointFusion, source: Source) -> Outputs:
    """Add a joint fusion: its members' representations, the fuser with its tokens for missing ones, the head."""
    if not isinstance(source, Frame):
        raise ExportError("a composition takes columns of X, and stands behind a step that makes a matrix")
    graph, network = source.graph, fusion.network_
    parts: dict[str, ir.Value] = {}
    present: list[ir.Value] = []
    for number, member in enumerate(fusion.members_):
        size = network.missing[number].shape[0]
        inner = source.member(member.name, member.columns, member.kinds)
        with graph.scope(member.name):
            if network.fuser.token_level and isinstance(member.estimator, TorchEstimator):
                inputs, there = leaf_feed(member.estimator, inner)
                with graph.scope(ENCODER_SCOPE):
                    states, mask = add_module(graph, _Tokens(member.estimator.module_.encoder), inputs)
                length = f"{number}.length"
                parts[str(number)] = _typed(states, ["batch", length, size], ir.DataType.FLOAT)
                parts[f"{number}.mask"] = _typed(mask, ["batch", length], ir.DataType.BOOL)
            else:
                outputs = to_graph(member.estimator, inner)
                if outputs.transformed is None or outputs.present is None:
                    raise ExportError(
                        f"member {member.name!r} ({type(member.estimator).__name__}) gives no representation"
                    )
                embedding, there = outputs.transformed, outputs.present
                encoder = network.encoders[number]
                if isinstance(encoder, Standardize):
                    mean, scale = (graph.constant(b.cpu().numpy()[None], n) for n, b in encoder.named_buffers())
                    embedding = graph.op("Div", graph.op("Sub", embedding, mean), scale)
                parts[str(number)] = _typed(embedding, ["batch", size], ir.DataType.FLOAT)
            present.append(there)
    with graph.scope(type(fusion).__name__):
        everywhere = graph.op("Concat", *present, axis=1) if len(present) > 1 else present[0]
        parts["present"] = _typed(everywhere, ["batch", len(present)], ir.DataType.BOOL)
        (fused,) = add_module(graph, _Fuse(network), parts)
        weight, bias = (parameter.detach().cpu().numpy() for parameter in (network.head.weight, network.head.bias))
        raw = add_linear(graph, fused, weight, bias)
        any_there = any_present(graph, present)
        prior = graph.constant(fusion.prior_.astype(np.float32)[None], "prior")
        result = graph.op("Where", any_there, fusion.target_.graph(graph, raw), prior)
    return Outputs(graph, **{fusion.task_.output: result}, transformed=fused, present=any_there, task=fusion.task_)


def add_linear(graph: Graph, value: ir.Value, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """Add a linear layer, weight (n_outputs, n_inputs), as one Gemm."""
    return graph.op("Gemm", value, graph.constant(weight, "weight"), graph.constant(bias, "bias"), transB=1)


def _typed(value: ir.Value, shape: Sequence[int | str], dtype: ir.DataType) -> ir.Value:
    """Say a value's shape and type, by which `add_module` makes its example."""
    value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
    return value


def leaf_feed(estimator: TorchLeaf, source: Source) -> tuple[dict[str, ir.Value], ir.Value]:
    """Return a leaf's inputs without ``present``, and ``present`` as (batch, 1)."""
    if not isinstance(source, Frame):
        raise ExportError(f"{type(estimator).__name__} takes raw cells and stands behind a step that makes a matrix")
    columns = source.column_list() or [estimator._column or estimator.modality]
    inputs = source.graph.feed(source.name or estimator.modality, columns, estimator.preprocessor_)
    return {name: inputs[name] for name in estimator.preprocessor_.tensors}, source.graph.present(inputs)


def add_module(
    graph: Graph, module: nn.Module, inputs: Mapping[str, ir.Value], *, sizes: Mapping[str, int] | None = None
) -> list[ir.Value]:
    """Add a torch module to a graph.

    Parameters
    ----------
    graph : Graph
    module : nn.Module
        Keyword tensors → one tensor, or several.
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
    was_training = module.training
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
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
    wrapper = _Named(module.cpu().eval(), list(inputs))
    try:
        with _quiet(), single_operators(wrapper), torch.no_grad():
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
    finally:
        module.to(device).train(was_training)
    assert program is not None  # noqa: S101 - narrows the type
    raise_opset(program.model, graph.opset)
    return list(graph.inline(program.model, inputs, name_of=name_of).values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its notes about optional packages off the user's screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
