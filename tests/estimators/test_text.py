from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.model_selection import cross_val_score
from sklearn.utils import Bunch, compute_sample_weight

from mmensemble import ConfigurationError, DataError, DeviceError, OnnxPredictor, export_onnx
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators import TextClassifier
from mmensemble_estimators.backbones.text import pool

THINGS = ["apple", "car", "pear", "bus"]
TEXTS = [f"{colour} {thing}" for colour in ("red", "green", "ripe", "sweet") for thing in THINGS]
KINDS = ["vehicle" if text.endswith(("car", "bus")) else "fruit" for text in TEXTS]


def classifier(**changes: Any) -> TextClassifier:
    return TextClassifier(**{"max_epochs": 2, "vocab_size": 280, "max_length": 16, "random_state": 0, **changes})


def state_of(estimator: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in estimator.module_.state_dict().items()}


def same_weights(one: Any, other: Any) -> bool:
    a, b = state_of(one), state_of(other)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    """Shared: do not change it."""
    return classifier().fit(TEXTS, KINDS)


# Learning


def test_learns_categories_of_emoji_from_their_names(emoji: Bunch) -> None:
    rng = np.random.default_rng(0)
    categories = ("Animals & Nature", "Flags", "People & Body")
    rows = np.concatenate([rng.permutation(np.flatnonzero(emoji.target == c))[:100] for c in categories])
    rng.shuffle(rows)
    X, y = emoji.frame["name"].iloc[rows], emoji.target[rows]
    clf = classifier(max_epochs=6, learning_rate=3e-3, vocab_size=600, max_length=32).fit(X[:200], y[:200])
    assert clf.score(X[200:], y[200:]) > 0.6  # chance is 0.33; three seeds gave 0.75 to 0.77
    assert clf.history_["train_loss"].iloc[-1] < clf.history_["train_loss"].iloc[0]


def test_any_language_and_any_string() -> None:
    texts = ["", "红苹果", "تفاحة حمراء", "🍎🚗", "lone \ud800 surrogate", "tab\tnewline\n\0", "x" * 10_000, " "]
    labels = [0, 1] * 4
    clf = classifier().fit(texts, labels)
    proba = clf.predict_proba(texts)
    assert np.isfinite(proba).all()
    assert clf.predict_proba(["", "नमस्ते", "\udfff"]).shape == (3, 2)


def test_only_empty_strings() -> None:
    proba = classifier().fit(["", "", "", ""], [0, 1, 0, 1]).predict_proba(["", "a"])
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_text_past_max_length_is_cut(fitted: TextClassifier) -> None:
    long = "apple " * 30
    np.testing.assert_array_equal(fitted.predict_proba([long]), fitted.predict_proba([long + "car"]))


