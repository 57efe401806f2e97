"""What a file format is, and which ones are known by which suffix. Imports no pyarrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.lines import OnBadLine

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["FileFormat", "Reader", "Sink", "described", "format_of", "known_formats", "register_format"]


_FRAME_ROWS = 2**16


class Reader(Protocol):
    """A file of rows that is open for reading.

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
        """Yield these columns of all rows, in order, in tables of any size; about `size` rows each are good."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Sink(Protocol):
    """A file of rows that is open for writing; pyarrow's writers are some."""

    def write_table(self, table: pa.Table) -> Any:
        """Write the next rows."""
        ...


class FileFormat(ABC):
    """How files of one format are read and written; see `register_format`.

    Attributes
    ----------
    name : str
        As messages call it.
    suffixes : tuple of str
        The endings of its files' names, each with its dot, in lower case.
    """

    __module__ = "mmensemble.scoring"
    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open(self, path: Path) -> Reader:
        """Open a file for reading.

        Parameters
        ----------
        path : Path
            A file that exists.

        Returns
        -------
        Reader
            An object with the attributes ``schema`` (a ``pyarrow.Schema``) and ``n_rows`` (int, or None where it is
            not known), and the methods ``tables(columns, size)``, which yields ``pyarrow.Table`` of these columns with
            about `size` rows each, and ``close()``.

        Raises
        ------
        OSError, ValueError, pyarrow.ArrowException
            If the file is damaged, here or in the reader's methods. The message need not name the file.
        """

    def open_leniently(self, path: Path, on_bad_line: OnBadLine) -> Reader:
        """Open a file of which a line that cannot be read costs its own row only; here as `open` does.

        Parameters
        ----------
        path : Path
            A file that exists.
        on_bad_line : {"error", "skip"}
            With ``"error"`` the row stays: its cells are null, and the tables have one more column, the last one, of
            the name `mmensemble.files.lines.BAD_LINE`, that says what is wrong. With ``"skip"`` it is dropped, and
            counted in the reader's attribute ``n_skipped``.
        """
        return self.open(path)

    @abstractmethod
    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        """Open a file for writing.

        Parameters
        ----------
        path : Path
            A new file, whose suffix is none of the format's: it gets its name when it is complete.
        schema : pyarrow.Schema
            Of all tables that will be written.

        Returns
        -------
        context manager
            With the method ``write_table(table)``, as pyarrow's writers have it.
        """

    def holds(self, column: pa.Field) -> bool:
        """Tell whether a column of this type has a form in the format."""
        return True

    def read_frame(self, path: Path) -> pd.DataFrame:
        """Read a whole file for an estimator, with numbers as numbers."""
        import pyarrow as pa

        reader = self.open(path)
        try:
            tables = reader.tables(reader.schema.names, _FRAME_ROWS)
            return pa.concat_tables([reader.schema.empty_table(), *tables]).to_pandas()
        finally:
            reader.close()


# The formats by name.
_FORMATS: dict[str, FileFormat] = {}


def register_format(file_format: FileFormat) -> None:
    """Let files of a format be read and written by `mmensemble.score_file` and all else that takes files of rows.

    Parameters
    ----------
    file_format : FileFormat
        It takes the place of one of the same name.

    Raises
    ------
    ConfigurationError
        If one of its suffixes belongs to another format.

    Examples
    --------
    >>> from mmensemble.scoring import FileFormat, register_format
    >>> class ArrowFormat(FileFormat):
    ...     name = "Arrow IPC"
    ...     suffixes = (".arrow", ".feather")
    ...
    ...     def open(self, path):
    ...         return ArrowReader(path)  # a class of yours
    ...
    ...     def sink(self, path, schema):
    ...         return pyarrow.ipc.new_file(path, schema)
    >>> register_format(ArrowFormat())  # doctest: +SKIP
    """
    for suffix in file_format.suffixes:
        for other in known_formats():
            if suffix in other.suffixes and other.name != file_format.name:
                raise ConfigurationError(f"{suffix} is the suffix of {other.name}; {file_format.name} needs another")
    _FORMATS[file_format.name] = file_format


def known_formats() -> list[FileFormat]:
    """Return the formats, in the order in which they were registered."""
    return list(_FORMATS.values())


def described(formats: Iterable[FileFormat], conjunction: str = "or") -> str:
    """List formats and their suffixes in words."""
    *others, last = [f"{each.name} ({', '.join(each.suffixes)})" for each in formats]
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def format_of(path: Path) -> FileFormat:
    """Return the format of a file, by its suffix.

    Raises
    ------
    ConfigurationError
        If no format has it.
    """
    for file_format in known_formats():
        if path.suffix.lower() in file_format.suffixes:
            return file_format
    raise ConfigurationError(f"{path} is neither {described(known_formats(), 'nor')}, by its suffix")
