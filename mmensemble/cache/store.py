"""The work that a search over fusion strategies would repeat, and the stores that keep it.

Strategies differ in how members are joined; most of the time goes into the members. Two kinds of stores lie in one
folder:

- joblib's, for what depends on a whole set of rows: fitted members, their out-of-fold outputs, fitted joint fusions.
  Each lies under the hash of its estimator, rows, labels, code, versions, weights and files, as bytes with a checksum,
  and is written beside its place and renamed, so a killed process leaves nothing half-written.
- SQLite databases, for what depends on one row: a file as the network gets it, under the hash of the file, the versions
  and the preprocessor; its embedding by a frozen network, under that hash, or that of the row's encoded content, and
  the hash of the network. They are two, for one encoding takes the room of some hundred embeddings.

Neither changes a result: what is kept is what was computed, and what is damaged is computed again. A fit that was cut
by a time limit around it is not kept; one that was not is the same with and without it, and is found by both.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from joblib import Memory
from sklearn import get_config

from mmensemble.cache.active import active_location, is_active, pickled_for_the_store
from mmensemble.cache.hashing import UNHASHABLE, Key, hash_of
from mmensemble.cache.row_store import say_once
from mmensemble.cache.stamps import file_stamp, file_stamps
from mmensemble.cache.versions import PYTHON, versions
from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import n_rows
from mmensemble.time_limits import portion

__all__ = ["HashedRows", "Store"]

# What a folder holds at most. joblib's oldest results go first; embeddings go all at once, and so do encodings.
MEMBER_BYTES = 8 * 2**30
CHECKSUM_BYTES = 16
# Beside what its user may keep in a Memory.
_FOLDER = "mmensemble"
# Work below that is done again: to hash its rows and to read its result take about as long.
WORTH_SECONDS = 0.02
# The oldest results are looked for in this share of the time at most, for that reads the whole folder.
WALKING_SHARE = 0.05
_log = logging.getLogger(__name__)
_seconds: dict[tuple[str, ...], float] = {}
_walks: dict[Path, tuple[float, float]] = {}


class HashedRows:
    """Rows that are hashed at most once, however many results depend on them.

    Parameters
    ----------
    rows : DataFrame or Series
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    @cached_property
    def key(self) -> str:
        """The hash of the cells, and of the files that they name."""
        return hash_of(self.rows, repr(file_stamps(self.rows)))


