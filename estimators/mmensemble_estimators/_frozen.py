"""Frozen encoders: one copy for all estimators of a process, and each row embedded once while a search has a store."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from mmensemble.caching import embed_rows, is_active
from mmensemble.preprocessing import Encoded, Preprocessor, preprocessor_from_dict
from mmensemble_estimators._training import as_tensors
from mmensemble_estimators.backbones.encoder import Encoder, origins

if TYPE_CHECKING:
    from mmensemble_estimators._base import TorchEstimator

__all__ = ["embed", "folder_stamp", "frozen_encoder", "module_stamp", "own_encoder", "real_tokens", "tokens"]

# Below this many multiplications per row an encoder is as quick as the store: hashing, looking up and reading a row
# takes about 50 microseconds, in which one core multiplies about a million times. Of a convolution, which uses each
# parameter many times, that is a lower bound.
WORTH_MULTIPLICATIONS = 1e6

_shared: WeakValueDictionary[bytes, Encoder] = WeakValueDictionary()
_fingerprints: WeakKeyDictionary[nn.Module, bytes] = WeakKeyDictionary()
_trainable: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
_recent: deque[Encoder] = deque(maxlen=4)
_lock = threading.RLock()

# What a network does follows from these packages' versions, which the store knows, not from their code.
_VERSIONED = ("torch", "transformers")

Run = Callable[[Callable[..., Any], np.ndarray], Any]


def folder_stamp(folder: str | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of the files of a folder of weights; nothing for a hub id."""
    if folder is None or not Path(folder).is_dir():
        return ()
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def module_stamp(backbone: Callable[[], nn.Module]) -> bytes | None:
    """Return a hash of the module that a callable backbone makes; None if it makes another one at each call.

    A process asks each callable once: equal partials, of which `clone` makes copies, count as one.
    """
    if isinstance(backbone, functools.partial):
        key: Any = (backbone.func, _pickled(backbone, (backbone.args, backbone.keywords)))
    elif inspect.isroutine(backbone) or inspect.isclass(backbone):
        key = backbone
    else:
        key = (type(backbone), _pickled(backbone, backbone))
    return _stamp_of(_Asked(key, backbone))


def _pickled(backbone: Any, content: Any) -> Any:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, TypeError, AttributeError):
        return id(backbone)


@dataclass(frozen=True)
class _Asked:
    key: Any
    backbone: Callable[[], nn.Module] = field(compare=False)


@functools.lru_cache(maxsize=16)
def _stamp_of(asked: _Asked) -> bytes | None:
    with torch.random.fork_rng(devices=[]):
        first, second = _hash(asked.backbone()), _hash(asked.backbone())
    return first if first == second else None


def frozen_encoder(estimator: TorchEstimator, preprocessor: Preprocessor) -> Encoder:
    """Build an estimator's encoder, or return the one that another estimator holds, if it is the same.

    It must not be trained: `own_encoder` gives one that may be.
    """
    stamp = estimator.cache_stamp()
    if not stamp:  # drawn at random, or a model of a hub
        return _built(estimator, preprocessor)
    state = preprocessor.to_dict()
    said = (type(estimator).modality, stamp, estimator.pretrained, estimator.pooling, state)
    key = blake2b(repr(said).encode()).digest()
    with _lock:
        encoder = _shared.get(key)
        if encoder is None:
            with torch.random.fork_rng(devices=[]):  # whether it is built or found must not show in what is drawn after
                encoder = _shared[key] = _built(estimator, preprocessor)
            origins[encoder] = (_found_or_built, (key, clone(estimator), json.dumps(state)))
    return _keep(encoder)


def _built(estimator: TorchEstimator, preprocessor: Preprocessor) -> Encoder:
    encoder = estimator._build_encoder(preprocessor)
    _trainable[encoder] = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    return encoder.requires_grad_(False).eval()


def _found_or_built(key: bytes, estimator: TorchEstimator, state: str) -> Encoder:
    """Return the encoder that a pickle in the store refers to; `state` is JSON, for it is seldom needed."""
    encoder = _shared.get(key)
    return frozen_encoder(estimator, preprocessor_from_dict(json.loads(state))) if encoder is None else _keep(encoder)


def _keep(encoder: Encoder) -> Encoder:
    """Keep the latest encoders between the fits of a search, each of which forgets its estimators."""
    if is_active():
        with _lock:
            others = [other for other in _recent if other is not encoder]
            _recent.clear()
            _recent.extend([*others, encoder])
    return encoder


