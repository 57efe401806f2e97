"""The one decoding loop: scores of the next token → tokens → texts. Imports numpy and `mmensemble.preprocessing`.

The torch estimators and `OnnxPredictor` run the same loop over a `Decoder`, so that they write the same. A decoder runs
tokens and keeps a state; what is chosen, and when a row has ended, is decided here, in float64.

What a row gets does not depend on the rows beside it: each sequence has a random generator of its own, made of the
seed, the row's number and the sequence's number, and its tokens are drawn by inverting the cumulative distribution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmensemble.scoring.generation.settings import GenerationSettings

__all__ = ["Decoder", "generate_tokens", "log_softmax"]

# A score that no sequence reaches: of what must not be chosen.
_NEVER = -1e9
# Once so many of a batch's rows have ended, the state of the others is copied, so that those cost nothing more.
_ENDED_SHARE = 0.25


class Decoder(Protocol):
    """A network that runs tokens, and keeps a state that only it understands."""

    def prefill(self, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, Any]:
        """Run what a preprocessor gave.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            The preprocessor's arrays, without ``present``, batch first.

        Returns
        -------
        logits : ndarray of float32, shape (n, vocab_size)
            Scores of each row's first new token.
        state : Any
        """

    def step(self, tokens: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Run one new token per row, (n,) int64; return the scores of the next ones and the new state.

        The state that is given is used up.
        """

    def select(self, state: Any, rows: np.ndarray) -> Any:
        """Return the state of some rows, in the order wanted, repeated where they are repeated."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of the probabilities, float64, over the last axis."""
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    normalised: np.ndarray = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return normalised


def generate_tokens(
    decoder: Decoder,
    inputs: Mapping[str, np.ndarray],
    settings: GenerationSettings,
    *,
    end_ids: Sequence[int],
    rows: np.ndarray,
) -> list[list[np.ndarray]]:
    """Continue the rows of one batch.

    Parameters
    ----------
    decoder : Decoder
    inputs : mapping of str to ndarray
        What a preprocessor gave for the rows, without ``present``.
    settings : GenerationSettings
    end_ids : sequence of int
        The tokens that end a sequence.
    rows : ndarray of int, shape (n,)
        The rows' numbers in the data, which their random generators are made of.

    Returns
    -------
    list of length n of list of length num_return_sequences of ndarray of int64
        The new tokens, without the one that ended them.
    """
    logits, state = decoder.prefill(inputs)
    if settings.num_beams > 1:
        return _search(decoder, logits, state, settings, np.asarray(end_ids, dtype=np.int64))
    return _draw(decoder, logits, state, settings, np.asarray(end_ids, dtype=np.int64), rows)


def _draw(
    decoder: Decoder,
    logits: np.ndarray,
    state: Any,
    settings: GenerationSettings,
    end_ids: np.ndarray,
    rows: np.ndarray,
) -> list[list[np.ndarray]]:
    n_rows, copies, longest = len(logits), settings.num_return_sequences, settings.max_new_tokens
    numbers = _uniforms(settings, rows) if settings.temperature > 0 else None
    if copies > 1:
        repeated = np.repeat(np.arange(n_rows), copies)
        logits, state = logits[repeated], decoder.select(state, repeated)
    tokens = np.zeros((n_rows * copies, longest), dtype=np.int64)
    lengths = np.full(n_rows * copies, longest)
    # Where each row of the state stands in `tokens`, and whether it goes on.
    places, going = np.arange(n_rows * copies), np.ones(n_rows * copies, dtype=bool)
    for step in range(longest):
        if numbers is None:
            chosen = logits.argmax(axis=1)
        else:
            chosen = _invert(_probabilities(logits, settings), numbers[places, step])
        tokens[places, step] = chosen
        ends = going & np.isin(chosen, end_ids)
        lengths[places[ends]] = step
        going &= ~ends
        if step + 1 == longest or not going.any():
            break
        if going.mean() <= 1 - _ENDED_SHARE:
            left = np.flatnonzero(going)
            places, chosen, going, state = places[left], chosen[left], going[left], decoder.select(state, left)
        logits, state = decoder.step(chosen, state)
    sequences = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
    return [sequences[start : start + copies] for start in range(0, n_rows * copies, copies)]


def _uniforms(settings: GenerationSettings, rows: np.ndarray) -> np.ndarray:
    """Return numbers in [0, 1) for every sequence and step, (n × num_return_sequences, max_new_tokens)."""
    return np.stack(
        [
            np.random.default_rng([settings.seed, int(row), copy]).random(settings.max_new_tokens)
            for row in rows
            for copy in range(settings.num_return_sequences)
        ]
    )


