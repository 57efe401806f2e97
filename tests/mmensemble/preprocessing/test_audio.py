from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from mmensemble.exceptions import ConfigurationError, DataError, MissingDependencyError
from mmensemble.preprocessing import AudioPreprocessor, preprocessor_from_dict, spectrogram
from mmensemble.preprocessing.decoding.sound import read_sound

RATE = 16000
RNG = np.random.default_rng(0)
SECOND = (0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) + 0.05 * RNG.standard_normal(RATE)).astype(np.float32)


def file_of(samples: np.ndarray, rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def film_of(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    """A file that soundfile does not read, with two channels."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="stereo")
        for start in range(0, len(samples), 960):
            part = np.tile(samples[start : start + 960], (2, 1)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="fltp", layout="stereo")
            frame.sample_rate = rate
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def read(cell: Any, rate: int = RATE, seconds: float = 30.0) -> np.ndarray:
    sound = read_sound(cell, sampling_rate=rate, max_seconds=seconds)
    assert sound.dtype == np.float32
    return sound


def item_of(cell: Any, **parameters: Any) -> np.ndarray:
    """What one cell becomes, of which nothing may be wrong."""
    encoded = AudioPreprocessor(**parameters).encode([cell])
    assert encoded.errors == {}
    assert encoded.present.tolist() == [True]
    return encoded.items[0]


# --- what a cell may be


def test_every_kind_of_cell_gives_the_same_features(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    data = file_of(SECOND, subtype="FLOAT")
    path.write_bytes(data)
    cells = [
        str(path),
        path,
        data,
        bytearray(data),
        memoryview(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": data, "path": "a file that is not there.wav"},
        {"array": SECOND, "sampling_rate": RATE},
        {"array": SECOND.tolist(), "sampling_rate": RATE, "path": None},
        SECOND,
        SECOND.astype(np.float64),
        SECOND.tolist(),
        np.repeat(SECOND, 2)[::2],
    ]
    encoded = AudioPreprocessor().encode(cells)
    assert encoded.errors == {}
    assert encoded.present.all()
    for row, item in enumerate(encoded.items):
        np.testing.assert_array_equal(item, encoded.items[0], err_msg=str(row))
    assert encoded.items[0].shape == (101, 64)


@pytest.mark.parametrize(
    "cell",
    [
        None,
        float("nan"),
        pd.NA,
        {"bytes": None, "path": None},
        {"array": None, "sampling_rate": RATE},
        {"path": None, "seconds": 3.0},
        {"other": None},
    ],
    ids=["None", "nan", "NA", "struct", "array", "more", "other"],
)
def test_missing(cell: object) -> None:
    audio = AudioPreprocessor()
    encoded = audio.encode([SECOND, cell])
    assert encoded.present.tolist() == [True, False]
    assert encoded.errors == {}
    batch = audio.collate(encoded, [1])
    assert batch["attention_mask"].all(), "a network needs frames, whatever they are"


BAD_CELLS = {
    "no sound": (b"not a sound", "neither soundfile nor PyAV knows its format"),
    "empty": (b"", "neither soundfile nor PyAV knows its format"),
    "cut off": (file_of(SECOND, kind="OGG")[:60], ""),
    "no samples": (file_of(np.zeros(0)), "it has no samples"),
    "no samples, array": (np.zeros(0), "it has no samples"),
    "no such file": ("no/such/file.wav", "No such file"),
    "an address": ("https://example.org/sound.wav", "No such file"),
    "a folder": (str(Path(__file__).parent), "Is a directory"),
    "NUL in the path": ("a\0b.wav", ""),
    "a list of other files": (b"ffconcat version 1.0\nfile 'sound.wav'\n", "neither soundfile nor PyAV"),
    "an address of a stream": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=audio 5004 RTP/AVP 0\n", "Invalid data"),
    "integers": (np.zeros(4, dtype=np.int16), "not int16; divide integers of 16 bits by 32768"),
    "words in an array": (np.array(["a", "b"]), "must hold floats from -1 to 1, not <U1"),
    "integers as floats": (SECOND * 32768, "its samples go up to 1"),
    "integers as a file of floats": (file_of(SECOND * 32768, subtype="FLOAT"), "divide by 32768 what was integers"),
    "more than float32 holds": (np.full(9, 3e299), "e+299, and full scale is 1"),
    "channels": (np.zeros((2, 400)), "must have one axis, not the shape (2, 400)"),
    "NaN": (np.array([0.0, np.nan]), "samples that are NaN or infinite"),
    "no rate": ({"array": SECOND}, "sampling_rate must be an integer of at least 1, not None"),
    "a rate of 0": ({"array": SECOND, "sampling_rate": 0}, "not 0"),
    "a number": (3, "so give a single waveform as [waveform]"),
    "a sample": (np.float32(0.5), "so give a single waveform as [waveform]"),
    "an object": (object(), "object is none of: path, bytes"),
    "words": ({"bytes": "words"}, ""),
    "other keys": ({"samples": SECOND, "rate": RATE}, "must have 'array' and 'sampling_rate', 'bytes' or 'path', not"),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_bad_cell_costs_its_own_row_only(name: str) -> None:
    cell, reason = BAD_CELLS[name]
    audio = AudioPreprocessor()
    encoded = audio.encode([SECOND, cell, SECOND])
    assert list(encoded.errors) == [1]
    assert encoded.errors[1].startswith("the sound cannot be read: ")
    assert reason in encoded.errors[1]
    assert "0x" not in encoded.errors[1], "an address differs from run to run"
    assert encoded.present.tolist() == [True, False, True]
    (alone,) = audio.encode([SECOND]).items
    for row in (0, 2):
        np.testing.assert_array_equal(encoded.items[row], alone)
    with pytest.raises(DataError, match="row 1, column 'speech': the sound cannot be read"):
        encoded.raise_for_errors("speech")


@pytest.mark.parametrize("place", ["bytes", "path"])
def test_a_list_of_other_files_opens_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(file_of(SECOND))
    Path("list.wav").write_bytes(b"ffconcat version 1.0\nfile 'secret.wav'\n")
    encoded = AudioPreprocessor().encode([Path("list.wav").read_bytes() if place == "bytes" else "list.wav"])
    assert list(encoded.errors) == [0]


def test_sounds_louder_than_full_scale() -> None:
    """As files of floats, and what is decoded from lossy formats, may be."""
    loud = 3 * SECOND
    assert np.abs(loud).max() > 1
    np.testing.assert_array_equal(read(loud), loud)
    np.testing.assert_array_equal(read(file_of(loud, subtype="FLOAT")), loud)


def test_samples_of_8_bits() -> None:
    np.testing.assert_allclose(read(file_of(SECOND, subtype="PCM_U8")), SECOND, rtol=0, atol=1 / 64)


def test_a_cell_is_not_changed() -> None:
    array = SECOND.copy()
    AudioPreprocessor(features="waveform", normalise=True).encode([array])
    np.testing.assert_array_equal(array, SECOND)


@pytest.mark.parametrize(("module", "package"), [("soundfile", "soundfile"), ("av", "av")])
def test_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    data = file_of(SECOND[:8000], 8000)
    monkeypatch.setitem(sys.modules, module, None)
    AudioPreprocessor().encode([SECOND])  # samples at the right rate need neither
    with pytest.raises(MissingDependencyError, match=r"\[audio\]") as caught:
        AudioPreprocessor().encode([data])
    assert caught.value.package == package


# --- decoding, channels, rates


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ULAW", 0.02),
        ("FLAC", "PCM_16", 1e-4),
        ("AIFF", "PCM_16", 1e-4),
        ("CAF", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.2),
        ("MP3", None, 0.2),
    ],
)
def test_formats_of_soundfile(kind: str, subtype: str | None, tolerance: float) -> None:
    sound = read(file_of(SECOND, kind=kind, subtype=subtype))
    assert len(sound) >= len(SECOND) - 1
    np.testing.assert_allclose(sound[: len(SECOND)], SECOND[: len(sound)], rtol=0, atol=tolerance)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "aac"), ("mp4", "aac"), ("matroska", "flac")])
def test_what_soundfile_does_not_know_pyav_reads(container: str, codec: str) -> None:
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(48000) / 48000)).astype(np.float32)
    data = film_of(tone, 48000, container, codec) if codec == "aac" else flac_in(tone)
    sound = read(data, 48000)
    assert abs(len(sound) - 48000) < 4000
    spectrum = np.abs(np.fft.rfft(sound[8000:40000]))
    assert spectrum.argmax() == 440 * 32000 // 48000 or abs(spectrum.argmax() - 440 * 32000 / 48000) < 2
    assert 0.2 < np.abs(sound[8000:40000]).max() < 0.4
    assert len(read(data, 48000, 0.25)) == 12000


def flac_in(samples: np.ndarray) -> bytes:
    """Samples of two bytes in Matroska."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("flac", rate=48000, layout="mono")
        whole = (samples * 32767).astype(np.int16)
        for start in range(0, len(whole), 960):
            frame = av.AudioFrame.from_ndarray(whole[None, start : start + 960], format="s16", layout="mono")
            frame.sample_rate = 48000
            frame.pts = start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_a_film_without_sound(tmp_path: Path) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8))))
        output.mux(stream.encode(None))
    with pytest.raises(ValueError, match="it has no sound"):
        read(file.getvalue())


