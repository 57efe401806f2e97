"""Folders of CLIP and SigLIP as they are published: what is read of them, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    SiglipImageProcessorPil,
)

from mmensemble import ConfigurationError, OnnxPredictor, export_onnx
from mmensemble_estimators import ImageClassifier, TextClassifier, ZeroShotImageClassifier
from mmensemble_estimators.backbones.contrastive import read_tower_processor
from mmensemble_estimators.inspection import image_saliency, token_attributions
from tests.contrastive_folder import N_POSITIONS, save_contrastive_folder

TEXTS = ["A red apple!", "the car", "a dog and a cat and a woman with a flag " * 3, "", "a green pear", "flag"]
KINDS = ["fruit", "car", "animal", "car", "fruit", "animal"]
LABELS = ["a cat", "flags and symbols of people", "red"]
BOTH = pytest.mark.parametrize("kind", ["clip", "siglip"])

Copy = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("contrastive")
    return {kind: save_contrastive_folder(place / kind, kind) for kind in ("clip", "siglip")}


@pytest.fixture
def copy(folders: dict[str, str], tmp_path: Path) -> Copy:
    """A folder that may be changed."""
    return lambda kind: Path(shutil.copytree(folders[kind], tmp_path / f"copy of {kind}"))


@pytest.fixture(scope="module")
def pictures(emoji: Bunch) -> list[bytes]:
    """Real pictures, some wider than high, some higher than wide, one of 1 pixel; transparent nowhere."""
    chosen = []
    for row, (width, height) in enumerate([(32, 32), (80, 40), (33, 71), (50, 47), (200, 60), (1, 1)]):
        picture = Image.open(io.BytesIO(emoji.frame["picture"].iloc[100 * row])).convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture)
        sink = io.BytesIO()
        white.convert("RGB").resize((width, height)).save(sink, "PNG")
        chosen.append(sink.getvalue())
    return chosen


def change(file: Path, **values: Any) -> None:
    """Write values into a file of JSON."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def of_text(features: Any) -> np.ndarray:
    return (features if isinstance(features, Tensor) else features.pooler_output).numpy()


