from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from sklearn.ensemble import StackingClassifier, VotingClassifier
from transformers import (
    AutoModel,
    BertConfig,
    HubertConfig,
    PreTrainedConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from mmensemble import (
    ConfigurationError,
    DataError,
    MultimodalClassifier,
    OnnxPredictor,
    SoftVoting,
    export_onnx,
    on_column,
    score_file,
)
from mmensemble.preprocessing import AudioPreprocessor
from mmensemble_estimators import (
    AudioClassifier,
    AudioRegressor,
    ConcatFusion,
)
from mmensemble_estimators.audio import AudioModality
from mmensemble_estimators.backbones.audio import audio_encoder_from_config
from mmensemble_estimators.base.rows import arrays_of
from tests.conftest import ALL_MISSING, WITHOUT_NAME, WITHOUT_SOUND
from tests.instances import NUMBERS, Bands, ast, imputed_numbers, text, wav2vec2, whisper

RATE = 16000
RNG = np.random.default_rng(0)
# Noise of many lengths, high and low in turn.
SOUNDS = [
    np.diff(RNG.standard_normal(n + 1), prepend=0.0)[:n] * 0.1 if i % 2 else RNG.standard_normal(n).cumsum() * 0.005
    for i, n in enumerate(RNG.integers(1500, 19000, 12))
]
LABELS = ["low", "high"] * 6

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 4),
    "conv_stride": (8, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "whisper": whisper(),
    "ast": ast(),
    "wav2vec2": wav2vec2(),
    "wav2vec2_large": Wav2Vec2Config(**TINY, feat_extract_norm="layer", do_stable_layer_norm=True),
    "hubert": HubertConfig(**TINY),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "whisper": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 40, "chunk_length": 0.8},
    "ast": {
        "feature_extractor_type": "ASTFeatureExtractor",
        "num_mel_bins": 40,
        "max_length": 60,
        "mean": -4.0,
        "std": 3.0,
    },
    "wav2vec2": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
    "wav2vec2_large": {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False},
    "hubert": {"feature_extractor_type": "Wav2Vec2FeatureExtractor"},
}


