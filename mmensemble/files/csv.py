"""CSV files. Imports pyarrow on first use only."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mmensemble.files.formats import FileFormat, Sink
from mmensemble.files.lines import OnBadLine, open_quote, with_bad_cells, with_bad_lines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["CsvFormat", "CsvReader", "TsvFormat"]

# As pyarrow counts, in which the header is the first row and empty lines are none.
_FIRST_ROW = 2
# What may stand between cells in place of a comma, as spreadsheets write where that is in numbers.
_OTHERS = (";", "\t", "|")
_LINES_LOOKED_AT = 20
_AGREEING = 0.8
# Characters of a bad line that its message quotes.
_SHOWN = 100
# A row, with the line breaks in its quotes, must fit into one block.
_BLOCK = 8 * 2**20


class CsvFormat(FileFormat):
    """UTF-8 CSV with a header; see `CsvReader`. What stands between cells may be another character, see `found_in`."""

    name: ClassVar[str] = "CSV"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    delimiter: ClassVar[str] = ","

    def open(self, path: Path) -> CsvReader:
        return CsvReader(path, self.found_in(path))

    def open_leniently(self, path: Path, on_bad_line: OnBadLine) -> CsvReader:
        return CsvReader(path, self.found_in(path), on_bad_line)

    def found_in(self, path: Path) -> str:
        """Return what stands between cells: the format's own character, unless it is surely another one.

        That is where the header is one cell by the format's own character and several by a semicolon, a tab or a bar,
        and nearly all of the lines that follow have as many.
        """
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = list(islice(file, _LINES_LOOKED_AT))
        for delimiter in (self.delimiter, *_OTHERS):
            with suppress(csv.Error):
                counts = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
                counts = counts[:-1] if len(lines) == _LINES_LOOKED_AT else counts  # the last one may be cut off
                agree = sum(count == counts[0] for count in counts)
                if counts and counts[0] > 1 and (delimiter == self.delimiter or agree >= _AGREEING * len(counts)):
                    return delimiter
        return self.delimiter

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        from pyarrow import csv as pa_csv

        sink: AbstractContextManager[Sink] = pa_csv.CSVWriter(
            path, schema, write_options=pa_csv.WriteOptions(delimiter=self.delimiter)
        )
        return sink

    def holds(self, column: pa.Field) -> bool:
        import pyarrow as pa
        from pyarrow import csv as pa_csv
        from pyarrow import types

        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        # pyarrow writes bytes that happen to be text.
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            return False
        try:
            empty = pa.table([pa.nulls(1, column.type)], names=[column.name])
            pa_csv.write_csv(empty, pa.BufferOutputStream())
        except pa.ArrowException:
            return False
        return True

    def read_frame(self, path: Path) -> pd.DataFrame:
        import pandas as pd

        frame = super().read_frame(path)  # all cells are text
        for column in frame.columns[~frame.columns.duplicated(keep=False)]:
            with suppress(ValueError, TypeError):  # it holds something else than numbers
                frame[column] = pd.to_numeric(frame[column])
        return frame


class TsvFormat(CsvFormat):
    """UTF-8 CSV with tabs in place of commas."""

    name: ClassVar[str] = "TSV"
    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    delimiter: ClassVar[str] = "\t"


class CsvReader:
    """A UTF-8 CSV file with a header.

    Every cell is read as text: the preprocessors judge the cells that they take, so one that is not a number spoils
    its row and not the file, and what is only copied stays as it was written. An empty cell is missing; ``""`` is an
    empty text, and so are ``NA`` and ``null`` the texts that they are.

    Parameters
    ----------
    path : Path
        The file.
    delimiter : str, default=","
        What stands between two cells.
    on_bad_line : {"error", "skip", "raise"}, default="raise"
        What becomes of a row with too many or too few cells, or one that is not UTF-8; see `FileFormat.open_leniently`.

    Attributes
    ----------
    n_skipped : int
        Rows dropped so far.
    """

    def __init__(self, path: Path, delimiter: str = ",", on_bad_line: OnBadLine = "raise") -> None:
        import pyarrow as pa

        self.path = path
        self.delimiter = delimiter
        self.on_bad_line = on_bad_line
        self.n_skipped = 0
        # What follows the header may be anything.
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            try:
                names = next(csv.reader(file, delimiter=delimiter), [])
            except csv.Error as error:
                raise ValueError(_why_no_header(path, delimiter) or str(error)) from error
        if any("\n" in name for name in names) and (reason := _why_no_header(path, delimiter)):
            raise ValueError(reason)
        if any("\udc80" <= character <= "\udcff" for name in names for character in name):
            raise ValueError("its header is not UTF-8; save it as UTF-8")
        if not names:
            raise ValueError("it has no header")
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in names])
        self.n_rows: int | None = None

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, as many rows at a time as stand in a block of 8 MiB."""
        import pyarrow as pa

        lines = _Lines(self.on_bad_line, list(columns))
        tail = b""
        try:
            for block in self._blocks(columns, lines):
                tail = _last_cell(block, self.schema.names[-1])
                yield lines.read(block.select(list(columns)))
        except pa.ArrowInvalid as error:
            line = None if "UTF8" in str(error) else open_quote(self.path, self.delimiter)
            if line is None:
                raise
            raise ValueError(_open_quote_message(line)) from error
        finally:
            self.n_skipped = lines.n_skipped
        if lines.left:
            yield lines.read(pa.schema([(name, pa.binary()) for name in columns]).empty_table(), end=True)
            self.n_skipped = lines.n_skipped
        # Nothing but the last cell of the file can be in a quote that is open, and it then holds the lines that follow.
        if any(break_ in cell for cell in (tail, lines.last) for break_ in (b"\n", b"\r")) or not self._ends_a_line():
            line = open_quote(self.path, self.delimiter)
            if line is not None:
                raise ValueError(_open_quote_message(line))

    def _blocks(self, columns: Sequence[str], lines: _Lines) -> Iterator[pa.Table]:
        """Yield the columns wanted and the last one, as bytes."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        # With threads, which are no faster here, pyarrow does not number the row that it cannot read.
        read = pa_csv.ReadOptions(block_size=_BLOCK, use_threads=False)
        # In a file of one column an empty line is an empty cell.
        parse = pa_csv.ParseOptions(
            delimiter=self.delimiter,
            newlines_in_values=True,
            ignore_empty_lines=len(self.schema.names) > 1,
            invalid_row_handler=None if self.on_bad_line == "raise" else lines.note,
        )
        names = list(dict.fromkeys([*columns, self.schema.names[-1]]))
        convert = pa_csv.ConvertOptions(
            include_columns=names,
            column_types={name: pa.binary() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with pa_csv.open_csv(self.path, read, parse, convert) as blocks:
            for block in blocks:
                yield pa.Table.from_batches([block])

    def _ends_a_line(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() in b"\r\n"

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""


class _Lines:
    """Puts the rows that pyarrow leaves out back into their places, or counts them."""

    def __init__(self, on_bad_line: OnBadLine, columns: list[str]) -> None:
        self.on_bad_line = on_bad_line
        self.columns = columns
        self.n_skipped = 0
        self.left: deque[tuple[int, str]] = deque()
        self.last = b""
        self._next = _FIRST_ROW

    def note(self, row: Any) -> str:
        """Take a row that has not the right number of cells; pyarrow's handler of invalid rows."""
        self.last = row.text.encode("utf-8", "replace") if isinstance(row.text, str) else bytes(row.text)
        found, expected = row.actual_columns, row.expected_columns
        self.left.append((row.number, f"the line has {found} cells in place of {expected}: {row.text[:_SHOWN]}"))
        return "skip"

    def read(self, block: pa.Table, *, end: bool = False) -> pa.Table:
        """Return a block as text, with its bad rows, or without them."""
        import pyarrow as pa

        if self.on_bad_line == "raise":
            return block.cast(pa.schema([(name, pa.string()) for name in self.columns]))
        table, messages = with_bad_cells(block)
        if self.on_bad_line == "skip":
            self.n_skipped += len(self.left) + len(messages)
            self.left.clear()
            if not messages:
                return table
            return table.take([row for row in range(table.num_rows) if row not in messages])
        places: list[int | None] = []
        says: list[str | None] = []
        rows = iter(range(table.num_rows))
        while True:
            if self.left and self.left[0][0] == self._next:
                places.append(None)
                says.append(self.left.popleft()[1])
            elif (row := next(rows, None)) is not None:
                places.append(row)
                says.append(messages.get(row))
            else:
                break
            self._next += 1
        if len(places) > table.num_rows:
            table = table.take(pa.array(places, pa.int64()))
        return with_bad_lines(table, says if any(says) else None)


def _last_cell(block: pa.Table, column: str) -> bytes:
    """Return the last cell of the file's last column."""
    return (block.column(block.column_names.index(column))[-1].as_py() or b"") if block.num_rows else b""


def _why_no_header(path: Path, delimiter: str) -> str | None:
    """Say that a quote in the header, or in what it swallows, is never closed; None where all are."""
    line = open_quote(path, delimiter)
    return None if line is None else _open_quote_message(line)


def _open_quote_message(line: int) -> str:
    return f"the quote that opens in line {line} is never closed; close it, or write it twice in a cell in quotes"
