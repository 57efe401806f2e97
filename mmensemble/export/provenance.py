"""Where a file comes from: when, from which estimator, by which versions. Nothing of the host that it was made on."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
from typing import Any

__all__ = ["described", "provenance_of"]

_VERSIONS_OF = ("mmensemble", "scikit-learn", "torch", "transformers", "skl2onnx", "onnx", "onnxscript")

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# From a root, a home or a drive on, within quotes or as a path's own representation, as a joblib.Memory has it.
_ROOT = r"(?:~?[/\\]+|[A-Za-z]:[/\\]+)"
_QUOTED_PATH = re.compile(rf"""(['"])({_ROOT}(?:(?!\1).)*)(\1)""")
_BARE_PATH = re.compile(rf"""([=(])({_ROOT}[^\s,()'"]*)()""")


def provenance_of(estimator: Any) -> dict[str, Any]:
    """Return what a file says of where it comes from, as JSON values."""
    versions = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "estimator": described(estimator),
        "versions": versions,
    }


def described(estimator: Any) -> str:
    """Return an estimator's representation without what is of its host alone: of paths the last part, no addresses."""
    text = _ADDRESS.sub("", repr(estimator))
    return _BARE_PATH.sub(_last_part, _QUOTED_PATH.sub(_last_part, text))


def _last_part(match: re.Match[str]) -> str:
    before, path, after = match.groups()
    return before + re.split(r"[/\\]+", path.rstrip("/\\"))[-1] + after
