"""One ONNX graph that grows part by part, and `to_graph`, by which each estimator adds its part."""

from __future__ import annotations

from mmensemble.graph.builder import ENCODER_SCOPE, GENERATION_OPSET, IR_VERSION, ML_OPSET, OPSET, Graph
from mmensemble.graph.dispatch import add_itself, class_named, is_registered, to_generator_graph, to_graph
from mmensemble.graph.operations import GraphOperations, GraphValue
from mmensemble.graph.outputs import graph_labels, graph_outputs, graph_votes, refused_answers, rows_not_finite
from mmensemble.graph.parts import (
    Block,
    Frame,
    GeneratorGraph,
    Outputs,
    Source,
    Tensor,
    Terms,
    any_present,
    refuse_where_present,
)
from mmensemble.graph.products import linear

__all__ = [
    "ENCODER_SCOPE",
    "GENERATION_OPSET",
    "IR_VERSION",
    "ML_OPSET",
    "OPSET",
    "Block",
    "Frame",
    "GeneratorGraph",
    "Graph",
    "GraphOperations",
    "GraphValue",
    "Outputs",
    "Source",
    "Tensor",
    "Terms",
    "add_itself",
    "any_present",
    "class_named",
    "graph_labels",
    "graph_outputs",
    "graph_votes",
    "is_registered",
    "linear",
    "refuse_where_present",
    "refused_answers",
    "rows_not_finite",
    "to_generator_graph",
    "to_graph",
]
