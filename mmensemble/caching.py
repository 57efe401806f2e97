"""The work that a search over fusion strategies would repeat, and the stores that keep it.

Strategies differ in how members are joined; most of the time goes into the members. Two kinds of stores lie in one
folder:

- joblib's, for what depends on a whole set of rows: fitted members, their out-of-fold outputs, fitted joint fusions.
  Each lies under the hash of its estimator, rows, labels, versions, weights and files, and is written beside its place
  and renamed, so a killed process leaves nothing half-written.
- LMDB databases, for what depends on one row: a file as the network gets it, under the hash of the file, the versions
  and the preprocessor; its embedding by a frozen network, under that hash, or that of the row's encoded content, and
  the hash of the network. They are two, for one encoding takes the room of some hundred embeddings.

Neither changes a result: what is kept is what was computed.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

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
from mmensemble._row_store import FORMAT, TRANSACTION_BYTES, RowStore, digest, say_once
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.outputs import outputs_of
from mmensemble.preprocessing import Cells, Encoded, Preprocessor
from mmensemble.preprocessing.frames import column_cells, column_names, leaf_cells, n_rows
from mmensemble.scoring.tasks import Task

__all__ = ["Store", "embed_rows", "encode_rows", "fit_member", "is_active", "is_storing", "out_of_fold"]

# What a folder holds at most. joblib's oldest results go first; LMDB's embeddings go all at once, and so do encodings.
MEMBER_BYTES = 8 * 2**30
EMBEDDING_BYTES = 4 * 2**30
ENCODING_BYTES = 4 * 2**30

# Work below that is done again: to hash its rows and to read its result take about as long.
WORTH_SECONDS = 0.02

# The oldest results are looked for in this share of the time at most, for that reads the whole folder.
WALKING_SHARE = 0.05

# A column is one of paths if one of its first cells names a file.
_PROBED_CELLS = 16

_log = logging.getLogger(__name__)

_seconds: dict[tuple[str, ...], float] = {}
_walks: dict[Path, tuple[float, float]] = {}
_active: ContextVar[Path | None] = ContextVar("active", default=None)
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
        if self.location is None:
            yield
            return
        token = _active.set(self.location if self.location.is_dir() else None)
        try:
            yield
        finally:
            _active.reset(token)

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
        try:
            self.location.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._say(error)
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
        began = False
        done: list[tuple[Any, float]] = []

        def timed() -> tuple[Any, float]:
            nonlocal began
            began = True
            started = time.perf_counter()
            with _pickled_for_the_store(False):
                done.append((work(), time.perf_counter() - started))
            return done[0]

        try:
            memory = Memory(str(self.location), verbose=0) if self.memory is None else self.memory
            with _pickled_for_the_store(True):
                kept: tuple[Any, float] = memory.cache(_kept, ignore=["work"])(key, timed)
            if began and self.memory is None and self.location is not None:
                _drop_the_oldest(memory, self.location)
        except OSError as error:
            if began and not done:
                raise  # from the work
            self._say(error)
            return done[0] if done else timed()
        return kept

    def _say(self, error: OSError) -> None:
        say_once(f"the cache {self.location} cannot be used: {error}")


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
    """Tell whether there is a store in which encodings and embeddings of rows are found."""
    return _active.get() is not None


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
def _versions(packages: tuple[str, ...] = ("scikit-learn", "numpy", "torch", "transformers")) -> tuple[str, ...]:
    """Return the versions of Python, of this package, and of some others, empty where there is none."""
    found = [".".join(map(str, sys.version_info[:2])), mmensemble.__version__]
    for package in packages:
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


# Single rows


def embed_rows(
    fingerprint: bytes, rows: Sequence[np.ndarray | bytes], compute: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Embed rows by a frozen network, those that the active store has not.

    Parameters
    ----------
    fingerprint : bytes
        Of the network and of what is asked of it.
    rows : sequence of ndarray or bytes
        Each row as the network gets it, or its key; see `mmensemble.preprocessing.Encoded.contents`.
    compute : callable
        ndarray of positions in `rows` → their embeddings, float32 of one or two axes.

    Returns
    -------
    list of ndarray
        An embedding per row. Equal rows are embedded once.
    """
    location = _active.get()
    if location is None:
        return list(compute(np.arange(len(rows))))
    store = RowStore(location / "embeddings", EMBEDDING_BYTES)
    prefix = repr((FORMAT, _versions())).encode() + fingerprint
    keys = [digest(prefix, row) for row in rows]
    found = store.get(keys)
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key not in found}
    wanted = np.asarray(sorted(first.values()), dtype=np.intp)
    if len(wanted):
        made = {keys[position]: value for position, value in zip(wanted, compute(wanted), strict=True)}
        store.put(made)
        found.update(made)
    return [found[key] for key in keys]


def encode_rows(preprocessor: Preprocessor, cells: Cells) -> Encoded:
    """Encode the cells of one column, those that the active store has not.

    Files alone are kept, given as paths or as bytes: to hash an array takes about as long as to resize it.

    Parameters
    ----------
    preprocessor : Preprocessor
        One without `decoders` is quicker than the store, and encodes all.
    cells : sequence of cells, n rows

    Returns
    -------
    Encoded
        As of `Preprocessor.encode`, with the keys of its rows.
    """
    location = _active.get()
    if location is None or not preprocessor.decoders:
        return preprocessor.encode(cells)
    said = [FORMAT, _versions(("numpy", *preprocessor.decoders)), preprocessor.to_dict()]
    prefix = json.dumps(said, sort_keys=True).encode()
    keys = [_file_key(prefix, cell) for cell in cells]
    if not any(keys):
        return preprocessor.encode(cells)
    store = RowStore(location / "encodings", ENCODING_BYTES)
    whole = preprocessor.encode([None] * len(cells))  # a placeholder for each
    # Some rows at a time: until they are in their place, they lie in memory twice.
    step = max(1, TRANSACTION_BYTES // max(1, preprocessor.row_bytes))
    for start in range(0, len(cells), step):
        rows = range(start, min(start + step, len(cells)))
        found = store.get(key for row in rows if (key := keys[row]) is not None)
        others = [row for row in rows if keys[row] not in found]
        made = preprocessor.encode([cells[row] for row in others])
        for row, item, present in zip(others, made.items, made.present, strict=True):
            whole.items[row], whole.present[row] = item, present
        whole.errors.update({others[position]: message for position, message in made.errors.items()})
        store.put({key: whole.items[row] for row in others if whole.present[row] and (key := keys[row]) is not None})
        for row in rows:
            if (key := keys[row]) in found:
                whole.items[row], whole.present[row] = found[key], True
    return Encoded(whole.items, whole.present, whole.errors, preprocessor.lengths(whole.items), keys)


def _file_key(prefix: bytes, cell: Any) -> bytes | None:
    """Return a key of a cell that is a file, by its bytes, or by its path, size and time of change; else None."""
    if isinstance(cell, dict):
        if cell.get("array") is not None:
            return None
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray)):
        return digest(prefix + b"bytes:", cell)
    stamp = _file_stamp(cell)
    return None if stamp is None else digest(prefix + b"path:", repr((os.path.abspath(cell), stamp)).encode())
