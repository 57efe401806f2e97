"""Files that appear whole or not at all. Imports pyarrow on first use only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.formats import Sink, format_of, known_formats

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableWriter", "check_room", "check_writable", "open_writer", "put_in_place", "write_text"]

# What is written at once becomes a row group of a Parquet file: large enough to compress and to skim.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 64 * 2**20


class TableWriter:
    """Collects tables and passes them on in pieces of a good size.

    Parameters
    ----------
    sink : Sink
        The file.
    """

    def __init__(self, sink: Sink) -> None:
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
        The file, whose suffix names its format; an existing one is replaced.
    schema : pyarrow.Schema
        Of all tables that will be written; see `check_writable`.
    """
    part = _partial(path)
    try:
        with format_of(path).sink(part, schema) as sink:
            writer = TableWriter(sink)
            yield writer
            writer.flush()
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name beside it, and rename it; an existing one is replaced."""
    part = _partial(path)
    try:
        part.write_text(text, encoding="utf-8")
        put_in_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.part")


def check_room(path: Path, n_bytes: int) -> None:
    """Check, before there is anything to write, that a file can be written under this name, and has room.

    Parameters
    ----------
    path : Path
    n_bytes : int
        What it will take at least.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name a file in it")
    trial = _partial(path)
    try:
        trial.touch(exist_ok=False)
        trial.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    free = shutil.disk_usage(path.parent).free
    if free < n_bytes:
        raise ConfigurationError(
            f"{path} needs some {n_bytes // 10**6:,} MB, and there are {free // 10**6:,} MB left; write elsewhere"
        )


def put_in_place(written: Path, path: Path) -> None:
    """Give a file that is complete its name; what had it before is replaced.

    The bytes are on the disk before the name is, so that a power cut leaves no empty file under it.
    """
    with written.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(written, path)


def check_writable(path: Path, schema: pa.Schema) -> None:
    """Check that a file's format, which the suffix names, can hold the columns.

    Raises
    ------
    ConfigurationError
        If it cannot.
    """
    file_format = format_of(path)
    for column in schema:
        if not file_format.holds(column):
            others = " or ".join(other.name for other in known_formats() if other.holds(column))
            raise ConfigurationError(
                f"column {column.name!r} of type {column.type} has no {file_format.name} form; write {others}, or do "
                "not keep it"
            )
