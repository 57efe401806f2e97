"""Pieces of a source: what one task reads, and how it is read anywhere. Imports pyarrow on first use only."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import accumulate, groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mmensemble.exceptions import DataError
from mmensemble.files.finding import FoundFile, compression_of, is_media, uncompressed_name
from mmensemble.files.formats import format_of
from mmensemble.files.lines import BAD_LINE, OnBadLine
from mmensemble.files.parquet import ParquetFormat, ParquetReader
from mmensemble.files.places import Place, place_of
from mmensemble.files.reading import TableReader, naming, opened
from mmensemble.scoring.engines.media import MediaReader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Fragment", "FragmentRows", "cut", "open_fragment"]

_BLOCK = 2**20
# Files that are rows themselves, in one fragment.
_MOST_MEDIA = 1024


@dataclass(frozen=True)
class Fragment:
    """A file of rows, a range of row groups of a Parquet file, or files that are rows themselves: what one task scores.

    Parameters
    ----------
    number : int
        Its place among all fragments of the source.
    uri : str
        The file.
    size : int
    mtime_ns : int or None
    partition : tuple of (str, str or None)
        Columns that the file's folders name.
    row_groups : (int, int), default=None
        The first one, and the one behind the last.
    first_row : int, default=0
        How many rows of the file come before it.
    n_rows : int, default=None
        Where it is known beforehand.
    rows : tuple of (str, int, int or None), default=()
        URIs, sizes and times of the files that are rows themselves; `uri` is then the first one.
    """

    number: int
    uri: str
    size: int
    mtime_ns: int | None
    partition: tuple[tuple[str, str | None], ...] = ()
    row_groups: tuple[int, int] | None = None
    first_row: int = 0
    n_rows: int | None = None
    rows: tuple[tuple[str, int, int | None], ...] = ()

    @property
    def uris(self) -> list[str]:
        """The files that are read for it."""
        return [uri for uri, *_ in self.rows] or [self.uri]

    @property
    def key(self) -> str:
        """What tells it from others, wherever it stands: another version of its file is another fragment."""
        read = (self.uri, self.size, self.mtime_ns, self.partition, self.row_groups, *self.rows)
        return blake2b(repr(read).encode(), digest_size=16).hexdigest()


def cut(files: Sequence[FoundFile], fragment_rows: int, media: Collection[str] = ()) -> list[Fragment]:
    """Cut files into fragments: the same ones whoever scores them, and however many workers there are.

    Parameters
    ----------
    files : sequence of FoundFile
    fragment_rows : int
        Row groups of a Parquet file are taken together up to so many rows. Files of other formats are not cut.
    media : collection of str, default=()
        Endings of files that are rows themselves; of those, up to 1,024 of a folder are taken together.

    Returns
    -------
    list of Fragment

    Raises
    ------
    DataError
        If a Parquet file is damaged.
    """
    if files and is_media(files[0], media):
        return _cut_media(files, min(fragment_rows, _MOST_MEDIA))
    fragments: list[Fragment] = []
    for file in files:
        place = file.place
        piece = partial(Fragment, uri=place.uri, size=file.size, mtime_ns=file.mtime_ns, partition=file.partition)
        if not _is_parquet(place.path):
            fragments.append(piece(len(fragments)))
            continue
        with naming(place.uri), closing(_open_parquet(place)) as reader:
            groups = reader.group_rows
        starts = [0, *accumulate(groups)]
        ranges = list(_ranges(groups, fragment_rows))
        if len(ranges) == 1:
            fragments.append(piece(len(fragments), n_rows=starts[-1]))
            continue
        for first, behind in ranges:
            rows = starts[behind] - starts[first]
            fragments.append(piece(len(fragments), row_groups=(first, behind), first_row=starts[first], n_rows=rows))
    return fragments


def _cut_media(files: Sequence[FoundFile], most: int) -> list[Fragment]:
    fragments: list[Fragment] = []
    for partition, together in groupby(files, key=lambda file: file.partition):
        related = list(together)
        for start in range(0, len(related), most):
            some = related[start : start + most]
            rows = tuple((file.place.uri, file.size, file.mtime_ns) for file in some)
            first = some[0]
            fragments.append(
                Fragment(
                    len(fragments),
                    first.place.uri,
                    sum(file.size for file in some),
                    first.mtime_ns,
                    partition,
                    n_rows=len(rows),
                    rows=rows,
                )
            )
    return fragments


class FragmentRows:
    """The rows of a fragment, with the columns that its folders name, as text.

    Parameters
    ----------
    fragment : Fragment
    reader : TableReader
        The open file.
    kinds : pyarrow.Schema, default=None
        Types that columns must have, whatever they are in this file.

    Attributes
    ----------
    schema : pyarrow.Schema
    """

    @property
    def n_skipped(self) -> int:
        """Lines that were dropped so far."""
        return self._reader.n_skipped

    def __init__(self, fragment: Fragment, reader: TableReader, kinds: pa.Schema | None = None) -> None:
        import pyarrow as pa

        self._fragment = fragment
        self._reader = reader
        self._kinds = pa.schema([]) if kinds is None else kinds
        self._named = {name: cell for name, cell in fragment.partition if name not in reader.schema.names}
        self.schema: pa.Schema = pa.schema([*reader.schema, *((name, pa.string()) for name in self._named)])

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns, `size` rows at a time."""
        import pyarrow as pa

        stored = [name for name in columns if name not in self._named]
        # Without a column of the file there is nothing to count its rows by.
        for table in self._reader.tables(stored or self._reader.schema.names[:1], size):
            cells = {name: table[name] for name in stored}
            for name, cell in self._named.items():
                cells[name] = pa.chunked_array([pa.repeat(pa.scalar(cell, pa.string()), table.num_rows)])
            made = pa.table({name: self._as_agreed(name, cells[name]) for name in columns})
            if BAD_LINE in table.column_names:
                made = made.append_column(BAD_LINE, table[BAD_LINE])
            yield made

    def _as_agreed(self, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
        import pyarrow as pa

        if name not in self._kinds.names or cells.type == (kind := self._kinds.field(name).type):
            return cells
        try:
            return cells.cast(kind)
        except pa.ArrowException as error:
            raise DataError(
                f"the column is {cells.type} in {self._fragment.uri}, and {kind} in the first file ({error})",
                column=name,
            ) from error


@contextmanager
def open_fragment(
    fragment: Fragment, kinds: pa.Schema | None = None, on_bad_line: OnBadLine = "raise"
) -> Iterator[FragmentRows]:
    """Open a fragment for reading; what is far away or compressed is first written to a temporary file.

    A Parquet file is read where it is. For `on_bad_line` see `TableReader`.

    Raises
    ------
    DataError
        If the file is damaged, here or in the rows' methods.
    """
    place = place_of(fragment.uri)
    with ExitStack() as stack:
        if fragment.rows:
            reader = TableReader(fragment.uri, on_bad_line, partial(MediaReader, fragment.uris, on_bad_line))
        elif _is_parquet(place.path):
            groups = None if fragment.row_groups is None else range(*fragment.row_groups)
            reader = TableReader(fragment.uri, on_bad_line, partial(_open_parquet, place, groups, on_bad_line))
        else:
            path = place.local
            if path is None or compression_of(place.path):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mmensemble-"))
                path = _fetch(place, Path(folder))
            reader = TableReader(fragment.uri, on_bad_line, partial(opened, path, on_bad_line))
        yield FragmentRows(fragment, stack.enter_context(reader), kinds)


def _is_parquet(path: str) -> bool:
    """Tell whether a file is Parquet as it lies there; its pages are compressed, so the whole seldom is."""
    return not compression_of(path) and format_of(Path(path)).name == ParquetFormat.name


def _open_parquet(place: Place, row_groups: range | None = None, on_bad_line: OnBadLine = "raise") -> ParquetReader:
    return ParquetReader(place.filesystem.open_input_file(place.path), row_groups, on_bad_line)


def _fetch(place: Place, folder: Path) -> Path:
    compression = compression_of(place.path)
    path = folder / uncompressed_name(PurePosixPath(place.path).name)
    stream = partial(place.filesystem.open_input_stream, place.path, compression=compression)
    with naming(place.uri), stream() as source, path.open("wb") as file:
        while block := source.read(_BLOCK):
            file.write(block)
    return path


def _ranges(groups: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Take row groups together, in order, up to so many rows; one alone may have more."""
    first, rows = 0, 0
    for number, n in enumerate(groups):
        if number > first and rows + n > most:
            yield first, number
            first, rows = number, 0
        rows += n
    yield first, len(groups)
