"""Cells as the numbers of known categories, as scikit-learn's encoders know them. Imports numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmensemble.frames import Cells, is_missing, shown
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["CategoryPreprocessor"]

CODES = "codes"

# NaN, which is a category of its own beside None, as JSON.
_NAN = {"nan": True}


@register_preprocessor
class CategoryPreprocessor(Preprocessor):
    """Columns of strings, numbers or booleans → ``codes``: the number of each cell's category, -1 of an unknown one.

    A row is missing when all its cells are.

    Parameters
    ----------
    categories : dict of str to list
        The columns, in order, and the categories of each in the order of their numbers: strings, numbers, booleans;
        None and NaN are missing cells as a category.
    unknown : {"ignore", "error"}, default="ignore"
        Whether another value is an error of its row. A missing cell is none.
    fill : dict of str to value, default=None
        The columns whose missing cells count as some value; None or NaN does not where it is a category itself.

    Examples
    --------
    >>> colours = CategoryPreprocessor({"colour": ["green", "red", None]})
    >>> colours.collate(colours.encode(["red", "blue", None]), slice(None))["codes"].tolist()
    [[1], [-1], [2]]
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "categories"
    usual_batch_size: ClassVar[int] = 2048

    def __init__(
        self,
        categories: Mapping[str, Sequence[Any]],
        *,
        unknown: str = "ignore",
        fill: Mapping[str, Any] | None = None,
    ) -> None:
        self.categories = {column: list(values) for column, values in categories.items()}
        self.unknown = unknown
        self.fill = dict(fill or {})
        self._codes: dict[str, dict[Any, int]] = {}
        self._missing: dict[str, tuple[int, int]] = {}
        for column, values in self.categories.items():
            self._codes[column] = {value: code for code, value in enumerate(values) if not is_missing(value)}
            of_none = next((code for code, value in enumerate(values) if value is None), -1)
            of_nan = next((code for code, v in enumerate(values) if v is not None and is_missing(v)), -1)
            self._missing[column] = of_none, of_nan

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {CODES: TensorSpec("int64", ("batch", len(self.categories)))}

    def encode(self, *columns: Cells) -> Encoded:
        n_rows = len(columns[0])
        codes = np.full((n_rows, len(self.categories)), -1, dtype=np.int64)
        present = np.zeros(n_rows, dtype=bool)
        errors: dict[int, str] = {}
        for number, (column, cells) in enumerate(zip(self.categories, columns, strict=True)):
            known, fill = self._codes[column], self.fill.get(column)
            of_none, of_nan = self._missing[column]
            for row, cell in enumerate(cells):
                absent = is_missing(cell)
                present[row] |= not absent
                if absent:
                    code = of_none if cell is None else of_nan
                    if code < 0 and fill is not None:
                        code, absent = known.get(fill, -1), False
                    elif code < 0:
                        # A frame may give None for NaN, so where only one of them is known it stands for both.
                        code = max(of_none, of_nan)
                else:
                    try:
                        code = known.get(cell, -1)
                    except TypeError:  # an array or the like
                        code = -1
                # A missing cell is no error here: the whole modality may be missing, and the graph knows what to do.
                if code < 0 and not absent and self.unknown == "error":
                    errors.setdefault(row, f"column {column!r}: {shown(cell)} is none of the categories seen in fit")
                codes[row, number] = code
        present[list(errors)] = False
        return Encoded(codes, present, errors, np.ones(n_rows, dtype=np.int64))

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {CODES: encoded.items[rows]}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return known categories, and an unknown one in some rows where those are no error."""
        columns = []
        for values in self.categories.values():
            known = [value for value in values if not is_missing(value)] or ["a"]
            cells = [known[number] for number in rng.integers(len(known), size=n)]
            if self.unknown == "ignore" and all(isinstance(value, str) for value in known):
                cells[n // 2 :: 8] = ["an unknown category"] * len(cells[n // 2 :: 8])
            columns.append(cells)
        return columns

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "categories": {column: [_to_json(v) for v in values] for column, values in self.categories.items()},
            "unknown": self.unknown,
            "fill": {column: _to_json(value) for column, value in self.fill.items()},
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> CategoryPreprocessor:
        categories = {column: [_from_json(v) for v in values] for column, values in state["categories"].items()}
        fill = {column: _from_json(value) for column, value in state["fill"].items()}
        return cls(categories, unknown=state["unknown"], fill=fill)


def _to_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return _NAN if isinstance(value, float) and math.isnan(value) else value


def _from_json(value: Any) -> Any:
    return math.nan if value == _NAN else value
