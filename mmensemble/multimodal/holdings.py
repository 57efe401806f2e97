"""What the columns of a frame hold, by their cells. Imports numpy, Pillow; soundfile and PyAV where installed."""

from __future__ import annotations

import datetime
import io
import mimetypes
import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.frames import Cells, column_cells, column_names, missing_cells, n_rows, not_a
from mmensemble.preprocessing.decoding.cells import FILE_KEYS
from mmensemble.preprocessing.decoding.pictures import open_picture

__all__ = ["Holding", "Kind", "holdings"]

Kind = Literal["text", "categories", "numbers", "picture", "sound", "film"]

# Files that are opened to see what they are, evenly spaced over the rows.
N_OPENED = 20
# A modality that fewer rows have teaches nothing.
LEAST_PRESENT = 10
# Rows for each value, from which on a column of strings is one of categories; and the most values.
ROWS_PER_CATEGORY = 5
MOST_CATEGORIES = 200
# Rows for each value, from which on it is no chance that each value has one class only.
ROWS_PER_LEAK = 3
# Of numbers, how near to y a multiple of a column must be to be y itself.
SAME_NUMBERS = 1 - 1e-9
MIXED = "make them one kind, or drop the column"


@dataclass(frozen=True)
class Holding:
    """What a column holds.

    Parameters
    ----------
    column : str
    kind : {"text", "categories", "numbers", "picture", "sound", "film"} or None
        None is left out.
    n_present : int
        Rows whose cell is not missing.
    why : str
        How that was seen, or why it is left out.
    """

    column: str
    kind: Kind | None
    n_present: int
    why: str


def holdings(X: Any, y: Any = None) -> list[Holding]:
    """Look at the cells of all columns.

    Parameters
    ----------
    X : DataFrame (pandas or polars), n rows
    y : array-like of shape (n,) or (n, n_outputs), default=None
        By which columns are found that tell it.

    Raises
    ------
    DataError
        If a column holds cells of several kinds, or names of files that are not there.
    """
    names = column_names(X)
    if names is None:
        raise DataError(f"X must be a DataFrame (pandas or polars), {not_a(X)}")
    told = None if y is None or n_rows(X) == 0 else np.asarray(y)
    return [_holding(name, column_cells(X, name), told) for name in names]


def _holding(column: str, cells: Cells, y: np.ndarray | None) -> Holding:
    rows = np.flatnonzero(~missing_cells(cells))
    present = [cells[row] for row in rows.tolist()]
    n = len(present)
    if n < LEAST_PRESENT:
        return Holding(column, None, n, "no cell is there" if n == 0 else f"only {n} cells are there")
    kinds = Counter(_cell_kind(cell) for cell in present)
    if len(kinds) > 1:
        (common, _), (other, _) = kinds.most_common(2)
        first = next(row for row, cell in zip(rows, present, strict=True) if _cell_kind(cell) == other)
        raise DataError(
            f"this cell is {other}, and most of the column is {common}; {MIXED}", row=int(first), column=column
        )
    (kind,) = kinds
    if kind == "a number":
        return _numbers(column, np.asarray(present), rows, y)
    if kind == "a string":
        media = _named_files(column, present, rows)
        return Holding(column, media, n, f"files that are {media}s") if media else _strings(column, present, rows, y)
    if kind in ("bytes", "a struct"):
        return _files(column, present, kind)
    if kind == "an array":
        return _arrays(column, present)
    if kind == "a picture":
        return Holding(column, "picture", n, "PIL images")
    what = {
        "a date": "dates; add what matters of them as numbers, such as the year, the weekday or the days since",
        "a decimal": "decimal numbers; convert them to float",
    }
    return Holding(column, None, n, what.get(kind, f"each cell is {kind}, which no estimator here takes"))


