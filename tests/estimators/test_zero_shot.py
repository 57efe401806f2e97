from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import cross_val_score

from mmensemble import ConfigurationError, DataError, ModelFileError, OnnxPredictor, export_onnx
from mmensemble.preprocessing import PromptPreprocessor
from mmensemble_estimators import CausalLM, TextClassifier, ZeroShotTextClassifier
from mmensemble_estimators.backbones.writers.likelihood import shared_prefix
from tests.saved_folder import sum_anew

TEXTS = ["an apple is a fruit", "a pear is a fruit", "a car is a vehicle", "a bus is a vehicle", "a cat is a small pet"]
WORDS = ["an apple", "a pear", "a car", "a bus", "a cat"]
KINDS = ["fruit", "fruit", "vehicle", "vehicle", "small pet"]


@pytest.fixture(scope="module")
def lm() -> CausalLM:
    model = CausalLM(
        n_layers=1,
        embedding_size=48,
        vocab_size=300,
        max_length=96,
        max_epochs=25,
        batch_size=8,
        learning_rate=1e-2,
        random_state=0,
    )
    return model.fit(TEXTS * 8)


def of(lm: CausalLM, **params) -> ZeroShotTextClassifier:
    params = {"template": "{text} is a {label}", "calibrate": False, **params}
    return ZeroShotTextClassifier(FrozenEstimator(lm), **params)


def test_labels_alone_are_enough(lm: CausalLM) -> None:
    clf = of(lm).fit(None, ["vehicle", "fruit", "small pet"])
    assert clf.classes_.tolist() == ["fruit", "small pet", "vehicle"]
    assert clf.predict(WORDS).tolist() == KINDS
    assert clf.score(WORDS, KINDS) == 1.0


def test_probabilities_are_those_of_whole_texts(lm: CausalLM) -> None:
    clf = of(lm, batch_size=2).fit(None, KINDS)
    whole = [
        [log_likelihood_of(lm, f"{word} is a", f" {label}") for label in clf.classes_] for word in (*WORDS, "another")
    ]
    np.testing.assert_allclose(clf.predict_proba([*WORDS, "another"]), softmax(whole, axis=1), atol=1e-5)


def test_examples_are_run_once_and_change_nothing(lm: CausalLM) -> None:
    clf = of(lm, n_examples=3, random_state=0).fit(WORDS, KINDS)
    before = "".join(f"{example}\n\n" for example in clf.examples_)
    n_tokens = len(lm.preprocessor_.encode_whole([before.rstrip()]).items[0])
    assert clf.module_.n_prefix == n_tokens >= 20
    whole = [[log_likelihood_of(lm, f"{before}{w} is a", f" {label}") for label in clf.classes_] for w in (*WORDS, "")]
    np.testing.assert_allclose(clf.predict_proba([*WORDS, ""]), softmax(whole, axis=1), atol=1e-5)
    lengths = clf.preprocessor_.encode(WORDS).lengths
    assert lengths.max() < 15
    assert clf.predict_proba(["a car " * 100]).shape == (1, 3)  # cut to the place that is left


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [("", ""), ("Text: ", "Text:"), ('a b\n\nText: "', "a b\n\nText:"), ("word", ""), (" word", "")],
)
def test_prompts_share_what_they_begin_with(lm: CausalLM, prefix: str, kept: str) -> None:
    prompts = PromptPreprocessor(lm.preprocessor_.tokenizer, max_length=40, prefix=prefix, suffix=" is")
    ids, rest = shared_prefix(prompts)
    assert ids == (lm.preprocessor_.encode_whole([kept]).items[0].tolist() if kept else [])
    assert rest.max_length == 40 - len(ids)
    whole, behind = (each.encode(["an apple", "", "a car " * 30]) for each in (prompts, rest))
    assert [[*ids, *row] for row in behind.items] == [row.tolist() for row in whole.items]