def by_transformers(folder: str, pictures: list[bytes], texts: list[str]) -> np.ndarray:
    """The logits of the pictures, by transformers' own processors and models, one picture at a time."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    of_siglip = model.config.model_type == "siglip"
    processor: Any = (SiglipImageProcessorPil if of_siglip else CLIPImageProcessorPil).from_pretrained(folder)
    arrays = tokenizer(
        texts,
        padding="max_length" if of_siglip else True,
        max_length=N_POSITIONS,
        truncation=True,
        return_tensors="pt",
    )
    given = {} if of_siglip else {"attention_mask": arrays["attention_mask"]}
    logits = []
    for picture in pictures:
        pixels = processor(Image.open(io.BytesIO(picture)), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits.append(model(input_ids=arrays["input_ids"], pixel_values=pixels, **given).logits_per_image)
    return torch.cat(logits).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


# From files to probabilities


@BOTH
@pytest.mark.parametrize("batch_size", [1, 4])
def test_files_to_probabilities(
    folders: dict[str, str], pictures: list[bytes], kind: str, batch_size: int, tmp_path: Path
) -> None:
    clf = ZeroShotImageClassifier(folders[kind], template="the {label} of a", batch_size=batch_size)
    clf.fit(None, LABELS)
    expected = by_transformers(folders[kind], pictures, [f"the {label} of a" for label in LABELS])
    assert clf.classes_.tolist() == LABELS
    assert np.ptp(softmax(expected), axis=0).max() > 1e-3, "a test of equal rows says nothing"
    np.testing.assert_allclose(clf.predict_proba(pictures), softmax(expected), atol=1e-4)
    np.testing.assert_allclose(
        np.vstack([clf.predict_proba([each]) for each in pictures]), softmax(expected), atol=1e-4
    )
    export_onnx(clf, tmp_path / "m.onnx", verify=pictures)
    predictor = OnnxPredictor(tmp_path / "m.onnx", device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(predictor.predict_proba(pictures), softmax(expected), atol=1e-4)


@BOTH
def test_file_holds_the_half_for_images_and_a_row_for_each_class(
    folders: dict[str, str], pictures: list[bytes], kind: str, tmp_path: Path
) -> None:
    """It is scored without torch."""
    clf = ZeroShotImageClassifier(folders[kind]).fit(None, LABELS)
    export_onnx(clf, tmp_path / "m.onnx", verify=pictures)
    text = AutoConfig.from_pretrained(folders[kind]).text_config
    shapes = [tuple(each.dims) for each in onnx.load(tmp_path / "m.onnx").graph.initializer]
    size = clf.module_.encoder.embedding_size
    assert (len(LABELS), size) in shapes or (size, len(LABELS)) in shapes
    assert not any({text.vocab_size, text.max_position_embeddings} & set(shape) for shape in shapes)
    (tmp_path / "picture.png").write_bytes(pictures[1])
    code = (
        "import sys; from mmensemble import OnnxPredictor;"
        "print(OnnxPredictor(sys.argv[1], device='cpu').predict(sys.argv[2:])[0]);"
        "assert not {'torch', 'transformers', 'sklearn', 'mmensemble_estimators'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "m.onnx"), str(tmp_path / "picture.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == clf.predict(pictures[1:2])[0]


def test_what_is_stored_needs_no_folder(copy: Copy, pictures: list[bytes], tmp_path: Path) -> None:
    folder = copy("siglip")
    clf = ZeroShotImageClassifier(str(folder)).fit(None, LABELS)
    texts = TextClassifier(pretrained=str(folder), fine_tune="head").fit(TEXTS, KINDS)
    clf.save(tmp_path / "saved")
    texts.save(tmp_path / "saved texts")
    shutil.rmtree(folder)
    again = ZeroShotImageClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(pictures), clf.predict_proba(pictures))
    np.testing.assert_array_equal(
        TextClassifier.load(tmp_path / "saved texts").predict_proba(TEXTS), texts.predict_proba(TEXTS)
    )


def test_in_the_ensembles_of_scikit_learn(folders: dict[str, str], pictures: list[bytes], tmp_path: Path) -> None:
    """They number the classes before their members see them, so the names are those of `labels`."""
    by_name = ZeroShotImageClassifier(folders["clip"], labels=["a cat", "red flags"])
    solved = ImageClassifier(pretrained=folders["siglip"], fine_tune="head")
    members = [("by name", by_name), ("solved", solved)]
    y = ["animal", "flag"] * 6
    alone = ZeroShotImageClassifier(folders["clip"], labels={"animal": "a cat", "flag": "red flags"}).fit(None, y)
    for number, ensemble in enumerate(
        [
            VotingClassifier(members, voting="soft", flatten_transform=False),
            StackingClassifier(members, LogisticRegression(), cv=2),
        ]
    ):
        ensemble.fit(pictures * 2, y)
        np.testing.assert_allclose(
            ensemble.named_estimators_["by name"].predict_proba(pictures), alone.predict_proba(pictures), atol=1e-6
        )
        export_onnx(ensemble, tmp_path / f"{number}.onnx", verify=pictures)


# What the half for texts reads


def test_padding_is_the_tokenizers(copy: Copy) -> None:
    """SigLIP 2's config leaves out what pads, and the default is another token than its tokenizer's."""
    folder = copy("siglip")
    config = json.loads((folder / "config.json").read_text())
    change(folder / "config.json", text_config={**config["text_config"], "pad_token_id": 3})
    clf = TextClassifier(pretrained=str(folder), fine_tune="head").fit(TEXTS, KINDS)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(TEXTS, padding="max_length", max_length=N_POSITIONS, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = of_text(model.get_text_features(input_ids=ids["input_ids"]))
    np.testing.assert_allclose(clf.transform(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("end", [2, 50])
def test_end_of_a_text_is_found_by_either_rule(copy: Copy, end: int) -> None:
    """OpenAI's configs say 2, which is no end; then it is the largest id. Padding by the end itself is no other end."""
    folder = copy("clip")
    config = json.loads((folder / "config.json").read_text())
    assert config["text_config"]["eos_token_id"] == 50
    change(folder / "config.json", text_config={**config["text_config"], "eos_token_id": end})
    change(folder / "tokenizer_config.json", pad_token="<end>")
    clf = TextClassifier(pretrained=str(folder), fine_tune="head").fit(TEXTS, KINDS)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    assert tokenizer.pad_token_id == 50
    arrays = tokenizer(TEXTS, padding=True, max_length=N_POSITIONS, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = of_text(model.get_text_features(**arrays))
    np.testing.assert_allclose(clf.transform(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("lower", [True, False])
def test_tokenizer_of_siglip_is_read_without_sentencepiece(copy: Copy, lower: bool) -> None:
    """Its class in transformers takes away capitals, punctuation and double spaces, which its file need not do."""
    folder = copy("siglip")
    whole = {**json.loads((folder / "tokenizer.json").read_text()), "normalizer": None}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    change(folder / "tokenizer_config.json", tokenizer_class="SiglipTokenizer", do_lower_case=lower)
    texts = [*TEXTS, "  a\tPhoto,  of -- the (red) apple's \n [flag]^_`{|}~\\ ", string.punctuation]
    canonical = []
    for text in texts:
        text = text.lower() if lower else text
        text = text.translate(str.maketrans("", "", string.punctuation))
        canonical.append(re.sub(r"\s+", " ", text).strip())
    preprocessor = read_tower_processor(str(folder), max_length=64)
    plain = Tokenizer.from_str(json.dumps(whole))
    plain.enable_truncation(N_POSITIONS)
    expected = [each.ids for each in plain.encode_batch(canonical)]
    assert [each.tolist() for each in preprocessor.encode(texts).items] == expected
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigurationError, match=r"has no tokenizer\.json"):
        read_tower_processor(str(folder), max_length=64)


def test_padding_on_the_left_is_refused(copy: Copy) -> None:
    folder = copy("siglip")
    change(folder / "tokenizer_config.json", padding_side="left")
    with pytest.raises(ConfigurationError, match="pads on the left"):
        ZeroShotImageClassifier(str(folder)).fit(None, LABELS)


@BOTH
def test_longest_text(folders: dict[str, str], kind: str) -> None:
    clf = TextClassifier(pretrained=folders[kind], fine_tune="head", max_length=5).fit(TEXTS, KINDS)
    assert clf.preprocessor_.max_length == 5
    assert max(clf.preprocessor_.encode(TEXTS).lengths) == 5


# What the half for images reads


def assert_pixels_are(clf: Any, processor: Any, pictures: list[bytes]) -> None:
    expected = np.concatenate(
        [processor(Image.open(io.BytesIO(picture)), return_tensors="np")["pixel_values"] for picture in pictures]
    )
    pixels = torch.from_numpy(clf.preprocessor_.collate(clf.preprocessor_.encode(pictures), slice(None))["pixels"])
    encoder = clf.module_.encoder
    found = (pixels.permute(0, 3, 1, 2) / 255 - encoder.mean) / encoder.std
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_processor_of_before_sizes_had_names(copy: Copy, pictures: list[bytes]) -> None:
    """As OpenAI's folders have it: the shorter edge, and a crop; the class says what is left out."""
    folder = copy("clip")
    old = {"size": 32, "crop_size": 32, "do_center_crop": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"feature_extractor_type": "CLIPFeatureExtractor", **old})
    )
    clf = ZeroShotImageClassifier(str(folder)).fit(None, LABELS)
    assert clf.preprocessor_.resize == "shortest_edge"
    assert clf.preprocessor_.resample == "bicubic"
    assert_pixels_are(clf, CLIPImageProcessorPil(**old), pictures)


