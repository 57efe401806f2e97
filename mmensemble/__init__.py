"""mmensemble: scikit-learn-style ensembles of multimodal models, exported whole to ONNX.

The names below are loaded on first use (PEP 562), so ``import mmensemble`` loads neither scikit-learn, torch nor onnx,
and a scoring host needs none of them. The estimators that train neural networks live in ``mmensemble_estimators``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmensemble._moved import MovedModules
from mmensemble._version import __version__ as __version__

if TYPE_CHECKING:
    from mmensemble.exceptions import (
        ConfigurationError,
        DataError,
        DeviceError,
        ExportError,
        MissingDependencyError,
        MmensembleError,
        ModelFileError,
        ParityError,
    )
    from mmensemble.export import export_onnx, to_graph
    from mmensemble.fusion import SoftVoting, Stacking
    from mmensemble.inspection import (
        expected_calibration_error,
        member_disagreement,
        missing_modality_curve,
        modality_importance,
        modality_shapley,
    )
    from mmensemble.learning.columns import ColumnSelector, on_column
    from mmensemble.multimodal import MultimodalClassifier
    from mmensemble.plotting import (
        MemberDisagreementDisplay,
        MissingModalityDisplay,
        ModalityImportanceDisplay,
        ModalityShapleyDisplay,
        ReliabilityDisplay,
        TrainingCurveDisplay,
    )
    from mmensemble.scoring import OnnxPredictor, generate_file, score_file

__all__ = [
    "ColumnSelector",
    "ConfigurationError",
    "DataError",
    "DeviceError",
    "EnsembleSelection",
    "ExportError",
    "HardVoting",
    "MemberDisagreementDisplay",
    "MissingDependencyError",
    "MissingModalityDisplay",
    "MmensembleError",
    "ModalityImportanceDisplay",
    "ModalityShapleyDisplay",
    "ModelFileError",
    "MultimodalClassifier",
    "MultimodalRegressor",
    "OnnxPredictor",
    "ParityError",
    "ProductOfExperts",
    "ReliabilityDisplay",
    "SoftVoting",
    "Stacking",
    "TrainingCurveDisplay",
    "expected_calibration_error",
    "export_onnx",
    "generate_file",
    "member_disagreement",
    "missing_modality_curve",
    "modality_importance",
    "modality_shapley",
    "on_column",
    "score_file",
    "to_graph",
]

_HOME = {
    "ColumnSelector": "mmensemble.learning.columns",
    "MemberDisagreementDisplay": "mmensemble.plotting",
    "MissingModalityDisplay": "mmensemble.plotting",
    "ModalityImportanceDisplay": "mmensemble.plotting",
    "ModalityShapleyDisplay": "mmensemble.plotting",
    "EnsembleSelection": "mmensemble.fusion",
    "HardVoting": "mmensemble.fusion",
    "MultimodalClassifier": "mmensemble.multimodal.estimators",
    "MultimodalRegressor": "mmensemble.multimodal.estimators",
    "OnnxPredictor": "mmensemble.scoring",
    "ReliabilityDisplay": "mmensemble.plotting",
    "ProductOfExperts": "mmensemble.fusion",
    "SoftVoting": "mmensemble.fusion",
    "Stacking": "mmensemble.fusion",
    "TrainingCurveDisplay": "mmensemble.plotting",
    "expected_calibration_error": "mmensemble.inspection",
    "export_onnx": "mmensemble.export",
    "generate_file": "mmensemble.scoring",
    "member_disagreement": "mmensemble.inspection",
    "missing_modality_curve": "mmensemble.inspection",
    "modality_importance": "mmensemble.inspection",
    "modality_shapley": "mmensemble.inspection",
    "on_column": "mmensemble.learning.columns",
    "score_file": "mmensemble.scoring",
    "to_graph": "mmensemble.export",
}

# What a bare scoring install lacks, and the extra that brings it.
_EXTRA_OF = {
    "sklearn": "train",
    "joblib": "train",
    "scipy": "train",
    "onnx": "train",
    "onnx_ir": "train",
    "lmdb": "train",
}

# Of version 0.1.0.
MovedModules(
    __name__,
    {
        "compose": "learning.columns",
        "fusion._base": "fusion",
        "preprocessing._base": "preprocessing.base",
        "scoring.tasks": "tasks",
    },
).install()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOME.get(name, "mmensemble.exceptions")), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        from mmensemble.exceptions import MissingDependencyError

        raise MissingDependencyError(package, _EXTRA_OF[package]) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
