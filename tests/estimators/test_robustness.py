"""Unusual cells, unusual numbers of rows, and unusual places: threads, processes, other devices."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV, cross_val_predict
from torch import Tensor
from transformers import GPT2Config

from mmensemble import ConfigurationError, MultimodalClassifier, OnnxPredictor, SoftVoting, export_onnx
from mmensemble.preprocessing import TextPreprocessor
from mmensemble.preprocessing.text import CHARACTERS_PER_TOKEN
from mmensemble_estimators import ConcatFusion, ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from mmensemble_estimators.backbones.portable import on_cpu
from tests.instances import Convolution, WordVectors

STRANGE = {
    "chinese": "红苹果在树上，很甜。",
    "arabic": "تفاحة حمراء لذيذة",
    "hindi": "लाल सेब",
    "emoji": "👩🏽\u200d🚀🏳️\u200d🌈🍎",
    "mixed": "an 苹果 و تفاحة 🍎 at 3 €!",
    "decomposed": "a\u0301e\u0308\u0301",
    "controls": "\0\x07\u202e\ufeff\t\r\n",
    "surrogate": "\ud800\udfff",
    "spaces": " \u3000\u00a0\n ",
    "empty": "",
}
TEXTS = ["red apple", "green apple", "fast car", "slow car"] * 2
KINDS = ["fruit", "fruit", "vehicle", "vehicle"] * 2
PICTURES = [np.full((32, 32), grey, dtype=np.uint8) for grey in (20, 60, 190, 240)] * 2


def text(cls: Any = TextClassifier, **params: Any) -> Any:
    return cls(
        **{"backbone": WordVectors, "vocab_size": 400, "max_length": 16, "max_epochs": 1, "random_state": 0, **params}
    )


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    return cls(**{"backbone": Convolution, "image_size": 32, "max_epochs": 1, "random_state": 0, **params})


# Texts


@pytest.mark.parametrize("backbone", ["gpt", "bert", "lstm"])
def test_strings_of_any_kind(backbone: str) -> None:
    cells = list(STRANGE.values())
    model = text(backbone=backbone).fit(cells * 2, [0, 1] * len(cells))
    together = model.predict_proba([*cells, "never seen: Ж 한국어 ꙮ"])
    assert np.isfinite(together).all()
    alone = np.concatenate([model.predict_proba([cell]) for cell in cells])
    np.testing.assert_allclose(together[:-1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("language", ["chinese", "arabic", "emoji"])
def test_languages_are_learned(language: str) -> None:
    words = {"chinese": ["苹果", "汽车"], "arabic": ["تفاحة", "سيارة"], "emoji": ["🍎", "🚗"]}[language]
    cells = [f"{before}{word}{after}" for word in words for before in ("", "1 ", "22 ") for after in ("", " !", " ?")]
    kinds = np.repeat(["fruit", "vehicle"], 9)
    model = text(backbone="gpt", max_epochs=30, learning_rate=5e-3, subword_dropout=0.0).fit(cells[1::2], kinds[1::2])
    assert model.score(cells[::2], kinds[::2]) > 0.85


def test_exported_model_reads_strings_of_any_kind(tmp_path: Path) -> None:
    model = text().fit(TEXTS, KINDS)
    export_onnx(model, tmp_path / "model.onnx")
    cells = [*STRANGE.values(), "apple " * 10_000]
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(cells)
    np.testing.assert_allclose(scored, model.predict_proba(cells), rtol=0, atol=1e-4)


LONG = {
    "words": "apple and car " * 750_000,
    "one_word": "0123456789" * 1_000_000,
    "chinese": "苹果汽车" * 2_500_000,
    "spaces": " " * 10_000_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_string_of_ten_million_characters(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    encode_batch = TextPreprocessor._encoded

    def record(self: TextPreprocessor, encodings: Any, *args: Any) -> Any:
        encodings = list(encodings)
        seen.append(max(sum(e - s for s, e in encoding.offsets) for encoding in encodings))
        return encode_batch(self, encodings, *args)

    monkeypatch.setattr(TextPreprocessor, "_encoded", record)
    cells = [LONG[kind], *TEXTS]
    model = text().fit(cells, ["fruit", *KINDS])
    assert np.isfinite(model.predict_proba(cells)).all()
    limit = CHARACTERS_PER_TOKEN * 16
    np.testing.assert_array_equal(model.predict_proba([LONG[kind]]), model.predict_proba([LONG[kind][:limit]]))
    assert max(seen) <= limit


@pytest.mark.parametrize("seed", range(3))
def test_reading_the_beginning_only_changes_no_token(seed: int) -> None:
    rng = np.random.default_rng(seed)
    letters = np.array([*"abcdefgh.,'", "é", "苹", "🍎"])
    words = ["".join(rng.choice(letters, rng.integers(1, 30))) for _ in range(200)]
    separators = [" ", "\n", "  ", "\t"]
    long = "".join(word + separators[rng.integers(4)] for word in rng.choice(words, 3_000))
    tokenizer = TextPreprocessor.train([long], vocab_size=600, max_length=32)
    assert len(long) > 3 * CHARACTERS_PER_TOKEN * 32
    whole = tokenizer._tokenizer.encode(long).ids
    assert tokenizer.encode([long]).items[0].tolist() == whole
    assert len(whole) == 32


# Rows


@pytest.mark.parametrize(("make", "X"), [(text, TEXTS), (image, PICTURES)])
def test_fewer_rows_than_a_batch(make: Any, X: Any) -> None:
    model = make(batch_size=64).fit(X[1:3], ["a", "b"])
    assert model.predict_proba(X).shape == (8, 2)
    assert len(model.history_) == 1


@pytest.mark.parametrize("backbone", [None, "cnn"])
def test_a_last_batch_of_one_row(backbone: str | None) -> None:
    model = image(batch_size=3, **({"backbone": backbone} if backbone else {})).fit(PICTURES[:4], KINDS[:4])
    assert np.isfinite(model.predict_proba(PICTURES)).all()


@pytest.mark.parametrize(("make", "X"), [(text, TEXTS), (image, PICTURES)])
def test_one_row_per_class(make: Any, X: Any) -> None:
    model = make(max_epochs=80, learning_rate=0.05).fit(X[:4], ["a", "b", "c", "d"])
    assert model.predict(X[:4]).tolist() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("cls", [TextRegressor, ImageRegressor])
def test_constant_number_and_a_single_row(cls: Any) -> None:
    make, X = (text, TEXTS) if cls is TextRegressor else (image, PICTURES)
    model = make(cls, max_epochs=60, learning_rate=0.05).fit(X, np.full(8, 42.0))
    np.testing.assert_allclose(model.predict(X), 42, atol=0.3)
    assert np.isfinite(make(cls).fit(X[:1], [5.0]).predict(X)).all()


def test_training_that_diverges() -> None:
    for model, X, y in [
        (text(), TEXTS, KINDS),
        (text(TextRegressor), TEXTS, np.arange(8.0)),
        (image(), PICTURES, KINDS),
    ]:
        model.set_params(learning_rate=1e30, max_epochs=20)
        with pytest.raises(ConfigurationError, match=r"the loss became (nan|inf).*lower learning_rate"):
            model.fit(X, y)


# Threads, processes, devices


def test_two_threads() -> None:
    model, X, y = text(max_epochs=3), TEXTS * 2, KINDS * 2
    expected = cross_val_predict(model, X, y, cv=2, method="predict_proba")
    with joblib.parallel_backend("threading"):
        threaded = cross_val_predict(model, X, y, cv=2, method="predict_proba", n_jobs=2)
    assert threaded.shape == expected.shape
    assert np.isfinite(threaded).all()


def test_two_processes_give_what_one_gives() -> None:
    search = GridSearchCV(image(), {"learning_rate": [1e-3, 1e-2]}, cv=2, error_score="raise")
    one = search.fit(PICTURES, KINDS).cv_results_["mean_test_score"]
    two = search.set_params(n_jobs=2).fit(PICTURES, KINDS).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("make", "X"), [(text, TEXTS), (image, PICTURES)])
def test_predictions_in_threads(make: Any, X: Any) -> None:
    model = make().fit(X, KINDS)
    expected = model.predict_proba(X)
    for scores in joblib.Parallel(2, "threading")(joblib.delayed(model.predict_proba)(X) for _ in range(8)):
        np.testing.assert_array_equal(scores, expected)


def test_weights_on_another_device_are_pickled_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"name": TEXTS, "picture": PICTURES})
    members = [("text", text(), "name"), ("image", image(fine_tune="head"), "picture")]
    model = MultimodalClassifier(members, fusion=ConcatFusion(max_epochs=1, random_state=0, device="cpu"))
    model.fit(frame, KINDS)
    networks = [model.fusion_.network_, *(member.module_ for member in model.estimators_)]
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    for network in networks:
        network.to("meta")  # stands for a GPU
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.ones_like(self, device="cpu"))
    loaded = pickle.loads(pickle.dumps(model))
    copied = [loaded.fusion_.network_, *(member.module_ for member in loaded.estimators_)]
    assert {tensor.device.type for network in networks for tensor in network.state_dict().values()} == {"meta"}
    assert {tensor.device.type for network in copied for tensor in network.state_dict().values()} == {"cpu"}
    assert [sum(int(parameter.sum()) for parameter in network.parameters()) for network in copied] == sizes
    assert copied[0].encoders[0] is copied[1].encoder, "what is shared stays so"
    assert {tensor.device.type for tensor in on_cpu(networks[0]).state_dict().values()} == {"cpu"}
    assert copy.deepcopy(networks[1]).head is None
    assert next(copy.deepcopy(networks[1]).parameters()).device.type == "meta"


def text_and_image(fusion: Any) -> MultimodalClassifier:
    members = [
        ("text", text(backbone=GPT2Config(n_layer=1, n_head=2, n_embd=16), pooling="mean"), "name"),
        ("image", image(backbone="cnn"), "picture"),
    ]
    return MultimodalClassifier(members, fusion=fusion)


@pytest.mark.parametrize(
    "fusion", [SoftVoting(), ConcatFusion(max_epochs=1, random_state=0, device="cpu")], ids=["late", "joint"]
)
def test_predictions_while_another_thread_writes(fusion: Any, tmp_path: Path) -> None:
    frame = pd.DataFrame({"name": TEXTS, "picture": PICTURES})
    model = text_and_image(fusion).fit(frame, KINDS)
    expected = model.predict_proba(frame)
    network = getattr(model.fusion_, "network_", model.estimators_[1].module_)
    parts, training = list(network.modules()), [part.training for part in network.modules()]
    started, done = threading.Event(), threading.Event()

    def predict() -> int:
        n_times = 0
        while not done.is_set():
            # While torch exports, transformers spells out attention masks that it leaves out else: rounding differs.
            np.testing.assert_allclose(model.predict_proba(frame), expected, rtol=1e-6)
            assert all(one is other for one, other in zip(network.modules(), parts, strict=True))
            assert [part.training for part in parts] == training
            started.set()
            n_times += 1
        return n_times

    with ThreadPoolExecutor(1) as pool:
        predicting = pool.submit(predict)
        started.wait(60)
        try:
            export_onnx(model, tmp_path / "model.onnx", verify=frame)
            again = pickle.loads(pickle.dumps(model))
            if isinstance(fusion, SoftVoting):
                model.estimators_[0].save(tmp_path / "text")
        finally:
            done.set()
        assert predicting.result() > 1
    np.testing.assert_array_equal(again.predict_proba(frame), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_model_of_a_gpu_on_a_machine_without_one(tmp_path: Path) -> None:
    model = text(backbone="gpt", device="auto").fit(TEXTS, KINDS)
    assert next(model.module_.parameters()).device.type == "cuda"
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    model.save(tmp_path / "model")
    assert next(model.module_.parameters()).device.type == "cuda"
    script = (
        "import pickle, sys, torch, numpy as np\n"
        "from mmensemble_estimators import TextClassifier\n"
        "assert not torch.cuda.is_available()\n"
        "folder = sys.argv[1]\n"
        "models = [pickle.load(open(folder + '/model.pickle', 'rb')), TextClassifier.load(folder + '/model')]\n"
        "np.save(folder + '/scores.npy', [model.predict_proba(['red apple', 'car']) for model in models])\n"
    )
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, env=environment)
    for scores in np.load(tmp_path / "scores.npy"):
        np.testing.assert_allclose(scores, model.predict_proba(["red apple", "car"]), rtol=0, atol=1e-3)
