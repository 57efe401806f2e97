"""Write fitted models with the version of mmensemble that is installed, and what they answer, for later versions.

Run it with an old version's code, from its checkout::

    PYTHONPATH=.:estimators HF_HUB_OFFLINE=1 python tests/old_files/write_files.py version_0_1_0

The folder gets ``pickles/*.joblib``, ``folders/*/`` (what ``save`` writes) and ``onnx/*.onnx``, ``expected.json`` with
what each of them answers for `scored_rows`, and ``versions.json``. `test_old_files.py` reads them by a newer version
and asks them the same, by `scored_rows` and `answers` of this file. These two must stay as they are, for the answers
that are stored are theirs. Names of private modules are looked up when files are written, so that a version without
these modules can still import this file.

The fits are seeded. Files that are written again are not the same byte by byte, as histories hold durations and ONNX
files the time; and the networks may differ, as may the answers, on another machine. So a folder is written once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from transformers import GPT2Config, ResNetConfig, VideoMAEConfig, ViTConfig, Wav2Vec2Config, WhisperConfig

import mmensemble
from mmensemble import (
    EnsembleSelection,
    HardVoting,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    export_onnx,
    on_column,
)
from mmensemble_estimators import (
    AttentionFusion,
    AudioClassifier,
    AudioRegressor,
    BilinearFusion,
    CausalLM,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    ImageCaptioner,
    ImageClassifier,
    ImageRegressor,
    Seq2SeqGenerator,
    TextClassifier,
    TextRegressor,
    VideoClassifier,
    VideoRegressor,
    ZeroShotTextClassifier,
)

# A file may be so large, in bytes, and all of them together.
LARGEST, LARGEST_IN_ALL = 150_000, 1_500_000

KINDS = ["animal", "fruit", "vehicle"]
NOUNS = {"animal": ["cat", "dog", "fox"], "fruit": ["apple", "pear", "plum"], "vehicle": ["bus", "car", "train"]}
COLOURS = ["red", "green", "blue"]
NUMBERS = ["weight", "price"]
FACTS = ["colour", *NUMBERS]

SAMPLING_RATE = 16000

# The rows that lack a cell, of those that are fitted and of those that are scored; row 7 lacks them all.
MISSING = {
    "name": [1, 7],
    "colour": [3, 5, 7],
    "weight": [3, 7],
    "price": [3, 4, 7],
    "picture": [2, 7],
    "sound": [6, 7],
    "clip": [0, 7],
}


# ----------------------------------------------------------------------------------------------------------------------
# Rows and answers, for this script and for the test
# ----------------------------------------------------------------------------------------------------------------------


def fit_rows() -> tuple[pd.DataFrame, np.ndarray]:
    """Return what everything is fitted to: 30 rows, and the kind of each."""
    return _rows(30, seed=0)


def scored_rows() -> pd.DataFrame:
    """Return the 8 rows that are scored."""
    return _rows(8, seed=1)[0]


def _rows(n_rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    # The numbers of a RandomState stay the same in all versions of numpy; those of a Generator need not.
    rng = np.random.RandomState(seed)
    kinds = [KINDS[row % len(KINDS)] for row in range(n_rows)]
    columns: dict[str, list[Any]] = {name: [] for name in MISSING}
    for row, kind in enumerate(kinds):
        number = KINDS.index(kind)
        colour = rng.randint(len(COLOURS))
        columns["name"].append(f"a {COLOURS[colour]} {NOUNS[kind][rng.randint(3)]}")
        columns["colour"].append(COLOURS[colour])
        columns["weight"].append(round(float(10.0**number * (1 + rng.rand())), 2))
        columns["price"].append(round(float(5.0 * rng.rand() + 3.0 * number), 2))
        # Brighter by kind, in the channel of the colour; every third is grey.
        picture = rng.randint(60, size=(32, 32, 3)) + 60 * number
        picture[:, :, colour] += 70
        columns["picture"].append(picture.astype(np.uint8) if row % 3 else picture[:, :, colour].astype(np.uint8))
        # Higher by kind, and of several lengths.
        times = np.arange(1200 + 300 * rng.randint(4)) / SAMPLING_RATE
        tone = 0.5 * np.sin(2 * np.pi * 300.0 * 2**number * times) + 0.05 * rng.standard_normal(len(times))
        columns["sound"].append(tone.astype(np.float32))
        # What moves: down, to the right, or not.
        clip = [np.roll(picture, step * 4, axis=number) if number < 2 else picture for step in range(4 + row % 3)]
        columns["clip"].append(np.stack(clip).astype(np.uint8))
    for name, rows in MISSING.items():
        for row in rows:
            columns[name][row] = None
    frame = {name: pd.Series(cells, dtype=float if name in NUMBERS else object) for name, cells in columns.items()}
    return pd.DataFrame(frame), np.array(kinds)


def answers(model: Any, X: Any) -> dict[str, list[Any]]:
    """Return what a model says of rows, by method, as JSON values: numbers or strings in one or two axes."""
    given = {}
    for method in ("predict", "predict_proba", "transform"):
        if hasattr(model, method):
            given[method] = getattr(model, method)(X)
    if hasattr(model, "generate"):
        given["greedy"] = model.generate(X, max_new_tokens=6, temperature=0)
        given["sampled"] = model.generate(X, max_new_tokens=6, num_return_sequences=2, top_k=20, random_state=0)
        given["beams"] = model.generate(X, max_new_tokens=6, num_beams=2)
    # Several columns of labels have an array each.
    joined = {name: np.hstack(value) if isinstance(value, list) else value for name, value in given.items()}
    return {
        name: (value.astype(np.float64).round(7) if value.dtype.kind == "f" else value).tolist()
        for name, value in joined.items()
    }


# ----------------------------------------------------------------------------------------------------------------------
# Small networks
# ----------------------------------------------------------------------------------------------------------------------


@contextmanager
def small_networks() -> Iterator[None]:
    """Make the networks that the library builds itself of 8 features, where they have 128.

    Their classes are the same, and what is stored of them does not look at these constants when it is read. The
    exceptions are the ResNet over spectrograms and the network over frames: what ``save`` writes of them does, so
    they are pickled and exported only.
    """
    backbones = "mmensemble_estimators.backbones"
    changed = {
        f"{backbones}.text.SIZE": SIZE,
        f"{backbones}.decoders.SIZE": SIZE,
        f"{backbones}.sequence_to_sequence.SIZE": SIZE,
        f"{backbones}.spectrogram_resnet.CHANNELS": (4, 4, SIZE),
        f"{backbones}.video.SIZE": SIZE,
        f"{backbones}.video.IMAGE_BACKBONES": {"cnn": lambda image_size, n_channels: resnet(num_channels=n_channels)},
    }
    with ExitStack() as stack:
        for name, value in changed.items():
            stack.enter_context(mock.patch(name, value))
        yield


# Epochs of what writes, and of what is trained together.
LONGER = {"max_epochs": 50, "learning_rate": 2e-2}

# Features of the networks that the library builds itself.
SIZE = 8

TRAINING = {"max_epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "device": "cpu", "random_state": 0}
WORDS = {"vocab_size": 260, "max_length": 24}


def gpt() -> GPT2Config:
    return GPT2Config(n_embd=4, n_inner=8, n_layer=1, n_head=2, n_positions=24)


def resnet(**more: Any) -> ResNetConfig:
    return ResNetConfig(embedding_size=2, hidden_sizes=[2, SIZE], depths=[1, 1], layer_type="basic", **more)


def vit() -> ViTConfig:
    return ViTConfig(
        image_size=32, patch_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )


def whisper() -> WhisperConfig:
    return WhisperConfig(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, num_mel_bins=40,
        max_source_positions=20, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=8, vocab_size=16,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip


def wav2vec2() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(8, 8), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip


def videomae() -> VideoMAEConfig:
    return VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16, decoder_hidden_size=8, decoder_num_hidden_layers=1,
    )  # fmt: skip


def text(**params: Any) -> TextClassifier:
    return TextClassifier(**{**TRAINING, **WORDS, "backbone": gpt(), **params})


def image(**params: Any) -> ImageClassifier:
    return ImageClassifier(**{**TRAINING, "backbone": resnet(), "image_size": 32, **params})


def audio(**params: Any) -> AudioClassifier:
    return AudioClassifier(**{**TRAINING, "max_seconds": 0.2, **params})


def video(**params: Any) -> VideoClassifier:
    return VideoClassifier(**{**TRAINING, "n_frames": 4, "image_size": 32, **params})


def language_model(**params: Any) -> CausalLM:
    size = {"max_length": 64, "n_layers": 1, "n_heads": 2, "embedding_size": 4}
    return CausalLM(**{**TRAINING, **LONGER, **WORDS, **size, **params})


def translator(**params: Any) -> Seq2SeqGenerator:
    return Seq2SeqGenerator(**{**TRAINING, **LONGER, **WORDS, **params})


def captioner(**params: Any) -> ImageCaptioner:
    return ImageCaptioner(**{**TRAINING, **LONGER, **WORDS, "backbone": resnet(), "image_size": 32, **params})


def zero_shot(model: CausalLM, **params: Any) -> ZeroShotTextClassifier:
    return ZeroShotTextClassifier(
        FrozenEstimator(model), template="{text}: {label}", example_length=16, device="cpu", random_state=0, **params
    )


# ----------------------------------------------------------------------------------------------------------------------
# What is fitted to what
# ----------------------------------------------------------------------------------------------------------------------


def tfidf(final: Any = None) -> Any:
    return make_pipeline(TfidfVectorizer(), LogisticRegression() if final is None else final)


def numbers(final: Any = None) -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression() if final is None else final)


def facts(final: Any = None) -> Any:
    columns = ColumnTransformer(
        [
            ("colour", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        ]
    )
    return make_pipeline(columns, LogisticRegression() if final is None else final)


def forest() -> Any:
    return make_pipeline(SimpleImputer(), RandomForestClassifier(n_estimators=3, max_depth=2, random_state=0))


def late(fusion: Any, final: Any = None) -> MultimodalClassifier:
    """Return members of scikit-learn's alone."""
    return MultimodalClassifier([("text", tfidf(final), "name"), ("facts", facts(final), FACTS)], fusion=fusion)


