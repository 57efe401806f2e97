"""Both halves of CLIP and SigLIP as members, and classification by the names of the classes."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from mmensemble import (
    ConfigurationError,
    DataError,
    MultimodalClassifier,
    OnnxPredictor,
    SoftVoting,
    SuperLearner,
    export_onnx,
)
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, ZeroShotImageClassifier
from tests.contrastive_folder import N_POSITIONS, save_contrastive_folder

TEXTS = ["a red apple", "the car", "a photo of a dog and a cat and a woman with a flag " * 3, "", "green pear"] * 4
KINDS = ["fruit", "car", "animal", "car", "fruit"] * 4


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 33 + number, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels // (1 + number % 3)).save(sink, "PNG")
    return sink.getvalue()


PICTURES = [picture(number) for number in range(20)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_contrastive_folder(tmp_path_factory.mktemp("contrastive") / kind, kind)


def text_embeddings(folder: str, texts: list[str]) -> np.ndarray:
    """What transformers makes of texts, one by one, as the models' cards say."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    padding: Any = "max_length" if model.config.model_type == "siglip" else False
    found = []
    for text in texts:
        arrays = tokenizer(text, padding=padding, max_length=N_POSITIONS, truncation=True, return_tensors="pt")
        with torch.no_grad():
            given = {} if model.config.model_type == "siglip" else {"attention_mask": arrays["attention_mask"]}
            features = model.get_text_features(input_ids=arrays["input_ids"], **given)
        found.append(features if isinstance(features, Tensor) else features.pooler_output)
    return torch.cat(found).numpy()


def image_embeddings(folder: str, classifier: Any, pictures: list[bytes]) -> np.ndarray:
    """What transformers makes of pictures, of the pixels that the preprocessor gives."""
    model = AutoModel.from_pretrained(folder).eval()
    pixels = classifier.preprocessor_.collate(classifier.preprocessor_.encode(pictures), slice(None))["pixels"]
    mean, std = np.array([0.48, 0.46, 0.41]), np.array([0.27, 0.26, 0.28])
    values = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        features = model.get_image_features(pixel_values=values)
    return (features if isinstance(features, Tensor) else features.pooler_output).numpy()


# The halves


def test_the_embedding_of_texts_is_the_one_that_is_shared(folder: str, kind: str) -> None:
    clf = TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)
    assert clf.preprocessor_.max_length == N_POSITIONS
    expected = text_embeddings(folder, TEXTS[:5])
    assert expected.shape == (5, 12 if kind == "clip" else 16)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.1, "a test of equal vectors says nothing"
    np.testing.assert_allclose(clf.transform(TEXTS[:5]), expected, atol=1e-5)
    np.testing.assert_allclose(np.vstack([clf.transform([text]) for text in TEXTS[:5]]), expected, atol=1e-5)


def test_the_embedding_of_images_is_the_one_that_is_shared(folder: str, kind: str) -> None:
    clf = ImageClassifier(pretrained=folder, fine_tune="head").fit(PICTURES, KINDS)
    expected = image_embeddings(folder, clf, PICTURES)
    assert expected.shape == (20, 12 if kind == "clip" else 16)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.01
    np.testing.assert_allclose(clf.transform(PICTURES), expected, atol=1e-4)
    tokens = ImageClassifier(pretrained=folder, fine_tune="head", pooling="mean").fit(PICTURES, KINDS)
    assert tokens.transform(PICTURES).shape == (20, 16), "a pooling is that of the tokens"


@pytest.mark.parametrize("fine_tune", ["head", "all"])
def test_halves_as_members(folder: str, tmp_path: Path, fine_tune: str) -> None:
    settings: dict[str, Any] = {"pretrained": folder, "fine_tune": fine_tune, "max_epochs": 1, "random_state": 0}
    X = pd.DataFrame({"text": TEXTS, "picture": PICTURES})
    X.loc[3, "text"] = X.loc[4, "picture"] = None
    members = [
        ("text", TextClassifier(**settings), "text"),
        ("image", ImageClassifier(**settings, augmentation=()), "picture"),
    ]
    model = MultimodalClassifier(members, fusion=SoftVoting()).fit(X, KINDS)
    expected = model.predict_proba(X)
    manifest = export_onnx(model, tmp_path / "m.onnx", verify=X)
    assert manifest.parity["max_abs_difference"] < 1e-5
    predictor = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    one_by_one = np.vstack([predictor.predict_proba(X[row : row + 1]) for row in range(5)])
    np.testing.assert_allclose(one_by_one, expected[:5], atol=1e-5)
    for member in model.estimators_:
        rows = X["text" if isinstance(member, TextClassifier) else "picture"][:3].tolist()
        member.save(tmp_path / type(member).__name__)
        again = type(member).load(tmp_path / type(member).__name__)
        np.testing.assert_array_equal(again.predict_proba(rows), member.predict_proba(rows))


def test_numbers_of_images(folder: str) -> None:
    model = ImageRegressor(pretrained=folder, fine_tune="head").fit(PICTURES, np.arange(20.0))
    assert model.predict(PICTURES).shape == (20,)


# By the names of the classes


def scores(folder: str, classifier: Any, templates: list[str], names: list[str]) -> np.ndarray:
    model = AutoModel.from_pretrained(folder)
    parts = []
    for template in templates:
        features = text_embeddings(folder, [template.replace("{label}", name) for name in names])
        parts.append(features / np.linalg.norm(features, axis=1, keepdims=True))
    of_classes = np.mean(parts, axis=0)
    of_classes /= np.linalg.norm(of_classes, axis=1, keepdims=True)
    of_images = image_embeddings(folder, classifier, PICTURES)
    of_images /= np.linalg.norm(of_images, axis=1, keepdims=True)
    raw = np.exp(model.logit_scale.item()) * of_images @ of_classes.T
    raw = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("template", ["a photo of a {label}", ["a photo of a {label}", "{label}", "the {label}"]])
