from __future__ import annotations

import io
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmensemble.exceptions import ConfigurationError, DataError, MissingDependencyError
from mmensemble.preprocessing import ImagePreprocessor, VideoPreprocessor, preprocessor_from_dict
from mmensemble.preprocessing.decoding import clips

RNG = np.random.default_rng(0)
# 16 frames, each one grey lighter than the one before.
RAMP = np.tile(np.arange(0, 240, 15, dtype=np.uint8)[:, None, None, None], (1, 32, 48, 3))
# Encoders for film are off by some greys.
TOLERANCE = 6


def film(
    frames: np.ndarray,
    container: str = "mp4",
    codec: str = "libx264",
    *,
    rate: int = 8,
    turn: int = 0,
    starts: list[int] | None = None,
) -> bytes:
    """Write frames T×H×W×3 as a video file, at a rate or at starts in milliseconds."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        if starts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if starts is not None:
                picture.pts, picture.time_base = starts[number], Fraction(1, 1000)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
    return file.getvalue()


def test_a_title_that_is_not_utf8_does_not_matter() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as output:
        output.metadata["title"] = "TITLE-OF-FILM"
        stream = output.add_stream("mpeg4", rate=8)
        stream.height, stream.width = RAMP.shape[1:3]
        for frame in RAMP:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    data = file.getvalue()
    assert b"TITLE-OF-FILM" in data
    np.testing.assert_array_equal(frames_of(data.replace(b"TITLE-OF-FILM", b"\xe9\xff" * 6 + b"!")), frames_of(data))


def animation(frames: np.ndarray, kind: str, durations: Any) -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(frame) for frame in frames]
    more = {"lossless": True} if kind == "WEBP" else {}
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=durations, **more)
    return file.getvalue()


def frames_of(cell: Any, **parameters: Any) -> np.ndarray:
    """The frames of one cell, of which nothing may be wrong."""
    encoded = VideoPreprocessor(**{"size": 8, **parameters}).encode([cell])
    assert encoded.errors == {}
    assert encoded.present.tolist() == [True]
    assert encoded.items.dtype == np.uint8
    return encoded.items[0]


def greys(cell: Any, n_frames: int = 8) -> list[int]:
    """The grey of each frame at its centre."""
    return frames_of(cell, n_frames=n_frames)[:, 4, 4, 0].tolist()


# --- which frames


@pytest.mark.parametrize(
    ("n_frames", "shown"),
    [(1, [8]), (2, [4, 12]), (3, [2, 8, 13]), (8, list(range(1, 16, 2))), (16, list(range(16)))],
)
def test_the_frames_at_the_centres_of_equal_segments(n_frames: int, shown: list[int]) -> None:
    assert greys(RAMP, n_frames) == [15 * i for i in shown]
    assert np.floor(clips.even_times(n_frames) * 16).astype(int).tolist() == shown


def test_a_short_clip_repeats_its_frames() -> None:
    assert greys(RAMP[[3, 9]], 6) == [45] * 3 + [135] * 3
    assert greys(animation(RAMP[[3, 9]], "WEBP", 100), 6) == [45] * 3 + [135] * 3
    np.testing.assert_allclose(greys(film(RAMP[[3, 9]]), 6), [45] * 3 + [135] * 3, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_still_picture_is_a_clip_of_one_frame(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(RAMP[9]).save(file, kind)
    np.testing.assert_allclose(greys(file.getvalue(), 3), [135] * 3, atol=2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_goes_by_its_own_times(kind: str) -> None:
    """The second frame stands for 700 of 1000 ms, so at 300 to 900 ms of 100, 300, 500, 700 and 900."""
    data = animation(RAMP[[2, 6, 12]], kind, [250, 700, 50])
    assert greys(data, 5) == [30, 90, 90, 90, 90]
    assert greys(data, 20) == [30] * 5 + [90] * 14 + [180]


@pytest.mark.parametrize("start", [0, 5000])
@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("flv", "flv")]
)
def test_a_film_of_varying_rate_goes_by_its_own_times(container: str, codec: str, start: int) -> None:
    """The second frame stands from 250 to 950 ms of about a second, in which nothing is before the first one."""
    data = film(RAMP[[2, 6, 12]], container, codec, starts=[start, start + 250, start + 950])
    np.testing.assert_allclose(greys(data, 4), [30, 90, 90, 90], atol=TOLERANCE)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_a_film_of_one_frame(container: str, codec: str) -> None:
    np.testing.assert_allclose(greys(film(RAMP[9:10], container, codec), 3), [135] * 3, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_what_is_half_transparent_is_mixed_with_white(kind: str) -> None:
    red = np.zeros((2, 16, 16, 4), dtype=np.uint8)
    red[..., 0], red[0, ..., 3] = 255, 128
    np.testing.assert_allclose(
        frames_of(animation(red, kind, 40), n_frames=2)[:, 4, 4], [[255, 127, 127], [255, 255, 255]], atol=1
    )


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_frames_of_no_duration_last_100_ms(kind: str) -> None:
    assert greys(animation(RAMP[[2, 6]], kind, [0, 300]), 4) == [30, 90, 90, 90]
    assert greys(animation(RAMP[[2, 6]], kind, 0), 4) == [30, 30, 90, 90]


def test_the_default_image_of_an_animated_png_is_none_of_its_frames() -> None:
    file = io.BytesIO()
    images = [Image.fromarray(RAMP[i]) for i in (15, 2, 6)]
    images[0].save(file, "PNG", save_all=True, default_image=True, append_images=images[1:], duration=[100, 300])
    assert greys(file.getvalue(), 4) == [30, 90, 90, 90]


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "mpeg4"),
        ("webm", "libvpx"),
        ("matroska", "libx264"),
        ("avi", "mjpeg"),
        ("mpegts", "mpeg2video"),  # it starts at 0.1 s
        ("flv", "flv"),
    ],
)
def test_video_files(container: str, codec: str) -> None:
    np.testing.assert_allclose(greys(film(RAMP, container, codec)), 15 * np.arange(1, 16, 2), atol=TOLERANCE)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("mpegts", "mpeg2video"), ("avi", "mpeg4")])
def test_jumping_gives_the_frames_that_decoding_all_gives(
    container: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.tile(np.arange(240, dtype=np.uint8)[:, None, None, None], (1, 32, 32, 3))
    data = film(ramp, container, codec, rate=2)  # two minutes; x264 could decode from the first frame alone
    monkeypatch.setattr(clips, "_JUMP_SECONDS", np.inf)
    expected = greys(data)
    np.testing.assert_allclose(expected, np.arange(15, 240, 30), atol=TOLERANCE)
    monkeypatch.setattr(clips, "_JUMP_SECONDS", 4.0)
    assert greys(data) == expected


def test_a_jump_decodes_only_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    ramp = np.tile(np.arange(240, dtype=np.uint8)[:, None, None, None], (1, 32, 32, 3))
    data = film(ramp, "avi", "mjpeg", rate=1)
    decoded = []
    frames = clips.decoded_frames
    monkeypatch.setattr(clips, "decoded_frames", lambda *args: (decoded.append(f.pts) or f for f in frames(*args)))
    np.testing.assert_allclose(greys(data), np.arange(15, 240, 30), atol=TOLERANCE)
    assert len(decoded) < 40


def test_a_file_that_does_not_say_how_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a browser records it. Its packets are counted."""
    data = film(RAMP, "matroska")
    duration = data.index(b"\x44\x89\x88")  # the element "Duration"
    unknown = data[:duration] + b"\xec\x89" + data[duration + 2 :]  # an element "Void" of the same size
    with av.open(io.BytesIO(unknown)) as container:
        assert container.duration is None or container.duration <= 0
    np.testing.assert_allclose(greys(unknown), 15 * np.arange(1, 16, 2), atol=TOLERANCE)


