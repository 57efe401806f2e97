"""Seq2SeqGenerator: it learns what can be learned exactly, writes the same however it is asked, and keeps its word."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import BartConfig, BartForConditionalGeneration, BertConfig, PreTrainedTokenizerFast, T5Config

from mmensemble import ConfigurationError, DataError, ModelFileError, MultimodalClassifier, OnnxPredictor, export_onnx
from mmensemble.metrics import chrf_score, chrf_scorer
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators import ConcatFusion, ImageCaptioner, Seq2SeqGenerator
from tests.saved_folder import sum_anew

ENGLISH = ["red apple", "green pear", "red pear", "green apple"] * 8
GERMAN = ["roter Apfel", "grüne Birne", "rote Birne", "grüner Apfel"] * 8

T5 = T5Config(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)


def digits(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Return strings of two to five digits, and the same backwards."""
    rng = np.random.RandomState(seed)
    strings = ["".join(rng.choice(list("0123456789"), rng.randint(2, 6))) for _ in range(n)]
    return strings, [string[::-1] for string in strings]


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def reverser(request: pytest.FixtureRequest) -> Seq2SeqGenerator:
    """A network that was taught to write strings of digits backwards."""
    model = Seq2SeqGenerator(
        backbone=request.param,
        vocab_size=258,
        max_length=12,
        max_epochs=10,
        learning_rate={"transformer": 2e-3, "lstm": 5e-3}[request.param],
        subword_dropout=0.0,
        random_state=0,
    )
    return model.fit(*digits(1000, seed=0))


def translator(**params: Any) -> Seq2SeqGenerator:
    return Seq2SeqGenerator(**{"vocab_size": 300, "max_length": 24, "max_epochs": 1, "random_state": 0, **params})


@pytest.fixture(scope="module")
def fitted() -> Seq2SeqGenerator:
    return translator(max_epochs=10).fit(pd.Series(ENGLISH, name="english"), GERMAN)


def test_reverses_unseen_strings(reverser: Seq2SeqGenerator) -> None:
    strings, backwards = digits(300, seed=1)
    assert np.mean(reverser.predict(strings) == np.array(backwards)) >= 0.95
    beams = clone(reverser).set_params(num_beams=3)
    beams.__dict__.update({name: value for name, value in vars(reverser).items() if name not in beams.get_params()})
    assert np.mean(beams.predict(strings) == np.array(backwards)) >= 0.95
    assert reverser.score(strings, backwards) == chrf_score(backwards, reverser.predict(strings)) > 95
    assert reverser.history_["train_loss"].iloc[-1] < reverser.history_["train_loss"].iloc[0]


def test_the_file_writes_the_same(
    reverser: Seq2SeqGenerator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    strings = [*digits(20, seed=2)[0], None, "", "9" * 100]
    export_onnx(reverser, tmp_path / "model.onnx", verify=strings[:4])
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    for settings in (
        {"temperature": 0},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_return_sequences": 3, "temperature": 1.5, "random_state": 0},
        {"top_k": 3, "top_p": 0.9, "random_state": 1},
    ):
        written = reverser.generate(strings, max_new_tokens=9, **settings)
        assert predictor.generate(strings, max_new_tokens=9, **settings).tolist() == written.tolist()
    assert "onnxruntime" not in capfd.readouterr().err, "it warns of every buffer that it copies"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(reverser: Seq2SeqGenerator, precision: Any, tmp_path: Path) -> None:
    strings = digits(40, seed=3)[0]
    path = tmp_path / "model.onnx"
    manifest = export_onnx(reverser, path, precision=precision, verify=strings)
    assert manifest.parity["equal_tokens"] >= 0.95
    assert {spec.dtype for spec in manifest.task.encoded.values()} == {
        "bool",
        "float16" if precision == "fp16" else "float32",
    }
    (encode,) = (node for node in onnx.load(path).graph.node if node.op_type == "If")
    branch = next(attribute.g for attribute in encode.attribute if attribute.name == "then_branch")
    products = {node.op_type for node in branch.node if "MatMul" in node.op_type}
    assert "MatMulInteger" in products if precision == "int8" else products == {"MatMul"}
    settings: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0}
    written = OnnxPredictor(path, device="cpu").generate(strings, **settings)
    assert np.mean(written == reverser.generate(strings, **settings)) >= 0.9


