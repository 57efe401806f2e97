"""Tabular columns on their way to a scikit-learn estimator inside the graph. Imports numpy only."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np

from mmensemble.frames import HOW_MISSING, Cells, missing_cells, shown
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["TabularPreprocessor"]

FEATURES = "features"

ColumnType = Literal["float", "string"]
FloatType = Literal["float32", "float64"]


@register_preprocessor
class TabularPreprocessor(Preprocessor):
    """Columns of numbers and strings → one matrix, or one array per column.

    A row is missing when all its columns are. Missing numbers stay NaN, for the estimator to impute, and missing
    strings become empty.

    Parameters
    ----------
    columns : dict of str to {"float", "string"}
        The columns, in order, and what they hold.
    layout : {"matrix", "columns"}, default="matrix"
        ``"matrix"``: one array ``features`` (n, n_columns); numbers only, or strings only. ``"columns"``: one array
        (n, 1) per column, named as the column, as a ``ColumnTransformer`` takes them.
    dtype : {"float32", "float64"}, default="float32"
        Of numbers. Prices, coordinates and times do not survive float32, in which a tree's threshold may fall on the
        other side of them.
    finite : bool, default=False
        Whether an infinite number is an error of its row, as for most of scikit-learn's estimators.

    Examples
    --------
    >>> facts = TabularPreprocessor({"weight": "float", "price": "float"})
    >>> encoded = facts.encode([1.5, None, 2], [3.0, None, "four"])
    >>> facts.collate(encoded, slice(None))["features"].tolist()
    [[1.5, 3.0], [nan, nan], [0.0, 0.0]]
    >>> encoded.errors
    {2: "column 'price': 'four' is not a number"}
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "tabular"
    usual_batch_size: ClassVar[int] = 2048

    def __init__(
        self,
        columns: dict[str, ColumnType],
        *,
        layout: Literal["matrix", "columns"] = "matrix",
        dtype: FloatType = "float32",
        finite: bool = False,
    ) -> None:
        self.columns = columns
        self.layout = layout
        self.dtype = dtype
        self.finite = finite

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        dtypes = {name: self.dtype if kind == "float" else "object" for name, kind in self.columns.items()}
        if self.layout == "columns":
            return {name: TensorSpec(dtype, ("batch", 1)) for name, dtype in dtypes.items()}
        (dtype,) = set(dtypes.values())
        return {FEATURES: TensorSpec(dtype, ("batch", len(dtypes)))}

    def encode(self, *columns: Cells) -> Encoded:
        n_rows = len(columns[0])
        errors: dict[int, str] = {}
        missing = np.ones(n_rows, dtype=bool)
        values: dict[str, np.ndarray] = {}
        for (name, kind), cells in zip(self.columns.items(), columns, strict=True):
            absent = missing_cells(cells)
            missing &= absent
            if kind == "float":
                values[name] = _numbers(name, cells, absent, errors, self.dtype)
                if self.finite:
                    for row in np.flatnonzero(np.isinf(values[name])).tolist():
                        errors.setdefault(row, f"column {name!r}: a number must be finite, not {values[name][row]}")
            else:
                values[name] = _strings(name, cells, absent, errors)
        present = ~missing
        present[list(errors)] = False
        for column in values.values():
            column[list(errors)] = 0.0 if column.dtype.kind == "f" else ""
        return Encoded(values, present, errors, np.ones(n_rows, dtype=np.int64))

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        chosen = {name: column[rows] for name, column in encoded.items.items()}
        if self.layout == "columns":
            return {name: column[:, None] for name, column in chosen.items()}
        return {FEATURES: np.column_stack(list(chosen.values()))}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return numbers of many sizes, and short strings."""
        sizes = 10.0 ** rng.integers(-2, 3, size=(len(self.columns), n))
        numbers = np.where(rng.random(sizes.shape) < 0.5, np.round(sizes * rng.normal(size=sizes.shape)), sizes)
        return [
            row.tolist() if kind == "float" else [f"text {int(number)}" for number in row]
            for kind, row in zip(self.columns.values(), numbers, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        state = {"kind": self.kind, "columns": self.columns, "layout": self.layout, "dtype": self.dtype}
        return {**state, "finite": self.finite}


def _numbers(name: str, cells: Cells, absent: np.ndarray, errors: dict[int, str], dtype: FloatType) -> np.ndarray:
    if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
        return cells.astype(dtype)
    column = np.full(len(cells), np.nan, dtype=dtype)
    for row, cell in enumerate(cells):
        if absent[row]:
            continue
        try:
            if isinstance(cell, np.ndarray) and cell.ndim:  # numpy makes a number of an array of one
                raise TypeError
            column[row] = float(cell)
        except (TypeError, ValueError, OverflowError):
            hint = f"; {HOW_MISSING}" if isinstance(cell, str) and not cell else ""
            errors.setdefault(row, f"column {name!r}: {shown(cell)} is not a number{hint}")
    return column


def _strings(name: str, cells: Cells, absent: np.ndarray, errors: dict[int, str]) -> np.ndarray:
    column = np.full(len(cells), "", dtype=object)
    for row, cell in enumerate(cells):
        if isinstance(cell, str):
            column[row] = cell
        elif not absent[row]:
            errors.setdefault(row, f"column {name!r}: a string is expected, not {shown(cell)}")
    return column
