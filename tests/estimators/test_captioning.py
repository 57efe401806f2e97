"""ImageCaptioner: it writes what it sees, with a decoder of either kind, and its file writes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from torch import nn
from transformers import ConvNextConfig

from mmensemble import ConfigurationError, DataError, OnnxPredictor, export_onnx
from mmensemble.metrics import chrf_scorer
from mmensemble_estimators import ImageCaptioner

SIDES = ["left", "right"]
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def scenes(n: int, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Return pictures with a square of some colour on one side, and what is to be said of them."""
    rng = np.random.RandomState(seed)
    pictures, texts = [], []
    for _ in range(n):
        colour, side = rng.choice(list(COLOURS)), rng.choice(SIDES)
        picture = rng.randint(150, 255, (32, 32, 3)).astype(np.uint8)
        top, start = rng.randint(2, 20), rng.randint(1, 5) + 15 * (side == "right")
        picture[top : top + 10, start : start + 10] = COLOURS[colour]
        pictures.append(picture)
        texts.append(f"a {colour} square on the {side}")
    return pictures, texts


def captioner(**params: Any) -> ImageCaptioner:
    settings = {"image_size": 32, "vocab_size": 270, "max_length": 40, "max_epochs": 1, "augmentation": ("shift",)}
    return ImageCaptioner(**{**settings, "random_state": 0, **params})


@pytest.fixture(scope="module", params=["transformer", "lstm"])
def fitted(request: pytest.FixtureRequest) -> ImageCaptioner:
    rate = {"transformer": 2e-3, "lstm": 5e-3}[request.param]
    model = captioner(text_decoder=request.param, max_epochs=12, learning_rate=rate, vocab_size=300)
    pictures, texts = scenes(240, seed=0)
    return model.fit(pd.Series(pictures, name="scene"), texts)


def test_says_what_it_sees(fitted: ImageCaptioner) -> None:
    pictures, texts = scenes(60, seed=1)
    # Of the six texts; in as many epochs the LSTM learns less.
    least = {"transformer": 0.9, "lstm": 0.5}[fitted.text_decoder]
    assert np.mean(fitted.predict(pictures) == np.array(texts)) >= least
    assert fitted.score(pictures, texts) > 75
    assert chrf_scorer(fitted, pictures, [[text, "another"] for text in texts]) >= fitted.score(pictures, texts)