def test_a_tokenizer_that_looks_across_the_cut_shares_nothing(lm: CausalLM) -> None:
    state = json.loads(lm.preprocessor_.tokenizer)
    state["pre_tokenizer"]["add_prefix_space"] = True  # as SentencePiece has it
    prompts = PromptPreprocessor(json.dumps(state), prefix="Text:\n", suffix=" is")
    assert shared_prefix(prompts) == ([], prompts)


def log_likelihood_of(lm: CausalLM, prompt: str, label: str) -> float:
    """By the transformers model on the whole text, one label at a time."""
    import torch

    before = lm.preprocessor_.encode([prompt]).items[0].tolist()
    after = lm.preprocessor_.encode_whole([label]).items[0].tolist()[1:]
    ids = torch.tensor([before + after])
    with torch.inference_mode():
        scores = lm.module_.backbone(input_ids=ids).logits.log_softmax(dim=-1)[0]
    return float(sum(scores[len(before) - 1 + i, token] for i, token in enumerate(after)))


@pytest.mark.parametrize("texts", [["N/A", "[MASK]", ""], WORDS, ("a van",)])
def test_calibration_takes_out_what_labels_get_on_average(lm: CausalLM, texts: Any) -> None:
    plain = of(lm).fit(WORDS, KINDS)
    calibrated = of(lm, calibrate=True if "N/A" in texts else texts).fit(WORDS, KINDS)
    assert (plain.bias_ == 0).all()
    mean = plain.predict_proba(texts).mean(axis=0)
    np.testing.assert_allclose(calibrated.bias_, np.log(mean), atol=1e-6)
    expected = plain.predict_proba(WORDS) / mean
    np.testing.assert_allclose(
        calibrated.predict_proba(WORDS), expected / expected.sum(axis=1, keepdims=True), atol=1e-6
    )


def test_examples_are_drawn_by_class_and_written_before(lm: CausalLM) -> None:
    clf = of(lm, n_examples=2, example_length=8, random_state=0).fit(WORDS[:4] * 3, KINDS[:4] * 3)
    assert len(clf.examples_) == 2
    assert {example.rpartition(" ")[2] for example in clf.examples_} == {"fruit", "vehicle"}
    assert all(len(example.split(" is a ")[0]) <= 8 for example in clf.examples_)
    assert clf.preprocessor_.prefix == "\n\n"  # the rest was run, and what it left is kept
    other = of(lm, n_examples=2, random_state=0).fit(WORDS[:4] * 3, KINDS[:4] * 3)
    assert other.examples_ == clf.examples_
    with pytest.raises(ConfigurationError, match="template and examples take"):
        of(lm, n_examples=14, random_state=0).fit(WORDS * 3, KINDS * 3)
    with pytest.raises(DataError, match="n_examples=9 and there are 5 texts"):
        of(lm, n_examples=9).fit(WORDS, KINDS)


def test_classes_of_any_dtype_and_words_for_them(lm: CausalLM) -> None:
    numbers = np.array([0, 0, 1, 1, 2])
    clf = of(lm, labels={0: "fruit", 1: "vehicle", 2: "small pet"}).fit(WORDS, numbers)
    assert clf.classes_.dtype == numbers.dtype
    assert clf.predict(WORDS).tolist() == numbers.tolist()
    listed = of(lm, labels=["fruit", "small pet", "vehicle"]).fit(WORDS, KINDS)
    assert listed.predict(WORDS).tolist() == KINDS
    with pytest.raises(ConfigurationError, match="labels has 2 words for 3 classes"):
        of(lm, labels=["fruit", "pet"]).fit(WORDS, KINDS)
    with pytest.raises(ConfigurationError, match="labels does not say how the class 2"):
        of(lm, labels={0: "fruit", 1: "vehicle"}).fit(WORDS, numbers)


