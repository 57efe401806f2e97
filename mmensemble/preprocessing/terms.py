"""Texts as the terms of a vocabulary, as scikit-learn's text vectorizers split them. Imports numpy only.

The analysis runs on the host, by the same `re` and `str` methods as in scikit-learn, so it does not depend on the
scoring machine's locale. What the terms weigh is for the graph.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from mmensemble.frames import Cells, is_missing
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec, with_odd_texts
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["TermsPreprocessor"]

TERMS = "terms"
COUNTS = "counts"

Analyzer = Literal["word", "char", "char_wb"]

_WHITE_SPACE = re.compile(r"\s\s+")

# A term costs a graph about as much as this part of a token.
_TERMS_PER_TOKEN = 16


@register_preprocessor
class TermsPreprocessor(Preprocessor):
    r"""Strings → ``terms``, the numbers of the terms in each text, and their ``counts``; padded with a count of 0.

    The parameters are those of scikit-learn's ``CountVectorizer``, and the result is its sparse matrix by rows. A
    missing text has no terms.

    Parameters
    ----------
    vocabulary : list of str
        The terms in the order of their numbers.
    analyzer : {"word", "char", "char_wb"}, default="word"
        Words and sequences of them, of characters, or of characters inside words.
    lowercase : bool, default=True
    strip_accents : {"ascii", "unicode"}, default=None
    token_pattern : str, default=r"(?u)\b\w\w+\b"
        The regular expression of a word.
    ngram_range : tuple (min_n, max_n), default=(1, 1)
    stop_words : list of str, default=None
        Words that do not count.

    Examples
    --------
    >>> terms = TermsPreprocessor(["apple", "pear", "red"])
    >>> batch = terms.collate(terms.encode(["A red, red pear", None]), [0, 1])
    >>> batch["terms"].tolist(), batch["counts"].tolist(), batch["present"].tolist()
    ([[1, 2], [0, 0]], [[1.0, 2.0], [0.0, 0.0]], [True, False])
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "terms"

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        analyzer: Analyzer = "word",
        lowercase: bool = True,
        strip_accents: Literal["ascii", "unicode"] | None = None,
        token_pattern: str = r"(?u)\b\w\w+\b",
        ngram_range: tuple[int, int] = (1, 1),
        stop_words: Sequence[str] | None = None,
    ) -> None:
        self.vocabulary = list(vocabulary)
        self.analyzer = analyzer
        self.lowercase = lowercase
        self.strip_accents = strip_accents
        self.token_pattern = token_pattern
        self.ngram_range = ngram_range
        self.stop_words = stop_words
        self._number = {term: number for number, term in enumerate(self.vocabulary)}
        self._stop_words = frozenset(stop_words or ())
        self._words = re.compile(token_pattern).findall
        self._analyze: Callable[[str], Sequence[str]] = getattr(self, f"_{analyzer}_terms")

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {TERMS: TensorSpec("int64", ("batch", "terms")), COUNTS: TensorSpec("float32", ("batch", "terms"))}

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        present = np.ones(len(cells), dtype=bool)
        errors: dict[int, str] = {}
        items: list[tuple[list[int], list[int]]] = []
        for row, cell in enumerate(cells):
            counts: Counter[int] = Counter()
            if isinstance(cell, str):
                known = map(self._number.get, self._analyze(self._prepared(cell)))
                counts.update(number for number in known if number is not None)
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

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return texts of the vocabulary's terms, few and many of them, and foreign ones."""
        texts = [
            " ".join(self.vocabulary[number] for number in rng.integers(len(self.vocabulary), size=size))
            for size in rng.integers(1, 12, size=n)
        ]
        return [with_odd_texts(texts)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "vocabulary": self.vocabulary,
            "analyzer": self.analyzer,
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "token_pattern": self.token_pattern,
            "ngram_range": list(self.ngram_range),
            "stop_words": None if self.stop_words is None else list(self.stop_words),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TermsPreprocessor:
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