def test_padding_has_no_effect(fitted: TextClassifier) -> None:
    alone = fitted.predict_proba(["red car"])
    beside = fitted.predict_proba(["red car", "a longer text of many words"])[:1]
    np.testing.assert_allclose(beside, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls", "max"])
def test_pooling_in_a_network(pooling: str) -> None:
    clf = classifier(pooling=pooling).fit(TEXTS, KINDS)
    np.testing.assert_allclose(
        clf.predict_proba(TEXTS[:2]), clf.predict_proba([*TEXTS[:2], "a longer text of many words"])[:2], atol=1e-6
    )


def test_pool() -> None:
    states = torch.tensor([[[1.0, -5.0], [3.0, -1.0], [100.0, 100.0]], [[2.0, 2.0], [4.0, 0.0], [6.0, -8.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pool(states, mask, "mean").tolist() == [[2.0, -3.0], [4.0, -2.0]]
    assert pool(states, mask, "last").tolist() == [[3.0, -1.0], [6.0, -8.0]]
    assert pool(states, mask, "cls").tolist() == [[1.0, -5.0], [2.0, 2.0]]
    assert pool(states, mask, "max").tolist() == [[3.0, -1.0], [6.0, 2.0]]


# Reproducibility


def test_same_random_state_same_weights(fitted: TextClassifier) -> None:
    assert same_weights(fitted, classifier().fit(TEXTS, KINDS))
    assert same_weights(fitted, classifier(random_state=np.random.RandomState(0)).fit(TEXTS, KINDS))


def test_other_random_state_other_weights(fitted: TextClassifier) -> None:
    assert not same_weights(fitted, classifier(random_state=1).fit(TEXTS, KINDS))
    one = classifier(random_state=None).fit(TEXTS, KINDS)
    assert not same_weights(one, classifier(random_state=None).fit(TEXTS, KINDS))


def test_global_random_state_is_neither_used_nor_changed(fitted: TextClassifier) -> None:
    torch.manual_seed(123)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002 - the point
    clf = classifier().fit(TEXTS, KINDS)
    clf.predict_proba(TEXTS)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert same_weights(fitted, clf)


# In scikit-learn


def test_cross_val_score() -> None:
    scores = cross_val_score(classifier(), np.array(TEXTS, dtype=object), KINDS, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_set_output() -> None:
    clf = classifier().set_output(transform="pandas").fit(TEXTS, KINDS)
    X = pd.DataFrame({"name": ["a car", None]}, index=["x", "y"])
    with pytest.raises(DataError, match="name"):
        # Fitted without a name, the estimator takes any; refitted with one, it takes that one.
        clf.fit(X.rename(columns={"name": "title"}).loc[["x", "x"]], [0, 1]).transform(X)
    embedding = clf.fit(X.loc[["x", "x"]], [0, 1]).transform(X)
    assert list(embedding.columns) == list(clf.get_feature_names_out())
    assert list(embedding.index) == ["x", "y"]
    assert (embedding.loc["y"] == 0).all()
    assert (embedding.loc["x"] != 0).any()


def test_transform(fitted: TextClassifier) -> None:
    embedding = fitted.transform(["a car", None, "a pear"])
    assert embedding.shape == (3, 128)
    assert embedding.dtype == np.float32
    assert (embedding[1] == 0).all()
    assert fitted.transform([]).shape == (0, 128)
    names = fitted.get_feature_names_out()
    assert names[[0, 127]].tolist() == ["textclassifier0", "textclassifier127"]


def test_probabilities_are_the_head_on_the_embedding(fitted: TextClassifier) -> None:
    state = state_of(fitted)
    logits = fitted.transform(TEXTS).astype(float) @ state["head.linear.weight"].T + state["head.linear.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fitted.predict_proba(TEXTS), expected, rtol=0, atol=1e-6)


def test_input_containers(fitted: TextClassifier) -> None:
    expected = fitted.predict_proba(TEXTS)
    as_array = np.array(TEXTS, dtype=object)
    for X in (tuple(TEXTS), as_array, as_array[:, None], pd.Series(TEXTS), pd.DataFrame({"name": TEXTS}), iter(TEXTS)):
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)


def test_attributes_of_a_fit_without_names(fitted: TextClassifier) -> None:
    assert not hasattr(fitted, "feature_names_in_")
    assert fitted.n_features_in_ == 1
    assert isinstance(fitted.preprocessor_, TextPreprocessor)
    assert fitted.preprocessor_.vocab_size <= 280
    assert not fitted.module_.training
    refitted = classifier().fit(pd.Series(TEXTS, name="title"), KINDS).fit(TEXTS, KINDS)
    assert not hasattr(refitted, "feature_names_in_")


def test_missing_texts_are_left_out_and_get_the_prior() -> None:
    texts = [*TEXTS, None, float("nan"), pd.NA]
    kinds = [*KINDS, "vehicle", "vehicle", "vehicle"]
    clf = classifier().fit(texts, kinds)
    assert clf.class_prior_.tolist() == pytest.approx([8 / 19, 11 / 19])
    np.testing.assert_array_equal(clf.predict_proba([None, pd.NA, float("nan")]), [clf.class_prior_] * 3)
    assert clf.predict([None]).tolist() == ["vehicle"]
    assert same_weights(clf, classifier().fit(TEXTS, KINDS))


# Weights


def test_doubled_weights_change_nothing(fitted: TextClassifier) -> None:
    assert same_weights(fitted, classifier().fit(TEXTS, KINDS, sample_weight=[2.0] * len(TEXTS)))


def test_rows_of_weight_0_are_not_trained_on(fitted: TextClassifier) -> None:
    wrong = ["vehicle" if kind == "fruit" else "fruit" for kind in KINDS]
    weight = [1.0] * len(TEXTS) + [0.0] * len(TEXTS)
    # The tokenizer learns from all texts alike, and twice the texts give the same merges.
    clf = classifier().fit(TEXTS * 2, KINDS + wrong, sample_weight=weight)
    assert same_weights(fitted, clf)
    np.testing.assert_allclose(clf.class_prior_, fitted.class_prior_)


def test_weights_change_the_network_and_the_prior(fitted: TextClassifier) -> None:
    weight = np.where(np.array(KINDS) == "fruit", 3.0, 1.0)
    clf = classifier().fit(TEXTS, KINDS, sample_weight=weight)
    assert clf.class_prior_.tolist() == [0.75, 0.25]
    assert not same_weights(fitted, clf)
    assert clf.predict_proba(TEXTS)[:, 0].mean() > fitted.predict_proba(TEXTS)[:, 0].mean()


@pytest.mark.parametrize("class_weight", ["balanced", {"fruit": 3, "vehicle": 0.5}])
def test_class_weight_is_a_weight_per_row(class_weight: Any) -> None:
    kinds = np.array(["vehicle"] * 4 + ["fruit"] * 12)
    clf = classifier(class_weight=class_weight).fit(TEXTS, kinds)
    weighted = classifier().fit(TEXTS, kinds, sample_weight=compute_sample_weight(class_weight, kinds))
    assert same_weights(clf, weighted)
    assert not same_weights(clf, classifier().fit(TEXTS, kinds))
    assert clf.class_prior_.tolist() == [0.75, 0.25]


def test_weights_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        classifier().fit(TEXTS, KINDS, sample_weight=[1.0])
    with pytest.raises(ValueError, match=r"(?i)weight"):
        classifier().fit(TEXTS, KINDS, sample_weight=np.zeros(len(TEXTS)))
    with pytest.raises(ValueError, match=r"(?i)negative"):
        classifier().fit(TEXTS, KINDS, sample_weight=[-1.0, *[1.0] * (len(TEXTS) - 1)])
    with pytest.raises(DataError):
        classifier().fit([None, None, "a", "b"], [0, 1, 0, 1], sample_weight=[1, 1, 0, 0])


# Training


def test_early_stopping() -> None:
    clf = classifier(early_stopping=True, validation_fraction=0.25, max_epochs=40, learning_rate=0.02)
    clf.fit(TEXTS * 2, np.random.default_rng(0).permutation(KINDS * 2))
    losses = clf.history_["valid_loss"].tolist()
    assert int(np.argmin(losses)) + 6 == len(losses) < 40


def test_early_stopping_needs_rows_of_each_class() -> None:
    with pytest.raises(DataError, match="early_stopping cannot set 10% of 16 rows aside"):
        classifier(early_stopping=True).fit(TEXTS, ["once", *KINDS[1:]])


def test_fine_tune_head_leaves_the_backbone_as_it_is() -> None:
    few, all_rows = (classifier(fine_tune="head").fit(TEXTS, KINDS, np.arange(len(KINDS)) < n) for n in (8, len(KINDS)))
    a, b = state_of(few), state_of(all_rows)
    encoder = [name for name in a if name.startswith("encoder.")]
    assert encoder
    for name in encoder:
        np.testing.assert_array_equal(a[name], b[name])
    assert (a["head.linear.weight"] != b["head.linear.weight"]).any()


def test_fine_tune_all_trains_the_backbone() -> None:
    a, b = (state_of(classifier(max_epochs=n).fit(TEXTS, KINDS)) for n in (1, 3))
    assert all((a[name] != b[name]).any() for name in a if name.endswith("weight"))


def test_subword_dropout_is_for_training_only(fitted: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not same_weights(fitted, classifier(subword_dropout=0.0).fit(TEXTS, KINDS))
    expected = fitted.predict_proba(TEXTS)
    monkeypatch.setattr(TextPreprocessor, "encode_cut", None)
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), expected)


def test_bfloat16() -> None:
    clf = classifier(precision="bf16").fit(TEXTS, KINDS)
    assert np.isfinite(clf.predict_proba(TEXTS)).all()
    assert {tensor.dtype for tensor in clf.module_.parameters()} == {torch.float32}


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    classifier().fit(TEXTS, KINDS)
    assert capsys.readouterr() == ("", "")
    classifier(verbose=1).fit(TEXTS, KINDS)
    told = capsys.readouterr().err
    assert "TextClassifier: reading" in told
    assert "TextClassifier: fit took" in told


def test_prediction_does_not_depend_on_batch_size(fitted: TextClassifier) -> None:
    one_by_one = copy.copy(fitted).set_params(batch_size=1)
    texts = [*TEXTS, "a much longer text than the others, of many words"]
    np.testing.assert_allclose(one_by_one.predict_proba(texts), fitted.predict_proba(texts), rtol=0, atol=1e-6)


# What cannot work


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone", "nonsense"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("fine_tune", "none"),
        ("label_smoothing", 1.0),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("max_epochs", 0),
        ("max_epochs", None),
        ("max_length", 1),
        ("max_length", None),
        ("pooling", "sum"),
        ("precision", "fp8"),
        ("subword_dropout", -0.1),
        ("validation_fraction", 1.0),
        ("vocab_size", 257),
        ("vocab_size", "large"),
        ("warmup_fraction", 1.5),
        ("warmup_fraction", None),
        ("weight_decay", -0.1),
    ],
)
def test_parameter_that_cannot_work(name: str, value: Any) -> None:
    clf = classifier(**{name: value})
    with pytest.raises(ConfigurationError, match=name) as caught:
        clf.fit(TEXTS, KINDS)
    assert repr(value) in str(caught.value)


def test_class_weight_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="class_weight"):
        classifier(class_weight="heavy").fit(TEXTS, KINDS)


def test_training_that_diverges() -> None:
    with pytest.raises(ConfigurationError, match=r"the loss became .* lower learning_rate"):
        classifier(learning_rate=1e30, max_epochs=4).fit(TEXTS, KINDS)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_device_that_does_not_work(fitted: TextClassifier, device: str) -> None:
    with pytest.raises(DeviceError, match=device):
        classifier(device=device).fit(TEXTS, KINDS)
    with pytest.raises(DeviceError, match=device):
        copy.copy(fitted).set_params(device=device).predict(TEXTS)


def test_labels_that_cannot_work() -> None:
    with pytest.raises(DataError, match="one class only"):
        classifier().fit(TEXTS, ["fruit"] * len(TEXTS))
    with pytest.raises(DataError, match="requires y"):
        classifier().fit(TEXTS, None)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier().fit(TEXTS, KINDS[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(TEXTS, np.linspace(0, 1, len(TEXTS)))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        classifier(max_epochs=1).fit(TEXTS, np.array(KINDS)[:, None])


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_missing_label() -> None:
    with pytest.raises(ValueError, match="contains NaN"):
        classifier().fit(TEXTS, [float("nan"), *range(len(TEXTS) - 1)])
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(TEXTS, [None, *KINDS[1:]])


def test_texts_that_cannot_work(fitted: TextClassifier) -> None:
    with pytest.raises(DataError, match="every row is missing"):
        classifier().fit([None] * 4, [0, 1, 0, 1])
    with pytest.raises(DataError, match="0 rows"):
        classifier().fit([], [])
    with pytest.raises(DataError, match="wrap it in a list"):
        classifier().fit("a red apple", ["fruit"])
    with pytest.raises(DataError, match="wrap it in a list"):
        fitted.predict("a red apple")
    with pytest.raises(DataError, match="one column is expected, not 2"):
        classifier().fit(pd.DataFrame({"a": TEXTS, "b": TEXTS}), KINDS)
    with pytest.raises(DataError, match="row 1: a text is expected as str, not bytes") as caught:
        fitted.predict(["a", b"b"])
    assert (caught.value.row, caught.value.column) == (1, None)
    with pytest.raises(DataError, match="row 2, column 'title': a text is expected as str, not int"):
        classifier().fit(pd.DataFrame({"title": ["a", None, 3, "b"]}), [0, 1, 0, 1])


@pytest.mark.parametrize("backbone", ["gpt", "lstm"])
def test_n_grams_are_added_to_the_embedding(backbone: str) -> None:
    clf = classifier(backbone=backbone, max_epochs=2, n_grams=500).fit(TEXTS, KINDS)
    encoder, n_grams = clf.module_.encoder, clf.module_.encoder.n_grams
    assert n_grams.table.num_embeddings == 1001
    before = clf.transform(["", "apple", None])
    with torch.no_grad():
        n_grams.linear.weight.zero_()
    after = clf.transform(["", "apple", None])
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])  # nothing is added where there is nothing
    assert np.abs(before[1] - after[1]).max() > 1e-4
    assert not n_grams.table.weight[0].any()
    assert encoder.architecture()["n_grams"] == 500


def test_without_n_grams() -> None:
    clf = classifier(max_epochs=1, n_grams=None).fit(TEXTS, KINDS)
    assert set(clf.preprocessor_.tensors) == {"input_ids", "attention_mask"}
    assert clf.module_.encoder.n_grams is None
    with pytest.raises(ConfigurationError, match="n_grams must be an integer of at least 1"):
        classifier(n_grams=0).fit(TEXTS, KINDS)


@pytest.mark.parametrize("n_grams", [None, 300])
def test_n_grams_are_stored_and_exported(tmp_path: Path, n_grams: int | None) -> None:
    clf = classifier(max_epochs=1, n_grams=n_grams).fit(TEXTS, KINDS)
    rows = [*TEXTS, "", None, "word " * 300, "漢字"]
    clf.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict_proba(rows), clf.predict_proba(rows))
    loaded.partial_fit(TEXTS, KINDS)
    assert loaded.get_params() == clf.get_params()
    export_onnx(clf, tmp_path / "model.onnx", verify=rows)
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    np.testing.assert_allclose(predictor.predict_proba(rows), clf.predict_proba(rows), atol=1e-5)
