"""Parquet, CSV and JSON Lines files as streams of Arrow tables. Imports pyarrow, and that on first use only."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mmensemble.exceptions import ConfigurationError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CsvReader", "JsonLinesReader", "ParquetReader", "Reader", "file_format", "open_reader"]

_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
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

    def __init__(self, path: Path) -> None: ...

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows at a time, at the end those that are left."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def file_format(path: Path) -> str:
    """Return ``"parquet"``, ``"csv"`` or ``"jsonl"``, by the suffix.

    Raises
    ------
    ConfigurationError
        If the suffix is another.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(
            f"{path} is neither Parquet, CSV nor JSON Lines; its suffix must be one of {sorted(_SUFFIXES)}"
        )
    return _SUFFIXES[path.suffix.lower()]


def open_reader(path: Path) -> Reader:
    """Open a Parquet, CSV or JSON Lines file.

    Raises
    ------
    ConfigurationError
        If the suffix is none of ``.parquet``, ``.pq``, ``.csv``, ``.jsonl`` and ``.ndjson``.
    DataError
        If the file is damaged.
    FileNotFoundError
        If there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    readers: dict[str, type[Reader]] = {"parquet": ParquetReader, "csv": CsvReader, "jsonl": JsonLinesReader}
    return readers[file_format(path)](path)


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
        """Yield the columns wanted, `size` rows at a time."""
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
        """Yield the columns wanted, `size` rows at a time."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        # With threads, which are no faster here, pyarrow does not number the row that it cannot read.
        read = pa_csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False)
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
            # What a block leaves over goes to the next one, so that the rows alone decide what is scored together.
            left = blocks.schema.empty_table()
            for block in blocks:
                table = pa.concat_tables([left, pa.Table.from_batches([block])]).combine_chunks()
                whole = table.num_rows - table.num_rows % size
                for start in range(0, whole, size):
                    yield table.slice(start, size)
                left = table.slice(whole)
            if left.num_rows:
                yield left

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""


class JsonLinesReader:
    """A UTF-8 file of JSON objects, one on each line; empty lines count for nothing.

    The columns are the keys of all objects, and a missing key is a missing cell. A column of nothing but truth values,
    whole numbers, or numbers is one of these; any other is read as text, and a cell of it that is no text is the text
    of its JSON: so it spoils its row at most, and not the file.

    Parameters
    ----------
    path : Path
        The file; it is read once to learn the columns.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path = path
        kinds: dict[str, set[type]] = {}
        self.n_rows: int | None = 0
        with closing(self._objects()) as objects:
            for row in objects:
                self.n_rows += 1
                for name, cell in row.items():
                    kinds.setdefault(name, set()).add(_kind(cell))
        types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        with _reading(path):
            self.schema: pa.Schema = pa.schema(
                [(name, types.get(_common(found), pa.string())) for name, found in kinds.items()]
            )

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows at a time."""
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        converters: dict[Any, Callable[[Any], Any]] = {pa.string(): _text, pa.float64(): float}
        with _reading(self.path), closing(self._objects()) as objects:
            while rows := list(islice(objects, size)):
                cells = {field.name: _cells(rows, field.name, converters.get(field.type)) for field in schema}
                yield pa.table(cells, schema=schema)

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""

    def _objects(self) -> Generator[dict[str, Any]]:
        with _reading(self.path), open(self.path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise DataError(f"{self.path} cannot be read: line {number} is no JSON: {error}") from error
                except RecursionError as error:
                    raise DataError(f"{self.path} cannot be read: line {number} is nested too deeply") from error
                if not isinstance(row, dict):
                    raise DataError(f"{self.path} cannot be read: line {number} is no JSON object")
                yield row


def _kind(cell: Any) -> type:
    whole_number = type(cell) is int and -(2**63) <= cell < 2**63
    return type(cell) if whole_number or isinstance(cell, (bool, float, type(None))) else str


def _common(kinds: set[type]) -> type:
    """Return the one kind that holds cells of all these."""
    kinds = kinds - {type(None)}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else str


def _cells(rows: list[dict[str, Any]], name: str, convert: Callable[[Any], Any] | None) -> list[Any]:
    cells = [row.get(name) for row in rows]
    return cells if convert is None else [None if cell is None else convert(cell) for cell in cells]


def _text(cell: Any) -> str:
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    # JSON can escape half a character, which no other format can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError, csv.Error, RecursionError) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeError) or "UTF8" in str(error) else ""
        raise DataError(f"{path} cannot be read: {error}{hint}") from error