def classifier(**changes: Any) -> AudioClassifier:
    return AudioClassifier(**{"max_seconds": 0.6, "max_epochs": 2, "batch_size": 8, "random_state": 0, **changes})


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="module")
def fitted() -> AudioClassifier:
    """Shared: do not change it."""
    return classifier().fit(SOUNDS, LABELS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name → folder with a tiny pretrained model, whose weights are none that a model starts from."""
    made = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, config in CONFIGS.items():
            folder = tmp_path_factory.mktemp(name)
            model = AutoModel.from_config(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": RATE, **PROCESSORS[name]}))
            made[name] = str(folder)
    return made


# Learning


@pytest.mark.parametrize("backbone", ["cnn", "ast"])
def test_learns_from_scratch(backbone: str) -> None:
    clf = AudioClassifier(backbone=backbone, max_epochs=10, learning_rate=2e-3, batch_size=2, random_state=0)
    clf.fit(SOUNDS[:8], LABELS[:8])
    assert clf.score(SOUNDS[8:], LABELS[8:]) == 1.0
    assert clf.history_["train_loss"].iloc[-1] < clf.history_["train_loss"].iloc[0]


def test_where_in_the_spectrum_something_is_matters() -> None:
    times = np.arange(RATE // 2) / RATE
    pitches = np.geomspace(200, 3000, 24)
    reg = AudioRegressor(max_epochs=25, batch_size=8, augmentation=(), random_state=0)
    sounds = [np.sin(2 * np.pi * pitch * times) for pitch in pitches]
    assert reg.fit(sounds[::2], np.log(pitches[::2])).score(sounds[1::2], np.log(pitches[1::2])) > 0.8


# A row's embedding is that of the row alone


@pytest.mark.parametrize("name", ["cnn", *CONFIGS])
def test_a_short_sound_beside_a_long_one(name: str) -> None:
    config = CONFIGS.get(name)
    clf = classifier(backbone=name if config is None else config, fine_tune="head", max_epochs=1)
    embedded = clf.fit(SOUNDS, LABELS).transform(SOUNDS)
    assert len(np.unique(clf.preprocessor_.encode(SOUNDS).lengths)) > 4
    alone = np.concatenate([clf.transform([sound]) for sound in SOUNDS])
    np.testing.assert_allclose(embedded, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    assert embedded.std(axis=0).max() > 1e-3 * np.abs(alone).max()
    long = clf.preprocessor_.encode([min(SOUNDS, key=len), max(SOUNDS, key=len)])
    batch = {name: torch.from_numpy(array) for name, array in arrays_of(clf.preprocessor_, long, np.arange(2)).items()}
    with torch.no_grad():
        states, mask = clf.module_.encoder.tokens(**batch)
        assert states.shape[:2] == mask.shape
        assert mask[0].sum() < mask[1].sum() == mask.shape[1]


@pytest.mark.parametrize("name", ["cnn", "whisper", "wav2vec2"])
def test_what_stands_in_the_padding_is_not_seen(name: str) -> None:
    config = CONFIGS.get(name)
    clf = classifier(backbone="cnn" if config is None else config, max_epochs=1).fit(SOUNDS, LABELS)
    encoded = clf.preprocessor_.encode(SOUNDS)
    batch = {
        key: torch.from_numpy(array) for key, array in arrays_of(clf.preprocessor_, encoded, np.arange(12)).items()
    }
    with torch.no_grad():
        expected = clf.module_.encoder(**batch)
        values = next(tensor for key, tensor in batch.items() if key != "attention_mask")
        # A first convolution that reaches over a row's end finds zeros there.
        real = batch["attention_mask"].bool()
        beyond = ~real & ~torch.nn.functional.max_pool1d(real[:, None].float(), 21, 1, 10)[:, 0].bool()
        values[beyond] = 7.0
        torch.testing.assert_close(clf.module_.encoder(**batch), expected, rtol=0, atol=1e-5)


# Pretrained folders, against transformers


def reference(name: str, folder: str, sound: np.ndarray) -> np.ndarray:
    """What transformers makes of one sound, whose tables of positions are cut to its length."""
    clf = classifier(pretrained=folder, fine_tune="head", max_seconds=None)
    item = torch.from_numpy(clf.modality.fit_preprocessor(clf, []).encode([sound]).items[0])[None]
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        if name == "whisper":
            encoder = model.get_encoder()
            encoder.config.max_source_positions = n = (item.shape[1] + 1) // 2
            encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:n])
            # transformers wants an even number of frames; zeros are what a convolution finds beyond the last.
            even = torch.nn.functional.pad(item, (0, 0, 0, item.shape[1] % 2))
            if item.shape[1] % 2:
                return np.full(16, np.nan, dtype=np.float32)
            return encoder(even.transpose(1, 2)).last_hidden_state.mean(dim=1)[0].numpy()
        if name == "ast":
            table, bands, steps = model.embeddings.position_embeddings, *model.embeddings.get_shape(model.config)
            n = (item.shape[1] - 16) // 10 + 1
            kept = table[:, 2:].reshape(1, bands, steps, -1)[:, :, :n].flatten(1, 2)
            model.embeddings.position_embeddings = torch.nn.Parameter(torch.cat([table[:, :2], kept], dim=1))
            return model(item).pooler_output[0].numpy()
        return model(item).last_hidden_state.mean(dim=1)[0].numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_are_those_of_transformers(folders: dict[str, str], name: str) -> None:
    clf = classifier(pretrained=folders[name], fine_tune="head", max_seconds=None, max_epochs=1).fit(SOUNDS, LABELS)
    expected = np.stack([reference(name, folders[name], sound) for sound in SOUNDS])
    known = np.isfinite(expected).all(axis=1)
    assert known.sum() > 3
    np.testing.assert_allclose(clf.transform(SOUNDS)[known], expected[known], rtol=1e-4, atol=1e-4)


def test_whisper_on_a_sound_of_full_length(folders: dict[str, str]) -> None:
    """As transformers itself, with nothing cut."""
    clf = classifier(pretrained=folders["whisper"], fine_tune="head", max_seconds=None, max_epochs=1)
    sound = RNG.standard_normal(RATE) * 0.1
    embedded = clf.fit([sound, *SOUNDS], ["low", *LABELS]).transform([sound])
    features = torch.from_numpy(clf.preprocessor_.encode([sound]).items[0])[None].transpose(1, 2)
    assert features.shape == (1, 40, 80)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folders["whisper"]).get_encoder().eval()(features).last_hidden_state
    np.testing.assert_allclose(embedded, states.mean(dim=1), rtol=1e-4, atol=1e-4)


def test_exported_pretrained_model(folders: dict[str, str], tmp_path: Path) -> None:
    model = classifier(pretrained=folders["whisper"], max_seconds=None, learning_rate=1e-3).fit(SOUNDS, LABELS)
    export_onnx(model, tmp_path / "model.onnx")
    cells = [*SOUNDS, None, np.tile(SOUNDS[0], 9)]
    for batch_size in (1, 5):
        predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu", batch_size=batch_size)
        np.testing.assert_allclose(predictor.predict_proba(cells), model.predict_proba(cells), rtol=0, atol=1e-4)


def test_lora(folders: dict[str, str]) -> None:
    pytest.importorskip("peft")
    model = classifier(pretrained=folders["whisper"], max_seconds=None, fine_tune="lora", learning_rate=1e-2)
    before = AutoModel.from_pretrained(folders["whisper"]).get_encoder().state_dict()
    after = model.fit(SOUNDS, LABELS).module_.encoder.backbone.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "layers.0.fc1.weight" in changed
    assert not any("conv" in name for name in changed)


@pytest.mark.parametrize("name", ["cnn", "whisper", "wav2vec2", "pretrained"])
def test_save_and_load(folders: dict[str, str], tmp_path: Path, name: str) -> None:
    params = {"pretrained": folders["hubert"]} if name == "pretrained" else {"backbone": CONFIGS.get(name, name)}
    model = classifier(**params, max_epochs=1).fit(SOUNDS, LABELS)
    model.save(tmp_path / "model")
    loaded = AudioClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(SOUNDS), model.predict_proba(SOUNDS), rtol=0, atol=1e-6)
    assert repr(loaded) == repr(model)


def test_module_of_ones_own(tmp_path: Path) -> None:
    params = {"backbone": Bands, "learning_rate": 0.1, "augmentation": ("shift", "mask", "gain"), "max_epochs": 20}
    model = classifier(**params).fit(SOUNDS[:8], LABELS[:8])
    assert model.score(SOUNDS[8:], LABELS[8:]) == 1.0
    alone = np.concatenate([model.transform([sound]) for sound in SOUNDS])
    np.testing.assert_allclose(model.transform(SOUNDS), alone, rtol=0, atol=1e-5)
    model.save(tmp_path / "model")
    loaded = AudioClassifier.load(tmp_path / "model", backbone=Bands)
    np.testing.assert_allclose(loaded.predict_proba(SOUNDS), model.predict_proba(SOUNDS), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": BertConfig()}, "transformers' type 'bert' is not known as one of sounds"),
        ({"backbone": whisper(), "max_seconds": 1.0}, "max_seconds=1 is more than the 0.8"),
        ({"backbone": ast(), "max_seconds": 3.0}, "max_seconds=3 is more than the 0.6"),
    ],
)
def test_config_that_cannot_work(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        classifier(**params).fit(SOUNDS, LABELS)


def test_folder_that_cannot_work(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"sampling_rate=8000, and .* was trained on 16000"):
        classifier(pretrained=folders["whisper"], sampling_rate=8000).fit(SOUNDS, LABELS)
    with pytest.raises(ConfigurationError, match=r"there is no such folder"):
        classifier(pretrained=str(tmp_path / "nothing")).fit(SOUNDS, LABELS)
    with pytest.raises(ConfigurationError, match=r"has no preprocessor_config.json"):
        classifier(pretrained=str(tmp_path)).fit(SOUNDS, LABELS)
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "ClapFeatureExtractor"}')
    with pytest.raises(ConfigurationError, match="'ClapFeatureExtractor', which is none of"):
        classifier(pretrained=str(tmp_path)).fit(SOUNDS, LABELS)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_sampling_rate(rate: int) -> None:
    clf = classifier(sampling_rate=rate, max_epochs=1).fit(SOUNDS, LABELS)
    cells = [{"array": SOUNDS[2], "sampling_rate": RATE}]
    assert clf.preprocessor_.encode(cells).items[0].shape[1] == 64
    assert np.isfinite(clf.predict_proba(cells)).all()


# Cells

CELLS: dict[str, Callable[[bytes, Path], Any]] = {
    "path as str": lambda data, path: str(path),
    "bytes": lambda data, path: data,
    "dict of bytes": lambda data, path: {"bytes": data, "path": None},
    "dict of path": lambda data, path: {"bytes": None, "path": str(path)},
    "dict of array": lambda data, path: {"array": SOUNDS[1].astype(np.float32), "sampling_rate": RATE},
    "list": lambda data, path: SOUNDS[1].tolist(),
}


@pytest.mark.parametrize("kind", CELLS)
def test_cell_of_each_kind(fitted: AudioClassifier, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav(SOUNDS[1]))
    cell = CELLS[kind](wav(SOUNDS[1]), path)
    expected = fitted.predict_proba([SOUNDS[1]])
    np.testing.assert_allclose(fitted.predict_proba([cell]), expected, rtol=0, atol=1e-6)


def test_input_containers(fitted: AudioClassifier) -> None:
    expected = fitted.predict_proba(SOUNDS)
    encoded = [wav(sound) for sound in SOUNDS]
    structs = [{"bytes": cell, "path": None} for cell in encoded]
    arrays = [{"array": sound.tolist(), "sampling_rate": RATE} for sound in SOUNDS]
    for X in (
        tuple(SOUNDS),
        pd.Series(SOUNDS),
        pd.DataFrame({"speech": encoded}),
        pl.Series("speech", encoded),
        pl.DataFrame({"speech": structs}),
        pl.DataFrame({"speech": arrays}),
        pa.table({"speech": [sound.tolist() for sound in SOUNDS]}),
    ):
        np.testing.assert_allclose(fitted.predict_proba(X), expected, rtol=0, atol=1e-6)


def test_missing_sounds_are_left_out_and_get_the_prior(fitted: AudioClassifier) -> None:
    missing = [None, float("nan"), pd.NA, {"bytes": None, "path": None}]
    clf = classifier().fit([*SOUNDS, *missing], [*LABELS, "high", "high", "high", "high"])
    np.testing.assert_array_equal(clf.predict_proba(missing), [clf.class_prior_] * 4)
    assert clf.class_prior_.tolist() == [10 / 16, 6 / 16]
    assert (clf.transform(missing) == 0).all()
    np.testing.assert_allclose(clf.transform(SOUNDS), fitted.transform(SOUNDS), rtol=0, atol=1e-6)


def test_cell_that_cannot_be_read(fitted: AudioClassifier) -> None:
    with pytest.raises(DataError, match="row 2: the sound cannot be read: it has no samples"):
        fitted.predict([SOUNDS[0], None, np.zeros(0)])
    with pytest.raises(DataError, match="row 1, column 'speech': the sound cannot be read"):
        classifier().fit(pd.DataFrame({"speech": [SOUNDS[0], b"nothing", SOUNDS[1]]}), [0, 1, 0])


# Augmentation


def augmented(augmentation: Any, features: Any = "log_mel", seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each sound as it is and as it is varied, without padding."""
    clf = classifier(augmentation=augmentation)
    clf.preprocessor_ = AudioPreprocessor(features=features)
    encoded = clf.preprocessor_.encode(SOUNDS)
    batch = clf.modality.training_batch(clf, SOUNDS, encoded, np.arange(12), np.random.RandomState(seed))
    values = batch["input_values" if features == "waveform" else "input_features"]
    for row, item in zip(values, encoded.items, strict=True):
        assert not row[len(item) :].any(), "padding is left alone"
    return encoded.items, [row[: len(item)] for row, item in zip(values, encoded.items, strict=True)]


@pytest.mark.parametrize("features", ["log_mel", "filter_bank", "waveform"])
def test_no_augmentation(features: Any) -> None:
    for before, after in zip(*augmented((), features), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("features", ["log_mel", "waveform"])
def test_shift_moves_by_up_to_a_tenth(features: Any) -> None:
    moves = set()
    for before, after in zip(*augmented(("shift",), features), strict=True):
        n, reach = len(before), len(before) // 10
        silence = 0.0 if features == "waveform" else before.min()
        found = [
            by
            for by in range(-reach, reach + 1)
            if np.array_equal(after[max(by, 0) : n + min(by, 0)], before[max(-by, 0) : n - max(by, 0)])
            and (np.concatenate([after[: max(by, 0)], after[n + min(by, 0) :]]) == silence).all()
        ]
        assert len(found) == 1
        moves.add(found[0])
    assert min(moves) < 0 < max(moves)


def test_mask_blanks_spans_of_time_and_frequency() -> None:
    shares = []
    for before, after in zip(*augmented(("mask",)), strict=True):
        changed = after != before
        assert np.allclose(after[changed], before.mean(), atol=1e-6)
        shares.append(changed.mean())
    assert 0.05 < np.mean(shares) < 0.4
    for before, after in zip(*augmented(("mask",), "waveform"), strict=True):
        assert (after != before).mean() <= 0.25


def test_gain_is_what_a_louder_sound_gives() -> None:
    for features in ("log_mel", "filter_bank", "waveform"):
        for sound, before, after in zip(SOUNDS, *augmented(("gain",), features), strict=True):
            loudest = np.unravel_index(before.argmax(), before.shape)
            gains = np.geomspace(10 ** (-6 / 20), 10 ** (6 / 20), 13)
            audio = AudioPreprocessor(features=features)
            values = [audio.encode([sound * gain]).items[0][loudest] for gain in gains]
            assert min(values) - 1e-3 <= after[loudest] <= max(values) + 1e-3
            assert (after != before).any()


def test_augmentation_is_seeded_and_for_training_only(fitted: AudioClassifier, monkeypatch: Any) -> None:
    both = ("shift", "mask", "gain")
    for one, other in zip(augmented(both)[1], augmented(both)[1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((a != b).any() for a, b in zip(augmented(both)[1], augmented(both, seed=1)[1], strict=True))
    expected = fitted.predict_proba(SOUNDS)
    monkeypatch.setattr(AudioModality, "training_batch", None)
    np.testing.assert_array_equal(fitted.predict_proba(SOUNDS), expected)


# Parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("augmentation", ("flip",)),
        ("augmentation", "mask"),
        ("backbone", "vit"),
        ("max_seconds", 0.1),
        ("max_seconds", "10"),
        ("max_seconds", float("nan")),
        ("pooling", "cls"),
        ("sampling_rate", 3999),
        ("sampling_rate", 16000.0),
    ],
)
def test_parameter_that_cannot_work(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        classifier(**{name: value}).fit(SOUNDS, LABELS)


# In ensembles


@pytest.mark.parametrize("fusion", [SoftVoting(), ConcatFusion(max_epochs=1, random_state=0)], ids=["late", "joint"])
def test_late_and_joint_strategies_take_sounds(fusion: Any, items: pd.DataFrame, labels: np.ndarray) -> None:
    model = MultimodalClassifier(
        [("text", text(), "name"), ("audio", classifier(max_epochs=1), "sound")], fusion=fusion
    )
    probabilities = model.fit(items, labels).predict_proba(items)
    assert np.isfinite(probabilities).all()
    assert probabilities.shape == (88, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    without = items.assign(sound=None)
    changed = np.flatnonzero(np.abs(model.predict_proba(without) - probabilities).max(axis=1) > 1e-6)
    assert set(changed) <= set(range(88)) - {ALL_MISSING, *WITHOUT_SOUND}
    assert len(changed) > 60
    assert set(WITHOUT_NAME) & set(changed), "a sound alone counts"


def test_scikit_learns_ensembles_take_sounds(items: pd.DataFrame, labels: np.ndarray) -> None:
    members = [
        ("audio", on_column("sound", classifier(max_epochs=1))),
        ("facts", on_column(NUMBERS, imputed_numbers())),
    ]
    for model in (VotingClassifier(members, voting="soft"), StackingClassifier(members, cv=2)):
        probabilities = model.fit(items, labels).predict_proba(items)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


# Files


@pytest.fixture(scope="module")
def model_file(fitted: AudioClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(fitted, path)
    return path


def test_scores_of_a_file(fitted: AudioClassifier, model_file: Path, tmp_path: Path) -> None:
    paths, encoded = [], [wav(sound) for sound in SOUNDS]
    for number, data in enumerate(encoded):
        paths.append(str(tmp_path / f"{number}.wav"))
        Path(paths[-1]).write_bytes(data)
    expected = np.vstack([fitted.predict_proba(SOUNDS), [fitted.class_prior_]])
    columns = {
        "paths": pa.array([*paths, None]),
        "bytes": pa.array([*encoded, None]),
        "structs": pa.array([*({"bytes": data, "path": "x.wav"} for data in encoded), None]),
        "arrays": pa.array([*({"array": sound.tolist(), "sampling_rate": RATE} for sound in SOUNDS), None]),
    }
    for name, column in columns.items():
        source, scores = tmp_path / f"{name}.parquet", tmp_path / f"{name}_scores.parquet"
        pq.write_table(pa.table({"audio": column}), source)
        report = score_file(model_file, source, scores, device="cpu")
        assert (report.n_rows, report.n_errors) == (13, 0), name
        table = pq.read_table(scores)
        scored = np.column_stack([table[f"probability_{label}"] for label in fitted.classes_])
        np.testing.assert_allclose(scored, expected, rtol=0, atol=1e-4, err_msg=name)
    (tmp_path / "paths.csv").write_text("\n".join(["audio", *paths, "no/such.wav"]) + "\n", encoding="utf-8")
    report = score_file(model_file, tmp_path / "paths.csv", tmp_path / "csv_scores.parquet", device="cpu")
    assert (report.n_rows, report.n_errors) == (13, 1)
    errors = pq.read_table(tmp_path / "csv_scores.parquet")["error"].to_pylist()
    assert [error is None for error in errors] == [True] * 12 + [False]
    assert "the sound cannot be read: [Errno 2] No such file" in errors[12]


def test_graph_has_only_operators_with_kernels_for_cuda(model_file: Path) -> None:
    import onnx

    assert not {node.op_type for node in onnx.load(model_file).graph.node} & {"MaxPool", "AveragePool", "LpPool"}


def test_an_untrained_config_of_whisper_is_its_encoder_alone() -> None:
    encoder = audio_encoder_from_config(WhisperConfig(**{**whisper().to_dict(), "decoder_layers": 3}), pooling=None)
    assert not any("decoder" in name for name, _ in encoder.named_parameters())