def test_missing_rows_get_the_prior_and_bad_ones_are_named(lm: CausalLM) -> None:
    clf = of(lm).fit(pd.Series(WORDS, name="word"), KINDS)
    np.testing.assert_allclose(clf.predict_proba([None]), [[0.4, 0.2, 0.4]])
    assert clf.predict_proba([]).shape == (0, 3)
    assert clf.feature_names_in_.tolist() == ["word"]
    with pytest.raises(DataError, match="row 1, column 'word'"):
        clf.predict(["a", 3])


@pytest.mark.parametrize("params", [{}, {"calibrate": True, "n_examples": 2, "random_state": 0}])
def test_export(lm: CausalLM, tmp_path: Path, params: dict) -> None:
    X = [*WORDS, None, "", "a car " * 60]
    clf = of(lm, **params).fit(WORDS, KINDS)
    export_onnx(clf, tmp_path / "model.onnx", verify=X)
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=3)
    np.testing.assert_allclose(predictor.predict_proba(X), clf.predict_proba(X), atol=1e-4)
    with pytest.raises(AttributeError, match="writes no texts; use predict"):
        predictor.generate(X)


def test_labels_of_one_token_each(lm: CausalLM, tmp_path: Path) -> None:
    clf = of(lm).fit(WORDS[:4], KINDS[:4])
    assert clf.module_.n_given == 0
    export_onnx(clf, tmp_path / "model.onnx", verify=WORDS)


def test_in_the_ensembles_of_scikit_learn(lm: CausalLM) -> None:
    clf = of(lm)
    named = of(lm, labels=["fruit", "small pet", "vehicle"])
    assert cross_val_score(clf, WORDS[:4] * 2, KINDS[:4] * 2, cv=2).tolist() == [1.0, 1.0]
    voting = VotingClassifier([("one", named), ("other", clone(named).set_params(batch_size=2))], voting="soft")
    assert voting.fit(WORDS, KINDS).predict(WORDS).tolist() == KINDS
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(WORDS[:4] * 4, KINDS[:4] * 4)
    assert calibrated.predict(WORDS[:4]).tolist() == KINDS[:4]


def test_a_folder_is_a_language_model(lm: CausalLM, tmp_path: Path) -> None:
    lm.save(tmp_path)
    clf = ZeroShotTextClassifier(str(tmp_path), template="{text} is a {label}", calibrate=False).fit(None, KINDS)
    np.testing.assert_allclose(clf.predict_proba(WORDS), of(lm).fit(None, KINDS).predict_proba(WORDS), atol=1e-6)
    assert clf.cache_stamp()


