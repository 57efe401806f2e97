"""`save` and `load`: what comes back, what is in the folder, and what damage does."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from transformers import AutoModel

from mmensemble import ConfigurationError, ModelFileError
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from tests.estimators.backbones import test_pretrained
from tests.estimators.test_sklearn_checks import WordSum
from tests.instances import Convolution, WordVectors, convnext, distilbert
from tests.saved_folder import sum_anew

folders = test_pretrained.folders

TEXTS = ["red apple", "green apple", "fast car", "slow car", "慢車 🚗"] * 3
KINDS = np.array(["fruit", "fruit", "vehicle", "vehicle", "慢"] * 3)
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (32, 40, 3), dtype=np.uint8) for _ in TEXTS]
NUMBERS = np.arange(15.0)
FILES = {"estimator.json", "weights.safetensors", "SHA256SUMS"}


def text(cls: Any = TextClassifier, **params: Any) -> Any:
    return cls(**{"vocab_size": 300, "max_length": 16, "max_epochs": 1, "random_state": 0, **params})


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    return cls(**{"image_size": 32, "max_epochs": 1, "random_state": 0, **params})


def outputs(model: Any, X: Any) -> np.ndarray:
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(X)
        return np.hstack(probabilities) if isinstance(probabilities, list) else probabilities
    return model.predict(X)


def assert_same(loaded: Any, model: Any, X: Any) -> None:
    X = [*X, None]
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(outputs(loaded, X), outputs(model, X))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert loaded.predict(X).dtype == model.predict(X).dtype
    assert loaded.predict(X).tolist() == model.predict(X).tolist()
    fitted = {name for name in vars(model) if name.endswith("_")}
    assert {name for name in vars(loaded) if name.endswith("_")} == fitted
    pd.testing.assert_frame_equal(loaded.history_, model.history_)
    assert not loaded.module_.training


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return text().fit(TEXTS, KINDS)


@pytest.fixture
def saved(fitted: TextClassifier, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


# Round trips


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (text(), KINDS),
        (text(backbone="bert", pooling="max"), KINDS),
        (text(backbone="lstm", pooling="last"), KINDS),
        (text(backbone=distilbert(), pooling="cls"), KINDS),
        (text(fine_tune="lora"), KINDS),
        (text(fine_tune="head"), KINDS),
        (image(), KINDS),
        (image(backbone="vit", pooling="cls"), KINDS),
        (image(backbone=convnext(), augmentation=["colour"]), KINDS),
        (text(TextRegressor), NUMBERS),
        (text(TextRegressor), np.column_stack([NUMBERS, -NUMBERS])),
        (image(ImageRegressor), NUMBERS[:, None]),
        (text(), np.column_stack([NUMBERS > 3, NUMBERS > 9]).astype(int)),
        (image(), np.column_stack([KINDS, NUMBERS > 9])),
        (text(), pd.DataFrame({"kind": KINDS, "more": NUMBERS > 9})),
        (text(class_weight={1: 2.0, 0: 1.0}), (NUMBERS > 9).astype(np.int32)),
        (text(class_weight="balanced"), NUMBERS > 9),
        (text(), (NUMBERS > 9).astype(float)),
        (text(), KINDS.astype(object)),
        (text(early_stopping=True, validation_fraction=0.4), KINDS),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else None,
)
def test_round_trip(model: Any, y: Any, tmp_path: Path) -> None:
    X = TEXTS if isinstance(model, (TextClassifier, TextRegressor)) else PICTURES
    model.fit(X, y).save(tmp_path / "new" / "folder")
    loaded = type(model).load(tmp_path / "new" / "folder")
    assert_same(loaded, model, X)
    assert repr(loaded) == repr(model)
    if hasattr(model, "classes_"):
        pairs = [(loaded.classes_, model.classes_)]
        if isinstance(model.classes_, list):
            pairs = list(zip(loaded.classes_, model.classes_, strict=True))
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "vit", "resnet", "convnext", "efficientnet"])
def test_pretrained_model_needs_its_folder_no_more(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pretrained"
    shutil.copytree(folders[name], folder)
    cls, X = (TextClassifier, TEXTS) if name in test_pretrained.TEXT_CONFIGS else (ImageClassifier, PICTURES)
    model = cls(pretrained=str(folder), max_epochs=1, random_state=0)
    if cls is TextClassifier:
        model.set_params(max_length=16)
    model.fit(X, KINDS).save(tmp_path / "model")
    shutil.rmtree(folder)
    assert_same(cls.load(tmp_path / "model"), model, X)


def test_callable_backbone_is_given_again(tmp_path: Path) -> None:
    for model, X, backbone in [
        (text(backbone=WordVectors), TEXTS, WordVectors),
        (image(backbone=Convolution), PICTURES, Convolution),
    ]:
        folder = tmp_path / type(model).__name__
        model.fit(X, KINDS).save(folder)
        assert_same(type(model).load(folder, backbone=backbone), model, X)
        with pytest.raises(ConfigurationError, match=r"callable backbone; give it again: load\(folder, backbone"):
            type(model).load(folder)
        with pytest.raises(ModelFileError, match="damaged"):
            type(model).load(folder, backbone=Convolution if backbone is WordVectors else WordVectors)


def test_names_of_columns_are_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame({"title": TEXTS})
    model = text().fit(frame, KINDS)
    model.save(tmp_path)
    loaded = TextClassifier.load(tmp_path)
    assert loaded.feature_names_in_.tolist() == ["title"]
    assert loaded.n_features_in_ == 1
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    with pytest.raises(ValueError, match="'title' was fitted"):
        loaded.predict(frame.rename(columns={"title": "other"}))


def test_loaded_model_goes_on_learning(saved: Path, fitted: TextClassifier) -> None:
    loaded = TextClassifier.load(saved)
    loaded.partial_fit(TEXTS, KINDS)
    assert loaded.history_["epoch"].tolist() == [1, 2]
    assert np.abs(loaded.predict_proba(TEXTS) - fitted.predict_proba(TEXTS)).max() > 1e-6


def test_load_leaves_the_random_state_alone(saved: Path) -> None:
    before = torch.random.get_rng_state()
    TextClassifier.load(saved)
    assert torch.random.get_rng_state().equal(before)


# The folder


def test_nothing_is_pickled(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == FILES
    state = json.loads((saved / "estimator.json").read_text(encoding="utf-8"))
    assert state["format_version"] == 3
    weights = (saved / "weights.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    assert "head.linear.weight" in header


def test_save_over_an_older_one(tmp_path: Path) -> None:
    text(backbone="bert").fit(TEXTS, KINDS).save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    model = image().fit(PICTURES, KINDS)
    model.save(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "notes.txt"}
    assert_same(ImageClassifier.load(str(tmp_path)), model, PICTURES)


@pytest.mark.parametrize(("name", "value"), [("random_state", np.random.RandomState(0)), ("class_weight", {"a": {1}})])
def test_parameter_without_a_json_form(name: str, value: Any, fitted: TextClassifier, tmp_path: Path) -> None:
    model = text().fit(TEXTS, KINDS).set_params(**{name: value})
    with pytest.raises(ConfigurationError, match=f"{name}=.* has no JSON form"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    fitted.save(tmp_path / "model")
    with pytest.raises(ConfigurationError):
        model.save(tmp_path / "model")
    assert_same(TextClassifier.load(tmp_path / "model"), fitted, TEXTS)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES


def test_labels_without_a_json_form(tmp_path: Path) -> None:
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03"] * 5, dtype="datetime64[D]")
    with pytest.raises(ConfigurationError, match="no JSON form"):
        text().fit(TEXTS, days).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_not_fitted(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        text().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_killed_while_writing(saved: Path, fitted: TextClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("mmensemble_estimators.storage.folder.save_model", full)
    with pytest.raises(OSError, match="no space left"):
        text(backbone="lstm").fit(TEXTS, KINDS).save(saved)
    assert {path.name for path in saved.iterdir()} == FILES
    assert_same(TextClassifier.load(saved), fitted, TEXTS)


# Damage


@pytest.mark.parametrize("name", sorted(FILES - {"SHA256SUMS"}))
def test_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        TextClassifier.load(saved)


def test_digests(saved: Path, fitted: TextClassifier) -> None:
    lines = (saved / "SHA256SUMS").read_text().splitlines()
    assert lines == [
        f"{hashlib.sha256((saved / name).read_bytes()).hexdigest()}  {name}"
        for name in ("weights.safetensors", "estimator.json")
    ]
    (saved / "SHA256SUMS").unlink()
    with pytest.raises(ModelFileError, match="has no SHA256SUMS"):
        TextClassifier.load(saved)
    state = json.loads((saved / "estimator.json").read_text(encoding="utf-8"))
    (saved / "estimator.json").write_text(json.dumps({**state, "format_version": 2}), encoding="utf-8")
    assert_same(TextClassifier.load(saved), fitted, TEXTS)  # written before there were any


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_byte_can_change_without_a_word(saved: Path, name: str) -> None:
    content, rng = (saved / name).read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(content), 40):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(0, 8))
        (saved / name).write_bytes(changed)
        with pytest.raises((ModelFileError, FileNotFoundError)):
            TextClassifier.load(saved)
    for size in rng.integers(0, len(content), 5):
        (saved / name).write_bytes(content[:size])
        with pytest.raises((ModelFileError, FileNotFoundError)):
            TextClassifier.load(saved)


def test_digests_of_files_elsewhere_are_not_taken(saved: Path) -> None:
    with (saved / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ../../secret\n")
    with pytest.raises(ModelFileError, match="SHA256SUMS is damaged"):
        TextClassifier.load(saved)


def test_killed_between_two_files(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(source: Any, target: Path) -> None:
        if target.name == "estimator.json":
            raise KeyboardInterrupt
        shutil.move(source, target)

    monkeypatch.setattr("mmensemble_estimators.storage.folder.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        text(max_epochs=2).fit(TEXTS, KINDS).save(saved)  # its weights have the same shapes
    with pytest.raises(ModelFileError, match=r"estimator\.json is not what save wrote"):
        TextClassifier.load(saved)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TextClassifier.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'{"format_version": "x", "class": "TextClassifier"}'],
)
def test_damaged_json(saved: Path, content: bytes) -> None:
    (saved / "estimator.json").write_bytes(content)
    sum_anew(saved)
    with pytest.raises(ModelFileError):
        TextClassifier.load(saved)


KEYS = [
    "format_version",
    "class",
    "params",
    "architecture",
    "normalised",
    "target",
    "preprocessor",
    "history",
    "feature_names_in",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["absent", "nonsense", {"nonsense": 1}])
def test_damaged_entry(saved: Path, key: str, value: Any) -> None:
    state = json.loads((saved / "estimator.json").read_text(encoding="utf-8"))
    if value == "absent":
        del state[key]
    else:
        state[key] = value
    (saved / "estimator.json").write_text(json.dumps(state), encoding="utf-8")
    sum_anew(saved)
    with pytest.raises(ModelFileError):
        TextClassifier.load(saved)


@pytest.mark.parametrize("size", [0, 4, 100, -100])
def test_truncated_weights(saved: Path, size: int) -> None:
    content = (saved / "weights.safetensors").read_bytes()
    (saved / "weights.safetensors").write_bytes(content[:size])
    sum_anew(saved)
    with pytest.raises(ModelFileError, match="damaged"):
        TextClassifier.load(saved)


def test_weights_of_another_network(saved: Path, tmp_path: Path) -> None:
    text(backbone="lstm").fit(TEXTS, KINDS).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "weights.safetensors", saved)
    with pytest.raises(ModelFileError, match=r"weights\.safetensors is not what save wrote"):
        TextClassifier.load(saved)
    sum_anew(saved)
    with pytest.raises(ModelFileError, match="damaged"):
        TextClassifier.load(saved)


def test_another_class(saved: Path) -> None:
    for cls in (TextRegressor, ImageClassifier):
        with pytest.raises(ModelFileError, match=r"holds a TextClassifier; load it by TextClassifier\.load"):
            cls.load(saved)


def test_newer_version(saved: Path) -> None:
    state = json.loads((saved / "estimator.json").read_text(encoding="utf-8"))
    (saved / "estimator.json").write_text(json.dumps({**state, "format_version": 4}), encoding="utf-8")
    sum_anew(saved)
    with pytest.raises(ModelFileError, match="format version 4 and this mmensemble reads up to 3; upgrade"):
        TextClassifier.load(saved)


def test_version_1() -> None:
    # Written before heads on frozen backbones normalised embeddings; this is one of them.
    loaded = TextClassifier.load(Path(__file__).parent / "format_1", backbone=WordSum)
    assert loaded.fine_tune == "head"
    expected = [[0.833787, 0.166213], [0.110194, 0.889806], [0.974292, 0.025708], [0.666894, 0.333106], [0.5, 0.5]]
    np.testing.assert_allclose(loaded.predict_proba([*TEXTS[:4], None]), expected, atol=1e-5)


def test_load_reads_no_pretrained_folder(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TextClassifier(pretrained=Path(folders["bert"]), max_length=16, max_epochs=1).fit(TEXTS, KINDS)
    model.save(tmp_path)
    monkeypatch.setattr(AutoModel, "from_pretrained", None)
    assert TextClassifier.load(tmp_path).pretrained == folders["bert"]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    model = text().fit(TEXTS, KINDS)
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "weights.safetensors").write_text("of somebody else")
    with pytest.raises(
        ConfigurationError, match=r"holds other files, thesis\.txt among them.* a new or an empty folder"
    ):
        model.save(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
        "thesis.txt": "years of work",
        "weights.safetensors": "of somebody else",
    }
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty", tmp_path / "new" / "deep"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        model.save(folder)
        assert {file.name for file in folder.iterdir()} == FILES
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / ".gitattributes").touch()
    model.save(hidden)
    assert_same(TextClassifier.load(hidden), model, TEXTS)
