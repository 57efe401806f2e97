"""A file of rows → a file of scores, or of texts: what users call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmensemble.scoring.columns import ScoreColumns, TextColumns
from mmensemble.scoring.file_job import FileOptions, OnError, ScoreReport, write_file
from mmensemble.scoring.generation import GenerationSettings
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import Device

__all__ = ["generate_file", "score_file"]


def score_file(
    model: str | os.PathLike[str] | OnnxPredictor,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    device: Device = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
    keep: Sequence[str] = (),
    on_error: OnError = "column",
    progress: bool = False,
    overwrite: bool = False,
) -> ScoreReport:
    """Score the rows of a file, in order and in constant memory.

    The output has the columns of `keep`, then ``prediction``, ``probability_<class>`` (float32) for each class, and
    ``error``, which is null where all is well. Of several label columns there are ``prediction_<column>`` and
    ``probability_<column>_<class>``, of several labels ``probability_<label>``, of numbers predictions only; what was
    fitted on a frame has the names of its columns, and else they are numbered.

    The file appears when it is complete. Until then the scores are kept in parts in a folder beside it, named
    ``.<output>.parts``: the same call after a crash, a kill or an interrupt goes on after the last part and writes the
    same file. An error in the data removes them.

    Parameters
    ----------
    model : str, path-like or OnnxPredictor
        A model file, or an open one; the latter keeps its own device, batch size and threads.
    input : str or path-like
        ``.parquet``, ``.pq``, ``.csv`` (UTF-8, with a header), ``.jsonl`` or ``.ndjson`` (UTF-8, an object on each
        line), or of a format of your own, see `mmensemble.scoring.register_format`. A CSV cell is missing where it is
        empty without quotes. Relative image paths start at the working directory.
    output : str or path-like
        Of one of these formats.
    device, batch_size, n_threads
        See `OnnxPredictor`.
    keep : sequence of str, default=()
        Columns of the input to copy. Those of a CSV file are copied as text, and so are those of JSON Lines that are
        not numbers or truth values throughout.
    on_error : {"column", "raise"}, default="column"
        Whether a row that cannot be read is reported in the column ``error``, or ends the work.
    progress : bool, default=False
        Whether to draw a progress bar on stderr.
    overwrite : bool, default=False
        Whether to replace an output that exists.

    Returns
    -------
    ScoreReport

    Raises
    ------
    ConfigurationError
        If the model writes texts, the parameters cannot work together, or the output exists and is not to be replaced,
        or is being written by another process.
    DataError
        If the input is damaged or lacks a column, or, with ``on_error="raise"``, at the first bad row.
    FileNotFoundError
        If the model or the input does not exist.
    DeviceError, ModelFileError
        As `OnnxPredictor`.
    """
    options = FileOptions(device, batch_size, n_threads, keep, on_error, progress, overwrite)
    return write_file(model, input, output, ScoreColumns, options)


def generate_file(
    model: str | os.PathLike[str] | OnnxPredictor,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_new_tokens: int = 32,
    num_return_sequences: int = 1,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    num_beams: int = 1,
    random_state: Any = None,
    device: Device = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
    keep: Sequence[str] = (),
    on_error: OnError = "column",
    progress: bool = False,
    overwrite: bool = False,
) -> ScoreReport:
    """Write a text for each row of a file, in order and in constant memory, by a model that generates.

    The output has the columns of `keep`, then ``generated``, or ``generated_0`` and so on for more texts than one, and
    ``error``, which is null where all is well. A row that misses its prompt has neither a text nor an error. A row gets
    the text that `OnnxPredictor.generate` gives it among all rows of the file. (Another batch size, number of threads
    or device can round a sum in another way, and once in a while a token is drawn that is the neighbour of the other.)

    As `score_file`, a call that was killed goes on where it stopped. Without `random_state` it goes on with the seed
    that was drawn for it.

    Parameters
    ----------
    model : str, path-like or OnnxPredictor
        A model file, or an open one; the latter keeps its own device, batch size and threads.
    input, output : str or path-like
        See `score_file`.
    max_new_tokens, num_return_sequences, temperature, top_k, top_p, num_beams, random_state
        See `OnnxPredictor.generate`.
    device, batch_size, n_threads
        See `OnnxPredictor`.
    keep, on_error, progress, overwrite
        See `score_file`.

    Returns
    -------
    ScoreReport

    Raises
    ------
    ConfigurationError
        If the model writes no texts, the parameters cannot work together, or the output exists and is not to be
        replaced, or is being written by another process.
    DataError
        If the input is damaged or lacks a column, or, with ``on_error="raise"``, at the first bad row.
    FileNotFoundError
        If the model or the input does not exist.
    DeviceError, ModelFileError
        As `OnnxPredictor`.
    """
    settings = GenerationSettings.of(
        max_new_tokens=max_new_tokens,
        num_return_sequences=num_return_sequences,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        num_beams=num_beams,
        random_state=random_state,
    )
    options = FileOptions(device, batch_size, n_threads, keep, on_error, progress, overwrite)
    return write_file(
        model,
        input,
        output,
        lambda predictor: TextColumns(predictor, settings, fixed_seed=random_state is not None),
        options,
    )
