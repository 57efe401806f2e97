"""Fitted estimator → one ONNX graph → one file."""

from mmensemble.export import sklearn as _sklearn  # noqa: F401 - registers scikit-learn's compositions
from mmensemble.export.graph import Frame, Graph, Outputs, Tensor, to_graph
from mmensemble.export.onnx_file import export_onnx

__all__ = ["Frame", "Graph", "Outputs", "Tensor", "export_onnx", "to_graph"]
