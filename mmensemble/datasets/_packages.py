"""Installed packages of the ``examples`` extra: importing them, and finding what only has to be read."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from mmensemble.exceptions import MissingDependencyError


def require(module: str, distribution: str) -> Any:
    """Import a module, or name the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(distribution, "examples") from error


def folder_of(module: str, distribution: str) -> Path:
    """Return a package's folder, without running the package: what it imports is not wanted here."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(distribution, "examples")
    return Path(next(iter(spec.submodule_search_locations)))
