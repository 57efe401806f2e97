"""Texts as tokens and as hashed n-grams of their words and characters. Imports numpy and tokenizers.

The n-grams of all texts of a call are hashed at once, as whole numbers of 64 bits that wrap around, so they are the
same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from tokenizers import Encoding

from mmensemble.frames import Cells
from mmensemble.preprocessing.base import Encoded, TensorSpec
from mmensemble.preprocessing.registry import register_preprocessor
from mmensemble.preprocessing.text import TextPreprocessor, as_texts, padded

__all__ = ["N_GRAM_IDS", "NGramPreprocessor", "NGrams", "pieces_of", "places_of"]

N_GRAM_IDS = "n_gram_ids"

# Runs of letters and digits, and every other sign that is no white space.
_PIECE = re.compile(r"\w+|[^\w\s]")
_SPACE = ord(" ")

# Odd numbers of 64 bits: of the golden ratio (Knuth), and of SplitMix64's last steps (Steele, Lea, Flood 2014).
_BASE, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


class NGrams(NamedTuple):
    """N-grams of several texts, one after the other.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        From 1 to twice the number of features: first those of characters, then those of words.
    rows : ndarray of int64, shape (n,)
        The text of each.
    starts, ends : ndarray of int64, shape (n,)
        Where it lies in the text as it is read: its `pieces_of` in small letters, with a space before, between and
        behind them.
    """

    ids: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


@register_preprocessor
class NGramPreprocessor(TextPreprocessor):
    """Strings → tokens as by `TextPreprocessor`, and ``n_gram_ids``, hashes of n-grams of the same text.

    N-grams of words, and of characters within a word and the spaces around it, in small letters; each once, padded with
    0 (Joulin et al. 2017).

    Parameters
    ----------
    tokenizer, max_length, pad_id
        See `TextPreprocessor`.
    n_features : int, default=16384
        How many numbers there are for n-grams of characters, and again for those of words.
    characters : (int, int), default=(2, 5)
        The shortest and the longest n-grams of characters.
    words : (int, int), default=(1, 2)
        The shortest and the longest n-grams of words.

    References
    ----------
    Joulin, Grave, Bojanowski, Mikolov (2017). Bag of tricks for efficient text classification. EACL.

    Examples
    --------
    >>> text = NGramPreprocessor.train(["a red apple", "a green pear"], vocab_size=300)
    >>> ids = text.collate(text.encode(["Red", "red!", ""]), [0, 1, 2])["n_gram_ids"]
    >>> set(ids[0]) <= {0, *ids[1]}, bool(ids[2].any())
    (True, False)
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "text with n-grams"

    def __init__(
        self,
        tokenizer: str,
        *,
        max_length: int = 128,
        pad_id: int = 0,
        n_features: int = 16384,
        characters: Sequence[int] = (2, 5),
        words: Sequence[int] = (1, 2),
    ) -> None:
        super().__init__(tokenizer, max_length=max_length, pad_id=pad_id)
        self.n_features = n_features
        self.characters = tuple(characters)
        self.words = tuple(words)

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {**super().tensors, N_GRAM_IDS: TensorSpec("int64", ("batch", "n_grams"))}

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        texts, present, errors = as_texts(cells, self.max_length)
        encodings = self._tokenizer.encode_batch(texts)
        n_grams = self.n_grams([self.part_read(*pair) for pair in zip(texts, encodings, strict=True)])
        keys = np.unique(n_grams.rows * (2 * self.n_features + 1) + n_grams.ids)
        rows, ids = np.divmod(keys, 2 * self.n_features + 1)
        edges = np.searchsorted(rows, np.arange(len(texts) + 1))
        encoded = self._encoded(encodings, present, errors)
        return replace(encoded, items=[(item, ids[edges[i] : edges[i + 1]]) for i, item in enumerate(encoded.items)])

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        items = [encoded.items[row] for row in rows]
        n_gram_ids, _ = padded([ids for _, ids in items], 0)
        return {**self.token_arrays([tokens for tokens, _ in items]), N_GRAM_IDS: n_gram_ids}

    def part_read(self, text: str, encoding: Encoding) -> str:
        """Return the part of a text that its tokens stand for, which is all of it but in a long one."""
        if len(encoding.ids) < self.max_length:
            return text
        return text[: max(end for _, end in encoding.offsets)]

    def n_grams(self, texts: Sequence[str]) -> NGrams:
        """Return the n-grams of texts, as often as they occur.

        Parameters
        ----------
        texts : sequence of str
            Without lone surrogates.

        Returns
        -------
        NGrams
        """
        read = [f" {' '.join(pieces_of(text))} " for text in texts]
        sizes = np.fromiter((len(text) for text in read), dtype=np.int64, count=len(read))
        codes = np.frombuffer("".join(read).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
        of_row = np.repeat(np.arange(len(read)), sizes)
        kinds = ((0, _of_characters(codes, *self.characters)), (1, _of_words(codes, of_row, *self.words)))
        found = [NGrams(*np.zeros((4, 0), dtype=np.int64))]
        for kind, windows in kinds:
            for hashes, starts, ends in windows:
                numbers = (_mixed(hashes) % np.uint64(self.n_features)).astype(np.int64)
                ids = numbers + 1 + kind * self.n_features
                found.append(NGrams(ids, of_row[starts], starts, ends))
        ids, rows, starts, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
        before = (np.cumsum(sizes) - sizes)[rows]
        return NGrams(ids, rows, starts - before, ends - before)

    def to_dict(self) -> dict[str, Any]:
        return {
            **super().to_dict(),
            "n_features": self.n_features,
            "characters": list(self.characters),
            "words": list(self.words),
        }


def pieces_of(text: str) -> list[str]:
    """Return a text's words and signs in small letters."""
    return [piece.lower() for piece in _PIECE.findall(text)]


def places_of(text: str) -> np.ndarray:
    """Return the character of a text from which each character of what is read of it comes; -1 of the spaces."""
    places = [-1]
    for piece in _PIECE.finditer(text):
        size = len(piece.group().lower())  # which may be longer than the piece
        places += [piece.start() + i * len(piece.group()) // size for i in range(size)]
        places.append(-1)
    return np.asarray(places if len(places) > 1 else [-1, -1])


# What hashes and places of n-grams of one length are: hashes, starts, ends.
_Windows = tuple[np.ndarray, np.ndarray, np.ndarray]


def _of_characters(codes: np.ndarray, shortest: int, longest: int) -> Iterator[_Windows]:
    """Yield the n-grams of characters, by their length: those without a space but at their ends."""
    space = codes == _SPACE
    hashes, within = codes, np.ones(len(codes), dtype=bool)
    for n in range(2, min(longest, len(codes)) + 1):
        hashes = hashes[:-1] * _BASE + codes[n - 1 :]
        within = within[:-1] & ~space[n - 2 : -1] if n > 2 else within[:-1]
        if n >= shortest:
            # Between two texts there are two spaces side by side.
            starts = np.flatnonzero(within & ~space[:-1] | within & ~space[1:] if n == 2 else within)
            yield hashes[starts] + np.uint64(n), starts, starts + n


def _of_words(codes: np.ndarray, of_row: np.ndarray, shortest: int, longest: int) -> Iterator[_Windows]:
    """Yield the n-grams of words, by the number of their words."""
    edges = np.flatnonzero(codes == _SPACE)
    long = np.diff(edges) > 1
    starts, ends = edges[:-1][long] + 1, edges[1:][long]
    if not len(starts):
        return
    place = np.arange(len(codes)) - np.repeat(edges, np.diff(edges, append=len(codes)))
    powers = np.cumprod(np.full(place.max(initial=0) + 1, _BASE))
    words = np.add.reduceat(codes * powers[place], np.column_stack([starts, ends]).ravel())[::2]
    rows, hashes = of_row[starts], words
    for n in range(1, min(longest, len(words)) + 1):
        if n > 1:
            hashes = hashes[:-1] * _BASE + words[n - 1 :]
        if n >= shortest:
            chosen = np.flatnonzero(rows[: len(hashes)] == rows[n - 1 :])
            yield hashes[chosen] + np.uint64(n), starts[chosen], ends[chosen + n - 1]


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Let every bit of a hash depend on all of them."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _MIX
    return hashes ^ (hashes >> np.uint64(31))
