"""Arrow's own files. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mmensemble.files.formats import FileFormat, Sink

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowFormat", "ArrowReader"]


class ArrowFormat(FileFormat):
    """Arrow's IPC file format, also known as Feather, which holds columns of every type."""

    name: ClassVar[str] = "Arrow IPC"
    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather")

    def open(self, path: Path) -> ArrowReader:
        return ArrowReader(path)

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        import pyarrow as pa

        sink: AbstractContextManager[Sink] = pa.ipc.new_file(path, schema)
        return sink


class ArrowReader:
    """An Arrow IPC file, of which one record batch is in memory at a time.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._source = pa.memory_map(str(path))
        try:
            self._file = pa.ipc.open_file(self._source)
        except BaseException:
            self._source.close()
            raise
        self.schema: pa.Schema = self._file.schema
        self.n_rows: int | None = None

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows of a record batch at a time."""
        import pyarrow as pa

        for number in range(self._file.num_record_batches):
            batch = self._file.get_batch(number).select(list(columns))
            # Text that is not UTF-8 is left for whoever takes the cell out.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, size):
                yield pa.Table.from_batches([batch.slice(start, size)])

    def close(self) -> None:
        """Close the file."""
        self._source.close()