@pytest.mark.parametrize("n_channels", [1, 2, 6])
def test_channels_become_their_mean(n_channels: int) -> None:
    channels = RNG.uniform(-0.5, 0.5, (4000, n_channels))
    sound = read(file_of(channels, subtype="FLOAT"))
    np.testing.assert_allclose(sound, channels.mean(axis=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1", "hexadecagonal"])
def test_channels_of_what_pyav_reads_become_their_mean(layout: str) -> None:
    n_channels = av.AudioLayout(layout).nb_channels
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_f32le", rate=RATE)
        stream.layout = layout
        channels = RNG.uniform(-0.5, 0.5, (RATE, n_channels)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(channels.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read(file.getvalue()), channels.mean(axis=1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("codec", ["aac", "ac3"])
def test_planes_of_many_channels(codec: str) -> None:
    layout = "7.1" if codec == "aac" else "5.1"
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=48000)
        stream.layout = layout
        size = stream.codec_context.frame_size or 1024
        for number in range(20):
            samples = np.full((1, av.AudioLayout(layout).nb_channels * size), 0.25, np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
            frame.sample_rate, frame.pts = 48000, number * size
            for part in av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=48000).resample(
                frame
            ):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    sound = read(file.getvalue(), 48000)
    assert 0.2 < np.median(sound) < 0.3


TEN_SECONDS = np.tile(SECOND, 10)


def damaged(data: bytes, start: float, end: float) -> bytes:
    """Noise in place of a part of a file."""
    first, last = int(start * len(data)), int(end * len(data))
    return data[:first] + RNG.integers(0, 256, last - first, dtype=np.uint8).tobytes() + data[last:]


@pytest.mark.parametrize("kind", ["MP3", "FLAC"])
def test_a_sound_that_breaks_off_is_an_error(kind: str) -> None:
    data = file_of(TEN_SECONDS, kind=kind)
    for broken in (data[: len(data) // 10], damaged(data, 0.1, 0.5)):
        with pytest.raises(ValueError, match=r"it breaks off after \d\.\d of 10\.0 seconds"):
            read(broken)
    assert len(read(data[: len(data) // 2], seconds=2.0)) == 2 * RATE, "what is asked for is there"


def test_what_one_decoder_calls_empty_the_other_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(SECOND)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda self, *a, **k: np.zeros((0, 1), np.float32))
    np.testing.assert_allclose(read(data), SECOND, rtol=0, atol=1e-4)


def tones(rate: int, seconds: float, pitches: list[float]) -> np.ndarray:
    times = np.arange(round(rate * seconds)) / rate
    return np.mean([np.sin(2 * np.pi * pitch * times + i) for i, pitch in enumerate(pitches)], axis=0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_resampling_keeps_tones_and_drops_what_would_alias(rate: int) -> None:
    highest = min(rate, RATE) / 2
    pitches = [0.05 * highest, 0.3 * highest, 0.85 * highest]
    expected = tones(RATE, 1.0, pitches)
    sound = read({"array": tones(rate, 1.0, pitches), "sampling_rate": rate})
    assert len(sound) == RATE
    inner = slice(500, -500)
    error = np.sqrt(np.mean((sound - expected)[inner] ** 2) / np.mean(expected**2))
    assert error < 0.01  # -40 dB
    if rate > RATE:
        above = tones(rate, 1.0, [1.15 * highest])
        ours = read({"array": above, "sampling_rate": rate})
        theirs = resample_poly(above, RATE, rate)
        assert np.std(ours[inner]) < 1e-3
        assert np.std(ours[inner]) < np.std(theirs[inner])


def test_a_few_samples_can_be_resampled() -> None:
    for n in (1, 2, 7):
        sound = read({"array": np.full(n, 0.5), "sampling_rate": 48000})
        assert 1 <= len(sound) <= n


def test_a_long_sound_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(file_of(np.tile(SECOND, 20), subtype="PCM_16"))
    np.testing.assert_array_equal(read(path, seconds=2.0), read(path)[: 2 * RATE])
    for features, length in (("log_mel", 200), ("filter_bank", 198), ("waveform", 2 * RATE)):
        assert len(item_of(path, features=features, max_seconds=2.0)) == length
        assert len(item_of(np.tile(SECOND, 20), features=features, max_seconds=2.0)) == length


@pytest.mark.parametrize("features", ["log_mel", "filter_bank", "waveform"])
@pytest.mark.parametrize("n_samples", [1, 399, 3200])
def test_a_short_sound_is_followed_by_silence(features: Any, n_samples: int) -> None:
    item = item_of(SECOND[:n_samples], features=features)
    assert np.isfinite(item).all()
    assert len(item) == {"log_mel": 21, "filter_bank": 18, "waveform": 3200}[features]
    if features == "waveform":
        assert not item[n_samples:].any()


def test_silence_is_a_sound() -> None:
    for features in ("log_mel", "filter_bank", "waveform"):
        assert np.isfinite(item_of(np.zeros(RATE), features=features, normalise=True)).all()


# --- the same as transformers'

LENGTHS = [3200, 5001, 16000, 16001, 31999]


def sound_of(n_samples: int) -> np.ndarray:
    """Soft noise with a loud end, so that a frame more or less would be seen."""
    noise = np.random.default_rng(n_samples).standard_normal(n_samples) * np.linspace(1e-4, 0.2, n_samples)
    return noise.astype(np.float32)


@pytest.mark.parametrize("n_samples", LENGTHS)
@pytest.mark.parametrize("n_mels", [80, 128])
def test_equals_whispers_feature_extractor(n_samples: int, n_mels: int) -> None:
    from transformers import WhisperFeatureExtractor

    sound = sound_of(n_samples)
    ours = item_of(sound, n_mels=n_mels, max_seconds=30.0)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    (theirs,) = extractor(sound, sampling_rate=RATE, return_tensors="np")["input_features"]
    assert len(ours) == -(-n_samples // 160) + 1
    np.testing.assert_allclose(ours, theirs.T[: len(ours)], rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("n_samples", LENGTHS)
def test_equals_asts_feature_extractor(n_samples: int) -> None:
    from transformers import ASTFeatureExtractor

    sound, extractor = sound_of(n_samples), ASTFeatureExtractor()
    ours = item_of(sound, features="filter_bank", n_mels=128, mean=extractor.mean, std=2 * extractor.std)
    (theirs,) = extractor(sound, sampling_rate=RATE, return_tensors="np")["input_values"]
    np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=0, atol=1e-5)
    padding = theirs[len(ours) :]
    assert np.ptp(padding) == 0, "no frame is left out"


@pytest.mark.parametrize("features", ["log_mel", "filter_bank"])
def test_blocks_of_frames_make_no_difference(features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = item_of(SECOND, features=features)
    monkeypatch.setattr(spectrogram, "_BLOCK", 7)
    np.testing.assert_array_equal(item_of(SECOND, features=features), whole)


def test_a_filter_between_two_frequencies_lets_nothing_through() -> None:
    item = item_of(SECOND, n_mels=128, n_fft=100)
    silent = item.max(axis=0) == item.min()
    assert 0 < silent.sum() < 128


@pytest.mark.parametrize("normalise", [True, False])
def test_equals_wav2vec2s_feature_extractor(normalise: bool) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    sound = sound_of(5000)
    ours = item_of(sound, features="waveform", normalise=normalise)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise)
    (theirs,) = extractor(sound, sampling_rate=RATE, return_tensors="np")["input_values"]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


# --- batches and JSON


@pytest.mark.parametrize("features", ["log_mel", "filter_bank", "waveform"])
def test_collate(features: Any) -> None:
    audio = AudioPreprocessor(features=features, n_mels=20)
    encoded = audio.encode([SECOND, None, SECOND[:8000]])
    assert encoded.lengths.tolist() == {"log_mel": [50, 10, 26], "filter_bank": [49, 9, 24]}.get(features, [50, 10, 25])
    batch = audio.collate(encoded, [2, 1, 0])
    name = "input_values" if features == "waveform" else "input_features"
    assert batch.keys() == {name, "attention_mask", "present"} == {*audio.tensors, "present"}
    for values, mask, item in zip(batch[name], batch["attention_mask"], encoded.items[::-1], strict=True):
        np.testing.assert_array_equal(values[: len(item)], item)
        assert not values[len(item) :].any()
        assert mask.tolist() == [1] * len(item) + [0] * (len(mask) - len(item))
    assert batch["present"].tolist() == [True, False, True]
    for tensor, spec in audio.tensors.items():
        assert str(batch[tensor].dtype) == spec.dtype
        assert batch[tensor].ndim == len(spec.shape)
    nothing = audio.collate(encoded, [])
    assert len(nothing[name]) == 0
    assert nothing[name].ndim == batch[name].ndim


def test_json_round_trip() -> None:
    audio = AudioPreprocessor(
        features="filter_bank", sampling_rate=8000, max_seconds=0.5, n_mels=24, mean=-4.0, std=9.0, normalise=True
    )
    copy = preprocessor_from_dict(json.loads(json.dumps(audio.to_dict())))
    assert copy == audio
    assert audio != AudioPreprocessor(features="filter_bank", sampling_rate=8000, max_seconds=0.5, n_mels=24)
    np.testing.assert_array_equal(copy.encode([SECOND]).items[0], audio.encode([SECOND]).items[0])


def test_unknown_features() -> None:
    with pytest.raises(ConfigurationError, match="features must be 'log_mel'"):
        AudioPreprocessor(features="mfcc")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("sampling_rate", 0), ("sampling_rate", 99), ("n_mels", 0), ("n_fft", 1), ("hop_length", 0), ("max_seconds", 0.0)],
)
def test_numbers_that_give_no_frames(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} .*must be"):
        AudioPreprocessor(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"{name} .*must be"):
        preprocessor_from_dict({**AudioPreprocessor().to_dict(), name: value})


def test_a_row_counts_as_long_as_it_may_be() -> None:
    assert AudioPreprocessor(n_mels=20, max_seconds=2.0).row_bytes == 200 * (20 * 4 + 8)
    assert AudioPreprocessor(features="waveform", max_seconds=2.0).row_bytes == 32000 * (4 + 8)
