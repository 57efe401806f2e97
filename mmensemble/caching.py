"""The work that a search over fusion strategies would repeat, and the stores that keep it.

Strategies differ in how members are joined; most of the time goes into the members. Two stores lie in one folder:

- joblib's, for what depends on a whole set of rows: fitted members, their out-of-fold outputs, fitted joint fusions.
  Each lies under the hash of its estimator, rows, labels, versions and weights, and is written beside its place and
  renamed, so a killed process leaves nothing half-written.
- LMDB's, for what depends on one row: its embedding by a frozen network, under the hash of the row's encoded content
  and of the network's weights. LMDB is transactional, takes many processes at once, and holds bytes, so nothing is
  unpickled.

Neither changes a result: what is kept is what was computed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Memory
from sklearn import get_config
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import has_fit_parameter

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.outputs import outputs_of
from mmensemble.preprocessing.frames import n_rows
from mmensemble.scoring.tasks import Task

if TYPE_CHECKING:
    import lmdb

__all__ = ["Store", "embed_rows", "fit_member", "is_active", "is_storing", "out_of_fold"]

# What a folder holds at most. joblib's oldest results go first; LMDB's embeddings go all at once.
MEMBER_BYTES = 8 * 2**30
EMBEDDING_BYTES = 4 * 2**30

# Work below that is done again: to hash its rows and to read its result take about as long.
WORTH_SECONDS = 0.02

_WRITE_ROWS = 512

_seconds: dict[tuple[str, str, int], float] = {}
_environments: dict[tuple[int, str], tuple[int, lmdb.Environment]] = {}
_embeddings: ContextVar[Path | None] = ContextVar("embeddings", default=None)
_storing: ContextVar[bool] = ContextVar("storing", default=False)


@dataclass(frozen=True)
class Store:
    """What a ``cache`` parameter means.

    Parameters
    ----------
    memory : joblib.Memory or None
        None keeps nothing.
    owned : bool
        Whether the store is kept below `MEMBER_BYTES`; a `Memory` that the user made is the user's to bound.
    """

    memory: Memory | None
    owned: bool

    @classmethod
    def of(cls, cache: Any) -> Store:
        """Return the store that a ``cache`` parameter means: None, a folder, or a joblib.Memory."""
        if cache is None:
            return cls(None, owned=False)
        if isinstance(cache, Memory):
            return cls(cache if cache.location is not None else None, owned=False)
        try:
            return cls(Memory(os.fspath(cache), verbose=0), owned=True)
        except TypeError as error:
            raise ConfigurationError(f"cache must be a folder, a joblib.Memory or None, not {cache!r}") from error

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let frozen networks find the embeddings of rows that they have seen, inside the block."""
        token = _embeddings.set(None if self.memory is None else Path(self.memory.location) / "embeddings")
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
        with self.active():
            if self.memory is None:
                return function(estimator, *arguments)
            # Work that was quick on as many rows is quick again.
            kind = (function.__name__, repr(estimator), n_rows(arguments[0]))
            if _seconds.get(kind, WORTH_SECONDS) < WORTH_SECONDS:
                return function(estimator, *arguments)
            token = _storing.set(True)
            try:
                run = self.memory.cache(_run)
                result, _seconds[kind] = run(
                    function, (estimator, *arguments), _state_of_the_world([estimator, *depends_on])
                )
            finally:
                _storing.reset(token)
            if self.owned:
                self.memory.reduce_size(bytes_limit=MEMBER_BYTES)
            return result


def _run(function: Callable[..., Any], arguments: tuple[Any, ...], world: Any) -> tuple[Any, float]:
    """Call a function; return its result and how long it took."""
    started = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - started


def is_active() -> bool:
    """Tell whether there is a store in which frozen networks find the embeddings of rows that they have seen."""
    return _embeddings.get() is not None


def is_storing() -> bool:
    """Tell whether an object is being pickled for the store, where it may refer to weights that lie elsewhere."""
    return _storing.get()


def _state_of_the_world(estimators: Sequence[Any]) -> list[Any]:
    """Return what a result depends on beyond its arguments: versions, and the files that parameters name."""
    parts = [part for estimator in estimators for part in (estimator, *estimator.get_params().values())]
    stamps = [part.cache_stamp() for part in parts if hasattr(part, "cache_stamp")]
    return [sys.version_info[:2], *_versions(), stamps]


def _versions() -> list[str]:
    found = []
    for package in ("mmensemble", "scikit-learn", "numpy", "torch", "transformers"):
        try:
            found.append(version(package))
        except PackageNotFoundError:
            found.append("")
    return found


# Members


def weight_name(estimator: Any) -> str:
    """Return the name by which `fit` takes sample weights; a pipeline takes them for its last step."""
    if isinstance(estimator, Pipeline) and not get_config()["enable_metadata_routing"]:
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
    keys = [_key(fingerprint, row) for row in rows]
    environment = _environment(folder)
    with environment.begin() as transaction:
        found = {key: _from_bytes(value) for key in set(keys) if (value := transaction.get(key)) is not None}
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key not in found}
    wanted = np.asarray(sorted(first.values()), dtype=np.intp)
    if len(wanted):
        made = {keys[position]: value for position, value in zip(wanted, compute(wanted), strict=True)}
        _write(environment, made)
        found.update(made)
    return [found[key] for key in keys]


def _key(fingerprint: bytes, row: np.ndarray) -> bytes:
    digest = blake2b(fingerprint, digest_size=24)
    digest.update(f"{row.dtype.str}{row.shape}".encode())
    digest.update(np.ascontiguousarray(row).data)
    return digest.digest()


def _write(environment: lmdb.Environment, made: dict[bytes, np.ndarray]) -> None:
    import lmdb

    items = list(made.items())
    for start in range(0, len(items), _WRITE_ROWS):
        pairs = [(key, _to_bytes(value)) for key, value in items[start : start + _WRITE_ROWS]]
        try:
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(pairs)
        except lmdb.MapFullError:
            # The bound is reached. Which embeddings will be asked for again is not known, so all make room.
            with environment.begin(write=True) as transaction:
                transaction.drop(environment.open_db(), delete=False)


def _to_bytes(value: np.ndarray) -> bytes:
    return np.asarray([value.ndim, *value.shape], dtype="<u4").tobytes() + value.astype("<f4").tobytes()


def _from_bytes(stored: bytes) -> np.ndarray:
    n_axes = int(np.frombuffer(stored, dtype="<u4", count=1)[0])
    shape = np.frombuffer(stored, dtype="<u4", count=n_axes, offset=4)
    return np.frombuffer(stored, dtype="<f4", offset=4 + 4 * n_axes).reshape(shape)


def _environment(folder: Path) -> lmdb.Environment:
    """Open the embeddings of a folder, once per process: LMDB allows no more, and none across a fork."""
    import lmdb

    folder.mkdir(parents=True, exist_ok=True)
    place, data = (os.getpid(), str(folder.resolve())), folder / "data.mdb"
    if place in _environments:
        inode, environment = _environments[place]
        if data.exists() and data.stat().st_ino == inode:
            return environment
        environment.close()  # the folder was deleted meanwhile, as its user may
    environment = lmdb.open(str(folder), map_size=EMBEDDING_BYTES, max_readers=1024, readahead=False)
    environment.reader_check()
    _environments[place] = (data.stat().st_ino, environment)
    return environment
