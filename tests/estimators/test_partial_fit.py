"""`partial_fit` and `warm_start`: going on from what was learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmensemble import DataError
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from tests.instances import Convolution, WordVectors

TEXTS = ["red apple", "green apple", "fast car", "slow car"] * 3
KINDS = ["fruit", "fruit", "vehicle", "vehicle"] * 3
NUMBERS = np.tile([1.0, 2.0, 8.0, 9.0], 3)
PICTURES = [np.full((32, 32), grey, dtype=np.uint8) for grey in (20, 60, 190, 240)] * 3
SMALL: dict[str, Any] = {"max_epochs": 1, "learning_rate": 0.05, "random_state": 0}


def text(cls: Any = TextClassifier, **params: Any) -> Any:
    return cls(**{**SMALL, "backbone": WordVectors, "vocab_size": 300, **params})


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    return cls(**{**SMALL, "backbone": Convolution, "image_size": 32, **params})


CASES = [
    (text, TEXTS, KINDS),
    (image, PICTURES, KINDS),
    (lambda **params: text(TextRegressor, **params), TEXTS, NUMBERS),
    (lambda **params: image(ImageRegressor, **params), PICTURES, np.column_stack([NUMBERS, -NUMBERS])),
    (text, TEXTS, np.column_stack([KINDS, np.array(KINDS) == "fruit"])),
    (text, TEXTS, np.tile([[1, 0], [1, 1], [0, 1], [0, 0]], (3, 1))),
]
each_case = pytest.mark.parametrize(
    ("make", "X", "y"), CASES, ids=["text", "image", "numbers", "number_table", "columns", "multilabel"]
)


@each_case
def test_partial_fit_goes_on(make: Any, X: Any, y: Any) -> None:
    model = make()
    assert model.partial_fit(X, y) is model
    module, preprocessor = model.module_, model.preprocessor_
    for _ in range(30):
        model.partial_fit(X, y)
    assert model.module_ is module
    assert model.preprocessor_ is preprocessor
    assert model.history_["epoch"].tolist() == list(range(1, 32))
    assert model.history_["train_loss"].iloc[-5:].mean() < 0.8 * model.history_["train_loss"].iloc[0]
    assert model.score(X, y) > 0.7


def test_partial_fit_is_one_epoch_whatever_max_epochs_says() -> None:
    assert len(text(max_epochs=5).partial_fit(TEXTS, KINDS).history_) == 1
    assert len(text(max_epochs=2).fit(TEXTS, KINDS).partial_fit(TEXTS, KINDS).history_) == 3


def test_partial_fit_after_fit_changes_the_weights_only() -> None:
    model = text().fit(TEXTS, KINDS)
    classes, prior, before = model.classes_, model.class_prior_, model.predict_proba(TEXTS)
    model.partial_fit(TEXTS[:2], KINDS[:2])
    assert model.classes_ is classes
    assert model.class_prior_ is prior
    assert np.abs(model.predict_proba(TEXTS) - before).max() > 1e-4


def test_labels_come_in_batches() -> None:
    model = text()
    for _ in range(40):
        for start in (0, 2):
            model.partial_fit(TEXTS[start : start + 2], KINDS[start : start + 2], classes=["vehicle", "robot", "fruit"])
    assert model.classes_.tolist() == ["fruit", "robot", "vehicle"]
    assert model.predict(TEXTS).tolist() == KINDS
    # The shares of the first batch, which was all fruit.
    np.testing.assert_array_equal(model.predict_proba([None]), [[1, 0, 0]])


def test_classes_are_learned_from_the_first_batch_without_them() -> None:
    model = text().partial_fit(TEXTS, KINDS)
    assert model.classes_.tolist() == ["fruit", "vehicle"]
    with pytest.raises(DataError, match=r"'robot', which is not among the classes \['fruit', 'vehicle'\]"):
        model.partial_fit(TEXTS, ["robot"] * 12)
    with pytest.raises(DataError, match="one class only"):
        text().partial_fit(TEXTS[:2], KINDS[:2])


def test_label_that_is_not_among_the_classes_of_the_first_batch() -> None:
    model = text()
    with pytest.raises(DataError, match="'fruit', which is not among the classes"):
        model.partial_fit(TEXTS, KINDS, classes=["vehicle", "robot"])
    # The call that failed leaves nothing behind.
    assert model.partial_fit(TEXTS, KINDS).classes_.tolist() == ["fruit", "vehicle"]


def test_classes_are_for_one_column_of_labels() -> None:
    with pytest.raises(ValueError, match="1d array"):
        text().partial_fit(TEXTS, np.column_stack([KINDS, KINDS]), classes=["fruit", "vehicle"])


def test_missing_rows_teach_nothing() -> None:
    model, other = text(), text()
    for _ in range(2):
        model.partial_fit([None, *TEXTS[:4], float("nan")], ["vehicle", *KINDS[:4], "vehicle"], sample_weight=[1.0] * 6)
        other.partial_fit(TEXTS[:4], KINDS[:4])
    np.testing.assert_allclose(model.predict_proba(TEXTS), other.predict_proba(TEXTS), atol=1e-6)
    with pytest.raises(DataError, match="every row is missing"):
        model.partial_fit([None], ["fruit"])


def test_rows_of_weight_0_teach_nothing() -> None:
    weight = [1.0] * 4 + [0.0] * 8
    model = text().fit(TEXTS, KINDS).partial_fit(TEXTS, KINDS, sample_weight=weight)
    other = text().fit(TEXTS, KINDS).partial_fit(TEXTS[:4], KINDS[:4])
    np.testing.assert_allclose(model.predict_proba(TEXTS), other.predict_proba(TEXTS), atol=1e-6)


def test_regressor_keeps_the_scale_of_the_first_batch() -> None:
    model = text(TextRegressor).partial_fit(TEXTS, NUMBERS)
    model.partial_fit(TEXTS, 100 + NUMBERS)
    np.testing.assert_allclose(model.predict([None]), [NUMBERS.mean()])


@each_case
def test_warm_start_goes_on_and_without_it_fit_forgets(make: Any, X: Any, y: Any) -> None:
    once = make(max_epochs=2).fit(X, y)
    first = once.predict(X[:4])
    weights = {name: value.clone() for name, value in once.module_.state_dict().items()}
    again = once.fit(X, y)
    for name, value in again.module_.state_dict().items():
        assert value.equal(weights[name])
    np.testing.assert_array_equal(again.predict(X[:4]), first)
    assert len(again.history_) == 2

    warm = make(max_epochs=2, warm_start=True).fit(X, y)
    loss = warm.history_["train_loss"].iloc[0]
    module = warm.module_
    for _ in range(10):
        warm.fit(X, y)
    assert warm.module_ is module
    assert warm.history_["epoch"].tolist() == list(range(1, 23))
    assert warm.history_["train_loss"].iloc[-1] < 0.9 * loss


def test_warm_start_with_labels_that_were_not_there() -> None:
    with pytest.raises(DataError, match="'robot', which is not among the classes"):
        text(warm_start=True).fit(TEXTS, KINDS).fit(TEXTS, ["robot", *KINDS[1:]])


@pytest.mark.parametrize("first", ["head", "lora"])
def test_backbone_frozen_at_first_can_be_trained_afterwards(first: str) -> None:
    model = text(backbone="bert", fine_tune=first, warm_start=True).fit(TEXTS, KINDS)
    before = {name: value.clone() for name, value in model.module_.encoder.state_dict().items()}
    model.set_params(fine_tune="all").fit(TEXTS, KINDS)
    after = model.module_.encoder.state_dict()
    assert after.keys() == before.keys()
    changed = [name for name, value in after.items() if not value.equal(before[name])]
    # What the loss does not reach: BERT's own pooler, and constants.
    assert {name.split(".")[1] for name in before.keys() - set(changed)} <= {"pooler", "embeddings"}
    assert len(changed) > 0.9 * len([name for name in before if ".encoder." in name])
