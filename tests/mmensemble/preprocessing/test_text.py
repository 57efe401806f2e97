from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mmensemble.exceptions import DataError
from mmensemble.preprocessing import TextPreprocessor, preprocessor_from_dict

FITTING = ["a red apple", "a green pear", "a ripe plum", "an apple and a pear"] * 3
TEXTS = [
    "a red pear",
    "",
    "unseen words: Zürich!",
    "一个红苹果",
    "تفاحة حمراء",
    "👩‍👩‍👧 🍎",
    "tab\tline\nend",
    "nul \0 byte",
]


@pytest.fixture(scope="module")
def text() -> TextPreprocessor:
    return TextPreprocessor.train(FITTING, vocab_size=280)


@pytest.fixture(scope="module")
def end(text: TextPreprocessor) -> int:
    return Tokenizer.from_str(text.tokenizer).token_to_id("<eos>")


def decode(text: TextPreprocessor, ids: np.ndarray) -> str:
    return Tokenizer.from_str(text.tokenizer).decode(ids.tolist(), skip_special_tokens=True)


def given_tokenizer() -> str:
    """A word tokenizer as BERT's: [CLS] before, [SEP] behind, and a padding id that is not 0."""
    words = ["[UNK]", "[CLS]", "[SEP]", "red", "apple", "[PAD]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer.to_str()


def test_json_round_trip(text: TextPreprocessor) -> None:
    copy = preprocessor_from_dict(json.loads(json.dumps(text.to_dict())))
    assert copy == text
    assert hash(copy) == hash(text)
    assert (copy.vocab_size, copy.tensors) == (text.vocab_size, text.tensors)
    for ours, theirs in zip(text.encode(TEXTS).items, copy.encode(TEXTS).items, strict=True):
        assert ours.tolist() == theirs.tolist()


def test_equality_is_by_content(text: TextPreprocessor) -> None:
    assert text != TextPreprocessor(text.tokenizer, max_length=5)
    assert text != TextPreprocessor.train(["other words"], vocab_size=280)
    assert text != "text"


def test_vocabulary_has_the_size_asked_for_and_all_bytes(text: TextPreprocessor) -> None:
    assert text.vocab_size == 280
    assert TextPreprocessor.train(["a"], vocab_size=10).vocab_size == 258, "256 bytes and two special tokens"


@pytest.mark.parametrize("cell", TEXTS)
def test_any_language_survives_the_tokenizer(text: TextPreprocessor, end: int, cell: str) -> None:
    (ids,) = text.encode([cell]).items
    assert ids.dtype == np.int64
    assert ids[-1] == end
    assert end not in ids[:-1]
    assert ids.max() < text.vocab_size
    assert decode(text, ids) == cell


def test_training_twice_gives_the_same_tokenizer(text: TextPreprocessor) -> None:
    assert TextPreprocessor.train(iter(FITTING), vocab_size=280) == text


def test_long_texts_are_cut_before_the_end_token(text: TextPreprocessor, end: int) -> None:
    short = TextPreprocessor(text.tokenizer, max_length=5)
    long, exact, empty = short.encode(["a red apple and much more of it", "一", ""]).items
    whole = text.encode(["a red apple and much more of it"]).items[0]
    assert long.tolist() == [*whole[:4], end]
    assert len(exact) == 4
    assert empty.tolist() == [end]
    assert short.encode(["abc" * 1000]).lengths.tolist() == [5]


def test_padding_is_on_the_right_and_masked(text: TextPreprocessor) -> None:
    encoded = text.encode(["an apple and a pear", "a", ""])
    assert encoded.lengths.tolist() == [len(item) for item in encoded.items]
    assert encoded.lengths[0] > encoded.lengths[1] > encoded.lengths[2] == 1
    batch = text.collate(encoded, [2, 0, 1])
    assert {name: array.dtype.name for name, array in batch.items()} == {
        "input_ids": "int64",
        "attention_mask": "int64",
        "present": "bool",
    }
    for row, source in enumerate([2, 0, 1]):
        length = encoded.lengths[source]
        assert batch["input_ids"][row, :length].tolist() == encoded.items[source].tolist()
        assert (batch["input_ids"][row, length:] == text.pad_id).all()
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (encoded.lengths[0] - length)
    # The batch is as long as its own longest row, not as the longest of all.
    assert text.collate(encoded, slice(1, 3))["input_ids"].shape == (2, encoded.lengths[1])


def test_an_empty_batch_has_the_right_rank(text: TextPreprocessor) -> None:
    batch = text.collate(text.encode([]), slice(None))
    assert batch["input_ids"].shape == (0, 1)
    assert batch["attention_mask"].shape == (0, 1)
    assert batch["present"].shape == (0,)


@pytest.mark.parametrize("cell", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT], ids=repr)
def test_missing(text: TextPreprocessor, end: int, cell: object) -> None:
    encoded = text.encode(["a", cell, ""])
    assert encoded.present.tolist() == [True, False, True]
    assert encoded.errors == {}
    assert encoded.items[1].tolist() == [end]


