"""Fitted estimator → one ONNX graph → one file."""

from __future__ import annotations

import mmensemble.converters  # noqa: F401 - registers scikit-learn's classes with `to_graph`
from mmensemble.converters.fallback.skl2onnx import as_tensor
from mmensemble.export.check import Exportability, can_export
from mmensemble.export.onnx_file import export_onnx
from mmensemble.graph import Frame, GeneratorGraph, Graph, Outputs, Tensor, class_named, to_generator_graph, to_graph

__all__ = [
    "Exportability",
    "Frame",
    "GeneratorGraph",
    "Graph",
    "Outputs",
    "Tensor",
    "as_tensor",
    "can_export",
    "class_named",
    "export_onnx",
    "to_generator_graph",
    "to_graph",
]
