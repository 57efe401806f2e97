"""Cells that stand for files: bytes, paths, and structs of both. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmensemble.frames import HOW_MISSING, is_missing

__all__ = ["FILE_KEYS", "file_of", "is_missing_file", "not_empty", "why_unreadable"]

# The keys of a struct that hold a file, as in Hugging Face's datasets; where there are bytes, the path is but a name.
FILE_KEYS = ("bytes", "path")
StrPath = str | os.PathLike[str]


def is_missing_file(cell: object, keys: Sequence[str] = FILE_KEYS) -> bool:
    """Tell whether a cell that stands for a file is missing: as `is_missing`, and other keys of a struct do not count.

    A struct that has none of the keys is a mistake, and not missing, unless it holds nothing at all.
    """
    if isinstance(cell, dict):
        known = [cell[key] for key in keys if key in cell]
        return all(value is None for value in known or cell.values())
    return is_missing(cell)


def why_unreadable(cell: object, error: Exception) -> str:
    """Say why a cell's file cannot be read, and which file that is."""
    reason = str(error).split(" <_io.BytesIO", 1)[0]  # Pillow names the buffer by its address, which is never the same
    path = cell.get("path") if isinstance(cell, dict) else cell
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        return reason
    name = str(path)
    if name not in reason:
        reason = f"{reason} ({name!r})"
    if not isinstance(error, FileNotFoundError):
        return reason
    if name.startswith("~") or "://" in name:
        return f"{reason}; a path is taken as it stands: ~ is not expanded, and nothing is fetched"
    return reason if os.path.isabs(name) else f"{reason}; a relative path starts at the working directory"


def file_of(cell: object) -> Any:
    """Return the bytes or else the path that a struct holds, and any other cell as it is.

    Raises
    ------
    ValueError
        If a struct holds neither.
    """
    if not isinstance(cell, dict):
        return cell
    for key in FILE_KEYS:
        if cell.get(key) is not None:
            return cell[key]
    raise ValueError(f"a dict must have 'bytes' or 'path', not {list(cell)}")


def not_empty(path: StrPath) -> StrPath:
    """Return a path, unless it is empty, as a quoted empty cell of a CSV file is.

    Raises
    ------
    ValueError
        If it is empty.
    """
    if not os.fspath(path):
        raise ValueError(f"the path is empty; {HOW_MISSING}")
    return path
