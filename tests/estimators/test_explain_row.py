"""`explain_row`: that its parts are those of the functions that it calls, and what it says where there is none."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from mmensemble import (
    ConfigurationError,
    DataError,
    LinearFusion,
    MultimodalClassifier,
    MultimodalRegressor,
    SoftVoting,
    modality_shapley,
)
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators.inspection import explain_row, image_saliency, token_attributions

pytest.importorskip("captum")

N = 24
Y = np.array(["apple", "<b>bus", "cat"])[np.arange(N) % 3]
X = pd.DataFrame(
    {
        "name": [f"{word} & {number}" for number, word in enumerate(["red fruit", "fast car", "soft pet"] * 8)],
        "picture": [np.full((32, 32, 3), 40 + 80 * (i % 3), dtype=np.uint8) for i in range(N)],
        "weight": np.arange(N) % 3 + np.random.default_rng(0).normal(size=N),
    }
)


def members() -> list[tuple[str, Any, Any]]:
    return [
        ("text", TextClassifier(vocab_size=300, max_length=16, max_epochs=2, random_state=0), "name"),
        ("image", ImageClassifier(image_size=32, max_epochs=2, random_state=0), "picture"),
        ("facts", LogisticRegression(), ["weight"]),
    ]


@pytest.fixture(scope="module")
def model() -> MultimodalClassifier:
    return MultimodalClassifier(members(), fusion=SoftVoting()).fit(X, Y)


def test_parts(model: MultimodalClassifier) -> None:
    row = X.iloc[[1]]
    explained = explain_row(model, row, "<b>bus", n_steps=5)
    position = model.classes_.tolist().index("<b>bus")
    shapley = modality_shapley(model, row)
    assert explained.modalities == dict(zip(shapley.names, shapley.shapley_values[0, :, position], strict=True))
    assert explained.prediction == pytest.approx(model.predict_proba(row)[0, position])
    assert explained.base_value + sum(explained.modalities.values()) == pytest.approx(explained.prediction)
    own = {name: member.predict_proba(row[column]) for name, member, column in zip(
        ("text", "image", "facts"), model.estimators_, ("name", "picture", ["weight"]), strict=True
    )}  # fmt: skip
    assert explained.members == pytest.approx({name: proba[0, position] for name, proba in own.items()})
    text, tokens = explained.texts["text"]
    assert text == row["name"].iloc[0]
    assert tokens == token_attributions(model.named_estimators_["text"], [text], position, n_steps=5)[0]
    pixels, saliency = explained.images["image"]
    assert pixels.shape == (32, 32, 3)
    (expected,) = image_saliency(model.named_estimators_["image"], row["picture"].tolist(), position, n_steps=5)
    np.testing.assert_array_equal(saliency, expected)
    assert explained.left_out == {"facts": "it is a LogisticRegression, which is no network of a text or a picture"}


def test_the_predicted_class_is_explained(model: MultimodalClassifier) -> None:
    row = X.iloc[[2]]
    explained = explain_row(model, row, n_steps=2)
    assert explained.target == model.predict(row)[0]
    assert repr(explained).startswith(f"{explained.target}: {explained.prediction:.3g} = ")


class Reader(HTMLParser):
    """Counts tags, and sees that they are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)
        assert tag != "img" or (dict(attrs)["alt"] and str(dict(attrs)["src"]).startswith("data:image/png;base64,"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_figure_and_page(model: MultimodalClassifier) -> None:
    explained = explain_row(model, X.iloc[[1]], "<b>bus", n_steps=2)
    figure = explained.plot()
    titles = [text.get_text() for each in (figure, *figure.subfigs) for text in each.texts]
    assert titles[0].startswith("<b>bus: ")
    axes = [ax for part in figure.subfigs for ax in part.axes]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["text", "image", "facts"]
    lengths = [patch.get_width() for patch in axes[0].patches]
    assert lengths == pytest.approx(list(explained.modalities.values()))  # signed
    figure.canvas.draw()
    plt.close(figure)
    reader = Reader()
    reader.feed(explained._repr_html_())
    assert not reader.open
    assert "b" in reader.seen
    assert reader.seen.count("img") == 1
    assert "<b>bus" in reader.words
    assert "fast" in reader.words


def test_a_row_that_lacks_a_modality(model: MultimodalClassifier) -> None:
    explained = explain_row(model, X.iloc[[0]].assign(picture=None), n_steps=2)
    assert np.isnan(explained.members["image"])
    assert explained.modalities["image"] == 0
    assert explained.left_out["image"] == "the row lacks its modality"
    assert "missing" in explained.to_html()
    plt.close(explained.plot())


def test_members_without_a_score_of_their_own() -> None:
    words = [("words", TfidfVectorizer(), "name"), ("facts", make_pipeline("passthrough"), ["weight"])]
    model = MultimodalClassifier(words, fusion=LinearFusion(cv=2)).fit(X, Y)
    explained = explain_row(model, X.iloc[[0]])
    assert explained.members == {}
    assert set(explained.modalities) == {"words", "facts"}
    plt.close(explained.plot())


def test_numbers() -> None:
    model = MultimodalRegressor(
        [("weight", LinearRegression(), ["weight"])], fusion=SoftVoting()
    ).fit(X, np.arange(N, dtype=float))  # fmt: skip
    explained = explain_row(model, X.iloc[[4]])
    assert explained.prediction == pytest.approx(model.predict(X.iloc[[4]])[0])
    assert explained.base_value == pytest.approx((N - 1) / 2)


def test_what_is_refused(model: MultimodalClassifier) -> None:
    with pytest.raises(DataError, match=r"2 were given; take X\.iloc\[\[number\]\]"):
        explain_row(model, X.iloc[:2])
    with pytest.raises(DataError, match="not Series: one row of a frame is"):
        explain_row(model, X.iloc[0])
    with pytest.raises(ConfigurationError, match="there is no target 'dog'; there are"):
        explain_row(model, X.iloc[[0]], "dog")
    with pytest.raises(ConfigurationError, match="a MultimodalClassifier or MultimodalRegressor is expected"):
        explain_row(model.estimators_[2], X.iloc[[0]])
