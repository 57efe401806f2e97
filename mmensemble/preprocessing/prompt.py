"""Prompts: what a language model continues. Imports numpy and tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from mmensemble.frames import Cells
from mmensemble.preprocessing.base import Encoded
from mmensemble.preprocessing.registry import register_preprocessor
from mmensemble.preprocessing.text import (
    END_TOKEN,
    PAD_TOKEN,
    TokenPreprocessor,
    as_encoded,
    as_texts,
    encoded_in_pieces,
    read_tokenizer,
    readable,
    train_bpe,
)

__all__ = ["PromptPreprocessor"]


@register_preprocessor
class PromptPreprocessor(TokenPreprocessor):
    """Strings → ``input_ids`` and ``attention_mask``, padded on the **left**, with no end token.

    So every row's last token is the last of the batch, and what comes next stands in the same place for all. Of a text
    of too many tokens the last ones are kept, behind the start token where the tokenizer puts one. With a `prefix` or
    a `suffix`, these are kept and what lies between them is cut at its end.

    Parameters
    ----------
    tokenizer : str
        A tokenizer in the JSON form of the `tokenizers` library.
    max_length : int, default=128
        Longest prompt in tokens. Of a text, 256 characters per token are read.
    pad_id : int, default=0
        The token id that fills padded positions, and stands for an empty text where the tokenizer gives it no token.
    prefix, suffix : str, default=""
        What is put around each text.

    Examples
    --------
    >>> prompts = PromptPreprocessor.train(["a red apple", "a green pear"], vocab_size=300)
    >>> batch = prompts.collate(prompts.encode(["a red", ""]), [0, 1])
    >>> batch["attention_mask"][:, -1].tolist(), batch["attention_mask"][:, 0].tolist()
    ([1, 1], [1, 0])
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "prompt"
    pads_left: ClassVar[bool] = True

    def __init__(
        self, tokenizer: str, *, max_length: int = 128, pad_id: int = 0, prefix: str = "", suffix: str = ""
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_id = pad_id
        self.prefix = prefix
        self.suffix = suffix
        self._read()

    def _read(self) -> None:
        self._tokenizer = read_tokenizer(self.tokenizer, None)
        some = self._tokenizer.encode("a")
        self._start = some.ids[: some.special_tokens_mask.index(0)]

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int = 2000, max_length: int = 128) -> PromptPreprocessor:
        """Train a byte-level BPE tokenizer (Sennrich et al. 2016; Radford et al. 2019) on texts in any language.

        The end token also stands at the start of every text, as in GPT-2's training, so that a model learns how a text
        begins and can write one from nothing.

        Parameters
        ----------
        texts : iterable of str
        vocab_size : int, default=2000
            Most entries in the vocabulary, the 256 bytes and the two special tokens included.
        max_length : int, default=128
            See `PromptPreprocessor`.

        Returns
        -------
        PromptPreprocessor
        """
        tokenizer = train_bpe((readable(text, None) for text in texts), vocab_size, f"{END_TOKEN} $A")
        return cls(tokenizer.to_str(), max_length=max_length, pad_id=tokenizer.token_to_id(PAD_TOKEN) or 0)

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        texts, present, errors = as_texts(cells, self.max_length, keep_end=not (self.prefix or self.suffix))
        if self.prefix or self.suffix:
            texts = [self._fitted(text) for text in texts]
        return self.shortened(self._encoded(texts, present, errors), self.max_length)

    def encode_whole(self, cells: Cells) -> Encoded:
        """Encode texts of any length without cutting anything off, and without `prefix` and `suffix`."""
        return self._encoded(*as_texts(cells, None))

    def _encoded(self, texts: list[str], present: np.ndarray, errors: dict[int, str]) -> Encoded:
        encodings = encoded_in_pieces(self._tokenizer, texts)
        return as_encoded([_trimmed(e) or self._start or [self.pad_id] for e in encodings], present, errors)

    def _fitted(self, text: str) -> str:
        """Put prefix and suffix around a text, which is cut at its end where it would not fit."""
        whole = f"{self.prefix}{text}{self.suffix}"
        excess = len(_trimmed(self._tokenizer.encode(whole))) - self.max_length
        if excess <= 0:
            return whole
        alone = self._tokenizer.encode(text, add_special_tokens=False)
        kept = max(0, len(alone.ids) - excess)
        text = text[: alone.offsets[kept - 1][1]] if kept else ""
        return f"{self.prefix}{text}{self.suffix}"

    def shortened(self, encoded: Encoded, max_length: int) -> Encoded:
        """Keep the last tokens of prompts that are longer, behind the start token where there is one."""
        if encoded.lengths.max(initial=0) <= max_length:
            return encoded
        start = np.asarray(self._start[:max_length], dtype=np.int64)
        items = [
            item if len(item) <= max_length else np.concatenate([start, item[len(item) - max_length + len(start) :]])
            for item in encoded.items
        ]
        return Encoded(items, encoded.present, encoded.errors, np.minimum(encoded.lengths, max_length))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "tokenizer": self.tokenizer,
            "max_length": self.max_length,
            "pad_id": self.pad_id,
            "prefix": self.prefix,
            "suffix": self.suffix,
        }


def _trimmed(encoding: Any) -> list[int]:
    """Return the ids without the special tokens that the tokenizer puts behind a text, which would end it."""
    special = encoding.special_tokens_mask
    behind = next((n for n, is_special in enumerate(reversed(special)) if not is_special), len(special))
    ids: list[int] = encoding.ids
    return ids[: len(ids) - behind]
