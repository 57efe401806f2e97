"""Hashed n-grams of words and characters, against what they are by definition."""

from __future__ import annotations

import numpy as np
import pytest

from mmensemble.preprocessing import NGramPreprocessor, TextPreprocessor, preprocessor_from_dict, preprocessor_to_dict
from mmensemble.preprocessing.n_grams import pieces_of, places_of

TEXTS = ["A red apple!", "", None, "RED", "naïve 慢車 🚗 x", "a\tb\nc  d", "re d"]


@pytest.fixture(scope="module")
def text() -> NGramPreprocessor:
    return NGramPreprocessor.train([t for t in TEXTS if t], vocab_size=300, max_length=64, n_features=10**9)


def by_definition(text: str) -> tuple[set[str], set[tuple[str, ...]]]:
    pieces = pieces_of(text)
    words = {tuple(pieces[i : i + n]) for n in (1, 2) for i in range(len(pieces) - n + 1)}
    padded = [f" {piece} " for piece in pieces]
    characters = {p[i : i + n] for p in padded for n in range(2, 6) for i in range(len(p) - n + 1)}
    return characters, words


@pytest.mark.parametrize("cell", [t for t in TEXTS if t])
def test_each_n_gram_once(text: NGramPreprocessor, cell: str) -> None:
    characters, words = by_definition(cell)
    found = text.n_grams([cell])
    read = f" {' '.join(pieces_of(cell))} "
    strings = [read[start:end] for start, end in zip(found.starts, found.ends, strict=True)]
    of_words = found.ids > text.n_features
    assert {s for s, is_words in zip(strings, of_words, strict=True) if not is_words} == characters
    assert {tuple(s.split(" ")) for s, is_words in zip(strings, of_words, strict=True) if is_words} == words
    (row,) = text.collate(text.encode([cell]), [0])["n_gram_ids"]
    assert len(set(row)) == len(row) == len(characters) + len(words)  # no two have one hash
    assert set(row) == set(found.ids)


def test_a_row_is_the_same_alone_and_in_a_batch(text: NGramPreprocessor) -> None:
    together = text.encode(TEXTS)
    batch = text.collate(together, slice(None))["n_gram_ids"]
    assert batch.dtype == np.int64
    for row, cell in enumerate(TEXTS):
        alone = text.encode([cell])
        np.testing.assert_array_equal(alone.items[0][1], together.items[row][1])
        np.testing.assert_array_equal(batch[row][batch[row] > 0], alone.items[0][1])
    assert not batch[1].any()
    assert not batch[2].any()
    assert text.collate(text.encode(["", None]), [0, 1])["n_gram_ids"].tolist() == [[0], [0]]
    assert text.collate(text.encode([]), [])["n_gram_ids"].shape == (0, 1)


def test_hashes_stay_what_they_are() -> None:
    text = NGramPreprocessor.train(["a"], vocab_size=258, n_features=1000)
    # Old files hold vectors in this order.
    assert text.encode(["ab, ab"]).items[0][1].tolist() == [
        297, 361, 383, 532, 540, 546, 573, 705, 823, 1027, 1224, 1498, 1971,
    ]  # fmt: skip


def test_tokens_are_those_of_the_other_preprocessor(text: NGramPreprocessor) -> None:
    plain = TextPreprocessor(text.tokenizer, max_length=64, pad_id=text.pad_id)
    arrays = text.collate(text.encode(TEXTS), slice(None))
    for name, array in plain.collate(plain.encode(TEXTS), slice(None)).items():
        np.testing.assert_array_equal(arrays[name], array)


def test_json(text: NGramPreprocessor) -> None:
    other = preprocessor_from_dict(preprocessor_to_dict(text))
    assert other == text
    assert isinstance(other, NGramPreprocessor)
    assert other.characters == (2, 5)


def test_of_a_long_text_only_what_the_tokens_stand_for_is_read(text: NGramPreprocessor) -> None:
    short = NGramPreprocessor(text.tokenizer, max_length=4, pad_id=text.pad_id, n_features=10**9)
    long = "red apple " * 100_000
    ((tokens, ids),) = short.encode([long]).items
    assert len(tokens) == 4
    (encoding,) = short._tokenizer.encode_batch([long[:1000]])
    part = short.part_read(long, encoding)
    assert long.startswith(part)
    assert set(ids) == set(text.encode([part]).items[0][1])
    assert len(ids) < 40


def test_bad_cells_have_no_n_grams(text: NGramPreprocessor) -> None:
    encoded = text.encode(["a", 5])
    assert encoded.errors == {1: "a text is expected as str, not int"}
    assert not len(encoded.items[1][1])


def test_places() -> None:
    for cell in ["A red, apple", "", "İx ok", "a\tb"]:
        read, places = f" {' '.join(pieces_of(cell))} ", places_of(cell)
        assert len(read) == len(places)
        for character, place in zip(read, places, strict=True):
            assert character == " " if place < 0 else character in cell[place].lower()
