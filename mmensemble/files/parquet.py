"""Parquet files. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmensemble.files.formats import FileFormat, Sink

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ParquetFormat", "ParquetReader"]

# Without a buffer, pyarrow reads a column's part of a row group, which may be the whole file, at once.
_BUFFER = 2**20


class ParquetFormat(FileFormat):
    """Apache Parquet, which holds columns of every type."""

    name: ClassVar[str] = "Parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def open(self, path: Path) -> ParquetReader:
        return ParquetReader(path)

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
    """

    def __init__(self, path: Path | pa.NativeFile, row_groups: range | None = None) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        self.schema: pa.Schema = self._file.schema_arrow
        self.group_rows = [self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)]
        self._row_groups = range(len(self.group_rows)) if row_groups is None else row_groups
        self.n_rows: int | None = sum(self.group_rows[number] for number in self._row_groups)

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows at a time."""
        import pyarrow as pa

        for batch in self._file.iter_batches(size, row_groups=list(self._row_groups), columns=list(columns)):
            # pyarrow leaves text that is not UTF-8 for whoever takes the cell out.
            batch.validate(full=True)
            yield pa.Table.from_batches([batch]).select(list(columns))

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)  # one that came open, too
