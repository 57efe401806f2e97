from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from transformers import (
    TimesformerModel,
    VideoMAEImageProcessor,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
    VivitConfig,
    VivitModel,
    VJEPA2Config,
    VJEPA2Model,
    WhisperConfig,
)

from mmensemble import (
    ConfigurationError,
    DataError,
    MultimodalClassifier,
    OnnxPredictor,
    Stacking,
    export_onnx,
    score_file,
)
from mmensemble.preprocessing import VideoPreprocessor
from mmensemble_estimators import (
    ConcatFusion,
    ImageClassifier,
    TextClassifier,
    VideoClassifier,
)
from mmensemble_estimators.backbones.image import HALF
from mmensemble_estimators.backbones.video import video_encoder_from_model
from tests.instances import Changes, Convolution, WordVectors, timesformer, videomae

SIZE, N_FRAMES = 32, 4


def classifier(**changes: Any) -> VideoClassifier:
    params = {"image_size": SIZE, "n_frames": N_FRAMES, "max_epochs": 2, "batch_size": 8, "random_state": 0}
    return VideoClassifier(**{**params, **changes})


def same_weights(one: Any, other: Any) -> bool:
    a, b = one.module_.state_dict(), other.module_.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Motion. The circle begins anywhere, so that the place in one frame says nothing.


def square_at(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a square of a random size and colour at these places (T, 2), on another colour."""
    side, ground = rng.integers(6, 10), rng.integers(0, 256, 3)
    colour = (ground + rng.integers(80, 176, 3)) % 256
    frames = np.empty((len(places), SIZE, SIZE, 3), dtype=np.uint8)
    frames[:] = ground
    for frame, (x, y) in zip(frames, np.rint(places).astype(int), strict=True):
        frame[np.ix_((y + np.arange(side)) % SIZE, (x + np.arange(side)) % SIZE)] = colour
    return frames


def circling(direction: int, rng: np.random.Generator) -> np.ndarray:
    """Move clockwise (1) or anticlockwise (-1), around a place near the middle, from any place of the circle."""
    angles = rng.uniform(0, 2 * np.pi) + direction * rng.uniform(0.25, 0.4) * np.arange(16)
    circle = rng.uniform(7, 10) * np.column_stack([np.cos(angles), np.sin(angles)])
    return square_at(rng.uniform(10, 18, 2) + circle, rng)


def as_film(frames: np.ndarray) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=8, options={"crf": "18"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def as_animation(frames: np.ndarray, kind: str = "GIF") -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=80)
    return file.getvalue()


N_FITTING = 240


@pytest.fixture(scope="module")
def circling_clips() -> tuple[list[bytes], np.ndarray]:
    rng = np.random.default_rng(0)
    directions = rng.choice([-1, 1], N_FITTING + 200)
    return [as_film(circling(direction, rng)) for direction in directions], directions


def picture_of(clip: bytes, number: int) -> np.ndarray:
    """One of the frames that the video estimator sees."""
    return VideoPreprocessor(size=SIZE).encode([clip]).items[0, number]


@pytest.mark.slow
def test_sees_motion(circling_clips: tuple[list[bytes], np.ndarray]) -> None:
    X, y = circling_clips
    clf = VideoClassifier(image_size=SIZE, random_state=0).fit(X[:N_FITTING], y[:N_FITTING])
    assert clf.score(X[N_FITTING:], y[N_FITTING:]) >= 0.95


@pytest.mark.parametrize("number", [0, 4])
def test_a_single_frame_does_not_tell(circling_clips: tuple[list[bytes], np.ndarray], number: int) -> None:
    X, y = circling_clips
    frames = [picture_of(clip, number) for clip in X]
    clf = ImageClassifier(image_size=SIZE, max_epochs=6, augmentation=("shift",), random_state=0)
    clf.fit(frames[:N_FITTING], y[:N_FITTING])
    assert 0.4 < clf.score(frames[N_FITTING:], y[N_FITTING:]) < 0.6  # chance is 0.5, give or take 0.035


# Cells


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """12 noisy clips, dark and light in turn."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(90 * (i % 2), 90 * (i % 2) + 160, (N_FRAMES, SIZE, SIZE, 3), dtype=np.uint8) for i in range(12)
    ]


