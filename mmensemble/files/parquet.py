"""Parquet files. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmensemble.files.formats import FileFormat, Sink
from mmensemble.files.lines import OnBadLine, with_bad_cells, with_bad_lines

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetFormat", "ParquetReader"]

# Without a buffer, pyarrow reads a column's part of a row group, which may be the whole file, at once.
_BUFFER = 2**20
# Of a batch that is read at once, by what the file says of its row groups.
_BATCH_BYTES = 8 * 2**20


class ParquetFormat(FileFormat):
    """Apache Parquet, which holds columns of every type."""

    name: ClassVar[str] = "Parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def open(self, path: Path) -> ParquetReader:
        return ParquetReader(path)

    def open_leniently(self, path: Path, on_bad_line: OnBadLine) -> ParquetReader:
        return ParquetReader(path, on_bad_line=on_bad_line)

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        import pyarrow.parquet as pq

        sink: AbstractContextManager[Sink] = pq.ParquetWriter(path, schema)
        return sink


class ParquetReader:
    """A Parquet file, read a few pages at a time.

    Parameters
    ----------
    path : Path or pyarrow.NativeFile
        The file, or one that is open.
    row_groups : range, default=None
        Those that are read, by number; None reads all.
    on_bad_line : {"error", "skip", "raise"}, default="raise"
        What becomes of a row with a text that is not UTF-8; see `FileFormat.open_leniently`.

    Attributes
    ----------
    n_skipped : int
        Rows dropped so far.
    """

    def __init__(
        self, path: Path | pa.NativeFile, row_groups: range | None = None, on_bad_line: OnBadLine = "raise"
    ) -> None:
        import pyarrow.parquet as pq

        self.on_bad_line = on_bad_line
        self.n_skipped = 0

        self._file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow
        self.group_rows = [self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)]
        self._row_groups = range(len(self.group_rows)) if row_groups is None else row_groups
        self.n_rows: int | None = sum(self.group_rows[number] for number in self._row_groups)

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows at a time."""
        import pyarrow as pa

        for batch in self._batches(list(columns), size):
            table, messages = pa.Table.from_batches([batch]).select(list(columns)), dict[int, str]()
            try:
                # pyarrow leaves text that is not UTF-8 for whoever takes the cell out.
                table.validate(full=True)
            except pa.ArrowInvalid:
                if self.on_bad_line == "raise":
                    raise
                table, messages = self._mended(table)
            if self.on_bad_line == "error":
                table = with_bad_lines(
                    table, [messages.get(row) for row in range(table.num_rows)] if messages else None
                )
            elif messages:
                self.n_skipped += len(messages)
                table = table.take([row for row in range(table.num_rows) if row not in messages])
            yield table

    def _batches(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Yield batches of `size` rows, and fewer of row groups whose rows are large."""
        metadata = self._file.metadata
        for number in self._row_groups:
            group = metadata.row_group(number)
            chunks = (group.column(i) for i in range(group.num_columns))
            wanted = sum(c.total_uncompressed_size for c in chunks if _is_of(c.path_in_schema, columns))
            row_bytes = wanted / max(1, group.num_rows)
            rows = max(1, min(size, int(_BATCH_BYTES / max(1, row_bytes))))
            yield from self._file.iter_batches(batch_size=rows, row_groups=[number], columns=columns)

    def _mended(self, table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
        from pyarrow import types

        messages: dict[int, str] = {}
        for number, field in enumerate(table.schema):
            if types.is_string(field.type) or types.is_large_string(field.type):
                column, found = with_bad_cells(table.select([number]))
                messages = {**found, **messages}
                table = table.set_column(number, field, column.column(0))
        table.validate(full=True)
        return table, messages

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)  # one that came open, too


def _is_of(path: str, columns: Sequence[str]) -> bool:
    """Tell whether a leaf belongs to one of some columns."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)
