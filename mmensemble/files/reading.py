"""Files of rows as streams of Arrow tables, whatever their format. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from mmensemble.exceptions import DataError
from mmensemble.files.formats import Reader, format_of
from mmensemble.files.lines import BAD_LINE, OnBadLine, with_bad_lines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["TableReader", "naming", "opened", "read_frame"]

# What a table takes at most, unless one row takes more.
_MOST_BYTES = 16 * 2**20


class TableReader:
    """A file of rows; a context at whose end it is closed.

    Parameters
    ----------
    path : Path
        The file, whose suffix names its format.
    on_bad_line : {"error", "skip", "raise"}, default="raise"
        What becomes of a line that cannot be read, or a cell that is not UTF-8: with ``"error"`` its row stays, and the
        tables have one more column, `BAD_LINE`, that says of each row what is wrong with it, or null; with ``"skip"``
        the row is dropped; with ``"raise"`` there is a `DataError`.
    open : callable, default=None
        Opens it in another way than its format does; messages call it `path` then, which may be a URI.

    Attributes
    ----------
    schema : pyarrow.Schema
        All columns of the file.
    n_rows : int or None
        None where only reading the file would tell.

    Raises
    ------
    ConfigurationError
        If no format has the suffix.
    DataError
        If the file is damaged.
    FileNotFoundError
        If there is no such file.
    """

    def __init__(
        self, path: Path | str, on_bad_line: OnBadLine = "raise", open: Callable[[], Reader] | None = None
    ) -> None:
        self.path = path
        self.on_bad_line = on_bad_line
        if open is None:
            path = Path(path)
            open = partial(opened, path, on_bad_line)
            format_of(path)
            if not path.is_file():
                raise FileNotFoundError(f"there is no file {path}")
        with naming(path):
            self._reader = open()
        self.schema = self._reader.schema
        self.n_rows = self._reader.n_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._reader.close()

    @property
    def n_skipped(self) -> int:
        """Rows dropped so far."""
        return int(getattr(self._reader, "n_skipped", 0))

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns, `size` rows at a time, or fewer that take 16 MiB; at the end those that are left.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        with naming(self.path):
            yield from _cut(self._noted(self._reader.tables(columns, size)), size)

    def _noted(self, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Add the column of what is wrong where a format knows of no bad lines."""
        for table in tables:
            wanted = self.on_bad_line == "error" and BAD_LINE not in table.column_names
            yield with_bad_lines(table) if wanted else table


def opened(path: Path, on_bad_line: OnBadLine) -> Reader:
    """Open a file by its format."""
    file_format = format_of(path)
    return file_format.open(path) if on_bad_line == "raise" else file_format.open_leniently(path, on_bad_line)


open_reader = TableReader  # its name in version 0.1.0


def read_frame(path: Path) -> pd.DataFrame:
    """Read a whole file for an estimator, with numbers as numbers.

    Raises
    ------
    ConfigurationError
        If no format has the suffix.
    DataError
        If the file is damaged.
    """
    file_format = format_of(path)
    with naming(path):
        return file_format.read_frame(path)


def _cut(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Cut tables anew, so that the rows alone, and not how they lie in a file, decide what is scored together.

    A piece has `size` rows, or as many fewer as take 16 MiB, but one at least.
    """
    import pyarrow as pa

    left: list[pa.Table] = []
    for found in tables:
        table = pa.concat_tables([*left, found])
        # Where all rows together are small enough, there is no need to look at each of them.
        ends = np.cumsum(_row_bytes(table)) if table.nbytes > _MOST_BYTES else None
        start = 0
        while start < table.num_rows:
            stop = start + size
            if ends is not None:
                before = ends[start - 1] if start else 0
                stop = min(stop, max(start + 1, int(np.searchsorted(ends, before + _MOST_BYTES, side="right"))))
            if (stop >= table.num_rows and stop < start + size) or stop > table.num_rows:
                break  # the next rows may belong to it
            yield table.slice(start, stop - start).combine_chunks()
            start = stop
        left = [table.slice(start)] if start < table.num_rows else []
    for table in left:
        yield table.combine_chunks()


def _row_bytes(table: pa.Table) -> np.ndarray:
    """Return what the cells of each row take; of nested ones, what they take on average."""
    import pyarrow.compute as pc
    from pyarrow import types

    total = np.zeros(table.num_rows)
    for column in table.flatten().columns:
        kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        if any(is_kind(column.type) for is_kind in kinds):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        else:
            total += column.nbytes / max(1, table.num_rows)
    return total


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Turn what a reader raises into a DataError that names the file, or its URI."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException, RecursionError) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeError) or "UTF8" in str(error) else ""
        raise DataError(f"{path} cannot be read: {error}{hint}") from error