def test_what_a_row_gets_is_its_own(reverser: Seq2SeqGenerator) -> None:
    strings = [*digits(12, seed=3)[0], None]
    written = reverser.generate(strings, max_new_tokens=9, num_return_sequences=2, temperature=2.0, random_state=5)
    assert written.shape == (13, 2)
    assert written[12].tolist() == [None, None]
    again = reverser.generate(strings, max_new_tokens=9, num_return_sequences=2, temperature=2.0, random_state=5)
    assert again.tolist() == written.tolist()
    assert len(set(written[:12].ravel())) > 12  # at this temperature it does not write the same twice
    greedy = reverser.generate(strings, max_new_tokens=9, temperature=0)
    alone = [reverser.generate([string], max_new_tokens=9, temperature=0)[0, 0] for string in strings]
    assert greedy[:, 0].tolist() == alone == reverser.predict(strings).tolist()


def test_missing_rows(fitted: Seq2SeqGenerator) -> None:
    for missing in (None, float("nan"), pd.NA):
        texts = pd.Series(["red pear", missing], name="english", dtype=object)
        assert fitted.predict(texts).tolist() == ["rote Birne", None]
        assert not fitted.transform(texts)[1].any()
        assert fitted.transform(texts)[0].any()
    assert fitted.score(["red pear", None], ["rote Birne", "x"]) < fitted.score(["red pear"], ["rote Birne"]) == 100
    assert fitted.predict([]).tolist() == []
    assert fitted.transform([]).shape == (0, 128) == (0, len(fitted.get_feature_names_out()))


def test_missing_rows_are_left_out_of_the_fit() -> None:
    whole = translator().fit(ENGLISH, GERMAN)
    partly = translator().fit([*ENGLISH, None], [*GERMAN, "roter Apfel"])
    assert partly.history_["train_loss"].tolist() == pytest.approx(whole.history_["train_loss"].tolist(), rel=0.05)
    with pytest.raises(DataError, match="every row is missing"):
        translator().fit([None, None], ["a", "b"])


def test_weights_choose_what_is_learned() -> None:
    sources = ["one", "two"] * 16
    for wanted in (0, 1):
        model = translator(max_epochs=12, subword_dropout=0.0)
        model.fit(sources * 2, ["x"] * 32 + ["y"] * 32, sample_weight=np.repeat([1.0 - wanted, float(wanted)], 32))
        assert set(model.predict(["one", "two"])) == {"xy"[wanted]}
    with pytest.raises(DataError, match="weight above 0"):
        translator().fit(["one", None], ["x", "y"], sample_weight=[0.0, 1.0])


def test_texts_of_any_kind(fitted: Seq2SeqGenerator) -> None:
    odd = ["", " ", "x" * 10_000, "梨 🍐", "\ud800", "a\nb\x00"]
    assert all(isinstance(text, str) for text in fitted.predict(odd))
    model = translator().fit(odd * 2, odd * 2)
    assert all(isinstance(text, str) for text in model.predict(odd))


def test_early_stopping_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    model = translator(max_epochs=2, early_stopping=True, validation_fraction=0.25, verbose=1).fit(ENGLISH, GERMAN)
    assert list(model.history_) == ["epoch", "train_loss", "valid_loss", "dur", "train_perplexity", "valid_perplexity"]
    assert "Seq2SeqGenerator: fit took" in capsys.readouterr().err


