"""mmensemble: scikit-learn-style ensembles of multimodal models, exported whole to ONNX.

The public names, which stand in ``__init__.pyi``, are loaded on first use (PEP 562), so ``import mmensemble`` loads
neither scikit-learn, torch nor onnx, and a scoring host needs none of them. The estimators that train neural networks
live in ``mmensemble_estimators``.

Whatever of mmensemble is imported, in whatever process, this module comes first. So here, and nowhere else, ONNX
Runtime is told to send nothing home.
"""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path
from typing import Any

from mmensemble._moved import MovedModules
from mmensemble._version import __version__ as __version__

# From version 1.29 on it writes a device id and a database of events into the home folder, to be sent, unless this is
# set before its import. Processes that are started inherit it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Name → module, from the imports that type checkers see.
_HOME = {
    name.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for name in node.names
}

__all__ = sorted(_HOME)

# What a bare scoring install lacks, and the extra that brings it.
_EXTRA_OF = {
    "sklearn": "train",
    "joblib": "train",
    "scipy": "train",
    "onnx": "train",
    "onnx_ir": "train",
}

# Of version 0.1.0.
MovedModules(
    __name__,
    {
        "compose": "learning.columns",
        "fusion._base": "fusion",
        "preprocessing._base": "preprocessing.base",
        "scoring.files": "scoring.file_job",
        "scoring.readers": "files.reading",
        "scoring.tasks": "tasks",
    },
).install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOME[name]), name)
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
