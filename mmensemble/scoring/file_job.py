"""The work behind `score_file` and `generate_file`: read, run the model, keep parts, write. Imports pyarrow at use."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mmensemble._version import __version__
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.files.formats import format_of
from mmensemble.files.kept import is_of_fixed_width, kept_type, plain_schema
from mmensemble.files.lines import BAD_LINE, OnBadLine
from mmensemble.files.parts import Parts
from mmensemble.files.reading import TableReader
from mmensemble.files.renaming import RenamedRows
from mmensemble.files.writing import check_room, check_writable, open_writer
from mmensemble.scoring.batching import ScoredWindow
from mmensemble.scoring.columns import AddedColumns
from mmensemble.scoring.manifest import Manifest, model_stamp
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.progress import following
from mmensemble.scoring.providers import Device
from mmensemble.scoring.report.files import ReportPaths, check_reports, write_reports
from mmensemble.scoring.report.score_report import ScoreReport, log_end
from mmensemble.scoring.report.summary import drifted_in, summary_of
from mmensemble.scoring.report.tally import Tally

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "FileOptions",
    "OnError",
    "Rows",
    "check_columns",
    "check_target",
    "output_schema",
    "output_table",
    "windows_of",
    "write_file",
]

OnError = Literal["column", "missing", "raise"]


class TooManyErrorsError(DataError):
    """More bad rows than the caller allows."""


@dataclass(frozen=True)
class FileOptions:
    """How a model is run over a file, whatever it adds to the rows; see `score_file` for what each means.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "tensorrt"}
    batch_size, n_threads : int or None
    keep : sequence of str
    on_error : {"column", "missing", "raise"}
    progress, overwrite : bool
    on_bad_line : {"error", "skip", "raise"}, default="error"
    max_errors : int, float or None, default=None
    report : path or sequence of paths, default=()
    max_drift : float or None, default=None
    columns : dict of str to str, default=None

    Raises
    ------
    ConfigurationError
        If one of them is something else.
    """

    device: Device
    batch_size: int | None
    n_threads: int | None
    keep: Sequence[str]
    on_error: OnError
    progress: bool
    overwrite: bool
    on_bad_line: OnBadLine = "error"
    max_errors: float | None = None
    report: ReportPaths = ()
    max_drift: float | None = None
    columns: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("column", "missing", "raise"):
            raise ConfigurationError(f"on_error must be 'column', 'missing' or 'raise', not {self.on_error!r}")
        if self.on_bad_line not in ("error", "skip", "raise"):
            raise ConfigurationError(f"on_bad_line must be 'error', 'skip' or 'raise', not {self.on_bad_line!r}")
        most = self.max_errors
        if most is not None and (isinstance(most, bool) or most < 0 or (isinstance(most, float) and most > 1)):
            raise ConfigurationError(f"max_errors must be a number of rows or a share from 0.0 to 1.0, not {most!r}")
        if self.max_drift is not None and not self.max_drift >= 0:
            raise ConfigurationError(f"max_drift must be at least 0, not {self.max_drift!r}")
        check_reports(self.report)

    @property
    def observed(self) -> bool:
        """Whether the rows are counted while they are scored."""
        return bool(self.report) or self.max_drift is not None

    def renamed(self, rows: Any, manifest: Manifest, source: str) -> Any:
        """Return rows with the columns that the model reads, where these have other names.

        Raises
        ------
        ConfigurationError
            If the model reads no column of such a name.
        DataError
            If there is no such column.
        """
        for column in self.columns or ():
            if column not in manifest.columns:
                raise ConfigurationError(f"the model reads no column {column!r}; it reads {manifest.columns}")
        return RenamedRows(rows, self.columns, source) if self.columns else rows

    def check_drift(self, manifest: Manifest) -> None:
        """Raise ConfigurationError if drift is asked for, and the model has no profile to compare with."""
        if self.max_drift is not None and manifest.profile is None:
            raise ConfigurationError(
                "the model has no profile that rows could drift from (max_drift); export it with verify=X or profile=X"
            )

    def tally(self, manifest: Manifest, source: str) -> Tally | None:
        """Return what counts the rows, if they are counted."""
        return Tally(manifest, source) if self.observed else None

    def check_errors(self, n_errors: int, n_rows: int | None) -> None:
        """Check that not too many rows are bad, or were dropped.

        Parameters
        ----------
        n_errors : int
            So far.
        n_rows : int or None
            Of the whole file, where that is known: what a share is of.

        Raises
        ------
        DataError
            If they are too many.
        """
        if self.max_errors is None:
            return
        most = self.max_errors
        if isinstance(most, float):
            if n_rows is None:
                return
            most = most * n_rows
        if n_errors > most:
            raise TooManyErrorsError(
                f"{n_errors} rows are bad, more than max_errors={self.max_errors} allows; what is finished is kept, "
                "and the same call with another max_errors goes on there"
            )

    def reported(
        self,
        done: ScoreReport,
        manifest: Manifest,
        tally: Tally | None,
        facts: Mapping[str, Any],
        n_unobserved: int = 0,
    ) -> ScoreReport:
        """Log how a job ended, and write its report where one is asked for; return what is known then."""
        if tally is not None:
            summary = summary_of(manifest, tally, {**facts, **done.counts()}, self.max_drift, n_unobserved)
            write_reports(check_reports(self.report), summary)
            done = replace(done, summary=summary, drifted=tuple(drifted_in(summary)))
        log_end(done, facts)
        return done

    def opened(self, model: str | os.PathLike[str] | OnnxPredictor) -> OnnxPredictor:
        """Open a model file; one that is open keeps its own device, batch size and threads."""
        if isinstance(model, OnnxPredictor):
            return model
        return OnnxPredictor(model, device=self.device, batch_size=self.batch_size, n_threads=self.n_threads)


class Rows(Protocol):
    """Where rows come from, such as a `TableReader`."""

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns of all rows, in order, in tables of at most `size` rows."""
        ...


