"""`BatchScorer`: a model as a function of Arrow tables, for engines that carry functions to their workers."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmensemble.cores import granted_cores
from mmensemble.exceptions import ConfigurationError, MissingDependencyError
from mmensemble.files.places import is_uri
from mmensemble.scoring.columns import ScoreColumns, TopColumns
from mmensemble.scoring.engines.model_cache import local_model
from mmensemble.scoring.file_job import OnError, check_columns, output_schema, output_table, windows_of
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import Device

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BatchScorer"]


class BatchScorer:
    """Score Arrow tables with a model file, anywhere: what Ray, Spark and others call on their workers.

    It is pickled as its parameters, so in a few hundred bytes, unless the model comes as bytes. The model is opened
    where the first rows arrive. A bad row is reported in the column ``error`` and never fails its table.

    Parameters
    ----------
    model : str, path-like or bytes
        A model file: a path that every worker sees; a URI of a file system that pyarrow or fsspec knows, whose file is
        then kept in ``~/.cache/mmensemble/models`` (or ``$MMENSEMBLE_DATA/models``) of each machine; or what the file
        holds, of a model without weights beside it.
    keep : sequence of str, default=()
        Columns to copy.
    top_k : int, default=None
        In place of a probability for each class, the so many most probable ones: ``top_1``, ``top_1_probability``, ….
    on_error : {"column", "missing", "raise"}, default="column"
        Whether a row that cannot be read is reported in the column ``error``, or ends the work; its number is that in
        the table, or among the batches of `iterate`.
    device, batch_size
        See `OnnxPredictor`.
    n_threads : int, default=None
        Threads that score; None takes the CPUs that Ray (``num_cpus``) or Spark (``spark.task.cpus``) gave the task,
        and elsewhere all usable cores.

    Raises
    ------
    ConfigurationError
        If a parameter has a value that it cannot have.

    Examples
    --------
    >>> from mmensemble import BatchScorer
    >>> scorer = BatchScorer("model.onnx", keep=["id"])
    >>> scorer(table)  # doctest: +SKIP
    pyarrow.Table
    id: int64
    prediction: string
    probability_apple: float
    probability_pear: float
    error: string
    """

    __module__ = "mmensemble"

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        keep: Sequence[str] = (),
        top_k: int | None = None,
        on_error: OnError = "column",
        device: Device = "auto",
        batch_size: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        # Workers have working directories of their own.
        self.model = model if isinstance(model, bytes) or is_uri(os.fspath(model)) else os.path.abspath(model)
        self.keep = [keep] if isinstance(keep, str) else list(keep)
        self.top_k = top_k
        self.on_error = on_error
        self.device = device
        self.batch_size = batch_size
        self.n_threads = n_threads
        if on_error not in ("column", "missing", "raise"):
            raise ConfigurationError(f"on_error must be 'column', 'missing' or 'raise', not {on_error!r}")
        if top_k is not None and top_k < 1:
            raise ConfigurationError(f"top_k must be at least 1, not {top_k!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "added"}

    def __repr__(self) -> str:
        model = f"<{len(self.model)} bytes>" if isinstance(self.model, bytes) else repr(self.model)
        return f"BatchScorer({model}, keep={self.keep}, device={self.device!r})"

    def __call__(self, table: pa.Table) -> pa.Table:
        """Score the rows of a table.

        Parameters
        ----------
        table : pyarrow.Table or RecordBatch
            With the columns that the model reads and those of `keep`; others are ignored.

        Returns
        -------
        pyarrow.Table
            The columns of `score_file`: those of `keep`, ``prediction``, ``probability_<class>`` for each class, and
            ``error``.

        Raises
        ------
        ConfigurationError
            If it is no table, or the model writes texts.
        DataError
            If a column is missing, or, with ``on_error="raise"``, at the first bad row.
        DeviceError, FileNotFoundError, ModelFileError
            If the model cannot be opened here.
        """
        import pyarrow as pa

        scored = list(self._tables([table]))
        return pa.concat_tables(scored) if scored else self.schema(table.schema).empty_table()

    def iterate(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Score a stream of record batches, in order; the next ones are read while the graph runs.

        Parameters
        ----------
        batches : iterable of pyarrow.RecordBatch or Table

        Yields
        ------
        pyarrow.RecordBatch
            All rows, not necessarily cut as the input is.

        Raises
        ------
        ConfigurationError, DataError, DeviceError, FileNotFoundError, ModelFileError
            As for a table.
        """
        for table in self._tables(batches):
            yield from table.to_batches()

    def schema(self, input_schema: pa.Schema) -> pa.Schema:
        """Return the columns of the output for those of the input."""
        added = self.added if "added" in self.__dict__ or self.device in ("auto", "cpu") else self._on_cpu()
        check_columns("the input", input_schema.names, self.keep)
        return output_schema(input_schema, self.keep, added)

    def spark_schema(self, input_schema: Any) -> Any:
        """Return the columns of the output for those of a Spark frame, as ``DataFrame.mapInArrow`` wants them.

        Parameters
        ----------
        input_schema : pyspark.sql.types.StructType
            The frame's ``schema``.

        Returns
        -------
        pyspark.sql.types.StructType
        """
        try:
            from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
        except ImportError as error:
            raise MissingDependencyError("pyspark", "spark") from error
        return from_arrow_schema(self.schema(to_arrow_schema(input_schema)))

    @cached_property
    def added(self) -> ScoreColumns:
        """The open model, and the columns that it adds."""
        return self._opened(self.device, self.batch_size, self.n_threads or granted_cores())

    def _on_cpu(self) -> ScoreColumns:
        """Open the model for what it says of itself: who asks for the columns need not have the workers' GPU."""
        return self._opened("cpu", None, 1)

    def _opened(self, device: Device, batch_size: int | None, n_threads: int) -> ScoreColumns:
        path = local_model(self.model)
        read = path.stat()
        model = _open(path, (read.st_size, read.st_mtime_ns), device, batch_size, n_threads)
        return self.columns_of(model)

    def columns_of(self, model: OnnxPredictor) -> ScoreColumns:
        """Return what an open model adds to the rows."""
        as_missing = self.on_error == "missing"
        if self.top_k is None:
            return ScoreColumns(model, bad_as_missing=as_missing)
        return TopColumns(model, self.top_k, bad_as_missing=as_missing)

    def _tables(self, tables: Iterable[Any]) -> Generator[pa.Table]:
        import pyarrow as pa

        rows, start = _Tables(tables), 0
        with closing(windows_of(self.added, rows, self.keep, 0, {})) as windows:
            for kept, window in windows:
                if self.on_error == "raise":
                    window.raise_for_errors(start)
                start += len(window.errors)
                kinds = pa.schema([(name, cells.type) for name, cells in zip(self.keep, kept, strict=True)])
                yield output_table(kept, window, self.added, output_schema(kinds, self.keep, self.added))


class _Tables:
    """Tables in memory as `windows_of` reads rows."""

    def __init__(self, tables: Iterable[Any]) -> None:
        self._found = tables

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        import pyarrow as pa

        for found in self._found:
            if not isinstance(found, (pa.Table, pa.RecordBatch)):
                raise ConfigurationError(
                    f"a batch is {type(found).__name__}; it must be a pyarrow.Table: of Ray, batch_format='pyarrow'"
                )
            check_columns("the table", found.schema.names, list(columns))
            table = found if isinstance(found, pa.Table) else pa.Table.from_batches([found])
            table = table.select(list(columns)).combine_chunks()
            for start in range(0, table.num_rows, size):
                yield table.slice(start, size)


@lru_cache(maxsize=1)
def _open(path: Path, stamp: tuple[int, int], device: Device, batch_size: int | None, n_threads: int) -> OnnxPredictor:
    """Open a model once for each process: Spark unpickles its function anew for each task."""
    return OnnxPredictor(path, device=device, batch_size=batch_size, n_threads=n_threads)
