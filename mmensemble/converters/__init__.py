"""scikit-learn's estimators, and boosters, as parts of a graph; importing this registers them with `to_graph`."""

from __future__ import annotations

from mmensemble.converters import bayes as _bayes  # noqa: F401
from mmensemble.converters import encoders as _encoders  # noqa: F401
from mmensemble.converters import gaussian_processes as _gaussian_processes  # noqa: F401
from mmensemble.converters import linear as _linear  # noqa: F401
from mmensemble.converters import neighbors as _neighbors  # noqa: F401
from mmensemble.converters import scalers as _scalers  # noqa: F401
from mmensemble.converters import sklearn as _sklearn  # noqa: F401
from mmensemble.converters import svm as _svm  # noqa: F401
from mmensemble.converters import text as _text  # noqa: F401
from mmensemble.converters import transforms as _transforms  # noqa: F401
from mmensemble.converters import trees as _trees  # noqa: F401
from mmensemble.converters.around import bags as _bags  # noqa: F401
from mmensemble.converters.around import calibration as _calibration  # noqa: F401
from mmensemble.converters.around import chains as _chains  # noqa: F401
from mmensemble.converters.around import ensembles as _ensembles  # noqa: F401
from mmensemble.converters.around import metaestimators as _metaestimators  # noqa: F401
from mmensemble.converters.fallback import skl2onnx as _skl2onnx  # noqa: F401

__all__: list[str] = []
