"""A file of rows → a file of scores, or of texts: what users call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.lines import OnBadLine
from mmensemble.scoring.columns import ScoreColumns, TextColumns
from mmensemble.scoring.file_job import FileOptions, OnError, write_file
from mmensemble.scoring.generation import GenerationSettings
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import Device
from mmensemble.scoring.report.files import ReportPaths
from mmensemble.scoring.report.score_report import ScoreReport

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
    on_bad_line: OnBadLine = "error",
    max_errors: float | None = None,
    report: ReportPaths = (),
    max_drift: float | None = None,
    columns: Mapping[str, str] | None = None,
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
        ``.parquet``, ``.pq``, ``.csv`` (UTF-8, with a header; semicolons, tabs or bars in place of commas are found),
        ``.jsonl`` or ``.ndjson`` (UTF-8, an object on each line), or of a format of your own, see
        `mmensemble.scoring.register_format`. A CSV cell is missing where it is empty without quotes. Relative image
        paths start at the working directory.
    output : str or path-like
        Of one of these formats.
    device, batch_size, n_threads
        See `OnnxPredictor`.
    keep : sequence of str, default=()
        Columns of the input to copy. Those of a CSV file are copied as text, and so are those of JSON Lines that are
        not numbers or truth values throughout.
    on_error : {"column", "missing", "raise"}, default="column"
        Whether a row with a cell that cannot be read is reported in the column ``error``, or ends the work. With
        ``"missing"`` the cell counts as missing: the row is scored by what is left of it, and ``error`` has a note.
    progress : bool, default=False
        Whether to draw a progress bar on stderr.
    overwrite : bool, default=False
        Whether to replace an output that exists.
    on_bad_line : {"error", "skip", "raise"}, default="error"
        What becomes of a line of a CSV or JSON Lines file that cannot be read, and of a text that is not UTF-8. With
        ``"error"`` its row stays, in which nothing but ``error`` has a cell that can be trusted; with ``"skip"`` it is
        dropped and counted; with ``"raise"`` it ends the work. A quote that is never closed always does.
    max_errors : int or float, default=None
        End the work when more rows than so many, or than this share of all (a float up to 1.0), are bad or dropped.
    report : path-like or sequence of them, default=()
        Where to write a report, ``.json`` or ``.html``: counts, kinds of errors with examples, classes and confidence,
        the time of each stage, and, where the model file has a profile, how far inputs and predictions have drifted
        from it. Earlier ones are replaced. `ScoreReport.summary` has the same.
    max_drift : float, default=None
        Above which population stability index an input or a prediction is named in `ScoreReport.drifted`, unless
        samples as small as these exceed it by chance. 0.1 is called a small shift, 0.25 a large one.
    columns : dict of str to str, default=None
        What columns that the model reads are called in the input: ``{"description": "text"}`` where it has the
        descriptions in its column ``text``.

    Returns
    -------
    ScoreReport

    Raises
    ------
    ConfigurationError
        If the model writes texts, the parameters cannot work together, the model has no profile for `max_drift`, or the
        output exists and is not to be replaced, or is being written by another process.
    DataError
        If the input is damaged or lacks a column, at the first bad row with ``on_error="raise"``, or if more rows are
        bad than `max_errors` allows.
    FileNotFoundError
        If the model or the input does not exist.
    DeviceError, ModelFileError
        As `OnnxPredictor`.
    """
    options = FileOptions(
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
        keep=keep,
        on_error=on_error,
        progress=progress,
        overwrite=overwrite,
        on_bad_line=on_bad_line,
        max_errors=max_errors,
        report=report,
        max_drift=max_drift,
        columns=columns,
    )
    adding = partial(ScoreColumns, bad_as_missing=on_error == "missing")
    return write_file(model, input, output, adding, options)


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
    on_bad_line: OnBadLine = "error",
    max_errors: float | None = None,
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
    keep, progress, overwrite, on_bad_line, max_errors
        See `score_file`.
    on_error : {"column", "raise"}, default="column"
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
        If the input is damaged or lacks a column, at the first bad row with ``on_error="raise"``, or if more rows are
        bad than `max_errors` allows.
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
    if on_error == "missing":
        raise ConfigurationError(
            "on_error must be 'column' or 'raise' where texts are written: a prompt is all there is"
        )
    options = FileOptions(
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
        keep=keep,
        on_error=on_error,
        progress=progress,
        overwrite=overwrite,
        on_bad_line=on_bad_line,
        max_errors=max_errors,
    )
    return write_file(
        model,
        input,
        output,
        lambda predictor: TextColumns(predictor, settings, fixed_seed=random_state is not None),
        options,
    )
