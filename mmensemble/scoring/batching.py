"""Rows → windows → batches → scores in the order of the rows. Imports numpy and `mmensemble.preprocessing`.

A *window* is some hundred rows. Worker threads encode the next windows while the graph scores the current one, so
memory does not grow with the number of rows. Inside a window rows of like length go together, which saves most of the
padding of texts; a *batch* is one call of the graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.preprocessing import Encoded
from mmensemble.preprocessing.frames import column_cells
from mmensemble.scoring.manifest import Feed

__all__ = ["ScoredWindow", "encoder_threads", "input_batches", "row_batches", "score_windows", "window_size"]

# A batch holds batch_size rows of this many tokens (TextPreprocessor's default length), fewer rows if they are longer.
_TOKENS_PER_ROW = 128
_WINDOW_ROWS = 512
_WINDOW_BYTES = 16 * 2**20
_MOST_ENCODERS = 16


class ScoredWindow(NamedTuple):
    """The scores of one window.

    Attributes
    ----------
    outputs : ndarray of float32, shape (n_rows, width)
        NaN in the rows that could not be scored.
    errors : list of DataError or None, of length n_rows
        What is wrong with each row. Its text names the column; its `row` is None, because a window does not know
        where it stands in the data.
    """

    outputs: np.ndarray
    errors: list[DataError | None]

    def raise_for_errors(self, first_row: int) -> None:
        """Raise the first bad row, if there is one; the window's first row is number `first_row` of the data."""
        for row, error in enumerate(self.errors):
            if error is not None:
                raise DataError(error.message, row=first_row + row, column=error.column)


@dataclass
class _EncodedWindow:
    parts: list[Encoded]
    errors: list[DataError | None]
    lengths: np.ndarray


def window_size(feeds: Sequence[Feed], batch_size: int) -> int:
    """Choose the rows of a window: whole batches, and few enough for their arrays to take about 16 MiB."""
    row_bytes = 1
    for feed in feeds:
        for spec in feed.preprocessor.tensors.values():
            fixed = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
            row_bytes += int(np.prod(fixed)) * np.dtype(spec.dtype).itemsize
    rows = min(_WINDOW_ROWS, _WINDOW_BYTES // row_bytes)
    return max(1, rows // batch_size) * batch_size


def encoder_threads(feeds: Sequence[Feed], n_threads: int) -> int:
    """Choose the number of threads that encode: one, unless images or the like have to be decoded."""
    # Tokenizers start threads of their own, and tabular cells are read by the interpreter, one thread at a time.
    if all(feed.preprocessor.kind in {"text", "tabular", "terms", "categories"} for feed in feeds):
        return 1
    return min(n_threads, _MOST_ENCODERS)


def row_batches(rows: np.ndarray, lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut rows into batches of like length, the longest first.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        The rows to score.
    lengths : ndarray of int, shape (n,)
        Their lengths in tokens.
    batch_size : int
        Most rows in a batch. A batch's rows × its longest row stay below ``batch_size × 128`` tokens, unless it has
        one row only.

    Yields
    ------
    ndarray of int
        The rows of one batch.
    """
    # The longest batch first: memory then reaches its peak at once, and an arena need not grow again.
    rows = rows[np.argsort(-lengths, kind="stable")]
    lengths = -np.sort(-lengths)
    start = 0
    while start < len(rows):
        longest = max(1, int(lengths[start]))
        stop = start + min(batch_size, max(1, batch_size * _TOKENS_PER_ROW // longest))
        yield rows[start:stop]
        start = stop


def score_windows(
    feeds: Sequence[Feed],
    windows: Iterable[Any],
    run: Callable[[dict[str, np.ndarray]], np.ndarray],
    *,
    width: int,
    batch_size: int,
    n_encoders: int = 1,
) -> Generator[ScoredWindow]:
    """Score a stream of windows, in order and in constant memory.

    Parameters
    ----------
    feeds : sequence of Feed
        The graph's inputs.
    windows : iterable of frame or dict
        Each with the columns that the feeds read. At most ``n_encoders + 1`` are taken ahead of the one that is scored.
    run : callable
        The graph: arrays named ``<feed>.<tensor>`` → outputs (n, width).
    width : int
        Columns of the result.
    batch_size : int
        Most rows in one call of `run`.
    n_encoders : int, default=1
        Threads that encode.

    Yields
    ------
    ScoredWindow
        One per window.
    """
    for window in _encode_ahead(feeds, windows, n_encoders):
        outputs = np.full((len(window.errors), width), np.nan, dtype=np.float32)
        good = np.flatnonzero([error is None for error in window.errors])
        for rows in row_batches(good, window.lengths[good], batch_size):
            outputs[rows] = run(_collate(feeds, window.parts, rows))
            for row in rows[~np.isfinite(outputs[rows]).all(axis=1)]:
                window.errors[row] = DataError("the model gives NaN for this row: a number that it needs is missing")
        yield ScoredWindow(outputs, window.errors)


def input_batches(feeds: Sequence[Feed], X: Any, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the graph's inputs for the good rows of a frame, in order, named ``<feed>.<tensor>``."""
    window = _encode(feeds, X)
    good = np.flatnonzero([error is None for error in window.errors])
    for start in range(0, len(good), batch_size):
        yield _collate(feeds, window.parts, good[start : start + batch_size])


def _encode_ahead(feeds: Sequence[Feed], windows: Iterable[Any], n_encoders: int) -> Iterator[_EncodedWindow]:
    with ThreadPoolExecutor(n_encoders, thread_name_prefix="mmensemble-encode") as pool:
        pending: deque[Future[_EncodedWindow]] = deque()
        try:
            for window in windows:
                pending.append(pool.submit(_encode, feeds, window))
                if len(pending) > n_encoders:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # After an error nobody wants the rest, and the pool waits for what it has begun.
            for future in pending:
                future.cancel()


def _encode(feeds: Sequence[Feed], X: Any) -> _EncodedWindow:
    cells = {column: column_cells(X, column) for feed in feeds for column in feed.columns}
    parts = [feed.preprocessor.encode(*(cells[column] for column in feed.columns)) for feed in feeds]
    errors: list[DataError | None] = [None] * len(parts[0])
    for feed, part in zip(feeds, parts, strict=True):
        for row, message in part.errors.items():
            errors[row] = errors[row] or _error_of(feed, message)
    return _EncodedWindow(parts, errors, np.max([part.lengths for part in parts], axis=0))


def _error_of(feed: Feed, message: str) -> DataError:
    for column in feed.columns:
        # A preprocessor of several columns says itself which one is bad.
        own = f"column {column!r}: "
        if message.startswith(own):
            return DataError(message.removeprefix(own), column=column)
    return DataError(message, column=feed.columns[0] if len(feed.columns) == 1 else None)


def _collate(feeds: Sequence[Feed], parts: Sequence[Encoded], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{feed.name}.{tensor}": array
        for feed, part in zip(feeds, parts, strict=True)
        for tensor, array in feed.preprocessor.collate(part, rows).items()
    }