def _cell_kind(cell: Any) -> str:
    """Say what a cell is."""
    if isinstance(cell, (str, os.PathLike)):
        return "a string"
    if isinstance(cell, (bool, int, float, np.number, np.bool_)):
        return "a number"
    if isinstance(cell, (bytes, bytearray)):
        return "bytes"
    if isinstance(cell, dict):
        return "a struct"
    if isinstance(cell, np.ndarray):
        return "an array"
    if isinstance(cell, (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)):
        return "a date"
    if isinstance(cell, Decimal):
        return "a decimal"
    if hasattr(cell, "getbands"):
        return "a picture"
    return f"a {type(cell).__name__}"


def _numbers(column: str, values: np.ndarray, rows: np.ndarray, y: np.ndarray | None) -> Holding:
    distinct, number = np.unique(values, return_inverse=True)
    n = len(values)
    if len(distinct) == 1:
        return Holding(column, None, n, f"the same in all rows: {distinct[0]}")
    whole = values.dtype.kind in "iu" or np.array_equal(values, np.round(values.astype(float)))
    if whole and len(distinct) == n and (np.all(np.diff(values.astype(float)) > 0) or np.ptp(distinct) == n - 1):
        return Holding(column, None, n, "a number of the row: whole, and each once")
    if (leak := _leak(values, number, rows, y)) is not None:
        return Holding(column, None, n, leak)
    about = f"{len(distinct)} numbers"
    if whole and len(distinct) <= MOST_CATEGORIES and values.dtype.kind != "b":
        about = f"{len(distinct)} whole numbers; as strings they would be categories"
    return Holding(column, "numbers", n, about)


def _strings(column: str, cells: list[Any], rows: np.ndarray, y: np.ndarray | None) -> Holding:
    texts = [os.fspath(cell) for cell in cells]
    distinct, number = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    n, n_distinct = len(texts), len(distinct)
    if n_distinct == 1:
        return Holding(column, None, n, f"the same in all rows: {distinct[0][:40]!r}")
    if (leak := _leak(None, number, rows, y)) is not None:
        return Holding(column, None, n, leak)
    n_words = np.mean([len(text.split()) for text in texts])
    n_characters = np.mean([len(text) for text in texts])
    about = f"{n_distinct} different strings, of {n_words:.1f} words on average"
    if n_distinct * ROWS_PER_CATEGORY <= n and n_distinct <= MOST_CATEGORIES:
        return Holding(column, "categories", n, f"{n_distinct} different strings in {n} rows")
    if all(_is_number(text) for text in texts):
        return Holding(column, None, n, "numbers written as strings; convert them to float")
    if n_words < 1.5 and np.mean([_is_code(text) for text in texts]) > 0.5:
        return Holding(column, None, n, f"codes rather than words, such as {texts[0][:40]!r}")
    if n_words < 1.5 and n_characters > 100:
        return Holding(column, None, n, "long strings without words; if they are base64, decode them to bytes")
    return Holding(column, "text", n, about)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_code(text: str) -> bool:
    """Tell whether a string looks like an identifier: digits or slashes in it, or nothing but hexadecimal digits."""
    return bool(re.search(r"[\d/\\]", text)) or re.fullmatch(r"[0-9a-fA-F-]{8,}", text) is not None


def _leak(values: np.ndarray | None, number: np.ndarray, rows: np.ndarray, y: np.ndarray | None) -> str | None:
    """Say how a column tells `y`, given the number of each cell's value; None where it does not."""
    if y is None or y.ndim != 1:
        return None
    told = y[rows]
    if told.dtype.kind == "f":
        if values is None or values.dtype.kind == "b":
            return None
        correlation = np.corrcoef(values.astype(float), told)[0, 1]
        return "y itself, but for scale and offset" if abs(correlation) > SAME_NUMBERS else None
    classes = np.unique(told.astype(str), return_inverse=True)[1]
    n_values, n_classes = number.max() + 1, classes.max() + 1
    pairs = len(np.unique(number * n_classes + classes))
    if n_classes < 2 or pairs > n_values or n_values * ROWS_PER_LEAK > len(number):
        return None
    if n_values == n_classes:
        return "y in other words: each value has a class of its own"
    return None if values is not None else f"each of its {n_values} values has one class only, so it tells y"