@pytest.mark.parametrize(("cell", "name"), [(3, "int"), (1.5, "float"), (b"a", "bytes"), (["a"], "list")])
def test_what_is_no_string_is_an_error_of_its_row(text: TextPreprocessor, cell: object, name: str) -> None:
    encoded = text.encode(["a", cell, "a"])
    assert encoded.errors == {1: f"a text is expected as str, not {name}"}
    assert encoded.present.tolist() == [True, False, True]
    assert encoded.items[0].tolist() == encoded.items[2].tolist()
    with pytest.raises(DataError, match=f"row 1, column 'title': a text is expected as str, not {name}") as caught:
        encoded.raise_for_errors("title")
    assert (caught.value.row, caught.value.column) == (1, "title")


def test_numpy_strings_and_lone_surrogates(text: TextPreprocessor) -> None:
    plain, numpy, surrogate = text.encode(["a b", np.str_("a b"), "a \ud800b"]).items
    assert numpy.tolist() == plain.tolist()
    assert decode(text, surrogate) == "a ?b"


def test_cut_encoding_is_seeded_and_loses_nothing(text: TextPreprocessor, end: int) -> None:
    first, second, other = (text.encode_cut(TEXTS, 0.5, np.random.RandomState(seed)) for seed in (0, 0, 1))
    assert [ids.tolist() for ids in first.items] == [ids.tolist() for ids in second.items]
    assert [ids.tolist() for ids in first.items] != [ids.tolist() for ids in other.items]
    for ids, cell in zip(first.items, TEXTS, strict=True):
        assert decode(text, ids) == cell
        assert ids[-1] == end
        assert (ids == end).sum() == 1
    assert first.lengths.sum() > text.encode(TEXTS).lengths.sum()


def test_cut_encoding_at_the_ends_of_the_scale(text: TextPreprocessor) -> None:
    cells = [*TEXTS, None, "b"]
    whole, never = text.encode(cells), text.encode_cut(cells, 0.0, np.random.RandomState(0))
    assert [ids.tolist() for ids in never.items] == [ids.tolist() for ids in whole.items]
    assert never.present.tolist() == whole.present.tolist()
    (always,) = text.encode_cut(["apple"], 1.0, np.random.RandomState(0)).items
    assert len(always) == len("apple") + 1
    assert text.encode_cut(["a", 5], 0.5, np.random.RandomState(0)).errors == text.encode(["a", 5]).errors


def test_cut_encoding_is_truncated_too(text: TextPreprocessor, end: int) -> None:
    short = TextPreprocessor(text.tokenizer, max_length=4)
    (ids,) = short.encode_cut(["apple apple apple"], 1.0, np.random.RandomState(0)).items
    assert len(ids) == 4
    assert ids[-1] == end


def test_a_given_tokenizer() -> None:
    text = TextPreprocessor(given_tokenizer(), max_length=4, pad_id=5)
    assert text.vocab_size == 6
    encoded = text.encode(["red apple", "apple", "red red red apple", "never seen", ""])
    assert [ids.tolist() for ids in encoded.items] == [[1, 3, 4, 2], [1, 4, 2], [1, 3, 3, 2], [1, 0, 0, 2], [1, 2]]
    assert text.collate(encoded, [0, 4])["input_ids"].tolist() == [[1, 3, 4, 2], [1, 2, 5, 5]]
    assert preprocessor_from_dict(json.loads(json.dumps(text.to_dict()))) == text


def test_padding_and_truncation_of_a_given_tokenizer_are_overruled() -> None:
    tokenizer = Tokenizer.from_str(given_tokenizer())
    tokenizer.enable_padding(length=9, pad_id=5, pad_token="[PAD]", direction="left")
    tokenizer.enable_truncation(3)
    text = TextPreprocessor(tokenizer.to_str(), max_length=4, pad_id=5)
    assert [ids.tolist() for ids in text.encode(["red red red", ""]).items] == [[1, 3, 3, 2], [1, 2]]


def test_texts_are_tokenised_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessor = TextPreprocessor.train(["a red apple", "a green pear"], vocab_size=300)
    cells = ["a red pear", "", "x" * 50, "green " * 30, None, "a"]
    whole = preprocessor.encode(cells)
    monkeypatch.setattr("mmensemble.preprocessing.text._CHARACTERS_AT_ONCE", 40)
    pieces = preprocessor.encode(cells)
    assert [item.tolist() for item in pieces.items] == [item.tolist() for item in whole.items]
    assert len(preprocessor.encode([]).items) == 0
