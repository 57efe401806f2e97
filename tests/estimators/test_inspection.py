"""Integrated gradients: exact where the network is linear, complete where it is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

from mmensemble import ConfigurationError, DataError, MissingDependencyError, MultimodalClassifier, member_disagreement
from mmensemble_estimators import ConcatFusion, ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from mmensemble_estimators.inspection import (
    ImageSaliencyDisplay,
    TokenAttribution,
    TokenAttributionDisplay,
    image_saliency,
    token_attributions,
)

TEXTS = ["red apple", "a fast car", "green apple", "slow car on a road"] * 3
KINDS = ["fruit", "vehicle"] * 6
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(8)]
SIDES = ["left", "right"] * 4
TEXT: dict[str, Any] = {"vocab_size": 280, "max_epochs": 2, "random_state": 0, "device": "cpu"}
IMAGE: dict[str, Any] = {"image_size": 32, "max_epochs": 1, "random_state": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    plt.close("all")
    yield
    plt.close("all")


class MeanVector(nn.Module):
    """The mean of the tokens' vectors: a network that is linear in its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.vectors = nn.Embedding(300, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1)
        return (self.vectors(input_ids) * mask).sum(dim=1) / mask.sum(dim=1)


class Projection(nn.Module):
    """A linear map of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * 32 * 32, 4)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.linear(pixel_values.flatten(1))


def scores(estimator: Any, **inputs: Any) -> np.ndarray:
    """Raw outputs."""
    with torch.no_grad():
        return estimator.module_.eval()(**inputs).numpy()


def text_scores(estimator: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Raw outputs of a text, and of one whose tokens, special ones excepted, are padding, and that has no n-grams."""
    tokenizer = Tokenizer.from_str(estimator.preprocessor_.tokenizer)
    encoding = tokenizer.encode(text)
    nothing = [
        token if special else estimator.preprocessor_.pad_id
        for token, special in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    ]
    arrays = estimator.preprocessor_.collate(estimator.preprocessor_.encode([text]), [0])
    del arrays["present"]
    inputs = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert inputs["input_ids"].tolist() == [encoding.ids]
    uninformative = {**inputs, "input_ids": torch.tensor([nothing])}
    if "n_gram_ids" in inputs:
        uninformative["n_gram_ids"] = torch.zeros_like(inputs["n_gram_ids"])
    return tuple(scores(estimator, **some)[0] for some in (inputs, uninformative))


@pytest.mark.slow
def test_the_code_of_the_guide_runs() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "understanding.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "understanding.md", "exec"), namespace)
    assert len(plt.get_fignums()) == 9
    result = namespace["result"]
    assert {"predictions", "pairwise"} <= set(result)


# texts


def test_attributions_of_a_linear_network_are_exact() -> None:
    clf = TextClassifier(backbone=MeanVector, **TEXT).fit(TEXTS, KINDS)
    clf.module_.head.norm = None  # scaling embeddings is not linear
    (tokens,) = token_attributions(clf, ["red car"], target="fruit", n_steps=3)
    ids = Tokenizer.from_str(clf.preprocessor_.tokenizer).encode("red car").ids
    vectors = clf.module_.encoder.backbone.vectors.weight.detach().numpy()
    weight = clf.module_.head.linear.weight.detach().numpy()[0]
    wanted = (vectors[ids] - vectors[clf.preprocessor_.pad_id]) @ weight / len(ids)
    wanted[-1] = 0  # the end token stands in the uninformative text too
    np.testing.assert_allclose([token.attribution for token in tokens], wanted, atol=1e-6)


@pytest.mark.parametrize("backbone", ["gpt", "bert", "lstm"])
def test_attributions_add_up(backbone: str) -> None:
    clf = TextClassifier(backbone=backbone, **TEXT).fit(TEXTS, KINDS)
    for tokens, text in zip(token_attributions(clf, TEXTS[:2], target="vehicle"), TEXTS, strict=False):
        score, nothing = text_scores(clf, text)
        assert abs(score[1] - nothing[1]) > 1e-3
        assert sum(token.attribution for token in tokens) == pytest.approx(score[1] - nothing[1], abs=1e-3)


def test_what_an_n_gram_adds_is_the_tokens_of_its_letters() -> None:
    texts = ["red car", "red İ apple"]
    clf = TextClassifier(backbone="lstm", **TEXT).fit(TEXTS, KINDS)
    with torch.no_grad():  # nothing but n-grams counts, and of these only one
        clf.module_.encoder.backbone.embedding.weight.zero_()
        clf.module_.encoder.n_grams.table.weight.zero_()
        (ids,) = {i for t in texts[:1] for i in of_word(clf.preprocessor_, t, 4, 7)}
        clf.module_.encoder.n_grams.table.weight[ids] = 1.0
    for text, word in zip(texts, ("car", None), strict=True):
        (tokens,) = token_attributions(clf, [text], target="fruit", n_steps=4)
        parts = {token.token: token.attribution for token in tokens if abs(token.attribution) > 1e-6}
        assert "".join(parts).strip() == (word or "")
        score, nothing = text_scores(clf, text)
        assert sum(parts.values()) == pytest.approx(score[0] - nothing[0], abs=1e-4)