def test_the_file_writes_the_same(fitted: ImageCaptioner, tmp_path: Path) -> None:
    pictures = [*scenes(6, seed=2)[0], None]
    export_onnx(fitted, tmp_path / "model.onnx", verify=pictures[:4])
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    for settings in ({"temperature": 0}, {"num_beams": 3}, {"num_return_sequences": 2, "random_state": 0}):
        written = fitted.generate(pictures, **settings)
        assert written[6].tolist() == [None] * written.shape[1]
        assert predictor.generate(pictures, **settings).tolist() == written.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions(
    fitted: ImageCaptioner, precision: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pictures, _ = scenes(12, seed=2)
    path = tmp_path / "model.onnx"
    manifest = export_onnx(fitted, path, precision=precision, verify=pictures, calibrate=pictures)
    assert manifest.parity["equal_tokens"] >= 0.9
    assert manifest.task.encoded["source_mask"].dtype == "bool"
    (encode,) = (node for node in onnx.load(path).graph.node if node.op_type == "If")
    branch = next(attribute.g for attribute in encode.attribute if attribute.name == "then_branch")
    kinds = {node.op_type for node in branch.node}
    # The convolutions of int8 stand between the two, and ONNX Runtime puts the three together.
    assert ("MatMulInteger" in kinds and "DequantizeLinear" in kinds) == (precision == "int8")
    written = OnnxPredictor(path, device="cpu").generate(pictures, temperature=0)
    assert np.mean(written == fitted.generate(pictures, temperature=0)) >= 0.7
    assert "onnxruntime" not in capfd.readouterr().err, "it warns of every buffer that it copies"


def test_int8_leaves_the_convolutions_of_an_encoder_without_rows_to_calibrate_on(tmp_path: Path) -> None:
    pictures, texts = scenes(12, seed=0)
    manifest = export_onnx(
        captioner(text_decoder="lstm").fit(pictures, texts),
        tmp_path / "model.onnx",
        precision="int8",
        verify=pictures[:2],
        tolerance=1.0,
    )
    assert all("/Conv" in name for name in manifest.parity["float_layers"])
    assert manifest.parity["float_layers"]


def test_save_and_load(fitted: ImageCaptioner, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = ImageCaptioner.load(tmp_path)
    pictures = [*scenes(8, seed=3)[0], None]
    assert loaded.predict(pictures).tolist() == fitted.predict(pictures).tolist()
    np.testing.assert_array_equal(loaded.transform(pictures), fitted.transform(pictures))
    assert not fitted.transform(pictures)[8].any()
    assert loaded.get_feature_names_out()[0] == "imagecaptioner0"


def test_bad_pictures(fitted: ImageCaptioner) -> None:
    with pytest.raises(DataError, match="row 1, column 'scene': the image cannot be read"):
        fitted.predict([scenes(1, seed=0)[0][0], b"no picture"])
    pictures, texts = scenes(4, seed=0)
    with pytest.raises(DataError, match="row 0: a target text is expected as str, not float"):
        captioner().fit(pictures, [1.5, *texts[1:]])


@pytest.mark.parametrize(
    "backbone",
    ["vit", ConvNextConfig(num_channels=3, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32)],
    ids=["vit", "config"],
)
def test_other_encoders(backbone: Any, tmp_path: Path) -> None:
    pictures, texts = scenes(12, seed=0)
    model = captioner(backbone=backbone).fit(pictures, texts)
    model.save(tmp_path)
    settings = {"max_new_tokens": 6, "temperature": 0}
    written = model.generate(pictures, **settings).tolist()
    assert ImageCaptioner.load(tmp_path).generate(pictures, **settings).tolist() == written


class Means(nn.Module):
    """The mean colour, as an embedding of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 8)

    def forward(self, pixel_values: Any) -> Any:
        return self.linear(pixel_values.mean(dim=(2, 3)))


def test_a_frozen_encoder_stays_as_it_is() -> None:
    pictures, texts = scenes(12, seed=0)
    frozen = captioner(fine_tune="head").fit(pictures, texts)
    longer = captioner(fine_tune="head", max_epochs=3).fit(pictures, texts)
    np.testing.assert_array_equal(frozen.transform(pictures), longer.transform(pictures))
    assert all(parameter.requires_grad for parameter in frozen.module_.parameters())
    trained = captioner(max_epochs=3).fit(pictures, texts)
    assert not np.allclose(trained.transform(pictures), longer.transform(pictures))


def test_a_module_of_ones_own_has_a_rate_of_its_own_and_is_given_again(tmp_path: Path) -> None:
    pictures, texts = scenes(12, seed=0)
    model = captioner(backbone=Means).fit(pictures, texts)
    assert model.transform(pictures).shape == (12, 8)
    model.save(tmp_path)
    with pytest.raises(ConfigurationError, match="give it again"):
        ImageCaptioner.load(tmp_path)
    loaded = ImageCaptioner.load(tmp_path, backbone=Means)
    np.testing.assert_array_equal(loaded.transform(pictures), model.transform(pictures))
    assert [rate for _, rate, _ in model._learning_rates()] == [5e-5, 2e-3]
    assert [rate for _, rate, _ in captioner()._learning_rates()] == [2e-3, 2e-3]
    assert [rate for _, rate, _ in captioner(backbone=Means, learning_rate=1e-2)._learning_rates()] == [1e-2, 1e-2]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "gpt"}, "backbone must be one of"),
        ({"text_decoder": "gpt"}, "text_decoder must be one of"),
        ({"fine_tune": "lora"}, r"fine_tune must be one of \('all', 'head'\)"),
        ({"image_size": 8}, "image_size must be an integer of at least 32"),
        ({"augmentation": ("turn",)}, "augmentation must be some of"),
        ({"vocab_size": 100}, "vocab_size must be an integer of at least 258"),
    ],
)
def test_bad_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        captioner(**params).fit(*scenes(4, seed=0))