def test_further_fits() -> None:
    model = translator(warm_start=True).fit(ENGLISH, GERMAN)
    assert model.fit(ENGLISH, GERMAN).history_["epoch"].tolist() == [1, 2]
    model = translator().partial_fit(ENGLISH, GERMAN).partial_fit(["blue plum"], ["blaue Pflaume"])
    assert len(model.history_) == 2
    assert len(model.fit(ENGLISH, GERMAN).history_) == 1


def test_reproducible_and_cloneable(fitted: Seq2SeqGenerator) -> None:
    again = clone(fitted).fit(pd.Series(ENGLISH, name="english"), GERMAN)
    np.testing.assert_array_equal(again.transform(ENGLISH), fitted.transform(ENGLISH))
    assert again.predict(ENGLISH).tolist() == fitted.predict(ENGLISH).tolist() == GERMAN
    copied = pickle.loads(pickle.dumps(fitted))
    assert copied.predict(ENGLISH).tolist() == GERMAN


@pytest.mark.parametrize("params", [{}, {"backbone": "lstm"}, {"backbone": T5}], ids=["transformer", "lstm", "config"])
def test_save_and_load(params: dict[str, Any], tmp_path: Path) -> None:
    model = translator(**params).fit(pd.Series(ENGLISH, name="english"), GERMAN)
    model.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SHA256SUMS", "estimator.json", "weights.safetensors"]
    loaded = Seq2SeqGenerator.load(tmp_path)
    assert {name for name in vars(loaded) if name.endswith("_")} == {n for n in vars(model) if n.endswith("_")}
    np.testing.assert_array_equal(loaded.transform(ENGLISH), model.transform(ENGLISH))
    settings = {"max_new_tokens": 8, "random_state": 0}
    assert loaded.generate(ENGLISH, **settings).tolist() == model.generate(ENGLISH, **settings).tolist()
    pd.testing.assert_frame_equal(loaded.history_, model.history_)
    with pytest.raises(DataError, match="'english' was fitted"):
        loaded.predict(pd.DataFrame({"german": GERMAN}))


def test_damaged_folders(fitted: Seq2SeqGenerator, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    with pytest.raises(ModelFileError, match="holds a Seq2SeqGenerator"):
        ImageCaptioner.load(tmp_path)
    state = json.loads((tmp_path / "estimator.json").read_text(encoding="utf-8"))
    for damaged in ({**state, "architecture": {}}, {**state, "start_ids": "x"}, {**state, "target_preprocessor": 3}):
        (tmp_path / "estimator.json").write_text(json.dumps(damaged), encoding="utf-8")
        sum_anew(tmp_path)
        with pytest.raises(ModelFileError, match="damaged"):
            Seq2SeqGenerator.load(tmp_path)
    (tmp_path / "estimator.json").write_text(json.dumps(state), encoding="utf-8")
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    sum_anew(tmp_path)
    with pytest.raises(ModelFileError, match="damaged"):
        Seq2SeqGenerator.load(tmp_path)


def test_search_by_chrf() -> None:
    grid = {"max_epochs": [1, 12]}
    search = GridSearchCV(translator(batch_size=4), grid, scoring=chrf_scorer, cv=2).fit(np.array(ENGLISH), GERMAN)
    assert search.best_params_ == {"max_epochs": 12}
    assert search.best_score_ > 90


def test_bad_data(fitted: Seq2SeqGenerator) -> None:
    with pytest.raises(DataError, match="requires y to be passed"):
        translator().fit(ENGLISH, None)
    for bad, kind in ((None, "NoneType"), (3, "int")):
        with pytest.raises(DataError, match=f"row 1: a target text is expected as str, not {kind}"):
            translator().fit(["a", "b"], ["x", bad])
    with pytest.raises(DataError, match="row 1, column 'english': a text is expected as str, not int"):
        fitted.predict(pd.Series(["red", 5], name="english"))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        translator().fit(ENGLISH, GERMAN[:5])
    with pytest.raises(NotFittedError):
        translator().predict(ENGLISH)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "gpt"}, r"backbone must be one of \['lstm', 'transformer'\]"),
        ({"backbone": BertConfig()}, "encoder-decoder, as T5Config, not BertConfig"),
        ({"fine_tune": "head"}, r"fine_tune must be one of \('all', 'lora'\)"),
        ({"pooling": "sum"}, "pooling must be"),
        ({"num_beams": 0}, "num_beams must be an integer of at least 1"),
        ({"label_smoothing": 1.0}, "label_smoothing must be a number in"),
        ({"subword_dropout": -0.1}, "subword_dropout must be a number in"),
        ({"backbone": BartConfig(max_position_embeddings=8, d_model=16)}, "more than the 8 positions"),
        ({"pretrained": "/no/such/folder"}, "there is no such folder"),
    ],
)
def test_bad_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        translator(**params).fit(ENGLISH, GERMAN)


