"""Scores as Parquet and CSV files that appear whole or not at all. Imports pyarrow, and that on first use only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mmensemble.exceptions import ConfigurationError
from mmensemble.scoring.readers import file_format

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableWriter", "check_writable", "open_writer"]

# What is written at once becomes a row group of the Parquet file: large enough to compress and to skim.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 64 * 2**20


class TableWriter:
    """Collects tables and passes them on in pieces of a good size.

    Parameters
    ----------
    sink : pyarrow.parquet.ParquetWriter or pyarrow.csv.CSVWriter
        The file.
    """

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._tables: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Take a table; it reaches the file with its piece."""
        self._tables.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        import pyarrow as pa

        if self._tables:
            self._sink.write_table(pa.concat_tables(self._tables))
        self._tables, self._rows, self._bytes = [], 0, 0


@contextmanager
def open_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Write a file under a temporary name beside it, and rename it when the block ends well.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    schema : pyarrow.Schema
        Of all tables that will be written; see `check_writable`.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with _sink(path, part, schema) as sink:
            writer = TableWriter(sink)
            yield writer
            writer.flush()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _sink(path: Path, part: Path, schema: pa.Schema) -> Any:
    if file_format(path) == "parquet":
        import pyarrow.parquet as pq

        return pq.ParquetWriter(part, schema)
    from pyarrow import csv as pa_csv

    return pa_csv.CSVWriter(part, schema)


def check_writable(path: Path, schema: pa.Schema) -> None:
    """Check that a file's format, which the suffix names, can hold the columns.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    if file_format(path) == "parquet":
        return
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    for column in schema:
        try:
            pa_csv.write_csv(pa.schema([column]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise ConfigurationError(
                f"column {column.name!r} of type {column.type} has no CSV form; write Parquet, or do not keep it"
            ) from error
