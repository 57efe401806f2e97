"""The scores or texts of some hundred rows, and what is wrong with them. Imports numpy."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from mmensemble.exceptions import DataError

__all__ = ["ScoredWindow", "warn_of"]


class ScoredWindow(NamedTuple):
    """The scores of one window.

    Attributes
    ----------
    outputs : ndarray of float32, shape (n_rows, width)
        NaN in the rows that could not be scored. Of a model that writes, the texts: an ndarray of object, shape
        (n_rows, num_return_sequences), None in the rows that are bad or missing.
    errors : list of DataError or None, of length n_rows
        What is wrong with each row. Its text names the column; its `row` is None, because a window does not know
        where it stands in the data.
    """

    outputs: np.ndarray
    errors: list[DataError | None]

    def spoil(self, row: int, error: DataError) -> None:
        """Take the scores or texts of a row away."""
        self.errors[row] = error
        self.outputs[row] = None if self.outputs.dtype == object else np.nan

    def take_notes(self, first_row: int) -> list[DataError]:
        """Take the errors of rows out that have scores nevertheless, and return them with their numbers in the data."""
        noted = []
        for row, error in enumerate(self.errors):
            if error is not None and np.isfinite(self.outputs[row]).all():
                noted.append(DataError(error.message, row=first_row + row, column=error.column))
                self.errors[row] = None
        return noted

    def raise_for_errors(self, first_row: int) -> None:
        """Raise the first bad row, if there is one; the window's first row is number `first_row` of the data."""
        for row, error in enumerate(self.errors):
            if error is not None:
                raise DataError(error.message, row=first_row + row, column=error.column)


ScoredWindow.__module__ = "mmensemble.scoring"  # mypy takes no such line in a NamedTuple


def warn_of(noted: list[DataError]) -> None:
    """Warn of rows that are scored without some of their cells."""
    if noted:
        rows = "1 row is" if len(noted) == 1 else f"{len(noted)} rows are"
        warnings.warn(f"{rows} scored without a cell that cannot be read; the first: {noted[0]}", stacklevel=4)