LABELS = ["dark", "light"] * 6


@pytest.fixture(scope="module")
def fitted(clips: list[np.ndarray]) -> VideoClassifier:
    """Shared: do not change it."""
    return classifier().fit(clips, LABELS)


def lossless(frames: np.ndarray) -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=80, lossless=True)
    return file.getvalue()


def test_cells_of_each_kind(fitted: VideoClassifier, clips: list[np.ndarray], tmp_path: Path) -> None:
    data = lossless(clips[1])
    path = tmp_path / "clip.webp"
    path.write_bytes(data)
    cells = [clips[1], str(path), path, data, {"bytes": data, "path": None}, {"bytes": None, "path": str(path)}]
    expected = fitted.predict_proba([clips[1]])
    for cell in cells:
        np.testing.assert_array_equal(fitted.predict_proba([cell]), expected)
    assert same_weights(classifier().fit([clips[0], data], [0, 1]), classifier().fit(clips[:2], [0, 1]))


def test_input_containers(fitted: VideoClassifier, clips: list[np.ndarray]) -> None:
    expected = fitted.predict_proba(clips)
    encoded = [lossless(clip) for clip in clips]
    for X in (tuple(clips), np.stack(clips), pd.Series(encoded), pd.DataFrame({"clip": encoded})):
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)


def test_missing_clips_are_left_out_and_get_the_prior(clips: list[np.ndarray]) -> None:
    missing = [None, float("nan"), pd.NA, {"bytes": None, "path": None}]
    clf = classifier().fit([*clips, *missing], [*LABELS, *["light"] * 4])
    np.testing.assert_array_equal(clf.predict_proba(missing), [[6 / 16, 10 / 16]] * 4)
    assert (clf.transform(missing) == 0).all()
    assert same_weights(clf, classifier().fit(clips, LABELS))


def test_cell_that_cannot_be_read(fitted: VideoClassifier, clips: list[np.ndarray]) -> None:
    for cell in (b"no video", "no/such/film.mp4", np.zeros((4, 4)), 17):
        with pytest.raises(DataError, match="the video cannot be read") as caught:
            fitted.predict([clips[0], None, cell])
        assert caught.value.row == 2
    with pytest.raises(DataError) as caught:
        classifier().fit(pd.DataFrame({"film": [clips[0], b"", clips[1]]}), [0, 1, 1])
    assert (caught.value.row, caught.value.column) == (1, "film")


# Augmentation


def augmented(clips: list[np.ndarray], *augmentation: str) -> np.ndarray:
    clf = classifier(augmentation=augmentation)
    clf.preprocessor_ = VideoPreprocessor(size=SIZE, n_frames=N_FRAMES)
    encoded = clf.preprocessor_.encode(clips)
    return clf.modality.training_batch(clf, clips, encoded, np.arange(len(clips)), np.random.RandomState(0))["frames"]


@pytest.mark.parametrize("name", ["flip", "shift", "crop", "colour"])
def test_augmentation_is_the_same_for_all_frames_of_a_clip(clips: list[np.ndarray], name: str) -> None:
    still = [np.repeat(clip[:1], N_FRAMES, axis=0) for clip in clips]
    varied = augmented(still, name)
    np.testing.assert_array_equal(varied, np.repeat(varied[:, :1], N_FRAMES, axis=1))
    assert sum((v != c).any() for v, c in zip(varied, still, strict=True)) >= 3
    assert len(np.unique(varied[:, 0].reshape(len(clips), -1), axis=0)) == len(clips)


def test_flip_is_off_by_default() -> None:
    assert VideoClassifier().augmentation == ("shift",)


# Networks


def test_transform(fitted: VideoClassifier, clips: list[np.ndarray]) -> None:
    embedding = fitted.transform(clips[:2])
    assert embedding.shape == (2, 128)
    assert embedding.dtype == np.float32
    assert fitted.get_feature_names_out()[127] == "videoclassifier127"
    backwards = fitted.transform([clips[0][::-1]])
    assert np.abs(backwards - embedding[:1]).max() > 1e-3, "the order of the frames means nothing"


