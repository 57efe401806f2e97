"""What every preprocessor is: the host half of an estimator. Imports numpy only.

A preprocessor works in two steps, because training and scoring both want the first one done ahead (once, or in a
worker thread) and the second one a batch at a time:

``encode``
    cells of its columns → one item per row, with a list of the rows that are missing and of those that are bad;
``collate``
    a choice of rows → the named, padded arrays that the network or the ONNX graph takes.

Every preprocessor emits, next to its own arrays, ``present``: False where the row lacks this modality.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.frames import Cells

__all__ = ["PRESENT", "Encoded", "Preprocessor", "TensorSpec", "unreadable_as_missing", "with_odd_texts"]

PRESENT = "present"


@dataclass(frozen=True)
class TensorSpec:
    """The dtype and shape of one array that a preprocessor emits.

    Parameters
    ----------
    dtype : str
        A numpy dtype name; ``"object"`` stands for strings.
    shape : tuple of int or str
        A string names a dynamic axis; the first one is always ``"batch"``.
    """

    __module__ = "mmensemble.preprocessing"
    dtype: str
    shape: tuple[int | str, ...]


# By column, how many cells could not be read at most in one call, and what is wrong with the first of them.
_unreadable: ContextVar[dict[str | int | None, tuple[int, str]] | None] = ContextVar("unreadable", default=None)


@contextmanager
def unreadable_as_missing() -> Iterator[None]:
    """Take cells that cannot be read in this block for missing ones, and warn of them at its end."""
    if _unreadable.get() is not None:
        yield
        return
    found: dict[str | int | None, tuple[int, str]] = {}
    token = _unreadable.set(found)
    try:
        yield
    finally:
        _unreadable.reset(token)
    for column, (n, message) in found.items():
        cells = "1 cell that cannot be read counts" if n == 1 else f"{n} cells that cannot be read count"
        warnings.warn(f"column {column!r}: {cells} as missing; the first: {message}", stacklevel=3)


@dataclass
class Encoded:
    """The encoded rows of one preprocessor.

    Parameters
    ----------
    items : sequence of length n_rows
        One encoded item per row. Missing and bad rows hold a placeholder that collates like any other.
    present : ndarray of bool, shape (n_rows,)
        False where the modality is missing or bad.
    errors : dict of int to str
        What is wrong with each bad row, by its position.
    lengths : ndarray of int, shape (n_rows,)
        What the row costs the network relative to others: tokens for text, 1 where all items are alike.
    keys : sequence of bytes or None, length n_rows, default=None
        Of each row a hash of all that its item depends on, where it is known; see `mmensemble.cache.encode_rows`.
    """

    __module__ = "mmensemble.preprocessing"
    items: Any
    present: np.ndarray
    errors: dict[int, str]
    lengths: np.ndarray
    keys: Sequence[bytes | None] | None = None

    def __len__(self) -> int:
        return len(self.present)

    def contents(self, rows: np.ndarray) -> list[bytes | np.ndarray]:
        """Return what tells some rows from others: the key of each, or its item where it has none."""
        if self.keys is None:
            return [self.items[row] for row in rows]
        return [self.items[row] if (key := self.keys[row]) is None else key for row in rows]

    def raise_for_errors(self, column: str | int | None = None) -> None:
        """Raise the first bad row as a `DataError` that names the row and the column, unless it counts as missing."""
        if not self.errors:
            return
        first, others = min(self.errors), len(self.errors) - 1
        found = _unreadable.get()
        if found is None:
            more = f"; {others} more {'row' if others == 1 else 'rows'} of it cannot be read" if others else ""
            raise DataError(f"{self.errors[first]}{more}", row=first, column=column)
        if others + 1 > found.get(column, (0, ""))[0]:
            found[column] = (others + 1, self.errors[first])


class Preprocessor(ABC):
    """Cells of one or more columns → named arrays, the same in fit, predict and the exported model.

    A subclass writes `tensors`, `encode`, `arrays` and `to_dict`, has a `kind`, and is decorated with
    `register_preprocessor`.

    Attributes
    ----------
    kind : str
        The name under which the preprocessor stands in a model file.
    usual_batch_size : int
        Most rows in one call of the graph, where nobody says how many: 32, and more where a row is a few numbers, whose
        scores take less time than a call.
    decoders : tuple of str
        The packages that decode cells which are files; another version of them may decode otherwise. What is decoded
        is worth keeping while a search has a store, see `mmensemble.cache.encode_rows`: on one core a picture of 64
        to 640 pixels took 0.1 to 2 ms, a sound of some seconds 1 to 2 ms, an animation of 72 frames 50 ms, and to
        read one back 0.01 to 0.14 ms. None, where encoding is about as quick: a text of 20 to 30 tokens took 0.03 to
        0.04 ms, a row of numbers 0.002 ms.
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str]
    usual_batch_size: ClassVar[int] = 32
    decoders: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep one of numpy's numbers, as a grid over an array gives them, as Python's, which has a JSON form."""
        super().__setattr__(name, value.item() if isinstance(value, np.generic) else value)

    @property
    @abstractmethod
    def tensors(self) -> dict[str, TensorSpec]:
        """The arrays that `collate` returns, ``present`` excepted."""

    @property
    def row_bytes(self) -> int:
        """What a row's arrays take in memory; one that is long along a dynamic axis takes more."""
        total = 0
        for spec in self.tensors.values():
            fixed = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
            total += int(np.prod(fixed)) * np.dtype(spec.dtype).itemsize
        return total

    @abstractmethod
    def encode(self, *columns: Cells) -> Encoded:
        """Encode rows, given one sequence of cells per column. Never raises for a bad cell: see `Encoded.errors`."""

    def lengths(self, items: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return `Encoded.lengths` of items: here 1, for all are alike."""
        return np.ones(len(items), dtype=np.int64)

    @abstractmethod
    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays named by `tensors` for some rows, each with the batch as first axis; see `collate`.

        Parameters
        ----------
        encoded : Encoded
            What `encode` returned.
        rows : ndarray of int, shape (n,)
            The rows wanted, in the order wanted.

        Returns
        -------
        dict of str to ndarray
        """

    def collate(self, encoded: Encoded, rows: Sequence[int] | np.ndarray | slice) -> dict[str, np.ndarray]:
        """Batch some encoded rows.

        Parameters
        ----------
        encoded : Encoded
            What `encode` returned.
        rows : array-like of int, or slice
            The rows wanted, in the order wanted.

        Returns
        -------
        dict of str to ndarray
            The arrays named by `tensors`, each with the batch as first axis, and ``present`` (n,) bool.
        """
        rows = np.arange(len(encoded))[rows]
        return {**self.arrays(encoded, rows), PRESENT: encoded.present[rows]}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return cells that the preprocessor can encode, usual and unusual ones, on which an export is tried out.

        Parameters
        ----------
        n : int
        rng : Generator

        Returns
        -------
        list of list
            `n` cells for each column; no list at all, as here, where it knows none.
        """
        return []

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serialisable description from which `from_dict` rebuilds the preprocessor."""

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Rebuild a preprocessor from `to_dict`'s description: its ``kind``, and parameters by their names."""
        return cls(**{name: value for name, value in state.items() if name != "kind"})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.to_dict())))


# Empty, foreign, of other scripts and signs, and longer than most networks read.
_ODD_TEXTS = ("", "Zwölf Größen, naïve façade", "漢字 и кириллица 🦊", "a b\tc\nd", "word " * 300)


def with_odd_texts(texts: list[str]) -> list[str]:
    """Put unusual texts in the place of some, where there are many."""
    step = 8
    for number, odd in enumerate(_ODD_TEXTS, start=1):
        if number * step < len(texts):
            texts[number * step] = odd
    return texts