def write_file(
    model: str | os.PathLike[str] | OnnxPredictor,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    adding: Callable[[OnnxPredictor], AddedColumns],
    options: FileOptions,
    *,
    name: str | None = None,
) -> ScoreReport:
    """Run a model over a file, and write what it adds to the rows.

    Parameters
    ----------
    model : str, path-like or OnnxPredictor
    input, output : str or path-like
    adding : callable
        The open model → the columns that it adds.
    options : FileOptions
    name : str, default=None
        What reports and messages call the input, if not by its path.

    Returns
    -------
    ScoreReport
    """
    source, target, keep = Path(input), Path(output), options.keep
    name = str(source) if name is None else name
    _check_paths(source, target, options.overwrite)
    with TableReader(source, options.on_bad_line) as reader:
        added = adding(options.opened(model))
        options.check_drift(added.model.manifest)
        rows = options.renamed(reader, added.model.manifest, name)
        check_columns(name, rows.schema.names, [*added.model.manifest.columns, *keep])
        schema = output_schema(rows.schema, keep, added)
        check_writable(target, schema)
        # Twice, for the parts are there until the file is.
        check_room(target, 2 * (reader.n_rows or 0) * _bytes_of_row(added))
        started = time.perf_counter()
        stored = plain_schema(schema)
        tally = options.tally(added.model.manifest, name)
        facts = {"model": str(added.model.path), "source": name, "target": str(target), "engine": "local"}
        with Parts(target, stored, _job(added, source, options, schema), added.drawn) as parts:
            resumed = parts.n_rows

            def report(*, finished: bool = True) -> ScoreReport:
                seconds, device = time.perf_counter() - started, added.model.device
                done = ScoreReport(parts.n_rows, parts.n_errors, resumed, seconds, device, reader.n_skipped)
                return options.reported(done, added.model.manifest, tally, {**facts, "finished": finished})

            if tally is not None:
                for table in parts.tables():
                    tally.add_scores(table)
            write = parts.write if tally is None else tally.stages.timed("write", parts.write)
            try:
                with (
                    closing(windows_of(added, rows, keep, resumed, parts.drawn, tally)) as windows,
                    following(options.progress, reader.n_rows, resumed, facts) as progress,
                ):
                    for kept, window in windows:
                        if options.on_error == "raise":
                            window.raise_for_errors(parts.n_rows)
                        table = output_table(kept, window, added, stored)
                        if tally is not None:
                            tally.add_scores(table)
                        write(table)
                        progress.advance(len(window.errors), parts.n_errors + reader.n_skipped)
                        options.check_errors(progress.n_errors, reader.n_rows)
                options.check_errors(parts.n_errors + reader.n_skipped, parts.n_rows + reader.n_skipped)
            except TooManyErrorsError:
                report(finished=False)
                raise
            except DataError:
                parts.remove()
                raise
            parts.close()
            with open_writer(target, schema) as writer:
                for table in parts.tables():
                    writer.write(table.cast(schema))
            done = report()
            parts.remove()
    return done


