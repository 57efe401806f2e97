"""A job over many fragments: run by an engine, counted, and put into a folder or one file. Imports pyarrow at use."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mmensemble._version import __version__
from mmensemble.exceptions import ConfigurationError
from mmensemble.files.kept import plain_schema
from mmensemble.files.writing import check_writable, open_writer, put_in_place
from mmensemble.scoring.engines.batch_scorer import BatchScorer
from mmensemble.scoring.engines.engine import Engine
from mmensemble.scoring.engines.folder import Finished, ScoreFolder
from mmensemble.scoring.engines.fragments import Fragment
from mmensemble.scoring.engines.work import FragmentScorer
from mmensemble.scoring.file_job import FileOptions, TooManyErrorsError
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.progress import following
from mmensemble.scoring.providers import ResolvedDevice
from mmensemble.scoring.report.score_report import ScoreReport

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Job", "to_file", "to_folder"]


@dataclass(frozen=True)
class Job:
    """What is to be done, and who does it.

    Parameters
    ----------
    scorer : BatchScorer
    options : FileOptions
    digest : str
        Of the model.
    manifest : Manifest
        What the model says of itself.
    fragments : list of Fragment
    schema : pyarrow.Schema
        Of the scores.
    engine : Engine
    workers : int or None
    facts : dict
        What reports and logs call the model, the source, the target and the engine.
    """

    scorer: BatchScorer
    options: FileOptions
    digest: str
    manifest: Manifest
    fragments: list[Fragment]
    schema: pa.Schema
    engine: Engine
    workers: int | None
    facts: dict[str, Any]

    def __post_init__(self) -> None:
        self.options.check_drift(self.manifest)

    @property
    def stamp(self) -> dict[str, Any]:
        """What decides the scores of a row, as JSON: nothing of who scores it, or how many rows at a time."""
        return {
            "mmensemble": __version__,
            "model": self.digest,
            "columns": str(self.schema),
            "keep": self.scorer.keep,
            "top_k": self.scorer.top_k,
            "on_error": self.scorer.on_error,
            "on_bad_line": self.options.on_bad_line,
            **({"renamed": dict(self.options.columns)} if self.options.columns else {}),
        }

    def report(self, finished: Iterable[Finished], resumed: int, started: float, *, whole: bool = True) -> ScoreReport:
        """Say what was done, in a file too where that is asked for."""
        parts = list(finished)
        done = ScoreReport(
            sum(each.n_rows for each in parts),
            sum(each.n_errors for each in parts),
            resumed,
            time.perf_counter() - started,
            cast(ResolvedDevice, parts[0].device if parts else "cpu"),
            sum(each.n_skipped for each in parts),
        )
        tally = self.options.tally(self.manifest, self.facts["source"])
        for each in parts:
            if tally is not None and each.tally is not None:
                tally.merge(each.tally)
        unobserved = sum(each.n_rows for each in parts if each.tally is None)
        return self.options.reported(done, self.manifest, tally, {**self.facts, "finished": whole}, unobserved)


def to_folder(job: Job, folder: ScoreFolder, *, overwrite: bool) -> ScoreReport:
    """Score a source into a folder of files, one for each fragment."""
    check_writable(Path(f"scores{folder.ending}"), job.schema)
    started = time.perf_counter()
    with folder.writing():
        finished, resumed = _run(job, folder, started, overwrite=overwrite)
        report = job.report(finished, resumed, started)
        folder.complete(finished)
    return report


def to_file(job: Job, folder: ScoreFolder, target: Path) -> ScoreReport:
    """Score a source into one file; fragments wait in a hidden folder until all are there."""
    check_writable(target, job.schema)
    if str(target.absolute()) in {uri for fragment in job.fragments for uri in fragment.uris}:
        raise ConfigurationError(f"the output {target} is of the source; write to another file")
    started = time.perf_counter()
    with folder.writing():
        # Fragments of another job are of no use, as parts are not.
        finished, resumed = _run(job, folder, started, overwrite=True)
        # In there, so that what a kill leaves of it goes with the rest.
        whole = Path(folder.uri) / f"part-whole{target.suffix}"
        with open_writer(whole, job.schema) as writer:
            for table in folder.tables(finished):
                writer.write(table.cast(job.schema))
        put_in_place(whole, target)
        report = job.report(finished, resumed, started)
        folder.remove()
    return report


def _run(job: Job, folder: ScoreFolder, started: float, *, overwrite: bool) -> tuple[list[Finished], int]:
    """Score the fragments that are not finished; return all, in order, and how many rows were there already."""
    done = folder.take_up(job.fragments, overwrite=overwrite)
    resumed = sum(each.n_rows for each in done.values())
    left = [fragment for fragment in job.fragments if fragment.key not in done]
    counts = [fragment.n_rows for fragment in job.fragments]
    total = None if None in counts else sum(count or 0 for count in counts)
    gpus = int(job.scorer.device.startswith(("cuda", "tensorrt")))
    # A file of record batches cannot have other categories in each.
    stored = plain_schema(job.schema) if folder.ending == ".arrow" else job.schema
    options = job.options
    function = FragmentScorer(
        job.scorer, job.digest, folder, stored, options.on_bad_line, options.observed, options.columns
    )
    n_bad = sum(each.n_errors + each.n_skipped for each in done.values())
    try:
        with following(options.progress, total, resumed, job.facts) as progress, ExitStack() as stack:
            results = job.engine.map(function, left, workers=job.workers, cpus=job.scorer.n_threads or 1, gpus=gpus)
            if hasattr(results, "close"):
                stack.callback(results.close)  # after an error or an interrupt nobody wants the rest
            for result in results:
                if isinstance(result, Exception):
                    raise result
                done[result.key] = result
                n_bad += result.n_errors + result.n_skipped
                progress.advance(result.n_rows, n_bad)
                options.check_errors(n_bad, total)
        n_rows = sum(each.n_rows + each.n_skipped for each in done.values())
        options.check_errors(n_bad, n_rows)
    except TooManyErrorsError:
        job.report(done.values(), resumed, started, whole=False)
        raise
    return [done[fragment.key] for fragment in job.fragments], resumed
