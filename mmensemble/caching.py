"""The work that a search over fusion strategies would repeat, and the stores that keep it.

Strategies differ in how members are joined; most of the time goes into the members. Two stores lie in one folder:

- joblib's, for what depends on a whole set of rows: fitted members, their out-of-fold outputs, fitted joint fusions.
  Each lies under the hash of its estimator, rows, labels, versions, weights and files, and is written beside its place
  and renamed, so a killed process leaves nothing half-written.
- LMDB's, for what depends on one row: its embedding by a frozen network, under the hash of the row's encoded content,
  the versions and the network. LMDB is transactional, takes many processes of one host at once, and holds bytes, so
  nothing is unpickled.

Neither changes a result: what is kept is what was computed.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib import Memory
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

import mmensemble
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.outputs import outputs_of
from mmensemble.preprocessing.frames import column_cells, column_names, leaf_cells, n_rows
from mmensemble.scoring.tasks import Task

if TYPE_CHECKING:
    import lmdb

__all__ = ["Store", "embed_rows", "fit_member", "is_active", "is_storing", "out_of_fold"]

# What a folder holds at most. joblib's oldest results go first; LMDB's embeddings go all at once.
MEMBER_BYTES = 8 * 2**30
EMBEDDING_BYTES = 4 * 2**30

# Work below that is done again: to hash its rows and to read its result take about as long.
WORTH_SECONDS = 0.02

# What one transaction of embeddings holds at most.
TRANSACTION_BYTES = 32 * 2**20

# The oldest results are looked for in this share of the time at most, for that reads the whole folder.
WALKING_SHARE = 0.05

# A column is one of paths if one of its first cells names a file.
_PROBED_CELLS = 16

_log = logging.getLogger(__name__)

_seconds: dict[tuple[str, ...], float] = {}
_walks: dict[Path, tuple[float, float]] = {}
_lock = threading.RLock()
_environments: dict[tuple[int, str], tuple[int, lmdb.Environment]] = {}
_embeddings: ContextVar[Path | None] = ContextVar("embeddings", default=None)
_storing: ContextVar[bool] = ContextVar("storing", default=False)


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
    """

    location: Path | None
    memory: Memory | None = None

    @classmethod
    def of(cls, cache: Any) -> Store:
        """Return the store that a ``cache`` parameter means: None, a folder, or a joblib.Memory."""
        if cache is None:
            return cls(None)
        if isinstance(cache, Memory):
            return cls(None) if cache.location is None else cls(Path(cache.location), cache)
        try:
            return cls(Path(os.fspath(cache)))
        except TypeError as error:
            raise ConfigurationError(f"cache must be a folder, a joblib.Memory or None, not {cache!r}") from error

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let frozen networks find the embeddings of rows that they have seen, inside the block.

        A folder that is not there, as on a host where the model is only used, is not made for that. A composition
        without a store that is part of another one uses the other one's.
        """
        if self.location is None:
            yield
            return
        token = _embeddings.set(self.location / "embeddings" if self.location.is_dir() else None)
        try:
            yield
        finally:
            _embeddings.reset(token)

    def call(
        self, function: Callable[..., Any], estimator: Any, *arguments: Any, depends_on: Sequence[Any] = ()
    ) -> Any:
        """Return ``function(estimator, *arguments)``, computed once for equal arguments.

        Parameters
        ----------
        function : callable
            Of a module, so that it has a name.
        estimator : estimator
            Unfitted.
        *arguments
            Rows first.
        depends_on : sequence of estimator, default=()
            Further estimators among the arguments.
        """
        if self.location is None:
            return function(estimator, *arguments)
        self.location.mkdir(parents=True, exist_ok=True)
        with self.active():
            # Work that was quick on as many rows is quick again.
            kind = (function.__name__, str(n_rows(arguments[0])), *(repr(one) for one in (estimator, *depends_on)))
            key = None
            if _seconds.get(kind, WORTH_SECONDS) >= WORTH_SECONDS:
                key = _key_of(function, (estimator, *arguments), depends_on)
            if key is None:
                return function(estimator, *arguments)
            result, _seconds[kind] = self._once(key, lambda: function(estimator, *arguments))
            return result

    def _once(self, key: str, work: Callable[[], Any]) -> tuple[Any, float]:
        """Return what was kept under a key, or do the work and keep it; and how long the work took."""
        memory = Memory(str(self.location), verbose=0) if self.memory is None else self.memory
        computed = False

        def timed() -> tuple[Any, float]:
            nonlocal computed
            computed = True
            started = time.perf_counter()
            with _pickled_for_the_store(False):
                result = work()
            return result, time.perf_counter() - started

        with _pickled_for_the_store(True):
            kept: tuple[Any, float] = memory.cache(_kept, ignore=["work"])(key, timed)
        if computed and self.memory is None and self.location is not None:
            _drop_the_oldest(memory, self.location)
        return kept


def _kept(key: str, work: Callable[[], Any]) -> Any:
    """Do the work; joblib keeps what this returns under the key."""
    return work()


def _drop_the_oldest(memory: Memory, location: Path) -> None:
    """Bring the folder back below its bound, unless it was looked at just now."""
    now = time.monotonic()
    last, took = _walks.get(location, (-np.inf, 0.0))
    if now - last >= took / WALKING_SHARE:
        memory.reduce_size(bytes_limit=MEMBER_BYTES)
        _walks[location] = (time.monotonic(), time.monotonic() - now)


@contextmanager
def _pickled_for_the_store(yes: bool) -> Iterator[None]:
    token = _storing.set(yes)
    try:
        yield
    finally:
        _storing.reset(token)


def is_active() -> bool:
    """Tell whether there is a store in which frozen networks find the embeddings of rows that they have seen."""
    return _embeddings.get() is not None


def is_storing() -> bool:
    """Tell whether an object is being pickled for the store, where it may refer to weights that lie elsewhere."""
    return _storing.get()


def _key_of(function: Callable[..., Any], arguments: tuple[Any, ...], depends_on: Sequence[Any]) -> str | None:
    """Return a hash of what a result depends on, None where an argument cannot be hashed."""
    estimators = [arguments[0], *depends_on]
    parts = [part for estimator in estimators for part in (estimator, *estimator.get_params().values())]
    stamps = [part.cache_stamp() for part in parts if hasattr(part, "cache_stamp")]
    try:
        with _pickled_for_the_store(True):
            return str(joblib.hash([function.__qualname__, arguments, stamps, _versions(), _file_stamps(arguments[1])]))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        # A lambda among the parameters, say: the next process could not tell it from another one.
        reason = error.args[0][0] if isinstance(error.args[0], tuple) else error
        _log.warning("the cache cannot keep a fitted %s: %s", type(arguments[0]).__name__, reason)
        return None


@functools.cache
def _versions() -> tuple[str, ...]:
    found = [".".join(map(str, sys.version_info[:2])), mmensemble.__version__]
    for package in ("scikit-learn", "numpy", "torch", "transformers"):
        try:
            found.append(version(package))
        except PackageNotFoundError:
            found.append("")
    return tuple(found)


def _file_stamps(rows: Any) -> list[list[tuple[int, int] | None]]:
    """Return size and time of change of the files that cells name, for columns that hold paths."""
    names = column_names(rows)
    columns = [leaf_cells(rows)] if names is None else [column_cells(rows, name) for name in names]
    stamps = []
    for cells in columns:
        if isinstance(cells, np.ndarray):
            continue
        if any(_file_stamp(cell) for cell in cells[:_PROBED_CELLS]):
            stamps.append([_file_stamp(cell) for cell in cells])
    return stamps


def _file_stamp(cell: Any) -> tuple[int, int] | None:
    if isinstance(cell, Mapping):
        cell = cell.get("path") if cell.get("bytes") is None else None
    if not isinstance(cell, (str, os.PathLike)):
        return None
    try:
        found = os.stat(cell)
    except (OSError, ValueError):  # no file, and no possible name of one
        return None
    return found.st_size, found.st_mtime_ns


# Members


def weight_name(estimator: Any) -> str:
    """Return the name by which `fit` takes sample weights; a pipeline takes them for its last step."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return f"{name}__{weight_name(last)}"
    return "sample_weight"


