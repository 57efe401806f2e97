"""Arrays under keys in SQLite databases: what a store keeps of single rows. Imports numpy.

SQLite takes many processes of one host at once, holds bytes, so nothing is unpickled, and reports a full disk and a cut
file as errors. It maps no file into memory here, for which the operating system would end the process: the journal is a
rollback journal, since that of the other kind (WAL) has such a map.

What a key is made of changes with `FORMAT`, so that what an older version wrote is not found, in place of being read
wrongly. To change how an array is written: raise it.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

__all__ = ["FORMAT", "RowStore", "digest", "say_once"]

FORMAT = 3

# What one transaction holds at most.
TRANSACTION_BYTES = 32 * 2**20
# How long to wait for another process's transaction.
BUSY_SECONDS = 10.0
PAGE_BYTES = 4096
KEYS_PER_QUERY = 500
# What SQLite says of a file that is none of its own any more. The last is of statements: the tables are others.
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}

_log = logging.getLogger(__name__)


@functools.cache
def say_once(message: str) -> None:
    """Warn of something that is likely to happen again and again."""
    _log.warning("%s", message)


def digest(prefix: bytes, content: np.ndarray | bytes | bytearray | memoryview) -> bytes:
    """Return the key of a row: a hash of its content, and of a prefix that says what is made of it."""
    found = blake2b(prefix, digest_size=24)
    if isinstance(content, np.ndarray):
        found.update(f"{content.dtype.str}{content.shape}".encode())
        content = np.ascontiguousarray(content).data
    found.update(content)
    return found.digest()


@dataclass(frozen=True)
class RowStore:
    """A database of arrays.

    Parameters
    ----------
    file : Path
        Made where it is not there. It may be deleted any time.
    max_bytes : int
        Of the file. Where it would grow larger, all that is in it makes room: which rows will be asked for again is
        not known.
    """

    file: Path
    max_bytes: int

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the arrays of those keys that are there, read-only; where the database cannot be read, none.

        An entry that is not what was written is not there.
        """
        found: dict[bytes, np.ndarray] = {}
        wanted = list(set(keys))
        if not self.file.exists():
            return found
        with self._surviving(), self._open() as database:
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                some = wanted[start : start + KEYS_PER_QUERY]
                places = ",".join("?" * len(some))
                for key, checksum, value in database.execute(f"SELECT * FROM rows WHERE key IN ({places})", some):
                    if isinstance(key, bytes) and isinstance(value, bytes) and checksum == _checksum(key, value):
                        found[key] = _from_bytes(value)
        return found

    def put(self, made: Mapping[bytes, np.ndarray]) -> None:
        """Keep arrays of numbers under their keys; where the disk does not take them, only say so."""
        with self._surviving(), self._open() as database:
            for some_rows in _parts(made):
                n_used = _number(database, "page_count") - _number(database, "freelist_count")
                n_new = 2 * sum(len(value) for *_, value in some_rows) // PAGE_BYTES  # at most: a page may be half full
                if n_used + n_new > self.max_bytes // PAGE_BYTES:
                    with database:
                        database.execute("DELETE FROM rows")
                try:
                    with database:
                        database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", some_rows)
                except sqlite3.OperationalError:
                    _number(database, "page_count")  # what a full disk broke off is only taken back by the next read
                    raise

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the database, each time anew, for a connection outlives neither a fork nor a file that was deleted."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.file, timeout=BUSY_SECONDS)) as database:
            database.text_factory = bytes
            # Nothing has to survive a power cut: the checksums tell what did not.
            for setting in ("synchronous=OFF", "mmap_size=0", f"page_size={PAGE_BYTES}"):
                database.execute(f"PRAGMA {setting}")
            database.execute(f"PRAGMA max_page_count={self.max_bytes // PAGE_BYTES}")
            database.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, checksum INTEGER, value BLOB)")
            yield database

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Go on where the database is of no use: say so, and if it is damaged, remove it."""
        inode = self._inode()
        try:
            yield
        except (OSError, sqlite3.Error, ValueError) as error:  # the last of texts and numbers of columns
            damaged = isinstance(error, ValueError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED
            if not damaged:
                say_once(f"the rows kept in {self.file} cannot be used: {error}")
            elif self._inode() == inode:  # no other process has made it anew
                _log.warning("%s is damaged and made anew: %s", self.file, error)
                for file in (self.file, self.file.with_name(f"{self.file.name}-journal")):
                    file.unlink(missing_ok=True)

    def _inode(self) -> int | None:
        return self.file.stat().st_ino if self.file.exists() else None


def _number(database: sqlite3.Connection, what: str) -> int:
    (number,) = database.execute(f"PRAGMA {what}").fetchone()
    return int(number)


def _checksum(key: bytes, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(key))


def _parts(made: Mapping[bytes, np.ndarray]) -> Iterator[list[tuple[bytes, int, bytes]]]:
    """Yield arrays as bytes, some at a time."""
    rows: list[tuple[bytes, int, bytes]] = []
    size = 0
    for key, value in made.items():
        content = _to_bytes(value)
        rows.append((key, _checksum(key, content), content))
        size += len(content)
        if size >= TRANSACTION_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _to_bytes(value: np.ndarray) -> bytes:
    """Return the dtype in 4 characters, then the number of axes and the shape as <u4, then the numbers."""
    axes = np.asarray([value.ndim, *value.shape], dtype="<u4")
    return b"".join([f"{value.dtype.str:4}".encode(), axes.tobytes(), np.ascontiguousarray(value).data])


def _from_bytes(stored: bytes) -> np.ndarray:
    (n_axes,) = struct.unpack_from("<I", stored, 4)
    shape = struct.unpack_from(f"<{n_axes}I", stored, 8)
    return np.ndarray(shape, stored[:4].decode().strip(), stored, 8 + 4 * n_axes)