def of_word(preprocessor: Any, text: str, start: int, end: int) -> list[int]:
    """The ids of n-grams of words that stand there; what is read of a text begins with a space."""
    found = preprocessor.n_grams([text])
    there = (found.starts == start + 1) & (found.ends == end + 1) & (found.ids > preprocessor.n_features)
    return found.ids[there].tolist()


@pytest.fixture(scope="module")
def text_classifier() -> TextClassifier:
    return TextClassifier(backbone="lstm", max_length=16, **TEXT).fit(TEXTS, KINDS)


def test_tokens_cover_the_text(text_classifier: TextClassifier) -> None:
    texts = ["red  apple", "", None, "naïve 🍎", "car " * 20]
    plain, empty, missing, odd, long = token_attributions(text_classifier, texts)
    assert "".join(token.token for token in plain) == "red  apple<eos>"
    assert [token.offset for token in plain][-1] == (0, 0)
    assert all("red  apple"[slice(*token.offset)] == token.token for token in plain[:-1])
    assert [token.token for token in empty] == ["<eos>"]
    assert missing == []
    parts = [token for token in odd if token.token.endswith("🍎")]
    assert len({token.offset for token in parts}) == 1
    assert len(parts) > 1  # the emoji's bytes
    assert len(long) == 16
    assert token_attributions(text_classifier, []) == []


def test_targets_of_texts(text_classifier: TextClassifier) -> None:
    texts = TEXTS[:2]
    predicted = text_classifier.predict(texts)
    assert token_attributions(text_classifier, texts) == token_attributions(text_classifier, texts, target=predicted)
    assert token_attributions(text_classifier, texts, "fruit") != token_attributions(text_classifier, texts, "vehicle")
    with pytest.raises(ConfigurationError, match="there is no target 'animal'"):
        token_attributions(text_classifier, texts, "animal")
    with pytest.raises(ConfigurationError, match="1 entries for 2 rows"):
        token_attributions(text_classifier, texts, ["fruit"])


def test_attributions_of_a_regressor_are_in_units_of_its_target() -> None:
    reg = TextRegressor(backbone="lstm", **TEXT).fit(TEXTS, 1000.0 * np.arange(12))
    (tokens,) = token_attributions(reg, ["red apple"])
    score, nothing = text_scores(reg, "red apple")
    wanted = (score[0] - nothing[0]) * np.std(1000.0 * np.arange(12))
    assert sum(token.attribution for token in tokens) == pytest.approx(wanted, rel=1e-2)
    two = TextRegressor(backbone="lstm", **TEXT).fit(TEXTS, RNG.normal(size=(12, 2)))
    with pytest.raises(ConfigurationError, match="which of the 2 outputs"):
        token_attributions(two, TEXTS[:1])
    assert token_attributions(two, TEXTS[:1], 0) != token_attributions(two, TEXTS[:1], 1)


def test_attributions_of_one_of_several_labels() -> None:
    y = RNG.integers(0, 2, (12, 3))
    clf = TextClassifier(backbone="lstm", **TEXT).fit(TEXTS, y)
    highest = clf.predict_proba(TEXTS[:2]).argmax(axis=1)
    assert token_attributions(clf, TEXTS[:2]) == token_attributions(clf, TEXTS[:2], highest)


