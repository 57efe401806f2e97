"""Cells that stand for files: bytes, paths, and structs of both. Standard library only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Any, BinaryIO

from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import HOW_MISSING, is_missing

__all__ = ["FILE_KEYS", "file_of", "is_missing_file", "not_empty", "open_file", "why_unreadable"]

# The keys of a struct that hold a file, as in Hugging Face's datasets; where there are bytes, the path is but a name.
FILE_KEYS = ("bytes", "path")
StrPath = str | os.PathLike[str]

# Of one file that a cell names, unless the environment says otherwise. A film of two hours in good quality is smaller.
_MOST_BYTES = 4 * 2**30
_MOST_BYTES_VARIABLE = "MMENSEMBLE_MAX_FILE_BYTES"


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
    written = name.startswith(("b'", 'b"'))
    if isinstance(error, OSError) and (written or error.errno == errno.ENAMETOOLONG):
        hint = "; it looks like bytes that were written as text: write paths, or Parquet" if written else ""
        return f"it is a text of {len(name):,} characters, {name[:40]!r} and so on, and no path{hint}"
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


def open_file(path: StrPath) -> BinaryIO:
    """Open the file that a cell names for reading.

    What is no regular file, such as a pipe, on which one would wait forever, or a device, which never ends, is not
    opened; nor is a file of more bytes than ``MMENSEMBLE_MAX_FILE_BYTES`` in the environment says, by default 4 GiB.

    Raises
    ------
    OSError
        If it cannot be opened.
    ValueError
        If the path is empty, or names what is not to be read.
    """
    found = os.stat(not_empty(path))
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # `open` says best what a folder is
        raise ValueError("it is no regular file")
    most = _most_bytes()
    if found.st_size > most:
        raise ValueError(
            f"the file has {found.st_size} bytes, and at most {most} are read; set {_MOST_BYTES_VARIABLE} to read more"
        )
    return open(path, "rb")


def _most_bytes() -> int:
    text = os.environ.get(_MOST_BYTES_VARIABLE)
    if not text:
        return _MOST_BYTES
    if not text.isdecimal():
        raise ConfigurationError(f"{_MOST_BYTES_VARIABLE} must be a number of bytes, not {text!r}")
    return int(text)
