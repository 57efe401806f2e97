"""Rows → windows → batches → scores in the order of the rows. Imports numpy, narwhals, `mmensemble.preprocessing`.

A *window* is some hundred rows. Worker threads encode the next windows while the graph scores the current one, so
memory does not grow with the number of rows. Inside a window rows of like length go together, which saves most of the
padding of texts; a *batch* is one call of the graph. On a CPU the workers run batches too, several at once: with one
thread to each, a core never waits for the others at the end of every operator, and encoding takes whatever is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import narwhals as nw
import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.frames import Cells, column_cells
from mmensemble.preprocessing import Encoded
from mmensemble.scoring.manifest import Feed
from mmensemble.scoring.report.stages import Stages
from mmensemble.scoring.window import ScoredWindow

__all__ = [
    "ScoredWindow",
    "call_now",
    "generate_windows",
    "input_batches",
    "row_batches",
    "score_window",
    "score_windows",
    "usual_batch_size",
    "window_size",
]

# A batch holds batch_size rows of this many tokens, fewer rows if they are longer. With MiniLM on a CPU a token takes
# least time in calls of 512 to 1,024 tokens: more than these fall out of the cache.
_TOKENS_PER_ROW = 32
# What a call costs however little is in it, as a share of a full one. MiniLM's takes as long as 40 tokens of 1,024.
_CALL_SHARE = 1 / 32
_WINDOW_ROWS = 512
_WINDOW_BATCHES = 4
_WINDOW_BYTES = 16 * 2**20
_MOST_THREADS = 16


@dataclass
class _EncodedWindow:
    parts: list[Encoded]
    errors: list[DataError | None]
    lengths: np.ndarray
    # What counts as missing in rows that can be scored without it.
    notes: dict[int, DataError]


def usual_batch_size(feeds: Sequence[Feed]) -> int:
    """Choose the rows of a batch: as many as suit every preprocessor."""
    return min(feed.preprocessor.usual_batch_size for feed in feeds)


def window_size(feeds: Sequence[Feed], batch_size: int) -> int:
    """Choose the rows of a window: some whole batches, and few enough for their arrays to take about 16 MiB."""
    row_bytes = 1 + sum(feed.preprocessor.row_bytes for feed in feeds)
    rows = min(max(_WINDOW_ROWS, _WINDOW_BATCHES * batch_size), _WINDOW_BYTES // row_bytes)
    return max(1, rows // batch_size) * batch_size


def row_batches(rows: np.ndarray, lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut rows into batches of like length, so that padding and calls together cost least; the longest first.

    The cost of a batch is its rows × its longest row, in tokens, and 1/32 of a full batch for the call. Of all ways to
    cut the rows, sorted by length, where the length changes, the cheapest one is taken: a shortest path.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        The rows to score.
    lengths : ndarray of int, shape (n,)
        Their lengths in tokens.
    batch_size : int
        Most rows in a batch. A batch's rows × its longest row stay within ``batch_size × 32`` tokens, unless it has
        one row only.

    Yields
    ------
    ndarray of int
        The rows of one batch.
    """
    if len(rows) < 2:
        yield from [rows] * len(rows)
        return
    if lengths.min() == lengths.max():  # numbers and images: no need to sort a hundred thousand of them
        yield from np.array_split(rows, -(-len(rows) // _most_rows(batch_size, lengths[:1])[0]))
        return
    # The longest batch first: memory then reaches its peak at once, and an arena need not grow again.
    rows = rows[np.argsort(-lengths, kind="stable")]
    longest, counts = np.unique(-np.maximum(lengths, 1), return_counts=True)
    longest = -longest
    # Of each length as the longest one of a batch.
    most = _most_rows(batch_size, longest)
    ends = np.concatenate([[0], np.cumsum(counts)])
    call = _CALL_SHARE * batch_size * _TOKENS_PER_ROW
    # cost[i]: of the rows from the i-th length on; then[i]: the length at which the next group starts.
    cost, then = np.zeros(len(counts) + 1), np.zeros(len(counts), dtype=np.int64)
    for i in reversed(range(len(counts))):
        in_group = ends[i + 1 :] - ends[i]
        costs = in_group * longest[i] + call * np.ceil(in_group / most[i]) + cost[i + 1 :]
        best = int(costs.argmin())
        cost[i], then[i] = costs[best], i + 1 + best
    i = 0
    while i < len(counts):
        group = rows[ends[i] : ends[then[i]]]
        yield from np.array_split(group, -(-len(group) // most[i]))
        i = int(then[i])


def _most_rows(batch_size: int, longest: np.ndarray) -> np.ndarray:
    return np.minimum(batch_size, np.maximum(1, batch_size * _TOKENS_PER_ROW // np.maximum(longest, 1)))


def score_windows(
    feeds: Sequence[Feed],
    windows: Iterable[Any],
    run: Callable[[dict[str, np.ndarray]], np.ndarray],
    *,
    width: int,
    batch_size: int,
    n_threads: int = 1,
    run_in_threads: bool = False,
    bad_as_missing: bool = False,
    stages: Stages | None = None,
) -> Generator[ScoredWindow]:
    """Score a stream of windows, in order and in constant memory.

    Parameters
    ----------
    feeds : sequence of Feed
        The graph's inputs.
    windows : iterable of frame or dict
        Each with the columns that the feeds read. At most ``n_threads + 2`` are taken ahead of the one that is awaited.
    run : callable
        The graph: arrays named ``<feed>.<tensor>`` → outputs (n, width).
    width : int
        Columns of the result.
    batch_size : int
        Most rows in one call of `run`.
    n_threads : int, default=1
        Threads that encode, at most 16.
    run_in_threads : bool, default=False
        Whether these threads call `run` too, several at once, or only the one that asks for the windows.
    bad_as_missing : bool, default=False
        Whether a cell that cannot be read counts as missing. Its row has scores then, and a note among the errors.
    stages : Stages, default=None
        Takes the seconds that rows are encoded and the graph runs.

    Yields
    ------
    ScoredWindow
        One per window.
    """
    encode: Callable[[Any], _EncodedWindow] = partial(_encode, feeds, bad_as_missing=bad_as_missing)
    if stages is not None:
        encode, run = stages.timed("encode", encode), stages.timed("graph", run)
    with _Pool(n_threads) as pool:
        scoring: deque[_Scoring] = deque()
        for window in pool.ahead(encode, windows):
            scoring.append(_Scoring(window, feeds, run, width, batch_size, pool.submit if run_in_threads else call_now))
            if len(scoring) > run_in_threads:  # the threads have the next window's batches when this one's run out
                yield scoring.popleft().result()
        while scoring:
            yield scoring.popleft().result()


def score_window(
    feeds: Sequence[Feed],
    X: Any,
    run: Callable[[dict[str, np.ndarray]], np.ndarray],
    *,
    width: int,
    batch_size: int,
    bad_as_missing: bool = False,
) -> ScoredWindow:
    """Score one window in the calling thread; see `score_windows`."""
    return _Scoring(_encode(feeds, X, bad_as_missing), feeds, run, width, batch_size, call_now).result()


def generate_windows(
    feed: Feed,
    windows: Iterable[Any],
    start: Callable[[Encoded, int, Callable[..., Future[np.ndarray]]], Callable[[], np.ndarray]],
    *,
    first_row: int = 0,
    n_threads: int = 1,
    write_in_threads: bool = False,
) -> Generator[ScoredWindow]:
    """Write texts for a stream of windows, in order and in constant memory.

    Parameters
    ----------
    feed : Feed
        The graph's one input.
    windows : iterable of frame or dict
        As in `score_windows`; twice as many are taken ahead where they are written in threads.
    start : callable
        Encoded rows, the number of the first one, and what is to call each batch → what waits for the texts
        (n, num_return_sequences): `mmensemble.scoring.generation.start_texts`.
    first_row : int, default=0
        The number of the first window's first row in the data.
    n_threads : int, default=1
        Threads that encode, at most 16.
    write_in_threads : bool, default=False
        Whether these threads write batches too, several at once, or only the one that asks for the windows.

    Yields
    ------
    ScoredWindow
        One per window.
    """
    with _Pool(n_threads) as pool:
        call = pool.submit if write_in_threads else call_now
        writing: deque[tuple[Callable[[], np.ndarray], list[DataError | None]]] = deque()
        for window in pool.ahead(lambda X: _encode([feed], X), windows):
            writing.append((start(window.parts[0], first_row, call), window.errors))
            first_row += len(window.errors)
            if len(writing) > write_in_threads * pool.n_threads:
                yield _written(*writing.popleft())
        while writing:
            yield _written(*writing.popleft())


def _written(texts: Callable[[], np.ndarray], errors: list[DataError | None]) -> ScoredWindow:
    return ScoredWindow(texts(), errors)


class _Scoring:
    """A window that is being scored."""

    def __init__(
        self,
        window: _EncodedWindow,
        feeds: Sequence[Feed],
        run: Callable[[dict[str, np.ndarray]], np.ndarray],
        width: int,
        batch_size: int,
        call: Callable[..., Future[np.ndarray]],
    ) -> None:
        self.errors = window.errors
        self.notes = window.notes
        self.outputs = np.full((len(window.errors), width), np.nan, dtype=np.float32)
        good = np.flatnonzero([error is None for error in window.errors])
        self.batches = [
            (rows, call(lambda rows: run(_collate(feeds, window.parts, rows)), rows))
            for rows in row_batches(good, window.lengths[good], batch_size)
        ]

    def result(self) -> ScoredWindow:
        """Wait for the scores."""
        for rows, scores in self.batches:
            self.outputs[rows] = scores.result()
            for row in rows[~np.isfinite(self.outputs[rows]).all(axis=1)]:
                self.errors[row] = DataError("the model gives NaN for this row: a number that it needs is missing")
        for row, note in self.notes.items():
            self.errors[row] = note
        return ScoredWindow(self.outputs, self.errors)


def input_batches(feeds: Sequence[Feed], X: Any, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the graph's inputs for the good rows of a frame, in order, named ``<feed>.<tensor>``."""
    window = _encode(feeds, X)
    good = np.flatnonzero([error is None for error in window.errors])
    for start in range(0, len(good), batch_size):
        yield _collate(feeds, window.parts, good[start : start + batch_size])


class _Pool:
    """Threads, and what they have not begun yet, which nobody wants after an error."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = min(n_threads, _MOST_THREADS)
        self._executor = ThreadPoolExecutor(self.n_threads, thread_name_prefix="mmensemble-scoring")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        return self._executor.submit(function, *args)

    def ahead(self, function: Callable[[Any], _EncodedWindow], windows: Iterable[Any]) -> Iterator[_EncodedWindow]:
        """Apply a function to windows, in order, some of them ahead of the one that is asked for."""
        pending: deque[Future[_EncodedWindow]] = deque()
        for window in windows:
            pending.append(self.submit(function, window))
            if len(pending) > self.n_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def call_now(function: Callable[..., Any], *args: Any) -> Future[Any]:
    """Call a function now, as `_Pool.submit` would have it called in a thread."""
    future: Future[Any] = Future()
    future.set_result(function(*args))
    return future


def _encode(feeds: Sequence[Feed], X: Any, bad_as_missing: bool = False) -> _EncodedWindow:
    if not isinstance(X, Mapping):
        X = nw.from_native(X, eager_only=True)  # once, and not for every column
    cells = {column: column_cells(X, column) for feed in feeds for column in feed.columns}
    encoded: dict[tuple[int, tuple[str, ...]], Encoded] = {}
    noted: dict[int, DataError] = {}
    for feed in feeds:  # members that read the same columns in the same way share a preprocessor
        key = (id(feed.preprocessor), feed.columns)
        if key not in encoded:
            part = feed.preprocessor.encode(*(cells[column] for column in feed.columns))
            if bad_as_missing and part.errors:
                for row, message in part.errors.items():
                    noted.setdefault(row, _error_of(feed, message))
                part = _without_bad_cells(feed, [cells[column] for column in feed.columns], part)
            encoded[key] = part
    parts = [encoded[id(feed.preprocessor), feed.columns] for feed in feeds]
    errors: list[DataError | None] = [None] * len(parts[0])
    for feed, part in zip(feeds, parts, strict=True):
        for row, message in part.errors.items():
            errors[row] = errors[row] or _error_of(feed, message)
    notes = {row: note for row, note in noted.items() if errors[row] is None}
    return _EncodedWindow(parts, errors, np.max([part.lengths for part in parts], axis=0), notes)


def _without_bad_cells(feed: Feed, cells: Sequence[Cells], part: Encoded) -> Encoded:
    """Encode again as if the bad cells were missing; errors that remain are not those of a cell."""
    if feed.preprocessor.decoders:  # what is decoded is one cell, whose placeholder is that of a missing one
        return replace(part, errors={})
    columns = [list(column) for column in cells]
    changed = True
    while part.errors and changed:
        changed = False
        for row, message in part.errors.items():
            error = _error_of(feed, message)
            for name, column in zip(feed.columns, columns, strict=True):
                if error.column in (name, None) and column[row] is not None:
                    column[row], changed = None, True
        part = feed.preprocessor.encode(*columns)
    return part


def _error_of(feed: Feed, message: str) -> DataError:
    for column in feed.columns:
        # A preprocessor of several columns says itself which one is bad.
        own = f"column {column!r}: "
        if message.startswith(own):
            return DataError(message.removeprefix(own), column=column)
    return DataError(message, column=feed.columns[0] if len(feed.columns) == 1 else None)


def _collate(feeds: Sequence[Feed], parts: Sequence[Encoded], rows: np.ndarray) -> dict[str, np.ndarray]:
    collated: dict[int, dict[str, np.ndarray]] = {}
    for feed, part in zip(feeds, parts, strict=True):
        if id(part) not in collated:
            collated[id(part)] = feed.preprocessor.collate(part, rows)
    return {
        f"{feed.name}.{tensor}": array
        for feed, part in zip(feeds, parts, strict=True)
        for tensor, array in collated[id(part)].items()
    }
