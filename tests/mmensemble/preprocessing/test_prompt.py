from __future__ import annotations

import pickle

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from mmensemble.preprocessing import PromptPreprocessor, preprocessor_from_dict

TEXTS = ["a red apple", "a green pear", "größer — ещё больше"]


@pytest.fixture(scope="module")
def prompts() -> PromptPreprocessor:
    return PromptPreprocessor.train(TEXTS, vocab_size=300, max_length=12)


def decoded(prompts: PromptPreprocessor, ids: np.ndarray) -> str:
    return Tokenizer.from_str(prompts.tokenizer).decode(ids.tolist(), skip_special_tokens=False)


def test_a_start_token_and_no_end_token(prompts: PromptPreprocessor) -> None:
    (item,) = prompts.encode(["a red"]).items
    assert decoded(prompts, item) == "<eos>a red"


def test_padding_is_on_the_left(prompts: PromptPreprocessor) -> None:
    batch = prompts.collate(prompts.encode(["", "a red apple", "größer"]), [0, 1, 2])
    lengths = batch["attention_mask"].sum(axis=1)
    assert len(set(lengths)) == 3
    for ids, mask, length in zip(batch["input_ids"], batch["attention_mask"], lengths, strict=True):
        assert mask.tolist() == [0] * (len(mask) - length) + [1] * length
        assert (ids[mask == 0] == prompts.pad_id).all()
        assert ids[mask == 1][0] == 1


def test_of_a_long_prompt_the_end_is_kept(prompts: PromptPreprocessor) -> None:
    (item,) = prompts.encode(["z" * 50 + " pear"]).items
    assert len(item) == 12
    assert decoded(prompts, item).startswith("<eos>zz")
    assert decoded(prompts, item).endswith("z pear")
    (shorter,) = prompts.shortened(prompts.encode(["z" * 50 + " pear"]), 4).items
    assert decoded(prompts, shorter).startswith("<eos>")
    assert len(shorter) == 4
    whole = prompts.encode_whole(["z" * 5000, None])
    assert whole.lengths[0] > 2000
    assert whole.present.tolist() == [True, False]


def test_prefix_and_suffix_are_kept_and_the_text_is_cut_at_its_end() -> None:
    known = PromptPreprocessor.train(TEXTS, vocab_size=300)
    prompts = PromptPreprocessor(known.tokenizer, max_length=14, prefix="a red: ", suffix=" = a")
    short, long = prompts.encode(["pear", "pear " * 30]).items
    assert decoded(prompts, short) == "<eos>a red: pear = a"
    assert len(long) <= 14
    assert decoded(prompts, long).startswith("<eos>a red: pear")
    assert decoded(prompts, long).endswith(" = a")


def test_an_end_token_of_a_tokenizer_is_left_out() -> None:
    tokenizer = Tokenizer.from_str(PromptPreprocessor.train(TEXTS, vocab_size=300).tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    prompts = PromptPreprocessor(tokenizer.to_str(), pad_id=1)
    item, empty = prompts.encode(["a red", ""]).items
    assert decoded(prompts, item) == "a red"
    assert empty.tolist() == [1]


def test_bad_and_missing_cells(prompts: PromptPreprocessor) -> None:
    encoded = prompts.encode([None, 3, "a", "\ud800"])
    assert encoded.present.tolist() == [False, False, True, True]
    assert encoded.errors == {1: "a text is expected as str, not int"}


def test_json_and_pickle(prompts: PromptPreprocessor) -> None:
    other = PromptPreprocessor(prompts.tokenizer, max_length=9, pad_id=0, prefix="x", suffix="y")
    for one in (prompts, other):
        for again in (preprocessor_from_dict(one.to_dict()), pickle.loads(pickle.dumps(one))):
            assert again == one
            assert [i.tolist() for i in again.encode(TEXTS).items] == [i.tolist() for i in one.encode(TEXTS).items]