def test_probabilities_are_those_of_the_model(folder: str, template: Any) -> None:
    clf = ZeroShotImageClassifier(folder, template=template).fit(None, ["dog", "cat", "red apple"])
    assert clf.classes_.tolist() == ["cat", "dog", "red apple"]
    expected = scores(folder, clf, [template] if isinstance(template, str) else template, clf.classes_.tolist())
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(clf.predict_proba(PICTURES), expected, atol=1e-4)
    assert clf.predict(PICTURES).tolist() == clf.classes_[expected.argmax(axis=1)].tolist()
    fitted = clone(clf).fit(PICTURES, ["cat", "dog", "dog", "red apple"] * 5)
    np.testing.assert_allclose(fitted.predict_proba(PICTURES), clf.predict_proba(PICTURES), atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba([None]), [[0.25, 0.5, 0.25]])


def test_transformers_says_the_same(folder: str, kind: str) -> None:
    """Its own logits, of whole pictures and texts of one batch."""
    clf = ZeroShotImageClassifier(folder, template="{label}").fit(None, ["a cat", "a dog and a man"])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    padding: Any = {"padding": "max_length", "max_length": N_POSITIONS} if kind == "siglip" else {"padding": True}
    arrays = tokenizer(clf.classes_.tolist(), return_tensors="pt", **padding)
    pixels = clf.preprocessor_.collate(clf.preprocessor_.encode(PICTURES), slice(None))["pixels"]
    normalised = (pixels / 255 - np.array([0.48, 0.46, 0.41])) / np.array([0.27, 0.26, 0.28])
    values = torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))
    given = {} if kind == "siglip" else {"attention_mask": arrays["attention_mask"]}
    with torch.no_grad():
        logits = model(input_ids=arrays["input_ids"], pixel_values=values, **given).logits_per_image
    np.testing.assert_allclose(clf.predict_proba(PICTURES), logits.softmax(dim=1).numpy(), atol=1e-4)


def test_exported_stored_and_pickled(folder: str, tmp_path: Path) -> None:
    clf = ZeroShotImageClassifier(folder, labels={0: "cat", 1: "red apple"}).fit(PICTURES, [0, 1] * 10)
    expected = clf.predict_proba(PICTURES)
    export_onnx(clf, tmp_path / "m.onnx", verify=PICTURES, tolerance=1e-5)
    predictor = OnnxPredictor(tmp_path / "m.onnx", device="cpu")
    np.testing.assert_allclose(predictor.predict_proba(PICTURES[:1]), expected[:1], atol=1e-5)
    assert predictor.predict(PICTURES).tolist() == clf.predict(PICTURES).tolist()
    clf.save(tmp_path / "saved")
    np.testing.assert_array_equal(ZeroShotImageClassifier.load(tmp_path / "saved").predict_proba(PICTURES), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(PICTURES), expected)


def test_in_compositions(folder: str, tmp_path: Path) -> None:
    y = np.array(["cat", "dog"] * 30)
    X = pd.DataFrame({"picture": PICTURES * 3, "same": PICTURES * 3})
    solved = ImageClassifier(pretrained=folder, fine_tune="head")
    members = [("by name", ZeroShotImageClassifier(folder), "picture"), ("solved", solved, "same")]
    model = MultimodalClassifier(members, fusion=SuperLearner(cv=2)).fit(X, y)
    assert {"by name", "solved", "LinearFusion"} <= set(model.fusion_.scores_.index)
    late = MultimodalClassifier(members, fusion=SoftVoting()).fit(X, y)
    np.testing.assert_allclose(
        late.named_estimators_["by name"].predict_proba(PICTURES),
        ZeroShotImageClassifier(folder).fit(None, y).predict_proba(PICTURES),
        atol=1e-6,
    )
    export_onnx(late, tmp_path / "m.onnx", verify=X)


def test_errors(folder: str, tmp_path: Path) -> None:
    def fit(y: Any = ("cat", "dog"), X: Any = None, **params: Any) -> None:
        ZeroShotImageClassifier(**{"pretrained": folder, **params}).fit(X, list(y))

    with pytest.raises(ConfigurationError, match=r"template must hold \{label\}"):
        fit(template="a photo")
    with pytest.raises(ConfigurationError, match=r"template must hold \{label\}"):
        fit(template=[])
    with pytest.raises(ConfigurationError, match="labels does not say how the class 'dog' is written"):
        fit(labels={"cat": "a cat"})
    with pytest.raises(ConfigurationError, match="labels has 1 words for 2 classes"):
        fit(labels=["a cat"])
    with pytest.raises(ConfigurationError, match="pretrained must be a folder or hub id"):
        fit(pretrained=None)
    with pytest.raises(ConfigurationError, match="there is no such folder"):
        fit(pretrained=str(tmp_path / "none"))
    with pytest.raises(DataError, match="one class"):
        fit(["cat", "cat"])
    with pytest.raises(DataError, match="one column of labels"):
        fit([[0, 1], [1, 0]])
    with pytest.raises(DataError, match="row 1"):
        fit(X=[PICTURES[0], b"no image"])
    BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "preprocessor_config.json").write_text('{"size": 32}')
    with pytest.raises(ConfigurationError, match="of the type 'bert'; texts and images"):
        fit(pretrained=str(tmp_path / "bert"))
