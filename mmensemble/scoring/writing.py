"""Windows of rows → windows of texts, by an open model that writes."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import closing
from itertools import chain, islice
from typing import Any

from mmensemble.frames import n_rows
from mmensemble.scoring.batching import ScoredWindow, generate_windows
from mmensemble.scoring.generation import GenerationSettings, start_texts
from mmensemble.scoring.open_model import OpenModel

__all__ = ["write_windows"]


def write_windows(
    model: OpenModel, frames: Iterable[Any], settings: GenerationSettings, *, batch_size: int, first_row: int
) -> Generator[ScoredWindow]:
    """Write texts for a stream of frames in order and in constant memory.

    Parameters
    ----------
    model : OpenModel
    frames : iterable of frame or dict of columns
    settings : GenerationSettings
    batch_size : int
        Most sequences that are written side by side.
    first_row : int
        The number of the first row in the data.

    Yields
    ------
    ScoredWindow
        ``(texts, errors)``, one for each frame.
    """
    (feed,) = model.manifest.feeds
    frames = iter(frames)
    head = list(islice(frames, 2))
    at_once = _at_once(model, head, settings.rows_at_once(batch_size), first_row)
    decoder = model.decoder(on_one_thread=at_once)
    windows = generate_windows(
        feed,
        chain(head, frames),
        lambda encoded, row, call: start_texts(
            decoder,
            feed.preprocessor,
            encoded,
            decoder.task,
            settings,
            batch_size=batch_size,
            first_row=row,
            call=call,
        ),
        first_row=first_row,
        n_threads=model.n_threads,
        write_in_threads=at_once,
    )
    with closing(windows):
        yield from windows


def _at_once(model: OpenModel, head: list[Any], batch_rows: int, first_row: int) -> bool:
    """Tell from the first two windows whether batches are to share the cores.

    The same for all rows at once, for a file of them, and for its rest after an interrupt, so that a row gets the
    same text. Of batches that would leave more than half of the threads idle, each one runs on all of them.
    """
    if not model.runs_batches_at_once or not head:
        return False
    n_batches = -(-n_rows(head[0]) // batch_rows)
    return first_row > 0 or len(head) > 1 or (n_batches > 1 and 2 * n_batches >= model.n_threads)
