"""Frozen encoders: shared in a process, run once per row in a search, and never trained by accident."""

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mmensemble import (
    DataError,
    EnsembleSelection,
    HardVoting,
    LinearFusion,
    MultimodalClassifier,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    preprocessing,
)
from mmensemble.cache import Store
from mmensemble.cache import store as caching
from mmensemble_estimators import (
    AttentionFusion,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    ImageClassifier,
    TextClassifier,
)
from mmensemble_estimators.frozen import encoders as frozen_encoders
from mmensemble_estimators.frozen import stamps
from tests.estimators.backbones.test_pretrained import save_wordpiece

ROOT = Path(__file__).parents[3]
N_ROWS = 24
IMAGE_SIZE = 32
SEEDED = {"random_state": 0, "device": "cpu"}
LATE = [SoftVoting(), HardVoting(), ProductOfExperts(), Stacking(cv=2), EnsembleSelection(cv=2), SuperLearner(cv=2)]
JOINT = [f(max_epochs=1, hidden_size=8, **SEEDED) for f in (ConcatFusion, GatedFusion, AttentionFusion)]
BY_TOKENS = CrossAttentionFusion(max_epochs=1, hidden_size=8, **SEEDED)


class Tally(Counter[bytes]):
    """A counter that is hashed without its counts, for else they would be a part of the code that reads it."""

    def __reduce__(self) -> Any:
        return Tally, ()


seen = Tally()


class Projection(nn.Module):
    """Pixels projected at random, which counts how often it sees each picture."""

    def __init__(self, size: int, seed: int | None) -> None:
        super().__init__()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3 * IMAGE_SIZE**2, size, generator=generator) / 50)
        self.scale = 1.0

    def forward(self, pixel_values: Tensor) -> Tensor:
        seen.update(picture.tobytes() for picture in pixel_values.numpy())
        return torch.tanh(self.scale * pixel_values.flatten(1) @ self.weight)


def projection(size: int = 400, seed: int | None = 0) -> Projection:
    return Projection(size, seed)


def small_projection() -> Projection:
    return projection(size=16)


def random_projection() -> Projection:
    return projection(seed=None)