def vivit() -> VivitConfig:
    return VivitConfig(
        image_size=SIZE, num_frames=N_FRAMES, tubelet_size=[2, 16, 16], hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip


def vjepa() -> VJEPA2Config:
    return VJEPA2Config(
        crop_size=SIZE, frames_per_clip=N_FRAMES, tubelet_size=2, patch_size=16, hidden_size=24, num_hidden_layers=1,
        num_attention_heads=2, mlp_ratio=2, pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    )  # fmt: skip


PRETRAINED = {
    "VideoMAE": lambda: VideoMAEModel(videomae()),
    "TimeSformer": lambda: TimesformerModel(timesformer()),
    "ViViT": lambda: VivitModel(vivit(), add_pooling_layer=False),
    "V-JEPA 2": lambda: VJEPA2Model(vjepa()),
}
PROCESSOR = {"size": {"shortest_edge": 40}, "crop_size": {"height": SIZE, "width": SIZE}, "image_mean": [0.4, 0.5, 0.6]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Name → a folder of a small model with random weights, and of its processor's settings."""
    folder = tmp_path_factory.mktemp("pretrained")

    def save(name: str) -> str:
        torch.manual_seed(0)
        PRETRAINED[name]().save_pretrained(folder / name)
        VideoMAEImageProcessor(**PROCESSOR).save_pretrained(folder / name)
        return str(folder / name)

    return save


@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained(name: str, saved: Callable[[str], str], clips: list[np.ndarray], tmp_path: Path) -> None:
    folder = saved(name)
    clf = VideoClassifier(pretrained=folder, fine_tune="head", max_epochs=1, random_state=0).fit(clips, LABELS)
    assert clf.preprocessor_ == VideoPreprocessor(
        n_frames=N_FRAMES, size=SIZE, resize="shortest_edge", resize_to=40, resample="bilinear"
    )
    # What transformers makes of the clip, with its own processor.
    images = [Image.fromarray(frame) for frame in clips[0]]
    inputs = VideoMAEImageProcessor(**PROCESSOR)(images, return_tensors="pt")["pixel_values"]
    model = PRETRAINED[name]().from_pretrained(folder).eval()
    more = {"skip_predictor": True} if name == "V-JEPA 2" else {}
    with torch.no_grad():
        expected = model(inputs, **more).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(clf.transform(clips[:1]), expected, atol=1e-4)
    parity = export_onnx(clf, tmp_path / "model.onnx", verify=clips).parity
    assert parity["max_abs_difference"] < 1e-5
    clf.save(tmp_path / "saved")
    loaded = VideoClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict_proba(clips), clf.predict_proba(clips))


def test_processor_that_rescales_to_minus_1(saved: Callable[[str], str], clips: list[np.ndarray]) -> None:
    """As ViViT's: pixels / 127.5 - 1, and then mean and standard deviation."""
    folder = Path(saved("ViViT"))
    (folder / "preprocessor_config.json").write_text(
        '{"size": 32, "offset": true, "rescale_factor": 0.00784313725490196,'
        ' "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}'
    )
    clf = VideoClassifier(pretrained=str(folder), fine_tune="head", max_epochs=1, random_state=0).fit(clips, LABELS)
    encoder, pixels = clf.module_.encoder, np.array([0.0, 100.0, 255.0])
    expected = (pixels / 127.5 - 1 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(
        ((pixels / 255 - encoder.mean.flatten().numpy()) / encoder.std.flatten().numpy()), expected
    )


def test_model_that_takes_no_such_clips(saved: Callable[[str], str], clips: list[np.ndarray]) -> None:
    with pytest.raises(ConfigurationError, match="does not take clips of n_frames=2 and image_size=32"):
        VideoClassifier(pretrained=saved("VideoMAE"), n_frames=2, image_size=SIZE).fit(clips, LABELS)
    speech = WhisperConfig(
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        vocab_size=9,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with pytest.raises(ConfigurationError, match="a WhisperModel does not take clips"):
        VideoClassifier(backbone=speech, n_frames=2, image_size=SIZE).fit(clips, LABELS)
    picture = ViTModel(
        ViTConfig(image_size=SIZE, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConfigurationError, match="a ViTModel does not take clips"):
        video_encoder_from_model(picture, VideoPreprocessor(size=SIZE), normalisation=HALF, pooling=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("augmentation", ("rotate",)),
        ("augmentation", "shift"),
        ("backbone", "videomae"),
        ("image_size", 31),
        ("n_frames", 0),
        ("n_frames", 2.5),
        ("pooling", "last"),
    ],
)
def test_parameter_that_cannot_work(clips: list[np.ndarray], name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        classifier(**{name: value}).fit(clips, LABELS)


def test_lora(clips: list[np.ndarray]) -> None:
    pytest.importorskip("peft")
    clf = classifier(fine_tune="lora", max_epochs=3).fit(clips, LABELS)
    assert clf.history_["train_loss"].iloc[-1] < clf.history_["train_loss"].iloc[0]


# Fused, and scored from files


@pytest.fixture(scope="module")
def rows(clips: list[np.ndarray]) -> pd.DataFrame:
    """24 rows of text, picture and clip, each missing in one of them."""
    frame = pd.DataFrame(
        {
            "name": [f"a {label} thing" for label in LABELS],
            "picture": [clip[0] for clip in clips],
            "clip": clips,
        }
    )
    frame = pd.concat([frame, frame], ignore_index=True).astype(object)
    for row, column in enumerate(frame.columns):
        frame.loc[row, column] = None
    return frame


@pytest.mark.parametrize("fusion", [Stacking(cv=2), ConcatFusion(random_state=0)], ids=["late", "joint"])
def test_three_modalities(fusion: Any, rows: pd.DataFrame, tmp_path: Path) -> None:
    members = [
        ("text", TextClassifier(backbone=WordVectors, vocab_size=400, max_epochs=1, random_state=0), "name"),
        ("image", ImageClassifier(backbone=Convolution, image_size=SIZE, max_epochs=1, random_state=0), "picture"),
        ("video", classifier(backbone=Changes, max_epochs=1), "clip"),
    ]
    model = MultimodalClassifier(members, fusion=clone(fusion)).fit(rows, LABELS * 2)
    manifest = export_onnx(model, tmp_path / "model.onnx", verify=rows)
    assert manifest.parity["max_abs_difference"] < 1e-4
    assert OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict(rows).tolist() == model.predict(rows).tolist()


def test_score_files_of_paths_bytes_and_structs(
    fitted: VideoClassifier, clips: list[np.ndarray], tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    export_onnx(fitted, model)
    data = [lossless(clip) for clip in clips]
    paths = [tmp_path / f"{i}.webp" for i in range(12)]
    for path, content in zip(paths, data, strict=True):
        path.write_bytes(content)
    columns = {
        "paths": pa.array([*map(str, paths), "no/such/film.mp4", None]),
        "bytes": pa.array([*data, b"no film", None]),
        "structs": pa.array(
            [
                *({"bytes": content, "path": None} for content in data[:6]),
                *({"bytes": None, "path": str(path)} for path in paths[6:]),
                {"bytes": b"no film", "path": None},
                {"bytes": None, "path": None},
            ]
        ),
    }
    expected = fitted.predict_proba(clips)
    for name, column in columns.items():
        pq.write_table(pa.table({"video": column}), tmp_path / f"{name}.parquet")
    pa_csv.write_csv(pa.table({"video": columns["paths"]}), tmp_path / "paths.csv")
    for source in ("paths.parquet", "bytes.parquet", "structs.parquet", "paths.csv"):
        report = score_file(model, tmp_path / source, tmp_path / "scores.parquet", device="cpu", overwrite=True)
        scores = pq.read_table(tmp_path / "scores.parquet")
        assert (report.n_rows, report.n_errors) == (14, 1)
        np.testing.assert_allclose(scores["probability_dark"].to_numpy()[:12], expected[:, 0], atol=1e-4)
        assert "the video cannot be read" in scores["error"][12].as_py()
        np.testing.assert_allclose(scores["probability_dark"][13].as_py(), fitted.class_prior_[0], atol=1e-6)
