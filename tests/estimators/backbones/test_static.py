"""Static embeddings: a folder as model2vec writes it, against the mean computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from mmensemble import ConfigurationError, OnnxPredictor, export_onnx
from mmensemble_estimators import TextClassifier, TextRegressor
from mmensemble_estimators.packaged import wordllama_folder
from tests.static_folder import N_TOKENS, SIZE, save_static_folder

TEXTS = ["red apple", "a very green apple", "fast car", "", "slow car, red car", "你好", None] * 4
KINDS = ["fruit", "fruit", "vehicle", "fruit", "vehicle", "vehicle", "vehicle"] * 4


def by_hand(folder: Path, text: str) -> np.ndarray:
    """model2vec's own steps: unknown tokens left out, factors by tokens, vectors by rows, the mean, the length."""
    tensors = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    unknown = tokenizer.token_to_id("[UNK]")
    ids = [i for i in tokenizer.encode(text, add_special_tokens=False).ids if i != unknown]
    table = tensors["embeddings"] if "embeddings" in tensors else tensors["embedding.weight"]
    if not ids:
        return np.zeros(table.shape[1], dtype=np.float32)
    rows = tensors["mapping"][ids] if "mapping" in tensors else ids
    vectors = table[rows].astype(np.float32)
    if "weights" in tensors:
        vectors = vectors * tensors["weights"][ids][:, None]
    mean = vectors.mean(axis=0)
    config = json.loads((folder / "config.json").read_text())
    return mean / np.linalg.norm(mean) if config["normalize"] else mean


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("more", [(), ("weights",), ("weights", "mapping")])
def test_embeds_as_model2vec(tmp_path: Path, more: tuple[str, ...], normalize: bool) -> None:
    folder = save_static_folder(tmp_path / "static", *more, normalize=normalize)
    clf = TextClassifier(pretrained=folder, fine_tune="head", batch_size=3).fit(TEXTS, KINDS)
    expected = [np.zeros(SIZE) if text is None else by_hand(Path(folder), text) for text in TEXTS]
    np.testing.assert_allclose(clf.transform(TEXTS), expected, atol=1e-6)
    assert np.any(expected, axis=1).tolist() == [bool(text) and text != "你好" for text in TEXTS]
    assert clf.predict(["green apple", "fast car"]).tolist() == ["fruit", "vehicle"]


def test_a_table_alone_of_half_precision(tmp_path: Path) -> None:
    folder = save_static_folder(tmp_path / "static", name="embedding.weight", dtype=np.float16)
    clf = TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)
    np.testing.assert_allclose(clf.transform(["a car"])[0], by_hand(Path(folder), "a car"), atol=1e-6)


@pytest.mark.parametrize("fine_tune", ["head", "all"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_exported_and_stored(tmp_path: Path, fine_tune: str, pooling: str) -> None:
    folder = save_static_folder(tmp_path / "static", "weights", "mapping", normalize=True)
    clf = TextClassifier(pretrained=folder, fine_tune=fine_tune, pooling=pooling, max_epochs=2, random_state=0)
    clf.fit(TEXTS, KINDS)
    clf.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    export_onnx(clf, tmp_path / "model.onnx", verify=TEXTS)
    expected = clf.predict_proba(TEXTS)
    np.testing.assert_allclose(OnnxPredictor(tmp_path / "model.onnx").predict_proba(TEXTS), expected, atol=1e-5)


def test_fine_tuning_moves_vectors_but_not_that_of_nothing(tmp_path: Path) -> None:
    folder = save_static_folder(tmp_path / "static", "weights")
    before = TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)
    after = TextClassifier(pretrained=folder, max_epochs=3, random_state=0).fit(TEXTS, KINDS)
    one, other = (clf.module_.encoder.backbone.vectors.weight.detach().numpy() for clf in (before, after))
    apple = after.preprocessor_.encode(["apple"]).items[0][0]
    assert np.abs(other - one)[apple].max() > 1e-4
    assert not other[-1].any()
    assert not after.transform(["", "你好"]).any()
    assert torch.equal(after.module_.encoder.backbone.rows, before.module_.encoder.backbone.rows)


def test_a_regressor(tmp_path: Path) -> None:
    folder = save_static_folder(tmp_path / "static")
    reg = TextRegressor(pretrained=folder, fine_tune="head").fit(TEXTS, [float("car" in str(t)) for t in TEXTS])
    slow_car, green_apple = reg.predict(["a slow car", "a green apple"])
    assert slow_car > green_apple + 0.1


@pytest.mark.parametrize("pooling", ["cls", "last"])
def test_refuses_a_pooling_of_networks(tmp_path: Path, pooling: str) -> None:
    folder = save_static_folder(tmp_path / "static")
    with pytest.raises(ConfigurationError, match="with static embeddings"):
        TextClassifier(pretrained=folder, fine_tune="head", pooling=pooling).fit(TEXTS, KINDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.ones(N_TOKENS - 1, dtype=np.float32)}, "'weights' of model.safetensors has the shape"),
        ({"mapping": np.full(N_TOKENS, 999)}, "has tokens beyond them"),
        ({"embeddings": np.ones((N_TOKENS - 1, SIZE), dtype=np.float32)}, "has tokens beyond them"),
        ({"embeddings": np.ones(N_TOKENS, dtype=np.float32)}, "has no table of vectors"),
    ],
)
def test_names_files_that_do_not_belong_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = save_static_folder(tmp_path / "static")
    table = np.ones((N_TOKENS, SIZE), dtype=np.float32)
    save_file({"embeddings": table, **changes}, Path(folder) / "model.safetensors")
    with pytest.raises(ConfigurationError, match=message):
        TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)


def test_names_a_tokenizer_that_cannot_be_read(tmp_path: Path) -> None:
    folder = save_static_folder(tmp_path / "static")
    (Path(folder) / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json cannot be read"):
        TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)


def test_lora_has_nothing_to_adapt(tmp_path: Path) -> None:
    folder = save_static_folder(tmp_path / "static")
    with pytest.raises(ConfigurationError, match="adapts linear layers, and StaticVectors has none"):
        TextClassifier(pretrained=folder, fine_tune="lora").fit(TEXTS, KINDS)


def test_wordllama(tmp_path: Path) -> None:
    folder = wordllama_folder(tmp_path / "wordllama")
    assert wordllama_folder(folder) == folder
    clf = TextClassifier(pretrained=folder, fine_tune="head").fit(TEXTS, KINDS)
    expected = by_hand_of_llama(Path(folder), "a slow bicycle")
    np.testing.assert_allclose(clf.transform(["a slow bicycle"])[0], expected, atol=1e-5)
    assert clf.predict(["a pear", "a slow car"]).tolist() == ["fruit", "vehicle"]


def by_hand_of_llama(folder: Path, text: str) -> np.ndarray:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return load_file(folder / "model.safetensors")["embedding.weight"][ids].astype(np.float32).mean(axis=0)