# --- what a cell may be


@pytest.mark.parametrize("name", ["clip.webp", "clip.mp4", "clip.txt"])
@pytest.mark.parametrize("kind", ["film", "animation"])
def test_every_kind_of_cell_gives_the_same_frames(tmp_path: Path, name: str, kind: str) -> None:
    data = film(RAMP) if kind == "film" else animation(RAMP, "WEBP", 100)
    path = tmp_path / name
    path.write_bytes(data)
    cells = [
        str(path),
        path,
        data,
        bytearray(data),
        memoryview(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": data, "path": "a file that is not there.mp4"},
        {"path": path},
    ]
    encoded = VideoPreprocessor(size=8).encode(cells)
    assert encoded.errors == {}
    assert encoded.present.all()
    for row, item in enumerate(encoded.items):
        np.testing.assert_array_equal(item, encoded.items[0], err_msg=str(row))


def test_arrays() -> None:
    grey = RNG.integers(0, 256, (4, 8, 8), dtype=np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=3)
    with_alpha = np.concatenate([expected, np.full((4, 8, 8, 1), 255, dtype=np.uint8)], axis=3)
    for cell in (grey, grey[..., None], expected, np.asfortranarray(expected), with_alpha):
        np.testing.assert_array_equal(frames_of(cell, n_frames=4), expected)


def test_frames_are_prepared_as_images_are() -> None:
    colours = RNG.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    how = {"size": 8, "resize": "shortest_edge", "resize_to": 10, "resample": "bicubic"}
    images = ImagePreprocessor(**how).encode(list(colours)).items
    np.testing.assert_array_equal(frames_of(colours, n_frames=3, **how), images)
    np.testing.assert_array_equal(frames_of(animation(colours, "WEBP", 40), n_frames=3, **how), images)


def test_transparency_becomes_white() -> None:
    clear = np.zeros((2, 8, 8, 4), dtype=np.uint8)
    assert (frames_of(clear) == 255).all()
    # Pillow drops a frame that equals the one before.
    clear[1, :4] = 255
    clear[1, :4, :, :3] = 0
    shown = frames_of(animation(clear, "WEBP", 40), n_frames=2)
    assert (shown[0] == 255).all()
    assert (shown[1, :4] == 0).all()
    assert (shown[1, 4:] == 255).all()


def test_a_film_is_turned_upright() -> None:
    frames = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    frames[:, :16, :16] = 255
    corners = {0: (0, 0), 90: (1, 0), 180: (1, 1), -90: (0, 1)}
    for turn, corner in corners.items():
        shown = frames_of(film(frames, turn=turn), n_frames=1)[0, [1, 1, 6, 6], [1, 6, 1, 6], 0].reshape(2, 2)
        assert np.unravel_index(shown.argmax(), (2, 2)) == corner


@pytest.mark.parametrize(
    "cell", [None, float("nan"), pd.NA, {"bytes": None, "path": None}], ids=["None", "nan", "NA", "struct"]
)
def test_missing(cell: object) -> None:
    encoded = VideoPreprocessor(size=8).encode([RAMP, cell])
    assert encoded.present.tolist() == [True, False]
    assert encoded.errors == {}
    assert not encoded.items[1].any()


def playlist() -> bytes:
    return f"ffconcat version 1.0\nfile '{Path(__file__)}'\n".encode()


BAD_CELLS = {
    "no video": (b"not a video", "Invalid data"),
    "empty": (b"", "Invalid data"),
    "without its index": (film(RAMP)[:-200], "Invalid data"),
    "a broken animation": (animation(RAMP, "GIF", 40)[:300], ""),
    "a list of other files": (playlist(), "Operation not permitted"),
    "sound": (None, "it holds no video"),
    "no times": (film(RAMP, "h264"), "its frames have no times"),
    "no such file": ("no/such/file.mp4", "No such file"),
    "an address": ("http://localhost/film.mp4", "No such file"),
    "a folder": (str(Path(__file__).parent), "Is a directory"),
    "floats": (np.zeros((4, 4, 4, 3), dtype=np.float32), "must be uint8, not float32; scale it to 0"),
    "2-D": (np.zeros((4, 4), dtype=np.uint8), "an array of shape (4, 4) looks like one picture"),
    "one grey picture": (np.zeros((40, 50, 1), dtype=np.uint8), "so give a single clip as [clip]"),
    "no channels": (np.zeros((4, 4, 4, 0), dtype=np.uint8), "not of shape (4, 4, 4, 0)"),
    "channels first": (np.zeros((5, 3, 40, 50), dtype=np.uint8), "not of shape (5, 3, 40, 50)"),
    "2 channels": (np.zeros((4, 4, 4, 2), dtype=np.uint8), "not of shape (4, 4, 4, 2)"),
    "one picture": (np.zeros((40, 50, 3), dtype=np.uint8), "looks like one picture, H×W or H×W×C"),
    "no frames": (np.zeros((0, 4, 4, 3), dtype=np.uint8), "not of shape (0, 4, 4, 3)"),
    "a number": (3, "int is none of: path, bytes"),
    "other keys": ({"file": "a.mp4"}, "a dict must have 'bytes' or 'path', not ['file']"),
    "a list": ([RAMP[0]], "a list of frames by numpy.stack"),
}


def sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="wav") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), layout="mono")
        frame.rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_bad_cell_costs_its_own_row_only(name: str) -> None:
    cell, reason = BAD_CELLS[name]
    video = VideoPreprocessor(size=8)
    encoded = video.encode([RAMP, sound() if name == "sound" else cell, RAMP])
    assert list(encoded.errors) == [1]
    assert encoded.errors[1].startswith("the video cannot be read: ")
    assert reason in encoded.errors[1]
    assert "0x" not in encoded.errors[1], "an address differs from run to run"
    assert encoded.present.tolist() == [True, False, True]
    assert not encoded.items[1].any()
    np.testing.assert_array_equal(encoded.items[0], encoded.items[2])
    with pytest.raises(DataError, match="row 1, column 'clip': the video cannot be read"):
        encoded.raise_for_errors("clip")


