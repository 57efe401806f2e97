"""Folders of pictures, sounds or films as rows: each file is one. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mmensemble.files.lines import OnBadLine, with_bad_lines
from mmensemble.files.places import place_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CONTENT", "ENDINGS", "PATH", "MediaReader"]

# The endings of files, by what they hold: those that the decoders know, and people use.
ENDINGS = {
    "image": (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"),
    "audio": (".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"),
    "video": (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"),
}

# What the columns are called: where a file is, and what the model gets.
PATH, CONTENT = "path", "content"


class MediaReader:
    """Files as rows, a `mmensemble.files.formats.Reader`.

    Of a file of this machine the content is its path, which is opened when its row is scored; of others, their bytes.

    Parameters
    ----------
    uris : sequence of str
        All of one file system.
    on_bad_line : {"error", "skip", "raise"}, default="raise"
        What becomes of a file elsewhere that cannot be fetched; see `mmensemble.files.reading.TableReader`.
    """

    def __init__(self, uris: Sequence[str], on_bad_line: OnBadLine = "raise") -> None:
        import pyarrow as pa

        self._uris = uris
        self._on_bad_line = on_bad_line
        self.n_skipped = 0
        self._is_here = not uris or place_of(uris[0]).local is not None
        self.n_rows: int | None = len(uris)
        self.schema = pa.schema([(PATH, pa.string()), (CONTENT, pa.string() if self._is_here else pa.binary())])

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns; where bytes are fetched, one row at a time, for they may be many."""
        if self._is_here or CONTENT not in columns:
            for start in range(0, len(self._uris), size):
                uris = self._uris[start : start + size]
                yield self._table(columns, uris, uris)
            return
        for uri in self._uris:
            content, message = None, None
            try:
                content = _bytes_of(uri)
            except OSError as error:
                if self._on_bad_line == "raise":
                    raise
                if self._on_bad_line == "skip":
                    self.n_skipped += 1
                    continue
                message = f"{uri} cannot be fetched: {error}"
            table = self._table(columns, [uri], [content])
            yield with_bad_lines(table, [message]) if self._on_bad_line == "error" else table

    def _table(self, columns: Sequence[str], uris: Sequence[str], contents: Sequence[str | bytes | None]) -> pa.Table:
        import pyarrow as pa

        cells = {PATH: uris, CONTENT: contents}
        return pa.table([cells[name] for name in columns], schema=pa.schema([self.schema.field(c) for c in columns]))

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _bytes_of(uri: str) -> bytes:
    place = place_of(uri)
    with place.filesystem.open_input_stream(place.path) as file:
        return bytes(file.read())