def own_encoder(encoder: Encoder) -> Encoder:
    """Return an encoder that may be trained: a copy, where it belongs to other estimators or a store knows it."""
    if encoder in _fingerprints or encoder in origins:
        trainable = _trainable.get(encoder)
        encoder = copy.deepcopy(encoder)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(parameter.requires_grad if trainable is None else name in trainable)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.requires_grad_(True)  # frozen by an earlier fit, in another process
    return encoder


def fingerprint(encoder: Encoder) -> bytes:
    """Return a hash of an encoder's architecture and weights, which must not change any more."""
    if encoder not in _fingerprints:
        config = getattr(getattr(encoder, "backbone", None), "config", None)
        _fingerprints[encoder] = _hash(encoder, "" if config is None else config.to_json_string())
    return _fingerprints[encoder]


def _hash(module: nn.Module, *more: str) -> bytes:
    """Hash a module's structure, plain attributes, code and weights."""
    attributes = {name: _plain_attributes(part) for name, part in module.named_modules()}
    classes = dict.fromkeys(cls for part in module.modules() for cls in type(part).__mro__)
    code = [(cls.__qualname__, list(_code(cls))) for cls in classes if cls.__module__.split(".")[0] not in _VERSIONED]
    digest = blake2b(repr((repr(module), attributes, code, more)).encode(), digest_size=32)
    # Not the state_dict, which leaves some buffers out.
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the numbers, strings and tuples of them that a module works with; not whether it is being trained."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (str, int, float))


def _code(cls: type) -> Iterator[Any]:
    """Yield the bytecode of a class's methods: with the same weights, another `forward` embeds otherwise."""
    for name, value in sorted(vars(cls).items()):
        function = inspect.unwrap(value) if callable(value) else getattr(value, "__func__", None)
        code = getattr(function, "__code__", None)
        if code is not None:
            yield name, _said(code)


def _said(code: CodeType) -> list[Any]:
    constants = [
        _said(part) if isinstance(part, CodeType) else sorted(map(repr, part)) if isinstance(part, frozenset) else part
        for part in code.co_consts
    ]
    return [code.co_code, code.co_names, constants]


def embed(encoder: Encoder, encoded: Encoded, run: Run) -> np.ndarray:
    """Embed encoded rows by a frozen encoder.

    Parameters
    ----------
    encoder : Encoder
    encoded : Encoded
    run : callable
        (function of a batch of arrays, positions) → its output for these rows, (n_positions, embedding_size).

    Returns
    -------
    ndarray of float32, shape (n_rows, embedding_size)
        Zeros where the row is missing.
    """
    embedding = np.zeros((len(encoded), encoder.embedding_size), dtype=np.float32)
    rows = _present(encoded)
    if len(rows):
        embedding[rows] = np.stack(_once(encoder, b"embedding", encoded, rows, functools.partial(run, encoder)))
    return embedding


def tokens(encoder: Encoder, encoded: Encoded, run: Run) -> list[np.ndarray]:
    """Encode rows as tokens by a frozen encoder, each (length, embedding_size); one token of zeros where missing."""
    states = [np.zeros((1, encoder.embedding_size), dtype=np.float32)] * len(encoded)
    rows = _present(encoded)
    if len(rows):
        made = _once(encoder, b"tokens", encoded, rows, functools.partial(run, encoder.tokens))
        for row, value in zip(rows, made, strict=True):
            states[row] = value
    return states


def _present(encoded: Encoded) -> np.ndarray:
    return np.flatnonzero(encoded.present)


def _once(
    encoder: Encoder, what: bytes, encoded: Encoded, rows: np.ndarray, compute: Callable[[np.ndarray], Sequence[Any]]
) -> Sequence[np.ndarray]:
    n_parameters = sum(parameter.numel() for parameter in encoder.parameters())
    if n_parameters * float(encoded.lengths[rows].mean()) < WORTH_MULTIPLICATIONS:
        return list(compute(rows))
    return embed_rows(what + fingerprint(encoder), encoded.contents(rows), lambda positions: compute(rows[positions]))


def real_tokens(
    function: Callable[..., tuple[Tensor, Tensor]],
    batch: Callable[[np.ndarray], dict[str, np.ndarray]],
    order: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
) -> list[np.ndarray]:
    """Run an encoder's `tokens` batch by batch; see `mmensemble_estimators._training.run_in_batches`.

    Returns
    -------
    list of ndarray of float32, each (length, size)
        The real tokens of each row, in the order of the positions, not of `order`.
    """
    made: list[Any] = [None] * len(order)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            inputs = {name: tensor.to(device) for name, tensor in as_tensors(batch(positions)).items()}
            states, mask = (tensor.cpu().numpy() for tensor in function(**inputs))
            for position, state, real in zip(positions, states, mask, strict=True):
                made[position] = np.ascontiguousarray(state[real], dtype=np.float32)
    return made