@pytest.fixture(autouse=True)
def _nothing_is_kept_from_before() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """Forget the encoders and callables that this process knows, as a new process would not know them."""
    caching._seconds.clear()
    frozen_encoders._recent.clear()
    stamps._stamp_of.cache_clear()
    gc.collect()
    seen.clear()


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = ["red", "apple", "green", "fast", "car"]
    texts = [f"{words[i % 5]} {words[i // 5]} and a {words[(i + 2) % 5]} another" for i in range(N_ROWS)]
    pictures = list(rng.integers(0, 256, (N_ROWS, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8))
    return pd.DataFrame({"text": texts, "picture": pictures})


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    return np.asarray(["a", "b"] * (N_ROWS // 2))


def save_weights(folder: Path, *, seed: int) -> None:
    config = BertConfig(
        vocab_size=90,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=40,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A BERT of 0.3 million weights, which are worth keeping the embeddings of texts of some words."""
    save_weights(tmp_path / "bert", seed=0)
    save_wordpiece(tmp_path / "bert")
    return str(tmp_path / "bert")


def image(backbone: Callable[[], nn.Module] = projection, **params: Any) -> ImageClassifier:
    return ImageClassifier(
        **{"backbone": backbone, "fine_tune": "head", "image_size": IMAGE_SIZE, "max_epochs": 1, **SEEDED, **params}
    )


def text(folder: str, **params: Any) -> TextClassifier:
    return TextClassifier(
        **{"pretrained": folder, "fine_tune": "head", "max_length": 16, "max_epochs": 1, **SEEDED, **params}
    )


def composition(folder: str, cache: Any = None, **params: Any) -> MultimodalClassifier:
    return MultimodalClassifier([("text", text(folder), "text"), ("image", image(), "picture")], cache=cache, **params)


def weights_of(estimator: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in estimator.module_.encoder.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# Each row once


@pytest.fixture
def texts_seen(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Counts how often a BERT sees each text."""
    counted: Counter[bytes] = Counter()
    forward = BertModel.forward

    def counting(self: Any, input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Any:
        counted.update(i[m.bool()].numpy().tobytes() for i, m in zip(input_ids, attention_mask, strict=True))
        return forward(self, input_ids=input_ids, attention_mask=attention_mask, **inputs)

    monkeypatch.setattr(BertModel, "forward", counting)
    return counted


def pictures_seen() -> list[int]:
    """How often each picture was seen; building an encoder tries it on black ones."""
    black = np.zeros((3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32).tobytes()
    return [n for picture, n in seen.items() if picture != black]


def test_a_search_embeds_each_row_once(folder: str, tmp_path: Path, X: Any, y: Any, texts_seen: Counter[bytes]) -> None:
    grid = {"fusion": [*LATE, *JOINT]}
    GridSearchCV(composition(folder, tmp_path / "cache"), grid, cv=3, error_score="raise").fit(X, y)
    assert pictures_seen() == [1] * N_ROWS
    assert list(texts_seen.values()) == [1] * N_ROWS


def test_tokens_are_a_second_representation(
    folder: str, tmp_path: Path, X: Any, y: Any, texts_seen: Counter[bytes]
) -> None:
    by_tokens = [BY_TOKENS, clone(BY_TOKENS).set_params(hidden_size=16)]
    for _ in range(2):
        grid = {"fusion": [JOINT[0], *by_tokens]}
        GridSearchCV(composition(folder, tmp_path / "cache"), grid, cv=2, error_score="raise").fit(X, y)
        assert pictures_seen() == [2] * N_ROWS
        assert list(texts_seen.values()) == [2] * N_ROWS


def test_without_a_cache_each_fit_embeds(folder: str, X: Any, y: Any) -> None:
    GridSearchCV(composition(folder), {"fusion": [SoftVoting(), HardVoting()]}, cv=2, refit=False).fit(X, y)
    assert pictures_seen() == [4] * N_ROWS


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_without_a_cache_one_fit_embeds_each_row_once_whatever_the_folds(
    folder: str, tmp_path: Path, X: Any, y: Any, n_jobs: int | None, texts_seen: Counter[bytes], monkeypatch: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fusion = SuperLearner([Stacking(), LinearFusion()], cv=3)
    model = composition(folder, fusion=fusion, n_jobs=n_jobs)
    with joblib.parallel_config("threading"):
        model.fit(X, y)
    if n_jobs is None:  # two may embed one row at the same time
        assert pictures_seen() == [1] * N_ROWS
        assert list(texts_seen.values()) == [1] * N_ROWS
    assert not [*tmp_path.glob("mmensemble-*")]
    cached = clone(model).set_params(cache=tmp_path / "cache", n_jobs=None).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), cached.predict_proba(X), atol=1e-5)


def test_a_mixture_that_reads_a_column_twice_embeds_its_rows_once(
    folder: str, X: Any, y: Any, texts_seen: Counter[bytes]
) -> None:
    fusion = SuperLearner([Stacking(), LinearFusion()], cv=2)
    fitted = composition(folder, fusion=fusion).fit(X, y).fusion_
    parts = [Stacking(cv=2), LinearFusion(cv=2)]
    fitted.candidates_ = [("", composition(folder, fusion=part).fit(X, y).fusion_) for part in parts]
    fitted.shares_ = np.array([0.5, 0.5])
    texts_seen.clear()
    fitted.outputs(X)
    assert list(texts_seen.values()) == [1] * N_ROWS


def test_quick_networks_do_without_the_store(tmp_path: Path, X: Any, y: Any) -> None:
    model = MultimodalClassifier([("image", image(small_projection), "picture")], cache=tmp_path)
    GridSearchCV(model, {"fusion": [SoftVoting(), ConcatFusion(max_epochs=1)]}, cv=2, refit=False).fit(X, y)
    assert pictures_seen() == [4] * N_ROWS
    assert not (tmp_path / "embeddings.sqlite").exists()


def test_results_are_the_same_with_and_without(folder: str, tmp_path: Path, X: Any, y: Any) -> None:
    for fusion in [*LATE, *JOINT, BY_TOKENS]:
        without = composition(folder, fusion=clone(fusion)).fit(X, y).predict_proba(X)
        for _ in range(2):
            found = composition(folder, tmp_path / "cache", fusion=clone(fusion)).fit(X, y).predict_proba(X)
            np.testing.assert_allclose(found, without, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs(folder: str, tmp_path: Path, X: Any, y: Any, backend: str) -> None:
    grid = {"fusion": [SoftVoting(), Stacking(cv=2), JOINT[0]]}
    search = GridSearchCV(composition(folder), grid, cv=2, scoring="neg_log_loss", error_score="raise")
    expected = clone(search).fit(X, y).cv_results_["mean_test_score"]
    cached = clone(search).set_params(estimator__cache=tmp_path / "cache", n_jobs=2)
    with joblib.parallel_config(backend):
        for _ in range(2):
            found = clone(cached).fit(X, y).cv_results_["mean_test_score"]
            if backend == "loky":
                np.testing.assert_allclose(found, expected, rtol=1e-5)


# Each file once


@pytest.fixture
def files(X: pd.DataFrame) -> pd.DataFrame:
    """The same pictures as PNG files in memory."""
    return X.assign(picture=[png(picture) for picture in X["picture"]])


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """Counts how often each file is decoded."""
    counted: Counter[bytes] = Counter()
    opened = preprocessing.image._open

    def counting(cell: Any) -> Any:
        counted[cell] += 1
        return opened(cell)

    monkeypatch.setattr(preprocessing.image, "_open", counting)
    return counted


def test_a_search_decodes_each_file_once(
    folder: str, tmp_path: Path, files: Any, y: Any, decoded: Counter[bytes]
) -> None:
    search = GridSearchCV(
        composition(folder, tmp_path / "cache"),
        {"fusion": [SoftVoting(), Stacking(cv=2), JOINT[0], BY_TOKENS]},
        cv=2,
        error_score="raise",
    )
    first = clone(search).fit(files, y)
    assert list(decoded.values()) == [1] * N_ROWS
    assert pictures_seen() == [2] * N_ROWS, "as one embedding, and as tokens"
    second = clone(search).fit(files, y)
    assert list(decoded.values()) == [1] * N_ROWS
    assert pictures_seen() == [2] * N_ROWS
    np.testing.assert_array_equal(second.predict_proba(files), first.predict_proba(files))
    assert list(decoded.values()) == [1] * N_ROWS


@pytest.mark.parametrize("fusion", [SoftVoting(), JOINT[0]], ids=["late", "joint"])
def test_networks_that_train_find_the_encodings(
    tmp_path: Path, files: Any, y: Any, decoded: Counter[bytes], fusion: Any
) -> None:
    member = ImageClassifier(image_size=IMAGE_SIZE, max_epochs=1, **SEEDED)
    model = MultimodalClassifier([("image", member, "picture")], fusion=fusion)
    expected = clone(model).fit(files, y).predict_proba(files)
    assert list(decoded.values()) == [2] * N_ROWS
    decoded.clear()
    model.set_params(cache=tmp_path)
    np.testing.assert_array_equal(clone(model).fit(files, y).predict_proba(files), expected)
    clone(model).set_params(image__learning_rate=0.01).fit(files, y)
    assert list(decoded.values()) == [1] * N_ROWS


def test_a_bad_file_is_named_as_without_a_store(folder: str, tmp_path: Path, files: Any, y: Any) -> None:
    fitted = composition(folder, tmp_path).fit(files, y)
    files.loc[7, "picture"] = b"no picture"
    message = "row 7, column 'picture': the image cannot be read: cannot identify image file"
    for _ in range(2):
        for cache in (None, tmp_path):
            with pytest.raises(DataError, match=message) as raised:
                composition(folder, cache).fit(files, y)
            assert raised.value.row == 7
            with pytest.raises(DataError, match=message):
                fitted.set_params(cache=cache).predict(files)


# What changes the embeddings


def embedded(estimator: Any, column: Any, y: Any, cache: Path) -> np.ndarray:
    with Store.of(cache).active():
        return clone(estimator).fit(column, y).transform(column)


def test_changed_weights_of_a_folder_miss(tmp_path: Path, X: Any, y: Any) -> None:
    (tmp_path / "cache").mkdir()
    save_wordpiece(tmp_path / "bert")
    model = MultimodalClassifier([("text", text(str(tmp_path / "bert")), "text")], cache=tmp_path / "cache")
    embeddings, probabilities = [], []
    for seed in (0, 1, 1):
        save_weights(tmp_path / "bert", seed=seed)
        embeddings.append(embedded(model.estimators[0][1], X["text"], y, tmp_path / "cache"))
        probabilities.append(clone(model).fit(X, y).predict_proba(X))
        forget()
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.1
    np.testing.assert_array_equal(embeddings[1], embeddings[2])
    assert np.abs(probabilities[0] - probabilities[1]).max() > 1e-5
    np.testing.assert_array_equal(probabilities[1], probabilities[2])


def test_another_callable_misses(tmp_path: Path, X: Any, y: Any) -> None:
    made = []
    for seed in (0, 1, 0):
        model = MultimodalClassifier(
            [("image", image(functools.partial(projection, seed=seed)), "picture")], cache=tmp_path
        )
        made.append(model.fit(X, y).predict_proba(X))
    assert np.abs(made[0] - made[1]).max() > 1e-4
    np.testing.assert_array_equal(made[0], made[2])


def of_a_user(source: str) -> dict[str, Any]:
    """Run a cell of a notebook."""
    namespace = {"__name__": "__main__", "projection": projection, "Projection": Projection}
    exec(source, namespace)
    return namespace


def test_another_helper_of_a_callable_misses(tmp_path: Path, X: Any, y: Any) -> None:
    notebook = of_a_user("def backbone():\n    return projection(seed=helper())")
    model = MultimodalClassifier([("image", image(notebook["backbone"]), "picture")], cache=tmp_path)
    made = []
    for seed in (0, 1, 0):
        exec(f"def helper():\n    return {seed}", notebook)
        made.append(clone(model).fit(X, y).predict_proba(X))
        expected = clone(model).set_params(cache=None).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(made[-1], expected, atol=1e-6)
    assert np.abs(made[0] - made[1]).max() > 1e-4


def test_another_helper_of_a_network_misses(tmp_path: Path, X: Any, y: Any) -> None:
    notebook = of_a_user(
        "class Scaled(Projection):\n"
        "    def forward(self, pixel_values):\n"
        "        return super().forward(helper(pixel_values))"
    )
    model = MultimodalClassifier([("image", image(functools.partial(notebook["Scaled"], 400, 0)), "picture")])
    for scale in (1, -2, 1):
        exec(f"def helper(x):\n    return {scale} * x", notebook)
        found = clone(model).set_params(cache=tmp_path).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(found, clone(model).fit(X, y).predict_proba(X), atol=1e-6)
    assert pictures_seen()[:N_ROWS] == [1 + 2 * 2] * N_ROWS, "once with the cache, and to fit and to predict without"


def test_a_network_that_has_no_hash_is_not_kept(tmp_path: Path, X: Any, y: Any) -> None:
    notebook = of_a_user(
        "import threading\nlock = threading.Lock()\n"
        "class Locked(Projection):\n"
        "    def forward(self, pixel_values):\n"
        "        with lock:\n"
        "            return super().forward(pixel_values)\n"
        "def backbone():\n    return Locked(400, 0)"
    )
    model = MultimodalClassifier([("image", image(notebook["backbone"]), "picture")])
    expected = clone(model).fit(X, y).predict_proba(X)
    for _ in range(2):
        found = clone(model).set_params(cache=tmp_path).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not (tmp_path / "embeddings.sqlite").exists()


@pytest.mark.parametrize("what", ["weight", "attribute", "function", "buffer", "code"])
def test_the_fingerprint_is_of_all_that_the_network_computes_with(what: str) -> None:
    module = projection()
    module.register_buffer("shift", torch.zeros(3), persistent=False)
    before = stamps.hash_module(module)
    assert stamps.hash_module(module.eval()) == before, "it does not matter whether it is being trained"
    if what == "weight":
        with torch.no_grad():
            module.weight[7, 7] += 1e-6
    elif what == "attribute":
        module.scale = 2.0
    elif what == "function":
        module.activation = torch.tanh
    elif what == "buffer":
        module.shift[1] = 1e-6
    else:
        forward = Projection.forward
        other = type("Projection", (Projection,), {"forward": lambda self, pixel_values: forward(self, -pixel_values)})
        other.__module__, other.__qualname__ = Projection.__module__, Projection.__qualname__
        module.__class__ = other
    assert stamps.hash_module(module) != before


@pytest.mark.parametrize(("name", "value"), [("max_length", 3), ("pooling", "cls")])
def test_a_changed_parameter_of_a_text_misses(
    folder: str, tmp_path: Path, X: Any, y: Any, name: str, value: Any
) -> None:
    changed = text(folder, **{name: value})
    embedded(text(folder), X["text"], y, tmp_path)
    np.testing.assert_allclose(
        embedded(changed, X["text"], y, tmp_path), changed.fit(X["text"], y).transform(X["text"]), atol=1e-5
    )


def test_pictures_that_are_resized_otherwise_miss(tmp_path: Path, X: Any, y: Any) -> None:
    smaller = X["picture"].map(lambda picture: picture[:20])  # so that it is resized
    with Store.of(tmp_path).active():
        fitted = image().fit(smaller, y)
        before = fitted.transform(smaller)
        fitted.preprocessor_.resample = "nearest"
        assert np.abs(fitted.transform(smaller) - before).max() > 1e-3


# One copy


def test_a_frozen_encoder_is_shared_and_not_saved_by_the_store(folder: str, tmp_path: Path, X: Any, y: Any) -> None:
    models = [composition(folder, tmp_path / "cache", fusion=clone(f)).fit(X, y) for f in (SoftVoting(), JOINT[0])]
    first, second = [model.named_estimators_.text.module_.encoder for model in models]
    assert first is second
    again = composition(folder, tmp_path / "cache", fusion=SoftVoting()).fit(X, y)
    assert again.named_estimators_.text.module_.encoder is first
    assert text(folder).fit(X["text"], y).module_.encoder is first, "without a store too"
    assert text(folder, pooling="cls").fit(X["text"], y).module_.encoder is not first
    n_bytes = sum(value.nbytes for value in first.state_dict().values())
    assert max(path.stat().st_size for path in (tmp_path / "cache").rglob("output.pkl")) < n_bytes / 4
    assert len(pickle.dumps(again)) > n_bytes, "an ordinary pickle needs nothing else"


def test_encoders_are_kept_while_a_search_goes_on(folder: str, tmp_path: Path, X: Any, y: Any) -> None:
    gc.collect()
    before = set(frozen_encoders._shared)  # of estimators that other tests share
    with Store.of(tmp_path).active():
        encoder = id(text(folder).fit(X["text"], y).module_.encoder)
        gc.collect()
        assert id(text(folder).fit(X["text"], y).module_.encoder) == encoder
        for length in range(4, 4 + 2 * (frozen_encoders._recent.maxlen or 0)):
            text(folder, max_length=length).fit(X["text"], y)
        assert len(frozen_encoders._recent) == frozen_encoders._recent.maxlen
    frozen_encoders._recent.clear()
    gc.collect()
    assert set(frozen_encoders._shared) <= before, "nothing else keeps them"


@pytest.mark.parametrize("way", ["fine_tune all", "lora", "partial_fit", "in the store"])
def test_a_shared_encoder_is_not_trained(folder: str, tmp_path: Path, X: Any, y: Any, way: str) -> None:
    frozen, other = text(folder).fit(X["text"], y), text(folder).fit(X["text"], y)
    assert frozen.module_.encoder is other.module_.encoder
    before, expected = weights_of(frozen), frozen.predict_proba(X["text"])
    trained = {"fine_tune": "lora" if way == "lora" else "all", "learning_rate": 0.01}
    if way == "partial_fit":
        other.set_params(**trained).partial_fit(X["text"], y)
    elif way == "in the store":
        model = MultimodalClassifier([("text", Unfreezing(text(folder)), "text")], cache=tmp_path / "cache")
        other = model.fit(X, y).named_estimators_.text.estimator_
    else:
        other.set_params(warm_start=True, **trained).fit(X["text"], y)
    assert not same(weights_of(other), before)
    assert same(weights_of(frozen), before)
    np.testing.assert_array_equal(frozen.predict_proba(X["text"]), expected)
    assert not any(parameter.requires_grad for parameter in frozen.module_.encoder.parameters())


class Unfreezing(ClassifierMixin, BaseEstimator):
    """Trains a head, then everything (Howard and Ruder 2018)."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any) -> Unfreezing:
        self.estimator_ = clone(self.estimator).fit(X, y)
        self.estimator_.set_params(fine_tune="all", learning_rate=0.01).partial_fit(X, y)
        self.classes_ = self.estimator_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.estimator_.predict_proba(X)

    def predict(self, X: Any) -> Any:
        return self.estimator_.predict(X)


def test_another_network_at_each_call_is_not_shared(tmp_path: Path, X: Any, y: Any) -> None:
    model = MultimodalClassifier([("image", image(random_projection), "picture")], cache=tmp_path)
    first, second = clone(model).fit(X, y), clone(model).fit(X, y)
    forget()
    third = clone(model).fit(X, y)
    expected = clone(model).set_params(cache=None).fit(X, y).predict_proba(X)
    for fitted in (first, second, third):
        np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-5)
    assert first.named_estimators_.image.module_.encoder is not second.named_estimators_.image.module_.encoder


def fingerprint_of(folder: str) -> str:
    """The hashes of both networks, of which one uses sets and names of files."""
    estimator = text(folder).fit(["red apple", "car"], [0, 1])
    return frozen_encoders.fingerprint(estimator.module_.encoder).hex() + (stamps.module_stamp(projection) or b"").hex()


def test_another_process(folder: str, tmp_path: Path, X: Any, y: Any) -> None:
    fingerprint = fingerprint_of(folder)
    model = composition(folder, tmp_path / "cache", fusion=Stacking(cv=2))
    expected = clone(model).fit(X, y).predict_proba(X)
    joblib.dump((model, X, y), tmp_path / "unfitted.joblib")
    # Fitted ones that came out of the store, whose encoders are all there in an ordinary pickle.
    late, joint = composition(folder, tmp_path / "cache"), composition(folder, tmp_path / "cache", fusion=JOINT[0])
    fitted = [clone(model).fit(X, y) and clone(model).fit(X, y) for model in (late, joint)]
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    before = sorted((tmp_path / "cache").rglob("output.pkl"))
    program = f"""
from tests.estimators.frozen.test_frozen import *
import shutil

folder = Path({str(tmp_path)!r})
assert fingerprint_of({folder!r}) == {fingerprint!r}
seen.clear()
model, X, y = joblib.load(folder / "unfitted.joblib")
np.save(folder / "unfitted.npy", model.fit(X, y).predict_proba(X))
assert not pictures_seen(), "all embeddings lie in the store"
assert sorted((folder / "cache").rglob("output.pkl")) == [Path(p) for p in {[str(path) for path in before]}]
forget()
shutil.rmtree(folder / "bert")
shutil.rmtree(folder / "cache")
for i, model in enumerate(joblib.load(folder / "fitted.joblib")):
    np.save(folder / f"fitted{{i}}.npy", model.predict_proba(X))
assert not (folder / "cache").exists()
"""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "estimators")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "unfitted.npy"), expected)
    for i, model in enumerate(fitted):
        np.testing.assert_allclose(np.load(tmp_path / f"fitted{i}.npy"), model.predict_proba(X), atol=1e-6)


def test_sharing_does_not_show_in_what_is_drawn_at_random(folder: str, tmp_path: Path, X: Any, y: Any) -> None:
    estimator = text(folder)
    drawn, heads = [], []
    for cache in (None, tmp_path, tmp_path):
        torch.manual_seed(3)
        with Store.of(cache).active():
            heads.append(estimator.fit(X["text"], y).module_.head.linear.weight.detach().clone())
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    for head in heads[1:]:
        torch.testing.assert_close(head, heads[0], rtol=1e-4, atol=1e-5)
