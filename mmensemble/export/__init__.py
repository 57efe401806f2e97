"""Fitted estimator → one ONNX graph → one file."""

# These register what `to_graph` does with scikit-learn's classes.
from mmensemble.export import calibration as _calibration  # noqa: F401
from mmensemble.export import sklearn as _sklearn  # noqa: F401
from mmensemble.export.graph import Frame, Graph, Outputs, Tensor, to_graph
from mmensemble.export.onnx_file import export_onnx

__all__ = ["Frame", "Graph", "Outputs", "Tensor", "export_onnx", "to_graph"]
