"""The files that cells name: what tells one result from another beside its arguments."""

from __future__ import annotations

import os
import stat
from typing import Any

import numpy as np

from mmensemble.frames import column_cells, column_names, leaf_cells

__all__ = ["file_stamp", "file_stamps"]

Stamp = tuple[str, int, int]


def file_stamps(rows: Any) -> list[dict[int, Stamp]]:
    """Return of each column, by row, the stamps of the files that its cells name."""
    names = column_names(rows)
    columns = [leaf_cells(rows)] if names is None else [column_cells(rows, name) for name in names]
    return [
        {row: stamp for row, cell in enumerate(cells) if (stamp := file_stamp(cell)) is not None}
        for cells in columns
        if not (isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub")
    ]


def file_stamp(cell: Any) -> Stamp | None:
    """Return whole path, size and time of change of the file that a cell names, None where it names none."""
    if isinstance(cell, dict):
        cell = cell.get("path") if cell.get("bytes") is None else None
    if not isinstance(cell, (str, os.PathLike)):
        return None
    try:
        if not os.access(cell, os.F_OK):  # most texts name none, which `stat` says by an error that takes long
            return None
        found = os.stat(cell)
    except (OSError, ValueError):  # no possible name of a file
        return None
    return (os.path.abspath(cell), found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
