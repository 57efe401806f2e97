from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, LlamaConfig

from mmensemble import ConfigurationError, DataError, ModelFileError
from mmensemble.scoring.generation import GenerationSettings, generate_tokens
from mmensemble_estimators import CausalLM, TextClassifier
from mmensemble_estimators.backbones.writers.networks import causal_network_from_config
from tests.saved_folder import sum_anew

TEXTS = ["red apple", "green apple", "fast car", "slow car", "größer — ещё, très long"] * 6
SMALL: dict[str, Any] = {"n_layers": 1, "embedding_size": 32, "vocab_size": 300, "max_length": 48, "random_state": 0}


def llama() -> LlamaConfig:
    """A model with rotary positions and fewer heads for keys than for queries."""
    return LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


@pytest.fixture(scope="module")
def gpt() -> CausalLM:
    return CausalLM(**SMALL, max_epochs=30, batch_size=5, learning_rate=5e-3).fit(TEXTS)


@pytest.fixture(scope="module")
def models(gpt: CausalLM) -> dict[str, CausalLM]:
    made = CausalLM(**{**SMALL, "backbone": llama()}, max_epochs=8, learning_rate=5e-3).fit(TEXTS)
    return {"gpt": gpt, "llama": made}


def test_it_learns_what_it_reads(gpt: CausalLM) -> None:
    assert gpt.generate(["green", "fast"], temperature=0).tolist() == [[" apple"], [" car"]]
    assert gpt.perplexity(TEXTS) < 2.5
    assert gpt.perplexity(["apple green"]) > 3 * gpt.perplexity(["green apple"])
    history = gpt.history_
    assert history["epoch"].tolist() == list(range(1, 31))
    np.testing.assert_allclose(history["train_perplexity"], np.exp(history["train_loss"]))
    assert history["train_loss"].iloc[-1] < 0.5 * history["train_loss"].iloc[0]


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_likelihoods_are_those_of_the_transformers_model(models: dict[str, CausalLM], name: str) -> None:
    model = models[name]
    texts = ["red apple", "", "größer и ещё"]
    log_likelihood, n_tokens = model.log_likelihood(texts)
    for text, found, n in zip(texts, log_likelihood, n_tokens, strict=True):
        ids = torch.tensor([[*model.preprocessor_.encode([text]).items[0], 1]])
        with torch.inference_mode():
            scores = model.module_.backbone(input_ids=ids).logits.log_softmax(dim=-1)
        expected = scores[0, :-1].gather(1, ids[0, 1:, None]).sum()
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert n == ids.shape[1] - 1
    assert model.score(texts) == pytest.approx(log_likelihood.sum() / n_tokens.sum())
    assert model.perplexity(texts) == pytest.approx(np.exp(-model.score(texts)))


def test_long_texts_are_scored_in_pieces_and_no_token_is_lost(gpt: CausalLM) -> None:
    long = "größer " * 40
    _, n_tokens = gpt.log_likelihood([long, None, "red"])
    assert n_tokens[0] == len(gpt.preprocessor_.encode_whole([long]).items[0])
    assert n_tokens[1] == 0
    cut = gpt._pieces([None, long])
    pieces = cut.items
    assert len(pieces) > 2
    assert set(cut.row_of) == {1}
    assert max(map(len, pieces)) == gpt.max_length
    assert all(one[-1] == next_one[0] for one, next_one in pairwise(pieces))
    joined = [pieces[0][0], *np.concatenate([piece[1:] for piece in pieces])]
    assert joined == [*gpt.preprocessor_.encode_whole([long]).items[0], 1]


