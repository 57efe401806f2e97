"""Frozen encoders: one copy for all estimators of a process, and each row embedded once while a search has a store."""

from __future__ import annotations

import copy
import json
import threading
from collections import deque
from hashlib import blake2b
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from sklearn.base import clone
from torch import nn

from mmensemble.cache import UNHASHABLE, is_active
from mmensemble.preprocessing import Preprocessor, preprocessor_from_dict
from mmensemble_estimators.backbones.encoder import Encoder, origins
from mmensemble_estimators.frozen.stamps import hash_module
from mmensemble_estimators.protocols import TrainedLeaf

__all__ = ["frozen_encoder", "own_encoder"]

_shared: WeakValueDictionary[bytes, Encoder] = WeakValueDictionary()
_fingerprints: WeakKeyDictionary[nn.Module, bytes | None] = WeakKeyDictionary()
_trainable: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
_recent: deque[Encoder] = deque(maxlen=4)
_lock = threading.RLock()


def frozen_encoder(estimator: TrainedLeaf, preprocessor: Preprocessor) -> Encoder:
    """Build an estimator's encoder, or return the one that another estimator holds, if it is the same.

    It must not be trained: `own_encoder` gives one that may be.
    """
    stamp = estimator.cache_stamp()
    if not stamp:  # drawn at random, or a model of a hub
        return _built(estimator, preprocessor)
    state = preprocessor.to_dict()
    same = (estimator.modality.name, stamp, estimator.pretrained, estimator.pooling, state)
    key = blake2b(repr(same).encode()).digest()
    with _lock:
        encoder = _shared.get(key)
        if encoder is None:
            with torch.random.fork_rng(devices=[]):  # whether it is built or found must not show in what is drawn after
                encoder = _shared[key] = _built(estimator, preprocessor)
            origins[encoder] = (_found_or_built, (key, clone(estimator), json.dumps(state)))
    return _keep(encoder)


def _built(estimator: TrainedLeaf, preprocessor: Preprocessor) -> Encoder:
    encoder: Encoder = estimator.modality.build_encoder(estimator, preprocessor)
    _trainable[encoder] = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    return encoder.requires_grad_(False).eval()


def _found_or_built(key: bytes, estimator: TrainedLeaf, state: str) -> Encoder:
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
    else:
        trainable = _trainable.pop(encoder, None)
    if trainable is not None:
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(name in trainable)
    if not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.requires_grad_(True)  # frozen by an earlier fit, in another process
    return encoder


def fingerprint(encoder: Encoder) -> bytes | None:
    """Return a hash of an encoder's architecture and weights, which must not change any more; None if there is none."""
    if encoder not in _fingerprints:
        config = getattr(getattr(encoder, "backbone", None), "config", None)
        try:
            _fingerprints[encoder] = hash_module(encoder, "" if config is None else config.to_json_string())
        except UNHASHABLE:
            _fingerprints[encoder] = None
    return _fingerprints[encoder]
