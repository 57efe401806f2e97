"""Texts as the terms of a vocabulary, as scikit-learn's text vectorizers split them. Imports numpy only.

The analysis runs on the host, by the same `re` and `str` methods as in scikit-learn, so it does not depend on the
scoring machine's locale. What the terms weigh is for the graph.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np

from mmensemble.frames import Cells, is_missing
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec, with_odd_texts
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["HashedTermsPreprocessor", "TermsPreprocessor", "TextAnalysis"]

TERMS = "terms"
COUNTS = "counts"

Analyzer = Literal["word", "char", "char_wb"]

_WHITE_SPACE = re.compile(r"\s\s+")

# A term costs a graph about as much as this part of a token.
_TERMS_PER_TOKEN = 16


class TextAnalysis(Preprocessor):
    r"""What preprocessors share that count the terms of texts.

    Parameters
    ----------
    analyzer : {"word", "char", "char_wb"}, default="word"
        Words and sequences of them, of characters, or of characters inside words.
    lowercase : bool, default=True
    strip_accents : {"ascii", "unicode"}, default=None
    token_pattern : str, default=r"(?u)\b\w\w+\b"
        The regular expression of a word.
    ngram_range : tuple (min_n, max_n), default=(1, 1)
    stop_words : list of str, default=None
        Words that do not count.
    """

    def __init__(
        self,
        *,
        analyzer: Analyzer = "word",
        lowercase: bool = True,
        strip_accents: Literal["ascii", "unicode"] | None = None,
        token_pattern: str = r"(?u)\b\w\w+\b",
        ngram_range: tuple[int, int] = (1, 1),
        stop_words: Sequence[str] | None = None,
    ) -> None:
        self.analyzer = analyzer
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.token_pattern = token_pattern
        self.ngram_range = ngram_range
        self.stop_words = stop_words
        self._stop_words = frozenset(stop_words or ())
        self._words = re.compile(token_pattern).findall
        self._analyze: Callable[[str], Sequence[str]] = getattr(self, f"_{analyzer}_terms")

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {TERMS: TensorSpec("int64", ("batch", "terms")), COUNTS: TensorSpec("float32", ("batch", "terms"))}

    @abstractmethod
    def counts(self, terms: Sequence[str]) -> Mapping[int, float]:
        """Return how often each term occurs, by the terms' numbers."""

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        present = np.ones(len(cells), dtype=bool)
        errors: dict[int, str] = {}
        items: list[tuple[list[int], list[float]]] = []
        for row, cell in enumerate(cells):
            counts: Mapping[int, float] = {}
            if isinstance(cell, str):
                counts = self.counts(self._analyze(self._prepared(cell)))
            else:
                present[row] = False
                if not is_missing(cell):
                    errors[row] = f"a text is expected as str, not {type(cell).__name__}"
            numbers = sorted(counts)
            items.append((numbers, [counts[number] for number in numbers]))
        sizes = np.fromiter((len(numbers) for numbers, _ in items), dtype=np.int64, count=len(items))
        return Encoded(items, present, errors, 1 + sizes // _TERMS_PER_TOKEN)

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        chosen = [encoded.items[row] for row in rows]
        shape = len(chosen), max((len(numbers) for numbers, _ in chosen), default=1) or 1
        terms, counts = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for row, (numbers, times) in enumerate(chosen):
            terms[row, : len(numbers)] = numbers
            counts[row, : len(numbers)] = times
        return {TERMS: terms, COUNTS: counts}

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "analyzer": self.analyzer,
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "token_pattern": self.token_pattern,
            "ngram_range": list(self.ngram_range),
            "stop_words": None if self.stop_words is None else list(self.stop_words),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        parameters = {key: value for key, value in state.items() if key not in ("kind", "ngram_range")}
        return cls(ngram_range=tuple(state["ngram_range"]), **parameters)

    def _prepared(self, text: str) -> str:
        if self.lowercase:
            text = text.lower()
        if self.strip_accents is None or text.isascii():
            return text
        text = unicodedata.normalize("NFKD", text)
        if self.strip_accents == "ascii":
            return text.encode("ascii", "ignore").decode("ascii")
        return "".join(c for c in text if not unicodedata.combining(c))

    def _word_terms(self, text: str) -> list[str]:
        words = self._words(text)
        if self._stop_words:
            words = [word for word in words if word not in self._stop_words]
        shortest, longest = self.ngram_range
        if longest == 1:
            return list(words)
        # As in scikit-learn, a word counts as it is, whatever the pattern's group made of it.
        terms = list(words) if shortest == 1 else []
        for n in range(max(shortest, 2), min(longest, len(words)) + 1):
            terms += [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]
        return terms

    def _char_terms(self, text: str) -> list[str]:
        text = _WHITE_SPACE.sub(" ", text)
        shortest, longest = self.ngram_range
        return [
            text[start : start + n]
            for n in range(shortest, min(longest, len(text)) + 1)
            for start in range(len(text) - n + 1)
        ]

    def _char_wb_terms(self, text: str) -> list[str]:
        shortest, longest = self.ngram_range
        terms = []
        for word in text.split():
            padded = f" {word} "
            for n in range(shortest, longest + 1):
                terms += [padded[start : start + n] for start in range(max(1, len(padded) - n + 1))]
                if len(padded) <= n:  # a short word counts once
                    break
        return terms


@register_preprocessor
class TermsPreprocessor(TextAnalysis):
    """Strings → ``terms``, the numbers of the terms in each text, and their ``counts``; padded with a count of 0.

    The parameters are those of scikit-learn's ``CountVectorizer``, and the result is its sparse matrix by rows. A
    missing text has no terms.

    Parameters
    ----------
    vocabulary : list of str
        The terms in the order of their numbers.
    **analysis
        ``analyzer``, ``lowercase``, ``strip_accents``, ``token_pattern``, ``ngram_range``, ``stop_words``.

    Examples
    --------
    >>> terms = TermsPreprocessor(["apple", "pear", "red"])
    >>> batch = terms.collate(terms.encode(["A red, red pear", None]), [0, 1])
    >>> batch["terms"].tolist(), batch["counts"].tolist(), batch["present"].tolist()
    ([[1, 2], [0, 0]], [[1.0, 2.0], [0.0, 0.0]], [True, False])
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "terms"

    def __init__(self, vocabulary: Sequence[str], **analysis: Any) -> None:
        super().__init__(**analysis)
        self.vocabulary = list(vocabulary)
        self._number = {term: number for number, term in enumerate(self.vocabulary)}

    def counts(self, terms: Sequence[str]) -> Mapping[int, float]:
        return Counter(number for number in map(self._number.get, terms) if number is not None)

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return texts of the vocabulary's terms, few and many of them, and foreign ones."""
        texts = [
            " ".join(self.vocabulary[number] for number in rng.integers(len(self.vocabulary), size=size))
            for size in rng.integers(1, 12, size=n)
        ]
        return [with_odd_texts(texts)]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "vocabulary": self.vocabulary}


