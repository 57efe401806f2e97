"""A file of rows → a file of scores, or of texts. Imports pyarrow and tqdm, and those on first use only."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmensemble._version import __version__
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.files.parts import Parts
from mmensemble.files.readers import Reader, file_format, open_reader
from mmensemble.files.writers import check_writable, open_writer
from mmensemble.scoring.batching import ScoredWindow
from mmensemble.scoring.columns import AddedColumns, ScoreColumns, TextColumns
from mmensemble.scoring.generation import GenerationSettings
from mmensemble.scoring.manifest import model_stamp
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import Device, ResolvedDevice

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ScoreReport", "generate_file", "score_file"]

OnError = Literal["column", "raise"]


@dataclass(frozen=True)
class ScoreReport:
    """What `score_file` or `generate_file` did.

    Parameters
    ----------
    n_rows : int
        Rows read and written.
    n_errors : int
        Rows among them that could not be scored, or not be written for.
    n_resumed : int
        Rows among them that an earlier, unfinished call had scored.
    seconds : float
        Time taken to read, score and write; the model was open before.
    device : {"cpu", "cuda", "tensorrt"}
        Where the graph ran.
    """

    n_rows: int
    n_errors: int
    n_resumed: int
    seconds: float
    device: ResolvedDevice

    @property
    def rows_per_second(self) -> float:
        """Rows scored per second, without those that were there already."""
        return (self.n_rows - self.n_resumed) / self.seconds if self.seconds > 0 else 0.0


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
    """Score the rows of a Parquet, CSV or JSON Lines file, in order and in constant memory.

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
        line). A CSV cell is missing where it is empty without quotes. Relative image paths start at the working
        directory.
    output : str or path-like
        ``.parquet``, ``.pq``, ``.csv``, ``.jsonl`` or ``.ndjson``.
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
    return _write_file(
        model,
        input,
        output,
        ScoreColumns,
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
        keep=keep,
        on_error=on_error,
        progress=progress,
        overwrite=overwrite,
    )


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
    return _write_file(
        model,
        input,
        output,
        lambda predictor: TextColumns(predictor, settings, fixed_seed=random_state is not None),
        device=device,
        batch_size=batch_size,
        n_threads=n_threads,
        keep=keep,
        on_error=on_error,
        progress=progress,
        overwrite=overwrite,
    )


def _write_file(
    model: str | os.PathLike[str] | OnnxPredictor,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    adding: Callable[[OnnxPredictor], AddedColumns],
    *,
    device: Device,
    batch_size: int | None,
    n_threads: int | None,
    keep: Sequence[str],
    on_error: OnError,
    progress: bool,
    overwrite: bool,
) -> ScoreReport:
    if on_error not in ("column", "raise"):
        raise ConfigurationError(f"on_error must be 'column' or 'raise', not {on_error!r}")
    source, target = Path(input), Path(output)
    _check_paths(source, target, overwrite)
    with closing(open_reader(source)) as reader:
        if not isinstance(model, OnnxPredictor):
            model = OnnxPredictor(model, device=device, batch_size=batch_size, n_threads=n_threads)
        added = adding(model)
        _check_columns(source, reader.schema.names, [*model.manifest.columns, *keep])
        schema = _output_schema(reader.schema, keep, added)
        check_writable(target, schema)
        started = time.perf_counter()
        with Parts(target, schema, _job(added, source, keep, on_error, schema), added.drawn) as parts:
            resumed = parts.n_rows
            try:
                with (
                    closing(_windows(added, reader, keep, resumed, parts.drawn)) as windows,
                    _progress_bar(progress, reader.n_rows, resumed) as advance,
                ):
                    for kept, window in windows:
                        if on_error == "raise":
                            window.raise_for_errors(parts.n_rows)
                        parts.write(_output_table(kept, window, added, schema))
                        advance(len(window.errors))
            except DataError:
                parts.remove()
                raise
            parts.close()
            with open_writer(target, schema) as writer:
                for table in parts.tables():
                    writer.write(table)
            parts.remove()
    return ScoreReport(parts.n_rows, parts.n_errors, resumed, time.perf_counter() - started, model.device)


def _job(
    added: AddedColumns, source: Path, keep: Sequence[str], on_error: OnError, schema: pa.Schema
) -> dict[str, Any]:
    """Return what decides the bytes of the output."""
    model, read = added.model, source.stat()
    return {
        "mmensemble": __version__,
        "model": model_stamp(model.path),
        "input": [str(source.resolve()), read.st_size, read.st_mtime_ns],
        "columns": str(schema),
        "keep": list(keep),
        "on_error": on_error,
        "settings": added.settings,
        "device": model.device,
        "batch_size": model.batch_size,
        "n_threads": model.n_threads,
    }


def _check_paths(source: Path, target: Path, overwrite: bool) -> None:
    file_format(source)
    file_format(target)
    if source.resolve() == target.resolve():
        raise ConfigurationError(f"the output {target} is the input; write to another file")
    if not target.parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} to write to")
    if target.exists() and not overwrite:
        raise ConfigurationError(f"{target} exists; choose another name, or replace it with overwrite (--overwrite)")


def _check_columns(source: Path, names: list[str], wanted: list[str]) -> None:
    for column in wanted:
        if names.count(column) != 1:
            what = "no such column" if column not in names else "more than one such column"
            raise DataError(f"there is {what} in {source}; its columns are {names}", column=column)


def _output_schema(source: pa.Schema, keep: Sequence[str], added: AddedColumns) -> pa.Schema:
    import pyarrow as pa

    new = [*added.fields, pa.field("error", pa.string())]
    schema = pa.schema([*(pa.field(name, source.field(name).type) for name in keep), *new])
    for name in keep:
        if schema.names.count(name) > 1:
            raise ConfigurationError(
                f"the kept column {name!r} would stand in the output twice; what is added is "
                f"{[field.name for field in new]}"
            )
    return schema


def _windows(
    added: AddedColumns, reader: Reader, keep: Sequence[str], n_done: int, drawn: Mapping[str, Any]
) -> Generator[tuple[list[pa.ChunkedArray], ScoredWindow]]:
    model = added.model
    wanted = list(dict.fromkeys([*model.manifest.columns, *keep]))
    # Tables are read ahead of their scores; what is kept of them waits here.
    waiting: deque[list[pa.ChunkedArray]] = deque()

    def frames() -> Iterator[pa.Table]:
        to_skip = n_done
        for whole in reader.tables(wanted, model.window_size):
            table = whole.slice(to_skip)
            to_skip = max(0, to_skip - whole.num_rows)
            if whole.num_rows and not table.num_rows:
                continue
            waiting.append([table[name] for name in keep])
            yield table.select(model.manifest.columns)

    with closing(added.windows(frames(), n_done, drawn)) as windows:
        for window in windows:
            yield waiting.popleft(), window


def _output_table(
    kept: list[pa.ChunkedArray], window: ScoredWindow, added: AddedColumns, schema: pa.Schema
) -> pa.Table:
    import pyarrow as pa

    errors = pa.array([None if error is None else str(error) for error in window.errors], pa.string())
    return pa.Table.from_arrays([*kept, *added.cells(window), errors], schema=schema)


@contextmanager
def _progress_bar(show: bool, total: int | None, initial: int) -> Iterator[Callable[[int], object]]:
    if not show:
        yield lambda n: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=initial, unit=" rows", file=sys.stderr) as bar:
        yield bar.update
