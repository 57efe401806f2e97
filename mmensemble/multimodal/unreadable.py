"""Cells that cannot be read, taken for missing ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import narwhals as nw
import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.frames import column_cells
from mmensemble.fusion import Member
from mmensemble.learning.columns import as_list
from mmensemble.preprocessing import TabularPreprocessor

__all__ = ["warn_of_cells", "without_unreadable"]


def without_unreadable(members: Sequence[Member], X: Any, *, finite: bool) -> tuple[Any, list[DataError]]:
    """Return rows without the cells that some fitted members cannot read, and what is wrong with these.

    Parameters
    ----------
    members : sequence of Member
        Fitted. Estimators of mmensemble read as their preprocessors do; of others the columns of numbers must hold
        numbers, and those of strings strings, as they did in fit.
    X : DataFrame
    finite : bool
        Whether an infinite number cannot be read either.

    Returns
    -------
    X : DataFrame
        A copy in which these cells are missing, or `X` itself where there are none.
    errors : list of DataError
        By row, each with its row and column.
    """
    bad: dict[tuple[int, str], DataError] = {}
    for member in members:
        for error in _errors(member, X, finite=finite):
            if error.row is not None:
                bad.setdefault((error.row, str(error.column)), error)
    if not bad:
        return X, []
    frame = nw.from_native(X, eager_only=True)
    for column in dict.fromkeys(column for _, column in bad):
        rows = sorted(row for row, of in bad if of == column)
        cells = list(column_cells(X, column))
        for row in rows:
            cells[row] = None
        frame = _with_column(frame, column, cells, rows)
    return frame.to_native(), [bad[place] for place in sorted(bad)]


def _with_column(frame: Any, column: str, cells: list[Any], rows: list[int]) -> Any:
    native = frame.to_native()
    if frame.implementation.is_pandas():
        import pandas as pd

        kind = native[column].dtype if native[column].dtype.kind == "f" else object
        made = pd.Series(cells, index=native.index, dtype=kind, name=column)
        return nw.from_native(native.assign(**{column: made}), eager_only=True)
    readable = np.ones(len(cells), dtype=bool)
    readable[rows] = False
    mask = nw.new_series("readable", readable.tolist(), backend=frame.implementation)
    return frame.with_columns(nw.when(mask).then(nw.col(column)).alias(column))


def _errors(member: Member, X: Any, *, finite: bool) -> Iterator[DataError]:
    columns = [str(column) for column in as_list(member.columns)]
    preprocessor = getattr(member.estimator, "preprocessor_", None)
    if preprocessor is None or len(columns) != 1:
        if member.kinds is None:
            return
        preprocessor = TabularPreprocessor(member.kinds, layout="columns", dtype="float64", finite=finite)
        columns = list(member.kinds)
    for row, message in preprocessor.encode(*(column_cells(X, column) for column in columns)).errors.items():
        column = next((name for name in columns if message.startswith(f"column {name!r}: ")), columns[0])
        yield DataError(message.removeprefix(f"column {column!r}: "), row=row, column=column)


def warn_of_cells(errors: Sequence[DataError], stacklevel: int) -> None:
    """Warn of cells that count as missing."""
    cells = "cell that cannot be read counts" if len(errors) == 1 else "cells that cannot be read count"
    warnings.warn(f"{len(errors)} {cells} as missing; the first: {errors[0]}", stacklevel=stacklevel + 1)
