"""Text: a `tokenizers` tokenizer, truncated and padded. Imports numpy and tokenizers."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mmensemble.frames import Cells, is_missing
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec, with_odd_texts
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["TextPreprocessor"]

PAD_TOKEN = "<pad>"
END_TOKEN = "<eos>"

# Characters read of a text for each token of `max_length`. Time and memory then stay small for a text of any size. The
# tokens kept are those of the whole text unless they stand for more than this many characters on average: a tokenizer
# splits at white space, and what is cut off changes nothing before the last word that is read.
CHARACTERS_PER_TOKEN = 256
# Of texts that are tokenised at once.
_CHARACTERS_AT_ONCE = 2**20


class TokenPreprocessor(Preprocessor):
    """What the preprocessors to tokens share: a tokenizer that is pickled as text, and the padding of a batch."""

    pads_left: ClassVar[bool] = False

    tokenizer: str
    pad_id: int
    _tokenizer: Tokenizer

    @abstractmethod
    def _read(self) -> None:
        """Set the private attributes from the others."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._read()

    @property
    def vocab_size(self) -> int:
        """Entries in the vocabulary, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        spec = TensorSpec("int64", ("batch", "length"))
        return {"input_ids": spec, "attention_mask": spec}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return texts of the vocabulary's tokens, and foreign ones."""
        sizes = rng.integers(1, 24, size=n)
        texts = [self._tokenizer.decode(rng.integers(self.vocab_size, size=size).tolist()) for size in sizes]
        return [with_odd_texts(texts)]

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        return self.token_arrays([encoded.items[row] for row in rows])

    def token_arrays(self, items: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Return ``input_ids`` and ``attention_mask`` of rows of token ids."""
        ids, mask = padded(items, self.pad_id, left=self.pads_left)
        return {"input_ids": ids, "attention_mask": mask}


@register_preprocessor
class TextPreprocessor(TokenPreprocessor):
    """Strings → ``input_ids`` and ``attention_mask``, padded on the right to the longest row of the batch.

    Parameters
    ----------
    tokenizer : str
        A tokenizer in the JSON form of the `tokenizers` library.
    max_length : int, default=128
        Longest sequence in tokens, special tokens included; longer texts are cut at the end. Of a text, the first
        256 characters per token are read.
    pad_id : int, default=0
        The token id that fills padded positions.

    Examples
    --------
    >>> text = TextPreprocessor.train(["a red apple", "a green pear"], vocab_size=300)
    >>> encoded = text.encode(["a red pear", None])
    >>> batch = text.collate(encoded, [0, 1])
    >>> batch["input_ids"].shape == batch["attention_mask"].shape
    True
    >>> batch["present"].tolist()
    [True, False]
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "text"

    def __init__(self, tokenizer: str, *, max_length: int = 128, pad_id: int = 0) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        self._read()

    def _read(self) -> None:
        self._tokenizer = read_tokenizer(self.tokenizer, self.max_length)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int = 2000, max_length: int = 128, **more: Any) -> Self:
        """Train a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) on texts in any language.

        Every sequence ends in one end token, so that no text, not even an empty one, is an empty sequence.

        Parameters
        ----------
        texts : iterable of str
            The fitting texts.
        vocab_size : int, default=2000
            Most entries in the vocabulary, the 256 bytes and the two special tokens included.
        max_length : int, default=128
            See `TextPreprocessor`.
        **more
            Further parameters of the class.

        Returns
        -------
        TextPreprocessor
        """
        tokenizer = train_bpe((readable(text, max_length) for text in texts), vocab_size, f"$A {END_TOKEN}")
        pad_id = tokenizer.token_to_id(PAD_TOKEN) or 0
        return cls(tokenizer.to_str(), max_length=max_length, pad_id=pad_id, **more)

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        texts, present, errors = as_texts(cells, self.max_length)
        return self._encoded(encoded_in_pieces(self._tokenizer, texts), present, errors)

    def encode_cut(self, cells: Cells, probability: float, rng: np.random.RandomState) -> Encoded:
        """Encode in a random segmentation: cut before each character at random, so that no token crosses a cut.

        Parameters
        ----------
        cells : sequence of cells
        probability : float
            Of a cut before a character.
        rng : RandomState

        Returns
        -------
        Encoded
        """
        texts, present, errors = as_texts(cells, self.max_length)
        pieces = []
        for text in texts:
            cuts = [0, *(np.flatnonzero(rng.random_sample(max(0, len(text) - 1)) < probability) + 1), len(text)]
            pieces.append([text[start:end] for start, end in pairwise(cuts)])
        return self._encoded(self._tokenizer.encode_batch(pieces, is_pretokenized=True), present, errors)

    def _encoded(self, encodings: Iterable[Any], present: np.ndarray, errors: dict[int, str]) -> Encoded:
        # A pretrained tokenizer may give an empty text no token at all, and a network needs one.
        return as_encoded([encoding.ids or [self.pad_id] for encoding in encodings], present, errors)

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "tokenizer": self.tokenizer,
            "max_length": self.max_length,
            "pad_id": self.pad_id,
        }