@pytest.mark.parametrize(("container", "codec"), [("webm", "libvpx"), ("flv", "flv")])
def test_a_film_that_breaks_off(container: str, codec: str) -> None:
    """Up to a half may be lost; the last frame that is there stays."""
    noisy = RAMP + RNG.integers(0, 15, RAMP.shape, dtype=np.uint8)  # so that all frames are of like size
    data = film(noisy, container, codec)
    whole, cut = greys(data), greys(data[: int(0.75 * len(data))])
    n_left = next(i for i in range(8) if cut[i:] == cut[i : i + 1] * (8 - i))
    assert 4 <= n_left < 7
    assert cut[:n_left] == whole[:n_left]
    encoded = VideoPreprocessor(size=8).encode([data[: len(data) // 2]])
    assert "it breaks off after 0." in encoded.errors[0]
    assert "of 2.0 seconds" in encoded.errors[0]
    assert not encoded.items.any()


def test_damaged_packets_are_left_out() -> None:
    noisy = RAMP + RNG.integers(0, 15, RAMP.shape, dtype=np.uint8)
    data = bytearray(film(noisy, "avi", "mjpeg"))
    whole = greys(bytes(data), 16)
    # A JPEG of some 590 bytes each; the sixth one is blanked.
    start = -1
    for _ in range(6):
        start = data.index(b"\xff\xd8\xff", start + 1)
    data[start : start + 560] = bytes(560)
    damaged = greys(bytes(data), 16)
    (lost,) = (i for i in range(16) if damaged[i] != whole[i])
    assert lost in (4, 5)
    assert damaged[lost] == whole[lost - 1]


def test_without_pyav_animations_are_read_and_films_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert greys(animation(RAMP[[2, 6]], "GIF", 100), 2) == [30, 90]
    with pytest.raises(MissingDependencyError, match=r"\[video\]"):
        VideoPreprocessor(size=8).encode([FILM])


FILM = film(RAMP)


# --- batches and JSON


def test_collate() -> None:
    video = VideoPreprocessor(size=8, n_frames=4)
    encoded = video.encode([RAMP, None, RAMP[::-1]])
    assert encoded.lengths.tolist() == [1, 1, 1]
    batch = video.collate(encoded, [2, 1, 0])
    assert batch["frames"].dtype == np.uint8
    assert batch["frames"][:, :, 4, 4, 0].tolist() == [[195, 135, 75, 15], [0] * 4, [30, 90, 150, 210]]
    assert batch["present"].tolist() == [True, False, True]
    assert video.tensors["frames"].shape == ("batch", *batch["frames"].shape[1:])


@pytest.mark.parametrize("name", ["n_frames", "size"])
def test_no_frames_or_pixels(name: str) -> None:
    with pytest.raises(ConfigurationError, match="n_frames and size must be at least 1"):
        VideoPreprocessor(**{name: 0})


def test_json_round_trip() -> None:
    video = VideoPreprocessor(n_frames=5, size=6, resize="shortest_edge", resize_to=7, resample="bicubic")
    copy = preprocessor_from_dict(json.loads(json.dumps(video.to_dict())))
    assert copy == video
    assert video != VideoPreprocessor(n_frames=4, size=6, resize="shortest_edge", resize_to=7, resample="bicubic")
    np.testing.assert_array_equal(copy.encode([RAMP]).items, video.encode([RAMP]).items)
