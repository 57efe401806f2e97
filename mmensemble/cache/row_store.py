"""Arrays under keys in LMDB databases: what a store keeps of single rows. Imports numpy; lmdb at use.

LMDB is transactional, takes many processes of one host at once, and holds bytes, so nothing is unpickled.

What a key is made of changes with `FORMAT`, so that what an older version wrote is not found, in place of being read
wrongly. To change how an array is written: raise it.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import lmdb

__all__ = ["FORMAT", "RowStore", "digest", "say_once"]

FORMAT = 2

# What one transaction holds at most.
TRANSACTION_BYTES = 32 * 2**20

_log = logging.getLogger(__name__)

_lock = threading.RLock()
_environments: dict[tuple[int, str], tuple[int, lmdb.Environment]] = {}


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
    folder : Path
        Made where it is not there. It may be deleted any time.
    max_bytes : int
        Of the file. Where it would grow larger, all that is in it makes room: which rows will be asked for again is
        not known.
    """

    folder: Path
    max_bytes: int

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """Return the arrays of those keys that are there, read-only; where the database cannot be read, none."""
        import lmdb

        try:
            with self._environment().begin() as transaction:
                return {key: _from_bytes(value) for key in set(keys) if (value := transaction.get(key)) is not None}
        except (OSError, lmdb.Error) as error:
            say_once(f"the rows kept in {self.folder} cannot be read: {error}")
            return {}

    def put(self, made: Mapping[bytes, np.ndarray]) -> None:
        """Keep arrays of numbers under their keys; where the disk does not take them, only say so."""
        import lmdb

        try:
            environment = self._environment()
            for pairs in _parts(made):
                try:
                    with environment.begin(write=True) as transaction:
                        transaction.cursor().putmulti(pairs)
                except lmdb.MapFullError:
                    with environment.begin(write=True) as transaction:
                        transaction.drop(environment.open_db(), delete=False)
        except (OSError, lmdb.Error) as error:
            say_once(f"rows cannot be kept in {self.folder}: {error}")

    def _environment(self) -> lmdb.Environment:
        """Open the database, once per process: LMDB allows no more, and none across a fork."""
        import lmdb

        folder = self.folder
        place, data = (os.getpid(), str(folder.resolve())), folder / "data.mdb"
        with _lock:
            folder.mkdir(parents=True, exist_ok=True)
            for pid, other in list(_environments):
                if pid != os.getpid():
                    _environments.pop((pid, other))[1].close()  # the parent's, which keeps it open for itself
            if place in _environments:
                inode, environment = _environments[place]
                if data.exists() and data.stat().st_ino == inode:
                    return environment
            for pid, other in list(_environments):
                if (pid, other) == place or not Path(other, "data.mdb").exists():
                    del _environments[pid, other]  # the folder was deleted meanwhile, as its user may
            opened = functools.partial(
                lmdb.open, str(folder), map_size=self.max_bytes, max_readers=1024, readahead=False
            )
            try:
                environment = opened()
            except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
                _log.warning("%s is damaged and made anew: %s", data, error)
                data.unlink()
                environment = opened()
            environment.reader_check()
            _environments[place] = (data.stat().st_ino, environment)
            return environment


def _parts(made: Mapping[bytes, np.ndarray]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield arrays as bytes, some at a time."""
    pairs: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in made.items():
        pairs.append((key, _to_bytes(value)))
        size += value.nbytes
        if size >= TRANSACTION_BYTES:
            yield pairs
            pairs, size = [], 0
    if pairs:
        yield pairs


def _to_bytes(value: np.ndarray) -> bytes:
    """Return the dtype in 4 characters, then the number of axes and the shape as <u4, then the numbers."""
    axes = np.asarray([value.ndim, *value.shape], dtype="<u4")
    return b"".join([f"{value.dtype.str:4}".encode(), axes.tobytes(), np.ascontiguousarray(value).data])


def _from_bytes(stored: bytes) -> np.ndarray:
    n_axes = int(np.frombuffer(stored, dtype="<u4", count=1, offset=4)[0])
    shape = np.frombuffer(stored, dtype="<u4", count=n_axes, offset=8)
    numbers = np.frombuffer(stored, dtype=stored[:4].decode().strip(), offset=8 + 4 * n_axes)
    return numbers.reshape(shape)
