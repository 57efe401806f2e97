"""Parquet, CSV and JSON Lines files that appear whole or not at all. Imports pyarrow, and that on first use only."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.readers import file_format

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
    sink : pyarrow.parquet.ParquetWriter, pyarrow.csv.CSVWriter or the like
        The file, with the method ``write_table``.
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
    if file_format(path) == "jsonl":
        return _JsonLinesSink(part)
    from pyarrow import csv as pa_csv

    return pa_csv.CSVWriter(part, schema)


class _JsonLinesSink:
    """Writes each row as a JSON object; a number that is not finite, which JSON lacks, as null."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            cells = {
                name: None if isinstance(cell, float) and not isfinite(cell) else cell for name, cell in row.items()
            }
            self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def check_writable(path: Path, schema: pa.Schema) -> None:
    """Check that a file's format, which the suffix names, can hold the columns.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    if file_format(path) == "parquet":
        return
    name, writes = ("CSV", _has_csv_form) if file_format(path) == "csv" else ("JSON", _has_json_form)
    for column in schema:
        if not writes(column):
            raise ConfigurationError(
                f"column {column.name!r} of type {column.type} has no {name} form; write Parquet, or do not keep it"
            )


def _has_csv_form(column: pa.Field) -> bool:
    import pyarrow as pa
    from pyarrow import csv as pa_csv

    try:
        pa_csv.write_csv(pa.schema([column]).empty_table(), pa.BufferOutputStream())
    except pa.ArrowException:
        return False
    return True


def _has_json_form(column: pa.Field) -> bool:
    from pyarrow import types

    kinds = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    )
    return any(is_kind(column.type) for is_kind in kinds)
