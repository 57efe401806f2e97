"""What tells one result from another beside its arguments: versions, and the files that cells name."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from mmensemble._version import __version__
from mmensemble.frames import column_cells, column_names, leaf_cells

__all__ = ["PROBED_CELLS", "file_stamp", "file_stamps", "versions"]

# A column is one of paths if one of its first cells names a file.
PROBED_CELLS = 16


@functools.cache
def versions(packages: tuple[str, ...] = ("scikit-learn", "numpy", "torch", "transformers")) -> tuple[str, ...]:
    """Return the versions of Python, of this package, and of some others, empty where there is none."""
    found = [".".join(map(str, sys.version_info[:2])), __version__]
    for package in packages:
        try:
            found.append(version(package))
        except PackageNotFoundError:
            found.append("")
    return tuple(found)


def file_stamps(rows: Any) -> list[list[tuple[int, int] | None]]:
    """Return size and time of change of the files that cells name, for columns that hold paths."""
    names = column_names(rows)
    columns = [leaf_cells(rows)] if names is None else [column_cells(rows, name) for name in names]
    stamps = []
    for cells in columns:
        if isinstance(cells, np.ndarray):
            continue
        if any(file_stamp(cell) for cell in cells[:PROBED_CELLS]):
            stamps.append([file_stamp(cell) for cell in cells])
    return stamps


def file_stamp(cell: Any) -> tuple[int, int] | None:
    """Return size and time of change of the file that a cell names, None where it names none."""
    if isinstance(cell, Mapping):
        cell = cell.get("path") if cell.get("bytes") is None else None
    if not isinstance(cell, (str, os.PathLike)):
        return None
    try:
        found = os.stat(cell)
    except (OSError, ValueError):  # no file, and no possible name of one
        return None
    return found.st_size, found.st_mtime_ns