def test_too_many_new_tokens(reverser: Seq2SeqGenerator) -> None:
    if reverser.backbone == "transformer":
        with pytest.raises(ConfigurationError, match="max_new_tokens=13 is too many: the network has 13 positions"):
            reverser.generate(["12"], max_new_tokens=13)
    assert reverser.generate(["12"], max_new_tokens=12).shape == (1, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BART with its tokenizer, as transformers keeps it."""
    known = TextPreprocessor.train([*ENGLISH, *GERMAN], vocab_size=300)
    path = tmp_path_factory.mktemp("bart")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=known._tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<eos>"
    )
    tokenizer.save_pretrained(path)
    config = BartConfig(
        vocab_size=known.vocab_size,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
    )
    BartForConditionalGeneration(config).save_pretrained(path)
    return path


@pytest.mark.parametrize("fine_tune", ["all", "lora"])
def test_pretrained(folder: Path, fine_tune: str, tmp_path: Path) -> None:
    if fine_tune == "lora":
        pytest.importorskip("peft")
    model = translator(pretrained=str(folder), fine_tune=fine_tune, learning_rate=1e-2, max_epochs=6)
    model.fit(ENGLISH, GERMAN)
    losses = model.history_["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert all(parameter.requires_grad for parameter in model.module_.parameters())
    model.save(tmp_path)
    settings = {"max_new_tokens": 8, "temperature": 0}
    written = model.generate(ENGLISH, **settings).tolist()
    assert Seq2SeqGenerator.load(tmp_path).generate(ENGLISH, **settings).tolist() == written


def test_pretrained_writes_what_transformers_writes(folder: Path) -> None:
    model = translator(pretrained=str(folder), learning_rate=1e-9).fit(ENGLISH, GERMAN)
    bart = BartForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text in ENGLISH[:4]:
        ids = bart.generate(
            **tokenizer(text, return_tensors="pt", return_token_type_ids=False),
            max_new_tokens=8,
            do_sample=False,
            num_beams=1,
        )
        expected = tokenizer.decode(ids[0], skip_special_tokens=True)
        assert model.generate([text], max_new_tokens=8, temperature=0)[0, 0] == expected


def test_embeds_in_a_joint_fusion(fitted: Seq2SeqGenerator, tmp_path: Path) -> None:
    X = pd.DataFrame({"english": ENGLISH, "length": [float(len(text)) for text in ENGLISH]})
    members = [
        ("text", make_pipeline(FrozenEstimator(fitted), LogisticRegression()), "english"),
        ("facts", make_pipeline(StandardScaler(), LogisticRegression()), ["length"]),
    ]
    model = MultimodalClassifier(members, fusion=ConcatFusion(max_epochs=5, random_state=0))
    model.fit(X, [text.split()[1] for text in ENGLISH])
    X.iloc[0, 0] = None
    export_onnx(model, tmp_path / "model.onnx")
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    np.testing.assert_allclose(predictor.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-5)