@register_preprocessor
class HashedTermsPreprocessor(TextAnalysis):
    """Strings → ``terms`` and ``counts`` as from `TermsPreprocessor`, with a hash of each term as its number.

    The parameters are those of scikit-learn's ``HashingVectorizer``, and the result is its sparse matrix by rows, not
    yet normalised.

    Parameters
    ----------
    n_features : int
        How many numbers there are.
    alternate_sign : bool, default=True
        Whether half of the terms count downwards, so that terms of the same number cancel on average.
    binary : bool, default=False
        Whether each number that occurs counts once.
    **analysis
        As for `TermsPreprocessor`.

    References
    ----------
    Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009.

    Examples
    --------
    >>> hashed = HashedTermsPreprocessor(8)
    >>> hashed.collate(hashed.encode(["A red, red apple"]), [0])["counts"].tolist()
    [[1.0, -2.0]]
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "hashed terms"

    def __init__(self, n_features: int, *, alternate_sign: bool = True, binary: bool = False, **analysis: Any) -> None:
        super().__init__(**analysis)
        self.n_features = n_features
        self.alternate_sign = alternate_sign
        self.binary = binary

    def counts(self, terms: Sequence[str]) -> Mapping[int, float]:
        totals: dict[int, float] = {}
        for term, times in Counter(terms).items():
            hashed = murmur3(term)
            number = abs(hashed) % self.n_features
            totals[number] = totals.get(number, 0) + (-times if self.alternate_sign and hashed < 0 else times)
        return dict.fromkeys(totals, 1) if self.binary else totals

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return texts of words that are made up."""
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        texts = [
            " ".join("".join(rng.choice(letters, size=length)) for length in rng.integers(1, 9, size=size))
            for size in rng.integers(1, 12, size=n)
        ]
        return [with_odd_texts(texts)]

    def to_dict(self) -> dict[str, Any]:
        own = {"n_features": self.n_features, "alternate_sign": self.alternate_sign, "binary": self.binary}
        return {**super().to_dict(), **own}


@lru_cache(maxsize=2**17)
def murmur3(term: str) -> int:
    """Return MurmurHash3's 32 bits of a term in UTF-8, with seed 0, signed, as scikit-learn hashes terms."""
    data, mask = term.encode("utf-8", "surrogatepass"), 0xFFFFFFFF
    whole = len(data) // 4 * 4
    hashed = 0
    for (block,) in struct.iter_unpack("<I", data[:whole]):
        hashed ^= _mixed(block)
        hashed = (((hashed << 13 | hashed >> 19) & mask) * 5 + 0xE6546B64) & mask
    if len(data) > whole:
        hashed ^= _mixed(int.from_bytes(data[whole:], "little"))
    hashed ^= len(data)
    hashed = (hashed ^ hashed >> 16) * 0x85EBCA6B & mask
    hashed = (hashed ^ hashed >> 13) * 0xC2B2AE35 & mask
    hashed ^= hashed >> 16
    return hashed - 2**32 if hashed & 0x80000000 else hashed


def _mixed(block: int) -> int:
    block = block * 0xCC9E2D51 & 0xFFFFFFFF
    return ((block << 15 | block >> 17) & 0xFFFFFFFF) * 0x1B873593 & 0xFFFFFFFF