def encoded_in_pieces(tokenizer: Tokenizer, texts: list[str]) -> Iterator[Any]:
    """Tokenise texts, some at a time: until it is cut to its ids, an encoding takes 50 times as much as its text."""
    start, characters = 0, 0
    for stop, text in enumerate(texts):
        if characters + len(text) > _CHARACTERS_AT_ONCE and stop > start:
            yield from tokenizer.encode_batch(texts[start:stop])
            start, characters = stop, 0
        characters += len(text)
    yield from tokenizer.encode_batch(texts[start:])


def as_encoded(ids: Iterable[Sequence[int]], present: np.ndarray, errors: dict[int, str]) -> Encoded:
    """Return rows of token ids as encoded rows, which cost what they are long."""
    items = [np.asarray(row, dtype=np.int64) for row in ids]
    lengths = np.fromiter((len(item) for item in items), dtype=np.int64, count=len(items))
    return Encoded(items, present, errors, lengths)


def padded(items: Sequence[np.ndarray], pad_id: int, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Make one batch of rows of token ids.

    Returns
    -------
    ids : ndarray of int64, shape (n, length)
        As long as the longest row, 1 at least; filled up with `pad_id` on the right, or on the left.
    mask : ndarray of int64, shape (n, length)
        1 at the rows' own tokens.
    """
    lengths = np.fromiter((len(item) for item in items), dtype=np.int64, count=len(items))
    places = np.arange(lengths.max(initial=1))
    mask = (places[::-1] if left else places) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    if len(items):
        ids[mask] = np.concatenate(items)
    return ids, mask.astype(np.int64)


def train_bpe(texts: Iterable[str], vocab_size: int, template: str) -> Tokenizer:
    """Train a byte-level BPE tokenizer that puts the end token where the template ("$A" is the text) has it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(END_TOKEN, tokenizer.token_to_id(END_TOKEN))]
    )
    return tokenizer


@functools.lru_cache(maxsize=8)
def read_tokenizer(text: str, max_length: int | None) -> Tokenizer:
    """Read a tokenizer. That takes long, and it is never changed, so equal preprocessors share one."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    return tokenizer


def as_texts(
    cells: Cells, max_length: int | None, *, keep_end: bool = False
) -> tuple[list[str], np.ndarray, dict[int, str]]:
    """Return a text for every cell (empty where there is none), which cells have one, and what is wrong with others.

    Of a text, the first characters, or with `keep_end` the last ones, are kept: as many as `max_length` tokens may
    stand for.
    """
    texts: list[str] = []
    present = np.ones(len(cells), dtype=bool)
    errors: dict[int, str] = {}
    for row, cell in enumerate(cells):
        if isinstance(cell, str):
            texts.append(readable(cell, max_length, keep_end=keep_end))
            continue
        texts.append("")
        present[row] = False
        if not is_missing(cell):
            errors[row] = f"a text is expected as str, not {type(cell).__name__}"
    return texts, present, errors


def readable(text: str, max_length: int | None, *, keep_end: bool = False) -> str:
    """Cut what cannot be among the tokens, and replace lone surrogates, which are legal in a str and not in UTF-8."""
    if max_length is not None:
        most = CHARACTERS_PER_TOKEN * max_length
        text = text[-most:] if keep_end else text[:most]
    return text.encode("utf-8", "replace").decode("utf-8")
