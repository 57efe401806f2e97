"""Files of rows as streams of Arrow tables, whatever their format. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mmensemble.exceptions import DataError
from mmensemble.files.formats import Reader, format_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["TableReader", "naming", "read_frame"]


class TableReader:
    """A file of rows; a context at whose end it is closed.

    Parameters
    ----------
    path : Path
        The file, whose suffix names its format.
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

    def __init__(self, path: Path | str, open: Callable[[], Reader] | None = None) -> None:
        self.path = path
        if open is None:
            path = Path(path)
            open = partial(format_of(path).open, path)
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

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns, `size` rows at a time, at the end those that are left.

        Raises
        ------
        DataError
            If the file is damaged.
        """
        with naming(self.path):
            yield from _cut(self._reader.tables(columns, size), size)


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
    """Cut tables anew, so that the rows alone, and not how they lie in a file, decide what is scored together."""
    import pyarrow as pa

    left: list[pa.Table] = []
    for found in tables:
        table = pa.concat_tables([*left, found]).combine_chunks()
        whole = table.num_rows - table.num_rows % size
        for start in range(0, whole, size):
            yield table.slice(start, size)
        left = [table.slice(whole)] if whole < table.num_rows else []
    yield from left


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Turn what a reader raises into a DataError that names the file, or its URI."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException, RecursionError) as error:
        hint = "; save it as UTF-8" if isinstance(error, UnicodeError) or "UTF8" in str(error) else ""
        raise DataError(f"{path} cannot be read: {error}{hint}") from error
