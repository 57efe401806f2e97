"""Fitted estimator → one ONNX graph → one file."""

# These register what `to_graph` does with scikit-learn's classes.
from mmensemble.export import calibration as _calibration  # noqa: F401
from mmensemble.export import encoders as _encoders  # noqa: F401
from mmensemble.export import ensembles as _ensembles  # noqa: F401
from mmensemble.export import linear as _linear  # noqa: F401
from mmensemble.export import metaestimators as _metaestimators  # noqa: F401
from mmensemble.export import neighbors as _neighbors  # noqa: F401
from mmensemble.export import scalers as _scalers  # noqa: F401
from mmensemble.export import sklearn as _sklearn  # noqa: F401
from mmensemble.export import svm as _svm  # noqa: F401
from mmensemble.export import text as _text  # noqa: F401
from mmensemble.export import trees as _trees  # noqa: F401
from mmensemble.export.graph import Frame, Graph, Outputs, Tensor, to_graph
from mmensemble.export.onnx_file import export_onnx

__all__ = ["Frame", "Graph", "Outputs", "Tensor", "export_onnx", "to_graph"]