def regressors(fusion: Any) -> MultimodalRegressor:
    return MultimodalRegressor([("text", tfidf(Ridge()), "name"), ("facts", facts(Ridge()), FACTS)], fusion=fusion)


def networks(fusion: Any, **of_text: Any) -> MultimodalClassifier:
    """Return members with networks, and numbers."""
    return MultimodalClassifier(
        [("text", text(**of_text), "name"), ("image", image(), "picture"), ("facts", numbers(), NUMBERS)],
        fusion=fusion,
    )


def network_regressors(fusion: Any) -> MultimodalRegressor:
    members = [
        ("text", TextRegressor(**TRAINING, **WORDS, backbone=gpt()), "name"),
        ("facts", numbers(Ridge()), NUMBERS),
    ]
    return MultimodalRegressor(members, fusion=fusion)


def joint(fusion: type, **params: Any) -> Any:
    return fusion(hidden_size=4, batch_size=16, device="cpu", random_state=0, **LONGER, **params)


def two_kinds(kinds: np.ndarray) -> np.ndarray:
    return np.where(kinds == "fruit", "edible", "inedible")


def several_labels(kinds: np.ndarray) -> np.ndarray:
    return np.column_stack([kinds == "animal", kinds != "fruit"]).astype(int)


def columns_of_labels(kinds: np.ndarray) -> np.ndarray:
    return np.column_stack([kinds, two_kinds(kinds)])