def test_processor_config_goes_first(copy: Copy, pictures: list[bytes]) -> None:
    """transformers writes it since version 5."""
    folder = copy("clip")
    processor = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(processor, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    assert {"preprocessor_config.json", "processor_config.json"} <= {file.name for file in folder.iterdir()}
    clf = ImageClassifier(pretrained=str(folder), fine_tune="head").fit(pictures, KINDS)
    assert clf.preprocessor_.resize_to == 36
    assert_pixels_are(clf, processor, pictures)
    (folder / "preprocessor_config.json").unlink()
    assert_pixels_are(ZeroShotImageClassifier(str(folder)).fit(None, LABELS), processor, pictures)
    change(folder / "processor_config.json", image_processor=None)
    with pytest.raises(ConfigurationError, match=r"has no preprocessor_config\.json, which says how its images"):
        ZeroShotImageClassifier(str(folder)).fit(None, LABELS)


@BOTH
def test_another_size_than_that_of_the_positions(folders: dict[str, str], pictures: list[bytes], kind: str) -> None:
    with pytest.raises(ConfigurationError, match="takes no images of 64 pixels"):
        ImageClassifier(pretrained=folders[kind], fine_tune="head", image_size=64).fit(pictures, KINDS)


# What is not there


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("clip", "text_projection.weight"),
        ("clip", "visual_projection.weight"),
        ("siglip", "text_model.head.weight"),
        ("siglip", "vision_model.head.mlp.fc1.weight"),
    ],
)
def test_weights_that_are_not_there_are_not_drawn(copy: Copy, pictures: list[bytes], kind: str, lost: str) -> None:
    folder = copy(kind)
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = f"has no weights for {re.escape(lost)}; without them"
    with pytest.raises(ConfigurationError, match=message):
        TextClassifier(pretrained=str(folder), fine_tune="head").fit(TEXTS, KINDS)
    with pytest.raises(ConfigurationError, match=message):
        ImageClassifier(pretrained=str(folder)).fit(pictures, KINDS)
    with pytest.raises(ConfigurationError, match=message):
        ZeroShotImageClassifier(str(folder)).fit(None, LABELS)