@pytest.mark.parametrize("name", ["gpt", "llama"])
@pytest.mark.parametrize(("beams", "returned"), [(1, 1), (3, 2)])
def test_greedy_and_beams_are_those_of_transformers(
    models: dict[str, CausalLM], name: str, beams: int, returned: int
) -> None:
    model = models[name]
    prompts = ["gre", "", "f", "größer — ещ", "red apple r"]
    inputs = model.preprocessor_.collate(model.preprocessor_.encode(prompts), slice(None))
    del inputs["present"]
    settings = GenerationSettings.of(
        max_new_tokens=12, temperature=0 if beams == 1 else 1, num_beams=beams, num_return_sequences=returned
    )
    ours = generate_tokens(model.token_decoder(), inputs, settings, end_ids=[1], rows=np.arange(5))
    ids, mask = (torch.from_numpy(inputs[key]) for key in ("input_ids", "attention_mask"))
    with torch.inference_mode():
        theirs = model.module_.backbone.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=beams,
            num_return_sequences=returned,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=1,
        )
    for row, sequence in enumerate(theirs[:, ids.shape[1] :].tolist()):
        written = sequence[: sequence.index(1)] if 1 in sequence else [token for token in sequence if token]
        assert ours[row // returned][row % returned].tolist() == written


def test_rows_do_not_depend_on_each_other(gpt: CausalLM) -> None:
    prompts = ["gre", "größer — ещё, tr", "", "f"]
    for settings in ({"temperature": 0}, {"num_beams": 3, "num_return_sequences": 2}):
        together = gpt.generate(prompts, max_new_tokens=8, **settings)
        alone = [gpt.generate([prompt], max_new_tokens=8, **settings)[0].tolist() for prompt in prompts]
        assert together.tolist() == alone
    sampled = gpt.generate(prompts, max_new_tokens=8, num_return_sequences=2, random_state=1)
    smaller = clone(gpt).set_params(batch_size=1)
    smaller.__dict__.update({key: value for key, value in vars(gpt).items() if key.endswith("_")})
    again = smaller.generate(prompts, max_new_tokens=8, num_return_sequences=2, random_state=1)
    assert sampled.tolist() == again.tolist()


def test_generate_takes_what_other_methods_take(gpt: CausalLM) -> None:
    expected = [[" apple"], [None]]
    for X in (
        ["green", None],
        pd.Series(["green", np.nan]),
        pd.DataFrame({"text": ["green", None]}),
        np.array(["green", None], dtype=object),
    ):
        assert gpt.generate(X, temperature=0).tolist() == expected
    assert gpt.generate([]).shape == (0, 1)
    with pytest.raises(DataError, match="row 1"):
        gpt.generate(["a", 3])
    with pytest.raises(ConfigurationError, match="max_new_tokens=48 is too many"):
        gpt.generate(["a"], max_new_tokens=48)
    long = gpt.generate(["x" * 500 + " gre"], temperature=0, max_new_tokens=8)
    assert isinstance(long[0, 0], str)


def test_reproducible_by_random_state(gpt: CausalLM) -> None:
    def write(random_state: Any) -> list:
        return gpt.generate([""], num_return_sequences=8, random_state=random_state, temperature=2.0).tolist()

    assert write(3) == write(3)
    assert write(3) != write(4)
    again = clone(gpt).fit(TEXTS)
    assert again.generate([""], random_state=3).tolist() == gpt.generate([""], random_state=3).tolist()


def test_transform_does_not_depend_on_padding(gpt: CausalLM) -> None:
    texts = ["red", None, "größer — ещё, très long", ""]
    for pooling in ("mean", "last", "max"):
        model = copy.copy(gpt).set_params(pooling=pooling)
        embedding = model.transform(texts)
        assert embedding.shape == (4, 32)
        assert embedding.dtype == np.float32
        assert (embedding[1] == 0).all()
        np.testing.assert_allclose(embedding[:1], model.transform(["red"]), atol=1e-5)
    assert gpt.transform([]).shape == (0, 32)
    assert gpt.get_feature_names_out()[-1] == "causallm31"


def test_early_stopping_watches_the_perplexity_of_texts_set_aside() -> None:
    model = CausalLM(**SMALL, max_epochs=3, early_stopping=True, validation_fraction=0.2).fit(TEXTS)
    np.testing.assert_allclose(model.history_["valid_perplexity"], np.exp(model.history_["valid_loss"]))


def test_weights_of_texts_count_as_often_given() -> None:
    texts = ["ab", "cd"] * 8
    model = CausalLM(**SMALL, max_epochs=20, learning_rate=1e-2).fit(texts, sample_weight=[1, 0] * 8)
    assert model.perplexity(["ab"]) < 0.2 * model.perplexity(["cd"])


def test_warm_start_and_partial_fit_go_on(gpt: CausalLM) -> None:
    model = CausalLM(**SMALL, max_epochs=2, warm_start=True).fit(TEXTS)
    before = model.perplexity(TEXTS)
    assert model.fit(TEXTS).history_["epoch"].tolist() == [1, 2, 3, 4]
    model.partial_fit(TEXTS)
    assert len(model.history_) == 5
    assert model.perplexity(TEXTS) < before
    assert len(CausalLM(**SMALL).partial_fit(TEXTS).history_) == 1


def test_fine_tuning_another_one(gpt: CausalLM, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    for pretrained in (gpt, FrozenEstimator(gpt), str(tmp_path), tmp_path):
        start = clone(CausalLM(pretrained=FrozenEstimator(gpt), max_length=48)) if pretrained is gpt else CausalLM()
        tuned = start.set_params(pretrained=pretrained, max_length=48, max_epochs=2, learning_rate=1e-3, random_state=0)
        tuned.fit(["red car"] * 20)
        assert tuned.preprocessor_.tokenizer == gpt.preprocessor_.tokenizer or isinstance(pretrained, (str, Path))
        assert tuned.perplexity(["red car"]) < gpt.perplexity(["red car"])
    assert gpt.generate(["green"], temperature=0).tolist() == [[" apple"]]
    with pytest.raises(ConfigurationError, match="FrozenEstimator"):
        CausalLM(pretrained=clone(gpt)).fit(TEXTS)
    with pytest.raises(ConfigurationError, match="max_length=128 is more than the 48 positions"):
        CausalLM(pretrained=gpt).fit(TEXTS)


def test_lora_leaves_the_head_and_merges(gpt: CausalLM) -> None:
    pytest.importorskip("peft")
    tuned = CausalLM(pretrained=gpt, fine_tune="lora", max_length=48, max_epochs=3, learning_rate=5e-3)
    tuned.fit(["red car"] * 20)
    names = dict(tuned.module_.named_parameters())
    assert names.keys() == dict(gpt.module_.named_parameters()).keys()
    before = dict(gpt.module_.named_parameters())
    changed = {name for name in names if not torch.equal(names[name], before[name])}
    assert changed
    assert not any("wte" in name or "lm_head" in name for name in changed)
    assert tuned.perplexity(["red car"]) < gpt.perplexity(["red car"])


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_a_saved_folder_is_read_by_all(models: dict[str, CausalLM], name: str, tmp_path: Path) -> None:
    model = models[name]
    model.save(tmp_path)
    model.save(tmp_path)
    assert not list(tmp_path.glob(".saving*"))
    again = CausalLM.load(tmp_path)
    assert repr(again) == repr(model)
    prompts = ["gre", "f", ""]
    kwargs = {"random_state": 5, "max_new_tokens": 9}
    assert again.generate(prompts, **kwargs).tolist() == model.generate(prompts, **kwargs).tolist()
    pd.testing.assert_frame_equal(again.history_, model.history_)

    tokenizer, network = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    for text in (*TEXTS[:5], ""):
        assert tokenizer(text).input_ids == model.preprocessor_.encode([text]).items[0].tolist()
    assert tokenizer.eos_token == tokenizer.bos_token == "<eos>"
    assert network.config.eos_token_id == 1

    taken = TextClassifier(pretrained=str(tmp_path), max_length=16, max_epochs=4, learning_rate=1e-2, random_state=0)
    taken.fit(TEXTS, ["fruit", "fruit", "vehicle", "vehicle", "other"] * 6)
    assert taken.predict(["green apple", "fast car"]).tolist() == ["fruit", "vehicle"]

    (tmp_path / "estimator.json").unlink()
    bare = CausalLM.load(tmp_path)
    assert bare.max_length == model.module_.max_length
    assert (
        bare.generate(["gre"], temperature=0, max_new_tokens=9).tolist()
        == model.generate(["gre"], temperature=0, max_new_tokens=9).tolist()
    )
    assert bare.perplexity(TEXTS) == pytest.approx(model.perplexity(TEXTS))


def test_pickle(gpt: CausalLM, tmp_path: Path) -> None:
    joblib.dump(gpt, tmp_path / "lm.joblib")
    for again in (joblib.load(tmp_path / "lm.joblib"), pickle.loads(pickle.dumps(gpt))):
        assert again.perplexity(TEXTS) == gpt.perplexity(TEXTS)


def test_a_search_takes_the_likelihood(gpt: CausalLM) -> None:
    search = GridSearchCV(CausalLM(**SMALL, max_epochs=4), {"learning_rate": [1e-5, 1e-2]}, cv=2).fit(TEXTS)
    assert search.best_params_ == {"learning_rate": 1e-2}


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        CausalLM().generate(["a"])
    with pytest.raises(NotFittedError):
        CausalLM().perplexity(["a"])
    for params, message in [
        ({"backbone": "bert"}, "backbone must be 'gpt' or a transformers config"),
        ({"fine_tune": "head"}, "fine_tune must be one of"),
        ({"pooling": "cls"}, "pooling must be one of"),
        ({"n_heads": 5}, "embedding_size=32 is not divisible by n_heads=5"),
        ({"max_length": 1}, "max_length"),
        ({"pretrained": 3}, "pretrained must be a fitted CausalLM"),
        ({"pretrained": str(tmp_path / "no")}, "there is no such folder"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            CausalLM(**{**SMALL, **params}).fit(TEXTS)
    with pytest.raises(DataError, match="every row is missing"):
        CausalLM(**SMALL).fit([None, None])
    with pytest.raises(DataError, match="row 1"):
        CausalLM(**SMALL).fit(["a", 3])
    model = CausalLM(**SMALL, max_epochs=1).fit(TEXTS)
    with pytest.raises(DataError, match="no token to score"):
        model.score([None])
    model.save(tmp_path)
    (tmp_path / "estimator.json").write_text('{"format_version": 99, "class": "CausalLM"}')
    sum_anew(tmp_path)
    with pytest.raises(ModelFileError, match="upgrade"):
        CausalLM.load(tmp_path)


def test_models_with_another_state_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="takes no position_ids"):
        causal_network_from_config(BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2))