@pytest.mark.parametrize("fine_tune", ["all", "head"])
def test_attributions_of_a_pretrained_network(fine_tune: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    clf = TextClassifier(pretrained=str(tmp_path), fine_tune=fine_tune, max_epochs=1, random_state=0, device="cpu")
    (tokens,) = token_attributions(clf.fit(TEXTS, KINDS), ["Red car"], target="fruit")
    assert (tokens[0].token, tokens[-1].token) == ("[CLS]", "[SEP]")
    assert "".join(token.token for token in tokens[1:-1]) == "Redcar"  # as written, not in the tokenizer's lower case
    score, nothing = text_scores(clf, "Red car")
    assert sum(token.attribution for token in tokens) == pytest.approx(score[0] - nothing[0], abs=1e-3)


def test_a_network_without_embeddings() -> None:
    class Lengths(nn.Module):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return attention_mask.sum(dim=1, keepdim=True).float()

    clf = TextClassifier(backbone=Lengths, **TEXT).fit(TEXTS, KINDS)
    with pytest.raises(ConfigurationError, match=r"Lengths has no torch\.nn\.Embedding"):
        token_attributions(clf, TEXTS[:1])


# images


def test_saliency_of_a_linear_network_is_exact() -> None:
    clf = ImageClassifier(backbone=Projection, **IMAGE).fit(PICTURES, SIDES)
    clf.module_.head.norm = None  # scaling embeddings is not linear
    (saliency,) = image_saliency(clf, PICTURES[:1], target="right", baseline=(10, 20, 30), n_steps=3)
    inner = clf.module_.encoder.backbone.linear.weight.detach().numpy()
    weight = (clf.module_.head.linear.weight.detach().numpy()[1] @ inner).reshape(3, 32, 32).transpose(1, 2, 0)
    wanted = ((PICTURES[0] - np.array([10.0, 20.0, 30.0])) / 255 * weight).sum(axis=2)
    np.testing.assert_allclose(saliency, wanted, atol=1e-5)


@pytest.mark.parametrize(("backbone", "baseline"), [("cnn", 0), ("vit", 255)])
def test_saliencies_add_up(backbone: str, baseline: int) -> None:
    clf = ImageClassifier(backbone=backbone, **IMAGE).fit(PICTURES, SIDES)
    saliency = image_saliency(clf, [*PICTURES[:2], None], target="left", baseline=baseline, n_steps=300)
    assert saliency.shape == (3, 32, 32)
    assert np.isnan(saliency[2]).all()
    score = scores(clf, pixels=torch.tensor(np.stack(PICTURES[:2])))[:, 0]
    nothing = scores(clf, pixels=torch.full((1, 32, 32, 3), baseline, dtype=torch.uint8))[:, 0]
    np.testing.assert_allclose(saliency[:2].sum(axis=(1, 2)), score - nothing, atol=5e-3)
    assert np.abs(score - nothing).max() > 1e-2


def test_saliency_of_a_regressor_is_in_units_of_its_target() -> None:
    y = 1000.0 * np.arange(8)
    reg = ImageRegressor(backbone=Projection, **IMAGE).fit(PICTURES, y)
    saliency = image_saliency(reg, PICTURES[:2])
    black = reg.predict([np.zeros((32, 32, 3), dtype=np.uint8)])
    np.testing.assert_allclose(saliency.sum(axis=(1, 2)), reg.predict(PICTURES[:2]) - black, rtol=1e-3, atol=0.1)


# both


def test_says_what_cannot_be_explained(text_classifier: TextClassifier) -> None:
    with pytest.raises(ConfigurationError, match=r"ImageClassifier or ImageRegressor .* named_estimators_"):
        image_saliency(text_classifier, PICTURES)
    with pytest.raises(ConfigurationError, match=r"TextClassifier or TextRegressor"):
        token_attributions(ImageClassifier(), TEXTS)
    with pytest.raises(NotFittedError):
        token_attributions(TextClassifier(), TEXTS)
    with pytest.raises(ConfigurationError, match="n_steps"):
        token_attributions(text_classifier, TEXTS, n_steps=0)
    with pytest.raises(DataError, match="row 1: a text is expected"):
        token_attributions(text_classifier, ["red", 3])
    clf = ImageClassifier(backbone=Projection, **IMAGE).fit(PICTURES, SIDES)
    for baseline in (-1, 256, (1, 2), np.nan):
        with pytest.raises(ConfigurationError, match="baseline"):
            image_saliency(clf, PICTURES, baseline=baseline)


def test_explaining_leaves_the_estimator_as_it_was(text_classifier: TextClassifier) -> None:
    def state() -> list[tuple[bool, Any]]:
        parameters = text_classifier.module_.parameters()
        return [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in parameters]

    before, probabilities = state(), text_classifier.predict_proba(TEXTS)
    token_attributions(text_classifier, TEXTS[:1])
    assert state() == before
    np.testing.assert_array_equal(text_classifier.predict_proba(TEXTS), probabilities)


def test_members_of_compositions(text_classifier: TextClassifier) -> None:
    frame = pd.DataFrame({"text": TEXTS[:8], "image": PICTURES})
    members = [("text", TextClassifier(backbone="lstm", **TEXT), "text"), ("image", ImageClassifier(**IMAGE), "image")]
    late = MultimodalClassifier(members).fit(frame, SIDES)
    assert len(token_attributions(late.named_estimators_["text"], frame["text"][:2], 0)) == 2
    joint = MultimodalClassifier(members, fusion=ConcatFusion(max_epochs=1)).fit(frame, SIDES)
    with pytest.raises(NotFittedError, match="joint fusion"):
        token_attributions(joint.named_estimators_["text"], frame["text"])
    with pytest.raises(ConfigurationError, match="predicts nothing on its own"):
        member_disagreement(joint, frame)


@pytest.mark.parametrize(
    ("module", "extra"), [("captum.attr", "captum is not"), ("matplotlib.pyplot", "matplotlib is not")]
)
def test_names_the_extra_that_is_missing(
    module: str, extra: str, text_classifier: TextClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{extra} installed; run: pip install .*\[inspect\]'"):
        TokenAttributionDisplay.from_estimator(text_classifier, TEXTS[:1])


# figures


def test_texts_are_coloured_by_attribution(text_classifier: TextClassifier) -> None:
    display = TokenAttributionDisplay.from_estimator(text_classifier, ["red car", None, "a\napple"], "fruit")
    shown = [letters.get_label() for letters in display.letters_]
    probability = text_classifier.predict_proba(["red car", "a\napple"])[:, 0]
    assert shown[0] == f"fruit  {probability[0]:.2f}"
    assert "".join(shown[1:]) == f"red car<eos>fruit  {probability[1]:.2f}a↵apple<eos>"
    display.figure_.canvas.draw()


def test_the_colour_of_a_token() -> None:
    tokens = [TokenAttribution("red", (0, 3), -2.0), TokenAttribution("car", (4, 7), 1.0)]
    display = TokenAttributionDisplay(["red car"], [tokens]).plot(cmap="bwr")
    against, speaking_for = (patch.get_facecolor() for patch in display.patches_)
    assert against == (0, 0, 1, 1)
    np.testing.assert_allclose(speaking_for, plt.get_cmap("bwr")(0.75))
    assert [letters.get_label() for letters in display.letters_] == ["red", " ", "car"]


def test_long_texts_are_broken_between_words() -> None:
    tokens = [("aa", (0, 2), 0.1), (" bb", (2, 5), 0.1), ("b", (5, 6), 0.1), (" cccccccccc", (6, 17), 0.1)]
    text = "aa bbb cccccccccc"
    _, ax = plt.subplots()
    display = TokenAttributionDisplay([text], [[TokenAttribution(*token) for token in tokens]]).plot(ax, width=5)
    rows: dict[float, str] = {}
    for ground, letters in zip(display.patches_, display.letters_, strict=True):
        rows[ground.get_y()] = rows.get(ground.get_y(), "") + letters.get_label()
    assert list(rows.values()) == ["aa", " bbb ", "ccccc", "ccccc"]
    assert "".join(rows.values()) == text


def test_letters_lie_on_their_ground() -> None:
    tokens = [TokenAttribution("costs $5, not $6", (0, 16), 1.0), TokenAttribution(" or \\$7", (16, 23), -1.0)]
    display = TokenAttributionDisplay(["costs $5, not $6 or \\$7"], [tokens]).plot()
    for ground, letters in zip(display.patches_, display.letters_, strict=True):
        inner, outer = letters.get_path().get_extents(), ground.get_bbox()
        assert outer.x0 <= inner.x0 < inner.x1 <= outer.x1
        assert inner.width > 0.8 * outer.width - 1  # the second one begins with a space
        assert min(outer.y0, outer.y1) <= inner.y0 < inner.y1 <= max(outer.y0, outer.y1)
    display.figure_.canvas.draw()


def test_the_bytes_of_a_character_are_drawn_once() -> None:
    tokens = [
        TokenAttribution("é", (0, 1), 0.25),
        TokenAttribution("é", (0, 1), 0.5),
        TokenAttribution("<eos>", (0, 0), 0),
    ]
    display = TokenAttributionDisplay(["é"], [tokens]).plot()
    assert [letters.get_label() for letters in display.letters_] == ["é", "<eos>"]
    assert len(display.patches_) == 2


def test_saliency_under_its_image() -> None:
    clf = ImageClassifier(backbone=Projection, **IMAGE).fit(PICTURES, SIDES)
    display = ImageSaliencyDisplay.from_estimator(clf, [PICTURES[0], None, PICTURES[1]], "left", smoothing=0)
    assert display.axes_.shape == (2, 2)
    np.testing.assert_array_equal(display.axes_[0, 1].images[0].get_array(), PICTURES[1])
    saliency = image_saliency(clf, PICTURES[:1], "left")[0]
    overlay = display.im_[0].get_array()
    np.testing.assert_allclose(overlay, saliency / np.percentile(np.abs(saliency), 99), rtol=1e-6)
    assert display.axes_[0, 0].get_title() == f"left  {clf.predict_proba(PICTURES[:1])[0, 0]:.2f}"
    display.figure_.canvas.draw()
    figure, axes = plt.subplots(2, 2)
    assert display.plot(axes).figure_ is figure
    with pytest.raises(DataError, match="every image is missing"):
        ImageSaliencyDisplay.from_estimator(clf, [None])
