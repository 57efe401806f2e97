"""Frozen encoders: one copy for all estimators of a process, and each row embedded once while a search has a store."""

from __future__ import annotations

import copy
import functools
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor, nn

from mmensemble.caching import embed_rows, is_active
from mmensemble.preprocessing import Encoded, Preprocessor
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

Run = Callable[[Callable[..., Any], np.ndarray], Any]


def folder_stamp(folder: str | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of the files of a folder of weights; nothing for a hub id."""
    if folder is None or not Path(folder).is_dir():
        return ()
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@functools.lru_cache(maxsize=16)
def module_stamp(backbone: Callable[[], nn.Module]) -> bytes:
    """Return a hash of the module that a callable backbone makes."""
    with torch.random.fork_rng(devices=[]):
        return _hash(backbone())


def frozen_encoder(estimator: TorchEstimator, preprocessor: Preprocessor) -> Encoder:
    """Build an estimator's encoder, or return the one that another estimator holds, if it is the same.

    It must not be trained: `own_encoder` gives one that may be.
    """
    stamp = estimator.cache_stamp()
    said = (type(estimator).modality, stamp, estimator.pretrained, estimator.pooling, preprocessor.to_dict())
    key = blake2b(repr(said).encode()).digest()
    if stamp and key in _shared:
        return _keep(_shared[key])
    with torch.random.fork_rng(devices=[]):  # whether it is built or found must not show in what is drawn after
        encoder = estimator._build_encoder(preprocessor)
    _trainable[encoder] = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    encoder.requires_grad_(False).eval()
    if stamp:
        _shared[key] = encoder
        origins[encoder] = (frozen_encoder, (clone(estimator), preprocessor))
    return _keep(encoder)


def _keep(encoder: Encoder) -> Encoder:
    """Keep an encoder between the fits of a search, each of which forgets its estimators."""
    if is_active() and not any(encoder is other for other in _recent):
        _recent.append(encoder)
    return encoder


def own_encoder(encoder: Encoder) -> Encoder:
    """Return an encoder that may be trained: a copy, where it belongs to other estimators or a store knows it."""
    if encoder in _fingerprints or any(encoder is other for other in _shared.values()):
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
        said = {name: value for name, value in vars(encoder).items() if isinstance(value, (str, int, bool))}
        config = getattr(getattr(encoder, "backbone", None), "config", None)
        _fingerprints[encoder] = _hash(encoder, repr(said), "" if config is None else config.to_json_string())
    return _fingerprints[encoder]


def _hash(module: nn.Module, *more: str) -> bytes:
    """Hash a module's structure and weights."""
    digest = blake2b(repr((repr(module), more)).encode(), digest_size=32)
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


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
    content = [encoded.items[row] for row in rows]
    return embed_rows(what + fingerprint(encoder), content, lambda positions: compute(rows[positions]))


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