def a_number(kinds: np.ndarray) -> np.ndarray:
    return np.array([1.0 + 2.0 * KINDS.index(kind) for kind in kinds])


def two_numbers(kinds: np.ndarray) -> np.ndarray:
    return np.column_stack([a_number(kinds), 0.5 * (kinds == "fruit")])


def sentences(X: pd.DataFrame, kinds: np.ndarray) -> pd.Series:
    written = [f"{name}: {kind}" for name, kind in zip(X["name"], kinds, strict=True) if name is not None]
    return pd.Series(written, dtype=object, name="name")


@functools.cache
def fitted_language_model() -> CausalLM:
    return language_model().fit(sentences(*fit_rows()))


def fitted_models() -> dict[str, tuple[str | None, Any]]:
    """Return by name what a model takes, one column's cells or the whole frame (None), and the model, fitted."""
    X, kinds = fit_rows()
    models: dict[str, tuple[str | None, Any]] = {}

    def fit(name: str, estimator: Any, y: np.ndarray, column: str | None = None) -> None:
        print("fit", name, flush=True)
        models[name] = column, estimator.fit(X if column is None else X[column], y)

    labels, columns = several_labels(kinds), columns_of_labels(kinds)
    one_vs_rest, one_by_one = OneVsRestClassifier(LogisticRegression()), MultiOutputClassifier(LogisticRegression())

    # Late strategies over scikit-learn's estimators; together these have each task that a model keeps.
    fit("soft_voting", late(SoftVoting(weights=[2, 1])), kinds)
    fit("hard_voting", late(HardVoting(weights=[1, 1.5])), kinds)
    fit("product_of_experts_of_labels", late(ProductOfExperts(), one_vs_rest), labels)
    fit("ensemble_selection_of_columns", late(EnsembleSelection(n_rounds=5, cv=2), one_by_one), columns)
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    fit("stacking_with_passthrough", late(Stacking(scaled, cv=2, passthrough=NUMBERS)), kinds)
    fit("stacking_of_numbers", regressors(Stacking(cv=2)), a_number(kinds))
    fit("median_of_two_numbers", regressors(HardVoting()), two_numbers(kinds))
    nested = MultimodalClassifier([("late", late(None), ["name", *FACTS]), ("forest", forest(), NUMBERS)])
    fit("nested", nested, kinds)
    fit("grid_search", GridSearchCV(late(None), {"fusion": [SoftVoting(), ProductOfExperts()]}, cv=2), kinds)
    fit("calibrated", CalibratedClassifierCV(late(SoftVoting()), cv=2), kinds)
    fit("threshold", FixedThresholdClassifier(late(SoftVoting()), threshold=0.3, pos_label="edible"), two_kinds(kinds))
    fit("on_column", on_column(NUMBERS, numbers()), kinds)
    members = [("forest", on_column(NUMBERS, forest())), ("facts", on_column(FACTS, facts()))]
    fit("stacking_classifier", StackingClassifier(members, cv=2), kinds)
    fit("votes", VotingClassifier([*members, ("linear", on_column(NUMBERS, numbers()))], voting="hard"), kinds)

    # Networks alone.
    head = {"pretrained": "language_model", "fine_tune": "head", **LONGER}
    fit("text_gpt", text(backbone="gpt"), kinds, "name")
    fit("text_lstm", text(backbone="lstm", pooling="last"), columns, "name")
    fit("text_config", text(pooling="max"), labels, "name")
    fit("text_head", text(**head), kinds, "name")
    fit("text_regressor", TextRegressor(**TRAINING, **WORDS, backbone=gpt()), a_number(kinds), "name")
    fit("image", image(augmentation=("flip", "shift", "crop", "colour")), kinds, "picture")
    fit("image_vit", image(backbone=vit(), pooling="cls"), labels, "picture")
    fit("image_regressor", ImageRegressor(**TRAINING, backbone=resnet(), image_size=32), two_numbers(kinds), "picture")
    fit("audio", audio(augmentation=("shift", "mask", "gain")), kinds, "sound")
    fit("audio_whisper", audio(backbone=whisper()), kinds, "sound")
    fit("audio_regressor", AudioRegressor(**TRAINING, backbone=wav2vec2(), max_seconds=0.2), a_number(kinds), "sound")
    fit("video", video(), kinds, "clip")
    fit("video_mae", video(backbone=videomae()), kinds, "clip")
    fit("video_regressor", VideoRegressor(**TRAINING, backbone=videomae()), a_number(kinds), "clip")

    # Texts that are read with a module of a user's; which is the library's own here, for a pickle needs its code.
    text_backbones = importlib.import_module("mmensemble_estimators.backbones.text")
    given = functools.partial(text_backbones.build_lstm_of, vocab_size=260, size=8, pooling="mean")
    fit("text_callable", text(backbone=given), kinds, "name")
    models["text_callable"][1].backbone = "lstm"  # it was called, and a private function is not to be pickled by name

    # Networks side by side, and joined.
    fit("soft_voting_of_networks", networks(SoftVoting()), kinds)
    fit("concat_fusion", networks(joint(ConcatFusion)), kinds)
    fit("attention_fusion_of_frozen_text", networks(joint(AttentionFusion, n_heads=2, frozen_epochs=1), **head), kinds)
    fit("gated_fusion_of_columns", networks(joint(GatedFusion)), columns)
    fit("bilinear_fusion_of_numbers", network_regressors(joint(BilinearFusion, rank=2)), two_numbers(kinds))
    of_tokens = [("text", text(**head), "name"), ("image", image(), "picture")]
    fusion = joint(CrossAttentionFusion, n_heads=2)
    fit("cross_attention_fusion_of_labels", MultimodalClassifier(of_tokens, fusion=fusion), labels)
    of_all = [
        ("text", text(), "name"),
        ("image", image(), "picture"),
        ("tfidf", tfidf(), "name"),
        ("facts", facts(), FACTS),
        ("forest", forest(), NUMBERS),
    ]
    fit("stacking_of_all", MultimodalClassifier(of_all, fusion=Stacking(cv=2)), kinds)
    heard_and_seen = [("audio", audio(), "sound"), ("video", video(), "clip")]
    fit("sound_and_clip", MultimodalClassifier(heard_and_seen, fusion=SoftVoting()), kinds)

    # What writes.
    written = np.array([f"this is a {kind}" for kind in kinds])
    models["causal_lm"] = "name", fitted_language_model()
    fit("seq2seq", translator(), written, "name")
    fit("seq2seq_lstm", translator(backbone="lstm"), written, "name")
    fit("captioner", captioner(), written, "picture")
    fit("captioner_lstm", captioner(text_decoder="lstm"), written, "picture")
    fit("zero_shot", zero_shot(fitted_language_model()), kinds, "name")
    fit("few_shot", zero_shot(fitted_language_model(), n_examples=2), kinds, "name")
    return models


