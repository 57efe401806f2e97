"""Where files are: paths of this machine, and URIs of pyarrow's and fsspec's file systems. Imports pyarrow at use."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmensemble.exceptions import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Place", "is_uri", "place_of"]


class Place(NamedTuple):
    """A file, or a folder, of a file system.

    Attributes
    ----------
    filesystem : pyarrow.fs.FileSystem
    path : str
        As the file system names it, with slashes.
    uri : str
        As anyone can name it: a URI, or an absolute path of this machine.
    """

    filesystem: pa.fs.FileSystem
    path: str
    uri: str

    @property
    def local(self) -> Path | None:
        """The path, of a file of this machine."""
        from pyarrow.fs import LocalFileSystem

        return Path(self.path) if isinstance(self.filesystem, LocalFileSystem) else None

    def at(self, path: str) -> Place:
        """Return another place of the same file system, at or below this one."""
        rest = path.removeprefix(self.path.rstrip("/"))
        return Place(self.filesystem, path, self.uri.rstrip("/") + rest)

    def __truediv__(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.path.rstrip('/')}/{name}", f"{self.uri.rstrip('/')}/{name}")


def is_uri(text: str) -> bool:
    """Tell a URI from a path."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.replace("+", "").replace("-", "").replace(".", "").isalnum()


def place_of(where: str | os.PathLike[str]) -> Place:
    """Find the file system of a path or a URI.

    Raises
    ------
    ConfigurationError
        If neither pyarrow nor fsspec knows the scheme, or what it needs is not installed.
    MissingDependencyError
        If pyarrow does not know the scheme and fsspec is not installed.
    """
    text = os.fspath(where)
    if is_uri(text) and not text.startswith("file://"):
        return Place(*_remote(text), text)
    from pyarrow.fs import FileSystem, LocalFileSystem

    path = FileSystem.from_uri(text)[1] if is_uri(text) else Path(text).absolute().as_posix()
    return Place(LocalFileSystem(), path, path)


@lru_cache(maxsize=256)
def _remote(uri: str) -> tuple[pa.fs.FileSystem, str]:
    import pyarrow as pa
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        filesystem, path = FileSystem.from_uri(uri)
    except pa.ArrowException as error:
        if "nrecognized filesystem" not in str(error):
            raise ConfigurationError(f"{uri} cannot be opened: {error}") from error
    else:
        return filesystem, path
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingDependencyError("fsspec", "remote") from error
    try:
        filesystem, path = url_to_fs(uri)
    except (ImportError, ValueError) as error:  # of the scheme, or of the package behind it
        raise ConfigurationError(f"{uri} cannot be opened: {error}") from error
    return PyFileSystem(FSSpecHandler(filesystem)), path
