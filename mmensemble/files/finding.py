"""Which files a source names: a file, a folder, a pattern, or several, anywhere. Imports pyarrow on first use only."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.files.formats import described, known_formats
from mmensemble.files.places import Place, is_uri, place_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "STANDARD_INPUT",
    "FoundFile",
    "Source",
    "compression_of",
    "find_files",
    "is_media",
    "is_pattern",
    "standard_input",
    "uncompressed_name",
]

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

# Ending → pyarrow's name of the compression.
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"

STANDARD_INPUT = "-"

_BLOCK = 2**20
# The first bytes of files that say so what they are.
_MAGIC = {b"PAR1": ".parquet", b"ARROW1": ".arrow"}


class FoundFile(NamedTuple):
    """A file of rows.

    Attributes
    ----------
    place : Place
    size : int
        In bytes.
    mtime_ns : int or None
        When it was written, where the file system knows.
    partition : tuple of (str, str or None)
        The columns that its folders name, as ``day=2026-11-27``; None is a missing cell.
    """

    place: Place
    size: int
    mtime_ns: int | None
    partition: tuple[tuple[str, str | None], ...]


def compression_of(name: str) -> str | None:
    """Return pyarrow's name of a file's compression, by its ending; None where it has none."""
    return _COMPRESSIONS.get(PurePosixPath(name).suffix.lower())


def uncompressed_name(name: str) -> str:
    """Return a file's name without the ending of its compression."""
    return name[: name.rindex(".")] if compression_of(name) else name


def is_pattern(text: str) -> bool:
    """Tell a pattern, ``rows/*.parquet``, from a name."""
    return any(character in text for character in "*?[")


def find_files(source: Source, media: Collection[str] = ()) -> list[FoundFile]:
    """Find the files of rows that a source names, or the files that are rows themselves.

    Parameters
    ----------
    source : str, path-like or sequence of them
        A file; a folder, with all below it; a pattern, in which ``**`` stands for any number of folders; or a list of
        these. Of folders and patterns, names that begin with a dot or an underscore do not count, nor do files of
        unknown formats.
    media : collection of str, default=()
        Endings of files that are rows themselves, as pictures. Of folders and patterns they count where there is no
        file of rows.

    Returns
    -------
    list of FoundFile
        Those of a folder or a pattern by name, lists in their order.

    Raises
    ------
    ConfigurationError
        If a file has an unknown format, or stands there twice.
    DataError
        If a folder or a pattern has no file of rows.
    FileNotFoundError
        If there is no such file or folder.
    """
    named = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    if not named:
        raise ConfigurationError("the list of files to score is empty")
    found = [file for name in named for file in _found(os.fspath(name), media)]
    if len({is_media(file, media) for file in found}) > 1:
        raise ConfigurationError("some of the files are rows themselves, and others hold rows; score them apart")
    seen: set[str] = set()
    for file in found:
        if file.place.uri in seen:
            raise ConfigurationError(f"{file.place.uri} stands in the source twice")
        seen.add(file.place.uri)
    return found


def is_media(file: FoundFile, media: Collection[str]) -> bool:
    """Tell whether a file is a row itself, by its ending."""
    return PurePosixPath(file.place.path).suffix.lower() in media


def _found(text: str, media: Collection[str]) -> Iterator[FoundFile]:
    from pyarrow.fs import FileType

    if is_pattern(text) and not _exists(text):
        parts = text.split("/") if is_uri(text) else Path(text).absolute().as_posix().split("/")
        fixed = next(number for number, part in enumerate(parts) if is_pattern(part))
        base = place_of("/".join(parts[:fixed]) or "/")
        (info,) = base.filesystem.get_file_info([base.path])
        matching = (
            (rest, each)
            for rest, each in (_below(base) if info.type == FileType.Directory else ())
            if _matches(rest, parts[fixed:])
        )
        yield from _of_rows(base, list(matching), media, f"no file of rows is named as {text}")
        return
    place = place_of(text)
    (info,) = place.filesystem.get_file_info([place.path])
    if info.type == FileType.NotFound:
        raise FileNotFoundError(f"there is no file or folder {place.uri}")
    if info.type == FileType.Directory:
        yield from _of_rows(place, _below(place), media, f"the folder {place.uri} has no file of rows")
        return
    file = FoundFile(place, info.size, info.mtime_ns, ())
    if not _is_known(place.path) and not is_media(file, media):
        raise ConfigurationError(
            f"{place.uri} is neither {described(known_formats(), 'nor')}, by its ending, nor one of these with "
            f"{' or '.join(_COMPRESSIONS)} behind{_or_media(media)}"
        )
    yield file


def _exists(text: str) -> bool:
    """Tell whether a file of this machine has brackets in its name."""
    return not is_uri(text) and Path(text).exists()


def _below(base: Place) -> list[tuple[list[str], pa.fs.FileInfo]]:
    """Return the files below a folder by name, each with the parts of its path from there."""
    from pyarrow.fs import FileSelector

    infos = [info for info in base.filesystem.get_file_info(FileSelector(base.path, recursive=True)) if info.is_file]
    root = base.path.strip("/")
    below = [(info.path.strip("/").removeprefix(root).strip("/").split("/"), info) for info in infos]
    return sorted(below, key=lambda each: each[0])


def _of_rows(
    base: Place, files: Iterable[tuple[list[str], pa.fs.FileInfo]], media: Collection[str], otherwise: str
) -> Iterator[FoundFile]:
    seen = [
        FoundFile(base.at(info.path), info.size, info.mtime_ns, _partition(rest[:-1]))
        for rest, info in files
        if not any(part.startswith((".", "_")) for part in rest)
    ]
    found = [file for file in seen if _is_known(file.place.path)] or [file for file in seen if is_media(file, media)]
    if not found:
        raise DataError(
            f"{otherwise}: {described(known_formats())}, or one of these with {' or '.join(_COMPRESSIONS)}"
            f"{_or_media(media)}"
        )
    yield from found


def _or_media(media: Collection[str]) -> str:
    return f"; nor is there a file that is a row itself, {', '.join(sorted(media))}" if media else ""


def _is_known(path: str) -> bool:
    ending = PurePosixPath(uncompressed_name(path)).suffix.lower()
    return any(ending in each.suffixes for each in known_formats())


def _partition(folders: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return tuple((unquote(name), None if value == _NULL_PARTITION else unquote(value)) for name, _, value in pairs)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == "**":
        return any(_matches(parts[skipped:], rest) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], first) and _matches(parts[1:], rest)


@contextmanager
def standard_input() -> Iterator[Path]:
    """Write standard input to a temporary file, which is deleted at the end.

    Parquet and Arrow files say what they are. What begins with ``{`` is JSON Lines; all else is CSV, or TSV where the
    first line has tabs and no commas.

    Yields
    ------
    Path
    """
    stream = sys.stdin.buffer
    head = stream.read(_BLOCK)
    with tempfile.TemporaryDirectory(prefix="mmensemble-") as folder:
        path = Path(folder) / f"standard_input{_ending(head)}"
        with path.open("wb") as file:
            file.write(head)
            shutil.copyfileobj(stream, file, _BLOCK)
        yield path


def _ending(head: bytes) -> str:
    for magic, ending in _MAGIC.items():
        if head.startswith(magic):
            return ending
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return ".jsonl"
    line = text.partition(b"\n")[0]
    return ".tsv" if b"\t" in line and b"," not in line else ".csv"