# Those that `save` and `load` are for.
SAVED = [
    "text_lstm", "text_head", "text_regressor", "image", "audio_whisper", "audio_regressor", "video_mae", "causal_lm",
    "seq2seq", "captioner_lstm", "few_shot",
]  # fmt: skip

# Those that are exported: together they have each task, and each kind of preprocessor.
EXPORTED = [
    "stacking_of_all", "hard_voting", "stacking_with_passthrough", "stacking_of_numbers", "median_of_two_numbers",
    "product_of_experts_of_labels", "ensemble_selection_of_columns", "threshold", "votes", "concat_fusion",
    "sound_and_clip", "text_lstm", "causal_lm", "seq2seq_lstm", "zero_shot",
]  # fmt: skip


def write(folder: Path) -> None:
    """Write all files."""
    for name in ("pickles", "folders", "onnx"):
        (folder / name).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        started = Path.cwd()
        os.chdir(place)  # so that the name of the pretrained folder is no path of this machine
        try:
            with small_networks():
                fitted_language_model().save("language_model")
                models = fitted_models()
        finally:
            os.chdir(started)
    X = scored_rows()
    expected = {}

    def note(file: Path, column: str | None, model: Any) -> None:
        given = answers(model, X if column is None else X[column])
        expected[file.relative_to(folder).as_posix()] = {"column": column, "answers": given}

    for name, (column, model) in models.items():
        file = folder / "pickles" / f"{name}.joblib"
        joblib.dump(model, file, compress=3)
        note(file, column, model)
    for name in SAVED:
        file = folder / "folders" / name
        column, model = models[name]
        model.save(file)
        note(file, column, model)
    for name in EXPORTED:
        print("export", name, flush=True)
        file = folder / "onnx" / f"{name}.onnx"
        column, model = models[name]
        export_onnx(model, file, verify=X if column is None else X[[column]])
        # Its columns are found by name, so it gets the whole frame.
        note(file, None, OnnxPredictor(file, device="cpu"))
    # A line for each answer.
    lines = json.dumps(expected, indent=1).split("\n")
    (folder / "expected.json").write_text(_shortened(lines), encoding="utf-8")
    packages = ("scikit-learn", "torch", "transformers", "numpy", "pandas", "joblib", "onnx", "onnxruntime-gpu")
    versions = {"mmensemble": mmensemble.__version__, "python": platform.python_version()}
    versions.update({package: importlib.metadata.version(package) for package in packages})
    (folder / "versions.json").write_text(json.dumps(versions, indent=1) + "\n", encoding="utf-8")


def _shortened(lines: list[str]) -> str:
    """Put the lines of a JSON text that are deeper than the answers' names behind these."""
    joined = []
    for line in lines:
        if line.startswith("    ") or line in ("   ]", "   ],"):
            joined[-1] += line.strip()
        else:
            joined.append(line)
    return "\n".join(joined) + "\n"


def check_sizes(folder: Path) -> None:
    """Print all sizes; fail where a file is too large."""
    sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, size in sizes.items():
        print(f"{size:8d} {path.relative_to(folder).as_posix()}")
    print(f"{sum(sizes.values()):8d} in all")
    large = [path.name for path, size in sizes.items() if size > LARGEST]
    if large or sum(sizes.values()) > LARGEST_IN_ALL:
        raise SystemExit(f"too large: {large or 'all together'}")


if __name__ == "__main__":
    torch.set_num_threads(1)  # networks this small are slower on several
    warnings.simplefilter("error")
    write(Path(sys.argv[1]))
    check_sizes(Path(sys.argv[1]))
