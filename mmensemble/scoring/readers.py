"""Parquet and CSV files as streams of Arrow tables. Imports pyarrow, and that on first use only."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmensemble.exceptions import ConfigurationError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CsvReader", "ParquetReader", "Reader", "file_format", "open_reader"]

_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}
# Without a buffer, pyarrow reads a column's part of a row group, which may be the whole file, at once.
_PARQUET_BUFFER = 2**20
# A CSV row, with the line breaks in its quotes, must fit into one block.
_CSV_BLOCK = 8 * 2**20


class Reader(Protocol):
    """A file of rows.

    Attributes
    ----------
    schema : pyarrow.Schema
        All columns of the file.
    n_rows : int or None
        None where only reading the file would tell.
    """

    schema: pa.Schema
    n_rows: int | None

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, at most `size` rows at a time."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def file_format(path: Path) -> str:
    """Return ``"parquet"`` or ``"csv"``, by the suffix.

    Raises
    ------
    ConfigurationError
        If the suffix is another.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(f"{path} is neither Parquet nor CSV; its suffix must be one of {sorted(_SUFFIXES)}")
    return _SUFFIXES[path.suffix.lower()]


def open_reader(path: Path) -> Reader:
    """Open a Parquet or CSV file.

    Raises
    ------
    ConfigurationError
        If the suffix is none of ``.parquet``, ``.pq`` and ``.csv``.
    DataError
        If the file is damaged.
    FileNotFoundError
        If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return ParquetReader(path) if file_format(path) == "parquet" else CsvReader(path)


class ParquetReader:
    """A Parquet file, read a few pages at a time.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        with _reading(path):
            self._file = pq.ParquetFile(path, buffer_size=_PARQUET_BUFFER, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow
        self.n_rows: int | None = self._file.metadata.num_rows

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, at most `size` rows at a time."""
        import pyarrow as pa

        with _reading(self.path):
            for batch in self._file.iter_batches(batch_size=size, columns=list(columns)):
                # The reader leaves text that is not UTF-8 for whoever takes the cell out.
                batch.validate(full=True)
                yield pa.Table.from_batches([batch]).select(list(columns))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class CsvReader:
    """A UTF-8 CSV file with a header.

    Every cell is read as text: the preprocessors judge the cells that they take, so one that is not a number spoils
    its row and not the file, and what is only copied stays as it was written. An empty cell is missing; ``""`` is an
    empty text, and so are ``NA`` and ``null`` the texts that they are.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        with _reading(path), open(path, newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
        if not names:
            raise DataError(f"{path} cannot be read: it has no header")
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in names])
        self.n_rows: int | None = None

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, at most `size` rows at a time."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        read = pa_csv.ReadOptions(block_size=_CSV_BLOCK)
        # In a file of one column an empty line is an empty cell.
        parse = pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(self.schema.names) > 1)
        convert = pa_csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() for name in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with _reading(self.path), pa_csv.open_csv(self.path, read, parse, convert) as blocks:
            for block in blocks:
                for start in range(0, block.num_rows, size):
                    yield pa.Table.from_batches([block.slice(start, size)])

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
