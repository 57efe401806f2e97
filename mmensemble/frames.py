"""Cells out of whatever holds them: pandas, polars and Arrow frames, dicts, sequences. Imports numpy and narwhals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import narwhals as nw
import numpy as np

from mmensemble.exceptions import DataError

__all__ = [
    "check_columns",
    "column_cells",
    "column_names",
    "columns_of",
    "frame_with",
    "leaf_cells",
    "n_rows",
    "naming_rows",
    "not_a",
]


def column_names(X: Any) -> list[str] | None:
    """Return the column names of a frame or dict of columns, None for anything without columns."""
    if isinstance(X, Mapping):
        return list(X)
    if isinstance(X, (list, tuple, np.ndarray)):  # narwhals takes some 0.1 ms to find that out
        return None
    frame = _from_native(X, pass_through=True)
    return list(frame.columns) if isinstance(frame, nw.DataFrame) else None


def _from_native(X: Any, **options: Any) -> Any:
    """Return narwhals' view of a frame or series.

    Raises
    ------
    DataError
        If several columns of a frame have the same name.
    """
    try:
        return nw.from_native(X, eager_only=True, **options)
    except nw.exceptions.DuplicateError as error:
        names = list(X.columns)
        twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
        raise DataError(
            f"several columns of the frame have the same name: {', '.join(map(repr, twice))}; rename or drop all but "
            "one of each"
        ) from error


def columns_of(X: Any) -> dict[str, Any]:
    """Return the columns of a frame or a series as narwhals' series, by name."""
    native = _from_native(X, allow_series=True)
    return {native.name: native} if isinstance(native, nw.Series) else {name: native[name] for name in native.columns}


@contextmanager
def naming_rows(X: Any) -> Iterator[None]:
    """Let an error of a row say what the index of a pandas frame or series calls it.

    So a part of a frame, as a split or a search makes it, tells of the whole.
    """
    try:
        yield
    except DataError as error:
        index: Any = getattr(X, "index", None)
        if error.row is None or error.label is not None or not hasattr(index, "__getitem__"):  # of a list, a method
            raise
        label = index[error.row]
        label = label.item() if isinstance(label, np.generic) else label
        raise DataError(error.message, row=error.row, column=error.column, label=label) from error


def not_a(X: object) -> str:
    """Say what a frame is not, for an error."""
    hint = ": one row of a frame is X.iloc[[number]]" if type(X).__name__ == "Series" else ""
    return f"not {type(X).__name__}{hint}"


def check_columns(names: Iterable[str], columns: Iterable[str]) -> None:
    """Raise a `DataError` for the first of some columns that is not among the names of those that there are."""
    names = list(names)
    for column in columns:
        if column not in names:
            raise DataError(f"there is no such column; the columns are {names}", column=column)


def n_rows(X: Any) -> int:
    """Count the rows of a frame, a dict of columns or a sequence."""
    if isinstance(X, Mapping):
        return len(next(iter(X.values()))) if X else 0
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)


def column_cells(X: Any, column: str) -> Cells:
    """Return the cells of one column as a list, or as a numpy array where the column is numeric.

    Raises
    ------
    DataError
        If there is no such column.
    """
    if isinstance(X, Mapping):
        check_columns(X, [column])
        return leaf_cells(X[column])
    frame = _from_native(X)
    check_columns(frame.columns, [column])
    return _series_cells(frame[column])


