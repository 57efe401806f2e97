"""`score_dataset`: the plan of a job over many files, whoever runs it. Imports pyarrow on first use only."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.finding import (
    STANDARD_INPUT,
    Source,
    compression_of,
    find_files,
    is_media,
    is_pattern,
    standard_input,
)
from mmensemble.files.formats import described, known_formats
from mmensemble.files.lines import OnBadLine
from mmensemble.files.places import Place, is_uri, place_of
from mmensemble.files.writing import check_room
from mmensemble.scoring.engines.batch_scorer import BatchScorer
from mmensemble.scoring.engines.engine import Engine, LocalEngine, engine_named
from mmensemble.scoring.engines.folder import ScoreFolder
from mmensemble.scoring.engines.fragments import cut, open_fragment
from mmensemble.scoring.engines.job import Job, to_file, to_folder
from mmensemble.scoring.engines.media import CONTENT, ENDINGS, PATH
from mmensemble.scoring.engines.model_cache import local_model, model_digest
from mmensemble.scoring.file_job import FileOptions, OnError, check_columns, check_target, write_file
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.providers import Device
from mmensemble.scoring.report.files import ReportPaths
from mmensemble.scoring.report.score_report import ScoreReport

__all__ = ["score_dataset"]


def score_dataset(
    model: str | os.PathLike[str] | bytes,
    source: Source,
    target: str | os.PathLike[str],
    *,
    engine: str | Engine = "local",
    workers: int | None = None,
    keep: Sequence[str] = (),
    top_k: int | None = None,
    on_error: OnError = "column",
    device: Device = "auto",
    batch_size: int | None = None,
    n_threads: int | None = None,
    format: str = "parquet",
    fragment_rows: int = 262_144,
    progress: bool = False,
    overwrite: bool = False,
    on_bad_line: OnBadLine = "error",
    max_errors: float | None = None,
    report: ReportPaths = (),
    max_drift: float | None = None,
    columns: Mapping[str, str] | None = None,
) -> ScoreReport:
    """Score the rows of one file or of many, here or by the workers of a cluster.

    The scores have the columns of `score_file`. A target folder gets a file of scores for each fragment of the source,
    a file or some row groups of a Parquet file; each appears when it is complete, in the order of its rows, and is
    listed in ``_manifest.json`` with its digest. After a crash, a kill or an interrupt the same call goes on with the
    fragments that are left, on another engine too, with other workers, threads, batches and devices (which may round
    the last digits otherwise). Of a source that got more files only these are scored.

    Parameters
    ----------
    model : str, path-like or bytes
        See `BatchScorer`.
    source : str, path-like or sequence of them
        A file, a folder with all below it, a pattern such as ``rows/**/*.parquet``, or a list of these; paths, or URIs
        of file systems that pyarrow or fsspec knows. The formats of `score_file`, and these with ``.gz`` or ``.zst``
        behind. A folder named ``day=2026-11-27`` is a column ``day`` of text, unless the file has one. Where the model
        reads pictures, sounds or films and nothing else, and there is no file of rows, each file of these is a row, and
        its ``path`` stands beside its scores. ``"-"`` is
        standard input, which is written to a temporary file first: Parquet, Arrow IPC, JSON Lines, TSV or CSV, by what
        it begins with. It cannot be taken up after a crash.
    target : str or path-like
        A folder, which may be a URI, and which all workers must see; or, with ``engine="local"``, a file, whose suffix
        names its format.
    engine : {"local", "ray", "spark"} or Engine, default="local"
        Who runs it; one of your own is registered by `mmensemble.scoring.register_engine`. Ray and Spark are asked for
        the cluster that this process is connected to, else for one on this machine.
    workers : int, default=None
        Most fragments that are scored at the same time; None takes what the cluster has.
    keep, on_error, on_bad_line, max_errors, progress, overwrite, report, max_drift, columns
        See `score_file`. Of a folder, `overwrite` removes what other jobs wrote into it, and never other files. Reports
        are files of this machine. Fragments that an earlier call finished without one are not counted in it.
    top_k
        See `BatchScorer`.
    device, batch_size
        See `OnnxPredictor`. A GPU that is asked for by name is also asked of the engine, one for each worker.
    n_threads : int, default=None
        Threads of each worker, which asks the engine for as many CPUs; None takes all cores with ``engine="local"``,
        one with Ray, and ``spark.task.cpus`` with Spark.
    format : str, default="parquet"
        Of the files in a folder, by its suffix.
    fragment_rows : int, default=262_144
        Row groups of a Parquet file go together up to so many rows.

    Returns
    -------
    ScoreReport

    Raises
    ------
    ConfigurationError
        If the parameters cannot work together, the target holds something else and is not to be replaced, or is being
        written by another process.
    DataError
        If the source has no files of rows, a file is damaged or lacks a column, or, with ``on_error="raise"``, at the
        first bad row. What is finished stays.
    MissingDependencyError
        If the engine, or what a URI needs, is not installed.
    FileNotFoundError, DeviceError, ModelFileError
        As `OnnxPredictor`.

    Examples
    --------
    >>> from mmensemble import score_dataset
    >>> score_dataset("model.onnx", "rows/", "scores/", keep=["id"])  # doctest: +SKIP
    >>> score_dataset("s3://bucket/model.onnx", "s3://bucket/rows/", "s3://bucket/scores/", engine="ray")
    ... # doctest: +SKIP
    """
    runner = engine_named(engine) if isinstance(engine, str) else engine
    scorer = BatchScorer(
        model,
        keep=keep,
        top_k=top_k,
        on_error=on_error,
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
    )
    options = FileOptions(
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
        keep=scorer.keep,
        on_error=on_error,
        progress=progress,
        overwrite=overwrite,
        on_bad_line=on_bad_line,
        max_errors=max_errors,
        report=report,
        max_drift=max_drift,
        columns=columns,
    )
    if fragment_rows < 1:
        raise ConfigurationError(f"fragment_rows must be at least 1, not {fragment_rows!r}")
    where, is_local = os.fspath(target), runner.name == LocalEngine.name
    to_one_file = _names_a_file(where)
    if to_one_file and (is_uri(where) or not is_local):
        raise ConfigurationError(
            f"{where} is a file; the target of a cluster, or elsewhere, is a folder, whose name has no suffix"
        )
    facts = {"model": _name(scorer.model), "source": _name(source), "target": where, "engine": runner.name}
    with ExitStack() as stack:
        if source == STANDARD_INPUT:
            if not is_local:
                raise ConfigurationError(
                    "standard input is read here; workers of a cluster need files that all of them see"
                )
            source = stack.enter_context(standard_input())
        if to_one_file:
            if isinstance(source, (str, os.PathLike)) and _is_plain(os.fspath(source)) and workers in (None, 1):
                opened = local_model(scorer.model)
                return write_file(opened, os.fspath(source), where, scorer.columns_of, options, name=facts["source"])
            check_target(Path(where), overwrite)
            check_room(Path(where), 0)
        place = None if to_one_file else place_of(where)
        job = _planned(scorer, options, source, place, fragment_rows, runner, workers, facts)
        if place is None:
            hidden = Path(where).absolute().with_name(f".{Path(where).name}.fragments")
            return to_file(job, ScoreFolder(str(hidden), ".arrow", job.stamp), Path(where))
        folder = ScoreFolder(place.uri, f".{format.lstrip('.')}", job.stamp)
        return to_folder(job, folder, overwrite=overwrite)


def _name(named: Any) -> str:
    """Return what reports and logs call a model, or a source."""
    if isinstance(named, bytes):
        return f"<{len(named)} bytes>"
    names = [named] if isinstance(named, (str, os.PathLike)) else list(named)
    return ", ".join(str(name) for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _planned(
    scorer: BatchScorer,
    options: FileOptions,
    source: Source,
    target: Place | None,
    fragment_rows: int,
    runner: Engine,
    workers: int | None,
    facts: dict[str, Any],
) -> Job:
    """Look at the source and the model for what the job needs to know; the target is a folder, or None."""
    # On a cluster this process scores nothing; a GPU that it may have is not its own.
    is_local = runner.name == LocalEngine.name
    reading = scorer if is_local else BatchScorer(scorer.model, keep=scorer.keep, top_k=scorer.top_k, device="cpu")
    model = reading.added.model
    column, media = _media_of(model.manifest)
    files = find_files(source, media)
    for file in files:
        if target is not None and file.place.uri.startswith(f"{target.uri.rstrip('/')}/"):
            raise ConfigurationError(f"{file.place.uri} of the source lies in the target; write to another folder")
    if is_media(files[0], media):
        options = replace(options, columns={column: CONTENT, **(options.columns or {})})
        for each in (scorer, reading):  # whose scores they are is all that is known of them
            each.keep = list(dict.fromkeys([PATH, *each.keep]))
    fragments = cut(files, fragment_rows, media)
    with open_fragment(fragments[0]) as found:
        rows = options.renamed(found, model.manifest, fragments[0].uri)
        check_columns(fragments[0].uri, rows.schema.names, [*model.manifest.columns, *scorer.keep])
        schema = reading.schema(rows.schema)
    return Job(scorer, options, model_digest(model.path), model.manifest, fragments, schema, runner, workers, facts)


def _media_of(manifest: Manifest) -> tuple[str, tuple[str, ...]]:
    """Return the column of pictures, sounds or films that a model reads, where it reads no other, and their endings."""
    column, *others = manifest.columns
    kinds = {feed.preprocessor.kind for feed in manifest.feeds}
    return column, ENDINGS.get(kinds.pop(), ()) if len(kinds) == 1 and not others else ()


def _names_a_file(where: str) -> bool:
    """Tell by its suffix that a target is one file, unless there is a folder of that name.

    Raises
    ------
    ConfigurationError
        If the suffix is that of no format, which is more likely a mistake than the name of a folder.
    """
    if where.endswith("/") or Path(where).is_dir():
        return False
    suffix = Path(where).suffix
    if suffix and not _has_known_suffix(where):
        raise ConfigurationError(
            f"{where} ends in {suffix!r}, which is no format of rows: those are {described(known_formats())}. A folder "
            f"of that name must be there already, or be written with a slash, {where}/"
        )
    return bool(suffix)


def _has_known_suffix(where: str) -> bool:
    return any(Path(where).suffix.lower() in each.suffixes for each in known_formats())


def _is_plain(where: str) -> bool:
    """Tell whether a source is one file of this machine as `score_file` reads it, if it is there."""
    path = Path(where)
    if is_uri(where) or path.is_dir() or compression_of(path.name):
        return False
    return _has_known_suffix(where) and (path.is_file() or not is_pattern(where))