def _probabilities(logits: np.ndarray, settings: GenerationSettings) -> np.ndarray:
    """Return the distribution that is drawn from, (n, vocab_size) float64: temperature, then `top_k`, then `top_p`."""
    scores = logits.astype(np.float64) / settings.temperature
    if settings.top_k is not None and settings.top_k < scores.shape[1]:
        least = -np.partition(-scores, settings.top_k - 1, axis=1)[:, settings.top_k - 1, None]
        scores[scores < least] = -np.inf
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    if settings.top_p is not None:
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ordered = np.take_along_axis(probabilities, order, axis=1)
        before = ordered.cumsum(axis=1) - ordered
        ordered[before >= settings.top_p] = 0.0
        np.put_along_axis(probabilities, order, ordered, axis=1)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _invert(probabilities: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return for each row the first token at which the cumulative distribution passes the row's number, (n,)."""
    cumulative = probabilities.cumsum(axis=1)
    passed = cumulative > (numbers * cumulative[:, -1])[:, None]
    chosen: np.ndarray = passed.argmax(axis=1)
    return chosen


def _search(
    decoder: Decoder, logits: np.ndarray, state: Any, settings: GenerationSettings, end_ids: np.ndarray
) -> list[list[np.ndarray]]:
    """Search with beams as transformers does: ended sequences are ranked by their mean log-probability per token.

    A row is done when its best running beam, as it stands, is no better than the worst of its ended ones.
    """
    n_rows, beams, longest = len(logits), settings.num_beams, settings.max_new_tokens
    kept = max(2, 1 + len(end_ids)) * beams
    repeated = np.repeat(np.arange(n_rows), beams)
    logits, state = logits[repeated], decoder.select(state, repeated)
    # Of all rows: the ended sequences, best first. Of those that are searched: the running ones.
    ended = np.zeros((n_rows, beams, longest), dtype=np.int64)
    ended_scores = np.full((n_rows, beams), _NEVER)
    ended_lengths = np.zeros((n_rows, beams), dtype=np.int64)
    searched = np.arange(n_rows)
    running = np.zeros((n_rows, beams, longest), dtype=np.int64)
    scores = np.full((n_rows, beams), _NEVER)
    scores[:, 0] = 0.0  # all beams are equal at first, and one of them is enough
    for step in range(longest):
        n, vocab_size = len(searched), logits.shape[1]
        sums = (log_softmax(logits).reshape(n, beams, vocab_size) + scores[:, :, None]).reshape(n, -1)
        best = _largest(sums, min(kept, sums.shape[1]))
        candidate_scores = np.take_along_axis(sums, best, axis=1)
        beam, token = best // vocab_size, best % vocab_size
        candidates = np.take_along_axis(running, beam[:, :, None], axis=1)
        candidates[:, :, step] = token
        by_token = np.isin(token, end_ids)
        ends = by_token | (step + 1 == longest)

        final = candidate_scores / (step + 1)
        final[~ends] += _NEVER
        final[:, beams:] += _NEVER  # the others are there to go on with
        merged = np.concatenate([ended_scores[searched], final], axis=1)
        chosen = _largest(merged, beams)
        ended_scores[searched] = np.take_along_axis(merged, chosen, axis=1)
        both = np.concatenate([ended[searched], candidates], axis=1)
        ended[searched] = np.take_along_axis(both, chosen[:, :, None], axis=1)
        both = np.concatenate([ended_lengths[searched], np.where(by_token, step, step + 1)], axis=1)
        ended_lengths[searched] = np.take_along_axis(both, chosen, axis=1)
        if step + 1 == longest:
            break

        candidate_scores[ends] += _NEVER
        going = _largest(candidate_scores, beams)
        scores = np.take_along_axis(candidate_scores, going, axis=1)
        running = np.take_along_axis(candidates, going[:, :, None], axis=1)
        tokens, origin = np.take_along_axis(token, going, axis=1), np.take_along_axis(beam, going, axis=1)
        worst = ended_scores[searched].min(axis=1)
        hopeful = np.flatnonzero((worst <= _NEVER / 2) | (scores[:, 0] / (step + 1) > worst))
        if not len(hopeful):
            break
        flat = (hopeful[:, None] * beams + origin[hopeful]).ravel()
        searched, running, scores = searched[hopeful], running[hopeful], scores[hopeful]
        logits, state = decoder.step(tokens[hopeful].ravel(), decoder.select(state, flat))
    return [
        [ended[row, beam, : ended_lengths[row, beam]] for beam in range(settings.num_return_sequences)]
        for row in range(n_rows)
    ]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return where the largest values of each row are, the largest first and the first of equal ones first."""
    if count < values.shape[1]:
        some = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
    else:
        some = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)
