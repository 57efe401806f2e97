"""Where a file comes from: when, from which estimator, by which versions. Nothing of the host that it was made on."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
import re
from typing import Any

from mmensemble.learning.columns import as_list

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
        **_composition(estimator),
        "versions": versions,
    }


def _composition(estimator: Any) -> dict[str, Any]:
    """Return the members of a fitted composition and what joins them; nothing of another estimator."""
    fusion = getattr(estimator, "fusion_", None)
    if fusion is None:
        return {}
    members = [
        {
            "name": member.name,
            "estimator": described(member.estimator),
            "columns": [str(column) for column in as_list(member.columns)],
        }
        for member in fusion.members_
    ]
    joined: dict[str, Any] = {"name": type(fusion).__name__}
    if hasattr(fusion, "scores_"):
        table = fusion.scores_[["loss", "share"]].to_dict("index")
        scores = [[str(name), *(_finite(row[key]) for key in ("loss", "share"))] for name, row in table.items()]
        joined |= {"chosen": fusion.chosen_, "scores": scores}
    return {"members": members, "fusion": joined}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def described(estimator: Any) -> str:
    """Return an estimator's representation without what is of its host alone: of paths the last part, no addresses."""
    text = _ADDRESS.sub("", repr(estimator))
    return _BARE_PATH.sub(_last_part, _QUOTED_PATH.sub(_last_part, text))


def _last_part(match: re.Match[str]) -> str:
    before, path, after = match.groups()
    return before + re.split(r"[/\\]+", path.rstrip("/\\"))[-1] + after