def frame_with(X: Any, columns: list[str]) -> dict[str, Any]:
    """Return some columns of X: those of numbers as arrays, others as they are, so that a slice of one stays cheap.

    Raises
    ------
    DataError
        If there is no such column, the columns differ in length, or several are asked of what has none.
    """
    names = column_names(X)
    if names is None:
        if len(columns) != 1:
            raise DataError(
                f"the model reads the columns {columns}: pass a frame or a dict with them, not a {type(X).__name__}"
            )
        return {columns[0]: leaf_cells(X)}
    check_columns(names, columns)
    if not isinstance(X, Mapping):
        frame = _from_native(X)
        return {column: _numbers(frame[column], otherwise=frame[column]) for column in columns}
    cells = {column: leaf_cells(X[column]) for column in columns}
    sizes = {column: len(column_cells) for column, column_cells in cells.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the columns have different lengths: {sizes}")
    return cells


def leaf_cells(X: Any) -> Cells:
    """Return the cells of a leaf estimator's input: a sequence, a series, or a frame or array of one column.

    Raises
    ------
    DataError
        If the input has several columns, or is one string or one image where a sequence of them is expected.
    """
    if isinstance(X, (str, bytes)) or not (hasattr(X, "__len__") or hasattr(X, "__iter__")):
        raise DataError(f"a sequence of cells is expected, not one {type(X).__name__}; wrap it in a list")
    if isinstance(X, Mapping):
        if len(X) != 1:
            raise DataError(
                f"one column is expected, not {len(X)} ({list(X)}); choose it with mmensemble.on_column, or, if this "
                "is one cell, wrap it in a list"
            )
        return leaf_cells(next(iter(X.values())))
    if isinstance(X, np.ndarray):
        return X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
    if isinstance(X, (list, tuple)):
        return X
    native = _from_native(X, allow_series=True, pass_through=True)
    if isinstance(native, nw.DataFrame):
        if len(native.columns) != 1:
            raise DataError(
                f"one column is expected, not {len(native.columns)} ({list(native.columns)}); "
                "choose it with mmensemble.on_column"
            )
        return _series_cells(native[native.columns[0]])
    if isinstance(native, nw.Series):
        return _series_cells(native)
    return list(X)


def _series_cells(series: nw.Series[Any]) -> Cells:
    cells: Cells | None = _numbers(series)
    if cells is not None:
        return cells
    try:
        return series.to_list()
    except (ValueError, OverflowError):  # a date beyond Python's, or a text that is not UTF-8
        return [_cell(series, row) for row in range(len(series))]


class UnreadableCell:
    """In the place of a cell that Python has no value for; whoever reads it finds that it is of the wrong type."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"a cell that cannot be read ({self.reason})"


def _cell(series: nw.Series[Any], row: int) -> Any:
    try:
        return series[row : row + 1].to_list()[0]
    except (ValueError, OverflowError) as error:
        return UnreadableCell(str(error))


def _numbers(series: nw.Series[Any], otherwise: Any = None) -> Any:
    """Return a column of numbers as an array, in which a float that is missing is NaN; or else something else."""
    if series.dtype.is_float() or (series.dtype.is_numeric() and not series.is_null().any()):
        cells = series.to_numpy()
        if cells.dtype.kind in "fiub":  # pandas' nullable numbers may come as objects
            return cells
    return otherwise


# Characters of a cell that a message quotes.
_SHOWN = 200

HOW_MISSING = "what is missing is None, or in a CSV file an empty cell without quotes"
Cells = Sequence[Any] | np.ndarray


def is_missing(cell: object) -> bool:
    """Tell whether a cell says that its modality is missing: None, NaN or pandas' NA and NaT."""
    if cell is None:
        return True
    if isinstance(cell, dict):  # a Parquet struct of nulls, as Hugging Face's datasets write a missing image
        return all(value is None for value in cell.values())
    if isinstance(cell, (float, np.floating)):
        return bool(np.isnan(cell))
    # pandas need not be installed to score, so its two singletons are known by the names of their types.
    return type(cell).__name__ in {"NAType", "NaTType"}


def missing_cells(cells: Cells) -> np.ndarray:
    """Apply `is_missing` to every cell; bool of shape (n,)."""
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        return np.isnan(cells) if cells.dtype.kind == "f" else np.zeros(len(cells), dtype=bool)
    return np.fromiter((is_missing(cell) for cell in cells), dtype=bool, count=len(cells))


def shown(cell: object) -> str:
    """Return a cell as a message quotes it, which is not long."""
    text = repr(cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
