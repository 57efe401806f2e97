"""Each row embedded once by a frozen encoder while a search has a store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmensemble.cache import embed_rows
from mmensemble.preprocessing import Encoded
from mmensemble.progress import Step
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.frozen.encoders import fingerprint
from mmensemble_estimators.training.loop import as_tensors

__all__ = ["embed", "real_tokens", "tokens"]

# Below this many multiplications per row an encoder is as quick as the store: hashing, looking up and reading a row
# takes about 50 microseconds, in which one core multiplies about a million times. Of a convolution, which uses each
# parameter many times, that is a lower bound.
WORTH_MULTIPLICATIONS = 1e6
Run = Callable[[Callable[..., Any], np.ndarray], Any]


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
        row_tokens = _once(encoder, b"tokens", encoded, rows, functools.partial(run, encoder.tokens))
        for row, value in zip(rows, row_tokens, strict=True):
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
    known = fingerprint(encoder)
    key = None if known is None else what + known
    return embed_rows(key, encoded.contents(rows), lambda positions: compute(rows[positions]))


def real_tokens(
    function: Callable[..., tuple[Tensor, Tensor]],
    batch: Callable[[np.ndarray], dict[str, np.ndarray]],
    order: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
) -> list[np.ndarray]:
    """Run an encoder's `tokens` batch by batch; see `mmensemble_estimators.training.loop.run_in_batches`.

    Returns
    -------
    list of ndarray of float32, each (length, size)
        The real tokens of each row, in the order of the positions, not of `order`.
    """
    row_tokens: list[Any] = [None] * len(order)
    with torch.inference_mode(), Step("rows", size=len(order), told=False, last=True) as step:
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            inputs = {name: tensor.to(device) for name, tensor in as_tensors(batch(positions)).items()}
            states, mask = (tensor.cpu().numpy() for tensor in function(**inputs))
            for position, state, real in zip(positions, states, mask, strict=True):
                row_tokens[position] = np.ascontiguousarray(state[real], dtype=np.float32)
            step.advance(len(positions))
    return row_tokens
