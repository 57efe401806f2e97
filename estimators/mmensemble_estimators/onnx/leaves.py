"""Estimators of one modality as parts of an ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ExportError
from mmensemble.graph import ENCODER_SCOPE, Frame, GraphOperations, Outputs, Source, to_graph
from mmensemble_estimators.backbones.network import SMALLEST_NORM
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.base.leaf import TorchLeaf
from mmensemble_estimators.base.rows import column_of
from mmensemble_estimators.onnx.networks import add_linear, add_module

__all__ = ["leaf_feed", "leaf_graph"]


@to_graph.register
def leaf_graph(estimator: TorchEstimator, source: Source | None = None) -> Outputs:
    """Add a leaf estimator: its encoder, its head, what its target makes of that, and what a missing row gets."""
    check_is_fitted(estimator)
    source = Frame() if source is None else source
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
            squares = graph.op("Mul", embedding, embedding)
            norm = graph.op("Sqrt", graph.op("ReduceSum", squares, graph.constant(np.array([1]), "axes"), keepdims=1))
            smallest = graph.constant(np.array([[SMALLEST_NORM]], dtype=np.float32), "smallest_norm")
            embedding = graph.op("Div", embedding, graph.op("Max", norm, smallest))
            weight = weight * np.float32(head.norm)
        raw = add_linear(graph, embedding, weight, head.linear.bias.detach().cpu().numpy())
        target = estimator.target_
        xp = GraphOperations(graph)
        scores = xp.where(
            xp.of(present), target.activate(xp, xp.of(raw)), xp.constant(target.fill[None], "prior")
        ).value
    return Outputs(graph, **{target.task.output: scores}, transformed=transformed, present=present, task=target.task)


def leaf_feed(estimator: TorchLeaf, source: Source) -> tuple[dict[str, ir.Value], ir.Value]:
    """Return a leaf's inputs without ``present``, and ``present`` as (batch, 1)."""
    if not isinstance(source, Frame):
        raise ExportError(f"{type(estimator).__name__} takes raw cells and stands behind a step that makes a matrix")
    modality = estimator.modality.name
    columns = source.column_list() or [column_of(estimator) or modality]
    inputs = source.graph.feed(source.name or modality, columns, estimator.preprocessor_)
    return {name: inputs[name] for name in estimator.preprocessor_.tensors}, source.graph.present(inputs)