@dataclass(frozen=True)
class Store:
    """What a ``cache`` parameter means.

    Parameters
    ----------
    location : Path or None
        None keeps nothing.
    memory : joblib.Memory, default=None
        One that the user made, which is the user's to bound. Where there is none, the store makes one for the folder
        and keeps it below `MEMBER_BYTES`.
    rows : Path, default=None
        Where single rows are kept of a store that keeps nothing else; see `sharing_rows`.
    """

    location: Path | None
    memory: Memory | None = None
    rows: Path | None = None

    @classmethod
    def of(cls, cache: Any) -> Store:
        """Return the store that a ``cache`` parameter means: None, a folder, or a joblib.Memory."""
        if cache is None:
            return cls(None)
        if isinstance(cache, Memory):
            return cls(None) if cache.location is None else cls(Path(cache.location), cache)
        try:
            location = Path(os.fspath(cache))
        except TypeError as error:
            raise ConfigurationError(f"cache must be a folder, a joblib.Memory or None, not {cache!r}") from error
        if location.exists() and not location.is_dir():
            raise ConfigurationError(f"cache must be a folder, and {location} is a file")
        return cls(location)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the encodings of files be found, and the embeddings of rows that a frozen network has seen, inside.

        A folder that is not there, as on a host where the model is only used, is not made for that. A composition
        without a store that is part of another one uses the other one's.
        """
        location = self.rows if self.location is None else self.location
        if location is None:
            yield
            return
        token = active_location.set(location if location.is_dir() else None)
        try:
            yield
        finally:
            active_location.reset(token)

    @contextmanager
    def sharing_rows(self) -> Iterator[Store]:
        """Yield a store for work that goes over the same rows many times: inside, each is encoded and embedded once.

        Where no store is given, that is a folder that goes away in the end.
        """
        if self.location is not None or is_active():
            yield self
            return
        with TemporaryDirectory(prefix="mmensemble-", ignore_cleanup_errors=True) as folder:
            shared = replace(self, rows=Path(folder))
            with shared.active():
                yield shared

    def call(
        self, function: Callable[..., Any], estimator: Any, rows: Any, *arguments: Any, depends_on: Sequence[Any] = ()
    ) -> Any:
        """Return ``function(estimator, rows, *arguments)``, computed once for equal arguments.

        Parameters
        ----------
        function : callable
            Of a module, so that it has a name.
        estimator : estimator
            Unfitted.
        rows : DataFrame, Series or HashedRows
        *arguments
        depends_on : sequence of estimator, default=()
            Further estimators among the arguments.
        """
        hashed = rows if isinstance(rows, HashedRows) else HashedRows(rows)
        rows = hashed.rows
        if self.location is None:
            with self.active():
                return function(estimator, rows, *arguments)
        try:
            self.location.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._say(error)
        with self.active():
            # Work that was quick on as many rows is quick again.
            kind = (function.__name__, str(n_rows(rows)), *(repr(one) for one in (estimator, *depends_on)))
            key = None
            if _seconds.get(kind, WORTH_SECONDS) >= WORTH_SECONDS:
                key = _key_of(function, estimator, hashed, arguments, depends_on)
            if key is None:
                return function(estimator, rows, *arguments)
            found = self._found(key)
            if found is None:
                started = time.perf_counter()
                with portion(1.0) as limit:
                    result = function(estimator, rows, *arguments)
                if limit.cut:
                    return result
                found = result, time.perf_counter() - started
                self._keep(key, found)
            result, _seconds[kind] = found
            return result

    def _found(self, key: Key) -> tuple[Any, float] | None:
        """Return what was kept under a key, and how long the work took; None where nothing is, or it is damaged."""
        try:
            kept, place = self._memory.store_backend, [_FOLDER, key.text]
            if not kept.contains_item(place):
                return None
            content = kept.load_item(place)
            if content[:CHECKSUM_BYTES] != _checksum(content[CHECKSUM_BYTES:]):
                raise ValueError("an entry is not what was written")
            result, seconds = key.loads(content[CHECKSUM_BYTES:])
        except Exception as error:  # whatever becomes of damaged files, it costs the cache alone
            say_once(f"a part of the cache in {self.location} is damaged, and made anew: {error}")
            return None
        return result, seconds

    def _keep(self, key: Key, made: tuple[Any, float]) -> None:
        """Keep a result; where that fails, only say so."""
        try:
            with pickled_for_the_store(True):
                content = key.dumps(made)
            kept, place = self._memory.store_backend, [_FOLDER, key.text]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Unable to cache to disk")
                kept.dump_item(place, _checksum(content) + content)
            if not kept.contains_item(place):
                raise OSError("a result could not be written")
            if self.memory is None and self.location is not None:
                _drop_the_oldest(self._memory, self.location)
        except Exception as error:
            self._say(error)

    @property
    def _memory(self) -> Memory:
        return Memory(str(self.location), verbose=0) if self.memory is None else self.memory

    def _say(self, error: Exception) -> None:
        say_once(f"the cache in {self.location} cannot be used: {error}")


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=CHECKSUM_BYTES).digest()


def _drop_the_oldest(memory: Memory, location: Path) -> None:
    """Bring the folder back below its bound, unless it was looked at just now."""
    now = time.monotonic()
    last, took = _walks.get(location, (-np.inf, 0.0))
    if now - last >= took / WALKING_SHARE:
        memory.reduce_size(bytes_limit=MEMBER_BYTES)
        _walks[location] = (time.monotonic(), time.monotonic() - now)


def _key_of(
    function: Callable[..., Any],
    estimator: Any,
    rows: HashedRows,
    arguments: tuple[Any, ...],
    depends_on: Sequence[Any],
) -> Key | None:
    """Return the key of what a result depends on, None where an argument cannot be hashed."""
    estimators = [estimator, *depends_on]
    parts = [part for estimator in estimators for part in (estimator, *estimator.get_params().values())]
    stamps = [part.cache_stamp() for part in parts if hasattr(part, "cache_stamp")]
    files = [stamp for part in parts if (stamp := file_stamp(part)) is not None]
    try:
        with pickled_for_the_store(True):
            return Key.of(function, estimator, rows.key, arguments, stamps, files, get_config(), PYTHON, versions())
    except UNHASHABLE as error:  # a lock among the parameters, say: the next process could not tell it from another one
        reason = error.args[0][0] if error.args and isinstance(error.args[0], tuple) else error
        _log.warning("the cache cannot keep a fitted %s: %s", type(estimator).__name__, reason)
        return None