@pytest.mark.parametrize(
    ("params", "y"),
    [
        ({}, KINDS),
        ({"calibrate": True, "n_examples": 3, "random_state": 0}, KINDS),
        ({"labels": {0: "fruit", 1: "vehicle", 2: "small pet"}}, np.array([0, 0, 1, 1, 2])),
        ({"labels": ["pear", "bus"], "calibrate": ["a van"]}, np.array([False, False, True, True, True])),
    ],
)
def test_save_and_load(lm: CausalLM, tmp_path: Path, params: dict, y: Any) -> None:
    clf = of(lm, **params).fit(pd.Series(WORDS, name="word"), y)
    clf.save(tmp_path / "new" / "folder")
    clf.save(tmp_path / "new" / "folder")
    files = {"estimator.json", "language_model", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == files
    loaded = ZeroShotTextClassifier.load(tmp_path / "new" / "folder")
    shutil.rmtree(tmp_path / "new")
    X = pd.Series([*WORDS, None], name="word")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    assert loaded.predict(X).dtype == clf.predict(X).dtype
    assert loaded.predict(X).tolist() == clf.predict(X).tolist()
    assert repr(loaded) == repr(clf)
    assert {name for name in vars(loaded) if name.endswith("_")} == {name for name in vars(clf) if name.endswith("_")}
    assert loaded.examples_ == clf.examples_
    assert not loaded.module_.training
    with pytest.raises(DataError, match="'word' was fitted"):
        loaded.predict(pd.DataFrame({"other": WORDS}))
    np.testing.assert_array_equal(clone(loaded).fit(WORDS, y).predict_proba(X), clf.predict_proba(X))


def test_save_keeps_the_name_of_a_folder_and_needs_it_no_more(lm: CausalLM, tmp_path: Path) -> None:
    # As transformers writes it, without what `save` adds.
    lm.save(tmp_path / "lm")
    (tmp_path / "lm" / "estimator.json").unlink()
    clf = ZeroShotTextClassifier(tmp_path / "lm", template="{text} is a {label}").fit(None, KINDS)
    clf.save(tmp_path / "saved")
    shutil.rmtree(tmp_path / "lm")
    loaded = ZeroShotTextClassifier.load(tmp_path / "saved")
    assert loaded.language_model == str(tmp_path / "lm")
    np.testing.assert_array_equal(loaded.predict_proba(WORDS), clf.predict_proba(WORDS))


def test_a_save_that_fails_leaves_what_was_there(lm: CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clf = of(lm).fit(WORDS, KINDS)
    clf.save(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def full(*arguments: Any, **named: Any) -> None:
        (arguments[0] / "model.safetensors").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("mmensemble_estimators.storage.language_models.write_causal", full)
    with pytest.raises(OSError, match="No space left"):
        of(lm, template="{text}: {label}").fit(WORDS, KINDS).save(tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_what_cannot_be_saved_or_loaded(lm: CausalLM, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        of(lm).save(tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"random_state=.* has no JSON form"):
        of(lm, random_state=np.random.RandomState(0)).fit(WORDS, KINDS).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    of(lm).fit(WORDS, KINDS).save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="holds a ZeroShotTextClassifier"):
        TextClassifier.load(tmp_path / "model")
    with pytest.raises(FileNotFoundError):
        ZeroShotTextClassifier.load(tmp_path / "nowhere")
    text = (tmp_path / "model" / "estimator.json").read_text(encoding="utf-8")
    state = json.loads(text)
    for key in ("task", "prior", "examples", "bias", "label_ids", "prefix_ids", "params", "preprocessor"):
        for damaged in ({k: v for k, v in state.items() if k != key}, {**state, key: 3}, {**state, key: "nonsense"}):
            (tmp_path / "model" / "estimator.json").write_text(json.dumps(damaged), encoding="utf-8")
            sum_anew(tmp_path / "model")
            with pytest.raises(ModelFileError, match="damaged"):
                ZeroShotTextClassifier.load(tmp_path / "model")
    (tmp_path / "model" / "estimator.json").write_text(text, encoding="utf-8")
    sum_anew(tmp_path / "model")
    (tmp_path / "model" / "language_model" / "estimator.json").unlink()
    with pytest.raises(FileNotFoundError):
        ZeroShotTextClassifier.load(tmp_path / "model")


def test_errors(lm: CausalLM) -> None:
    with pytest.raises(NotFittedError):
        of(lm).predict(["a"])
    with pytest.raises(ConfigurationError, match="FrozenEstimator"):
        ZeroShotTextClassifier(clone(lm)).fit(None, KINDS)
    with pytest.raises(ConfigurationError, match="must be a fitted CausalLM"):
        ZeroShotTextClassifier(3).fit(None, KINDS)
    for template in ("{label} {text}", "{text}", "{text} {label}!", "a"):
        with pytest.raises(ConfigurationError, match="template must hold"):
            of(lm, template=template).fit(None, KINDS)
    with pytest.raises(DataError, match="one class only"):
        of(lm).fit(None, ["fruit", "fruit"])
    with pytest.raises(DataError, match="requires y"):
        of(lm).fit(WORDS, None)
    with pytest.raises(ConfigurationError, match="n_examples"):
        of(lm, n_examples=-1).fit(WORDS, KINDS)
    for calibrate in ("texts", [], [1, 2], None):
        with pytest.raises(ConfigurationError, match="calibrate must be True, False or a list of texts"):
            of(lm, calibrate=calibrate).fit(WORDS, KINDS)