def _named_files(column: str, cells: list[Any], rows: np.ndarray) -> Kind | None:
    """Return what the files are that strings name; None where they name none.

    Raises
    ------
    DataError
        If they look like names of pictures, sounds or films, and one of the first ones is not there.
    """
    chosen = np.unique(np.linspace(0, len(cells) - 1, N_OPENED).astype(int))
    guesses = [_by_name(os.fspath(cells[place])) for place in chosen]
    if np.mean([guess is not None for guess in guesses]) <= 0.5:
        return None
    for place, guess in zip(chosen, guesses, strict=True):
        name = os.fspath(cells[place])
        if guess is not None and not Path(name).is_file():
            raise DataError(
                f"{name!r} looks like the path of a {guess}, and there is no such file; a relative path starts at the "
                "working directory",
                row=int(rows[place]),
                column=column,
            )
    contents = [_content(Path(cells[place])) or guess for place, guess in zip(chosen, guesses, strict=True)]
    return Counter(contents).most_common(1)[0][0]


def _by_name(name: str) -> Kind | None:
    if len(name) > 4096 or "\n" in name or not Path(name).suffix:
        return None
    kind, _, _ = (mimetypes.guess_type(name)[0] or "").partition("/")
    kinds: dict[str, Kind] = {"image": "picture", "audio": "sound", "video": "film"}
    return kinds.get(kind)


def _files(column: str, cells: list[Any], kind: str) -> Holding:
    """Look at bytes, or structs that hold a file or a waveform."""
    chosen = np.unique(np.linspace(0, len(cells) - 1, N_OPENED).astype(int))
    found: Counter[Kind | None] = Counter()
    for place in chosen:
        cell = cells[place]
        if isinstance(cell, dict):
            if cell.get("array") is not None:
                found["sound"] += 1
                continue
            cell = next((cell[key] for key in FILE_KEYS if cell.get(key) is not None), None)
        opened = None
        if isinstance(cell, (str, os.PathLike)):
            opened = _content(Path(cell)) if Path(cell).is_file() else None
        elif cell is not None:
            opened = _content(io.BytesIO(bytes(cell)))
        found[opened] += 1
    common = found.most_common(1)[0][0]
    if common is None:
        return Holding(column, None, len(cells), f"{kind} that hold no picture, sound or film that can be opened")
    return Holding(column, common, len(cells), f"{kind} that hold {common}s")


def _arrays(column: str, cells: list[Any]) -> Holding:
    first = cells[0]
    forms: dict[tuple[str, int], Kind] = {("u", 2): "picture", ("u", 3): "picture", ("u", 4): "film"}
    kind = forms.get((first.dtype.kind, first.ndim))
    if kind is not None:
        return Holding(column, kind, len(cells), f"arrays of {first.dtype}, {first.ndim} axes")
    advice = "; as sounds, give them as {'array': ..., 'sampling_rate': ...}" if first.ndim == 1 else ""
    return Holding(column, None, len(cells), f"arrays of {first.dtype}, {first.ndim} axes{advice}")


def _content(file: Path | io.BytesIO) -> Kind | None:
    """Say what a file is, by the first of the decoders that opens it."""
    with suppress(Exception):  # whatever a decoder finds wrong, it is not of its kind
        content = io.BytesIO(file.read_bytes()) if isinstance(file, Path) else file
        with open_picture(content) as picture:
            return "film" if getattr(picture, "n_frames", 1) > 1 and picture.format in ("GIF", "WEBP") else "picture"
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with suppress(Exception):
        import soundfile

        soundfile.info(file)
        return "sound"
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with suppress(Exception):
        import av

        with av.open(str(file) if isinstance(file, Path) else file, metadata_errors="ignore") as container:
            return "film" if container.streams.video else "sound" if container.streams.audio else None
    return None
