"""CSV files. Imports pyarrow on first use only."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmensemble.files.formats import FileFormat, Sink

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["CsvFormat", "CsvReader", "TsvFormat"]

# A row, with the line breaks in its quotes, must fit into one block.
_BLOCK = 8 * 2**20


class CsvFormat(FileFormat):
    """UTF-8 CSV with a header; see `CsvReader`."""

    name: ClassVar[str] = "CSV"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    delimiter: ClassVar[str] = ","

    def open(self, path: Path) -> CsvReader:
        return CsvReader(path, self.delimiter)

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        from pyarrow import csv as pa_csv

        sink: AbstractContextManager[Sink] = pa_csv.CSVWriter(
            path, schema, write_options=pa_csv.WriteOptions(delimiter=self.delimiter)
        )
        return sink

    def holds(self, column: pa.Field) -> bool:
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        try:
            pa_csv.write_csv(pa.schema([column]).empty_table(), pa.BufferOutputStream())
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
    """

    def __init__(self, path: Path, delimiter: str = ",") -> None:
        import pyarrow as pa

        self.path = path
        self.delimiter = delimiter
        with open(path, newline="", encoding="utf-8-sig") as file:
            try:
                names = next(csv.reader(file, delimiter=delimiter), [])
            except csv.Error as error:
                raise ValueError(str(error)) from error
        if not names:
            raise ValueError("it has no header")
        self.schema: pa.Schema = pa.schema([(name, pa.string()) for name in names])
        self.n_rows: int | None = None

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, as many rows at a time as stand in a block of 8 MiB."""
        import pyarrow as pa
        from pyarrow import csv as pa_csv

        # With threads, which are no faster here, pyarrow does not number the row that it cannot read.
        read = pa_csv.ReadOptions(block_size=_BLOCK, use_threads=False)
        # In a file of one column an empty line is an empty cell.
        parse = pa_csv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, ignore_empty_lines=len(self.schema.names) > 1
        )
        convert = pa_csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: pa.string() for name in columns},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        with pa_csv.open_csv(self.path, read, parse, convert) as blocks:
            for block in blocks:
                yield pa.Table.from_batches([block])

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""