def fit_member(estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> Any:
    """Fit a clone of a member.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
        The member's columns.
    y : ndarray of shape (n,) or (n, n_columns)
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    estimator
        The fitted clone.

    Raises
    ------
    ConfigurationError
        If the estimator takes no sample weights and there are some.
    """
    if sample_weight is None:
        return clone(estimator).fit(X, y)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not has_fit_parameter(last, "sample_weight") and not _takes_anything(last.fit):
        raise ConfigurationError(f"{type(last).__name__} takes no sample_weight")
    with config_context(enable_metadata_routing=False):  # the composition routes: every member gets the weights
        return clone(estimator).fit(X, y, **{weight_name(estimator): sample_weight})


def _takes_anything(function: Callable[..., Any]) -> bool:
    return any(p.kind is Parameter.VAR_KEYWORD for p in signature(function).parameters.values())


def out_of_fold(
    estimator: Any, X: Any, y: np.ndarray, task: Task, cv: Any, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Predict each row by a clone that was fitted without it.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
    y : ndarray of shape (n,) or (n, n_columns)
    task : Task
    cv : int or splitter
        As in ``cross_val_predict``; it must leave each row out once.
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    ndarray of float, shape (n, task.width)
    """
    splitter = check_cv(cv, y, classifier=bool(task.label_sets))
    outputs, times = np.zeros((len(y), task.width)), np.zeros(len(y), dtype=int)
    for fitting, held_out in splitter.split(np.zeros(len(y)), y):
        weights = None if sample_weight is None else sample_weight[fitting]
        with _numbered(fitting):
            fitted = fit_member(estimator, _safe_indexing(X, fitting), y[fitting], weights)
        with _numbered(held_out):
            outputs[held_out] = outputs_of(fitted, task, _safe_indexing(X, held_out))
        times[held_out] += 1
    if (times != 1).any():
        raise ConfigurationError(f"cv must leave each row out once, as StratifiedKFold does; {cv!r} does not")
    return outputs


@contextmanager
def _numbered(rows: np.ndarray) -> Iterator[None]:
    """Give a bad row of a fold the number it has in the whole."""
    try:
        yield
    except DataError as error:
        if error.row is None:
            raise
        raise DataError(error.message, row=int(rows[error.row]), column=error.column) from error


# Embeddings


def embed_rows(
    fingerprint: bytes, rows: Sequence[np.ndarray], compute: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Embed rows by a frozen network, those that the active store has not.

    Parameters
    ----------
    fingerprint : bytes
        Of the network and of what is asked of it.
    rows : sequence of ndarray
        The rows as the network gets them.
    compute : callable
        ndarray of positions in `rows` → their embeddings, float32 of one or two axes.

    Returns
    -------
    list of ndarray
        An embedding per row. Equal rows are embedded once.
    """
    folder = _embeddings.get()
    if folder is None:
        return list(compute(np.arange(len(rows))))
    environment = _environment(folder)
    prefix = repr(_versions()).encode() + fingerprint
    keys = [_key(prefix, row) for row in rows]
    with environment.begin() as transaction:
        found = {key: _from_bytes(value) for key in set(keys) if (value := transaction.get(key)) is not None}
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key not in found}
    wanted = np.asarray(sorted(first.values()), dtype=np.intp)
    if len(wanted):
        made = {keys[position]: value for position, value in zip(wanted, compute(wanted), strict=True)}
        _write(environment, made)
        found.update(made)
    return [found[key] for key in keys]


def _key(prefix: bytes, row: np.ndarray) -> bytes:
    digest = blake2b(prefix, digest_size=24)
    digest.update(f"{row.dtype.str}{row.shape}".encode())
    digest.update(np.ascontiguousarray(row).data)
    return digest.digest()


def _write(environment: lmdb.Environment, made: dict[bytes, np.ndarray]) -> None:
    import lmdb

    try:
        for pairs in _parts(made):
            try:
                with environment.begin(write=True) as transaction:
                    transaction.cursor().putmulti(pairs)
            except lmdb.MapFullError:
                # The bound is reached. Which embeddings will be asked for again is not known, so all make room.
                with environment.begin(write=True) as transaction:
                    transaction.drop(environment.open_db(), delete=False)
    except lmdb.Error as error:
        _log.warning("embeddings are not kept: %s", error)  # as of a full disk: they are there, and that is what counts


def _parts(made: Mapping[bytes, np.ndarray]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield embeddings as bytes, some at a time."""
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
    return np.asarray([value.ndim, *value.shape], dtype="<u4").tobytes() + value.astype("<f4").tobytes()


def _from_bytes(stored: bytes) -> np.ndarray:
    n_axes = int(np.frombuffer(stored, dtype="<u4", count=1)[0])
    shape = np.frombuffer(stored, dtype="<u4", count=n_axes, offset=4)
    return np.frombuffer(stored, dtype="<f4", offset=4 + 4 * n_axes).reshape(shape)


def _environment(folder: Path) -> lmdb.Environment:
    """Open the embeddings of a folder, once per process: LMDB allows no more, and none across a fork."""
    import lmdb

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
        opened = functools.partial(lmdb.open, str(folder), map_size=EMBEDDING_BYTES, max_readers=1024, readahead=False)
        try:
            environment = opened()
        except (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError) as error:
            _log.warning("%s is damaged and made anew: %s", data, error)
            data.unlink()
            environment = opened()
        environment.reader_check()
        _environments[place] = (data.stat().st_ino, environment)
        return environment