def test_half_alone_whose_projection_would_be_lost(copy: Copy, pictures: list[bytes]) -> None:
    folder = copy("clip")
    config = AutoConfig.from_pretrained(folder)
    CLIPTextModelWithProjection(config.text_config).save_pretrained(folder)
    with pytest.raises(ConfigurationError, match="one half alone, a CLIPTextModelWithProjection"):
        TextClassifier(pretrained=str(folder), fine_tune="head").fit(TEXTS, KINDS)
    CLIPVisionModelWithProjection(config.vision_config).save_pretrained(folder)
    with pytest.raises(ConfigurationError, match="one half alone, a CLIPVisionModelWithProjection"):
        ImageClassifier(pretrained=str(folder), fine_tune="head").fit(pictures, KINDS)


# Trained and looked into


@BOTH
def test_adapters(folders: dict[str, str], pictures: list[bytes], kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    settings: dict[str, Any] = {"pretrained": folders[kind], "fine_tune": "lora", "max_epochs": 1, "random_state": 0}
    for estimator, X in ((TextClassifier(**settings), TEXTS), (ImageClassifier(**settings), pictures)):
        untrained = clone(estimator).set_params(fine_tune="head").fit(X * 2, KINDS * 2)
        estimator.fit(X * 2, KINDS * 2)
        assert np.abs(estimator.transform(X) - untrained.transform(X)).max() > 1e-5
        manifest = export_onnx(estimator, tmp_path / "model.onnx", verify=X)
        assert manifest.parity["max_abs_difference"] < 1e-4


@BOTH
def test_what_a_score_goes_by(folders: dict[str, str], pictures: list[bytes], kind: str) -> None:
    pytest.importorskip("captum")
    texts = TextClassifier(pretrained=folders[kind], fine_tune="head").fit(TEXTS, KINDS)
    (tokens,) = token_attributions(texts, ["the flag of a woman"], "car", n_steps=200)
    assert [each.token for each in tokens if each.token in ("<start>", "<end>")] == (
        ["<start>", "<end>"] if kind == "clip" else ["<end>"]
    )
    assert len(tokens) == (7 if kind == "clip" else 6)
    assert max(abs(each.attribution) for each in tokens) > 1e-3
    by_name = ZeroShotImageClassifier(folders[kind]).fit(None, LABELS)
    saliency = image_saliency(by_name, pictures[:2], "red")
    assert saliency.shape == (2, 32, 32)
    assert np.isfinite(saliency).all()
