"""Networks as parts of an ONNX graph: how each kind of estimator is added by `mmensemble.to_graph`.

The modules register their functions; who imports this package can export what this package has trained.
"""

from __future__ import annotations

from mmensemble_estimators.onnx import generators, joint, leaves

__all__ = ["generators", "joint", "leaves"]