def _bytes_of_row(added: AddedColumns) -> int:
    """Return what a row of scores takes at least; texts may be empty."""
    return sum(field.type.bit_width // 8 for field in added.fields if is_of_fixed_width(field.type))


def _job(added: AddedColumns, source: Path, options: FileOptions, schema: pa.Schema) -> dict[str, Any]:
    """Return what decides the scores of a row: nothing of who scores it, or how many rows at a time."""
    model, read = added.model, source.stat()
    return {
        "mmensemble": __version__,
        "model": model_stamp(model.path),
        "input": [str(source.resolve()), read.st_size, read.st_mtime_ns],
        "columns": str(schema),
        "keep": list(options.keep),
        "on_error": options.on_error,
        "on_bad_line": options.on_bad_line,
        "settings": added.settings,
        **({"renamed": dict(options.columns)} if options.columns else {}),
    }


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    format_of(source)
    format_of(target)
    if source.resolve() == target.resolve():
        raise ConfigurationError(f"the output {target} is the input; write to another file")
    check_target(target, overwrite)


def check_target(target: Path, overwrite: bool) -> None:
    """Raise ConfigurationError unless the file can be written, and replaced if it is there."""
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} to write to")
    if target.exists() and not overwrite:
        raise ConfigurationError(f"{target} exists; choose another name, or replace it with overwrite (--overwrite)")


def check_columns(source: str, names: list[str], wanted: list[str]) -> None:
    """Raise DataError unless each column wanted is there, once; `source` is what messages call the rows."""
    for column in wanted:
        if names.count(column) != 1:
            what = "no such column" if column not in names else "more than one such column"
            raise DataError(f"there is {what} in {source}; its columns are {names}", column=column)


def output_schema(source: pa.Schema, keep: Sequence[str], added: AddedColumns) -> pa.Schema:
    """Return the columns of the output: those of `keep`, what is added, and ``error``."""
    import pyarrow as pa

    new = [*added.fields, pa.field("error", pa.string())]
    schema = pa.schema([*(pa.field(name, kept_type(source.field(name).type)) for name in keep), *new])
    for name in keep:
        if schema.names.count(name) > 1:
            raise ConfigurationError(
                f"the kept column {name!r} would stand in the output twice; what is added is "
                f"{[field.name for field in new]}"
            )
    return schema


def windows_of(
    added: AddedColumns,
    reader: Rows,
    keep: Sequence[str],
    n_done: int,
    drawn: Mapping[str, Any],
    tally: Tally | None = None,
) -> Generator[tuple[list[pa.ChunkedArray], ScoredWindow]]:
    """Run a model over rows behind the first `n_done` ones; give what is kept of each window with its scores.

    The tally counts what is read, of all rows.
    """
    model = added.model
    wanted = list(dict.fromkeys([*model.manifest.columns, *keep]))
    # Tables are read ahead of their scores; what is kept of them waits here.
    waiting: deque[tuple[list[pa.ChunkedArray], list[str | None] | None]] = deque()

    def frames() -> Iterator[pa.Table]:
        to_skip = n_done
        tables = reader.tables(wanted, model.window_size)
        for whole in tables if tally is None else tally.stages.each("read", tables):
            if tally is not None:
                tally.add_inputs(_readable(whole))
            table = whole.slice(to_skip)
            to_skip = max(0, to_skip - whole.num_rows)
            if whole.num_rows and not table.num_rows:
                continue
            lines = table[BAD_LINE] if BAD_LINE in table.column_names else None
            messages = None if lines is None or lines.null_count == len(lines) else lines.to_pylist()
            waiting.append(([table[name] for name in keep], messages))
            yield table.select(model.manifest.columns)

    with closing(added.windows(frames(), n_done, drawn, None if tally is None else tally.stages)) as windows:
        for window in windows:
            kept, messages = waiting.popleft()
            for row, message in enumerate(messages or []):
                if message is not None:
                    window.spoil(row, DataError(message))
            yield kept, window


def _readable(table: pa.Table) -> pa.Table:
    """Return the rows whose line could be read."""
    if BAD_LINE not in table.column_names or table[BAD_LINE].null_count == table.num_rows:
        return table
    return table.filter(table[BAD_LINE].is_null())


def output_table(kept: list[pa.ChunkedArray], window: ScoredWindow, added: AddedColumns, schema: pa.Schema) -> pa.Table:
    """Put what is kept and what is added side by side."""
    import pyarrow as pa

    errors = pa.array([None if error is None else str(error) for error in window.errors], pa.string())
    columns = [column.cast(field.type) for column, field in zip(kept, schema, strict=False)]
    return pa.Table.from_arrays([*columns, *added.cells(window), errors], schema=schema)
