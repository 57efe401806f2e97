"""Files that are decoded once: what a store keeps of pictures, clips and sounds."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmensemble.cache import Store, embed_rows, encode_rows
from mmensemble.cache import rows as cached_rows
from mmensemble.cache.row_store import RowStore, digest
from mmensemble.preprocessing import (
    AudioPreprocessor,
    Encoded,
    ImagePreprocessor,
    Preprocessor,
    TabularPreprocessor,
    VideoPreprocessor,
    audio,
    image,
    preprocessor_from_dict,
    video,
)

N_FILES = 5


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), format="PNG")


def clip(seed: int) -> bytes:
    frames = np.random.default_rng(seed).integers(0, 256, (6, 10, 10), dtype=np.uint8)
    first, *others = [Image.fromarray(frame) for frame in frames]
    return saved(first, format="GIF", save_all=True, append_images=others)


def saved(picture: Image.Image, **params: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, **params)
    return buffer.getvalue()


def sound(seed: int) -> bytes:
    """Return a sound of 0.3 s and more, each longer than the one before."""
    buffer = io.BytesIO()
    samples = np.random.default_rng(seed).normal(size=5000 + 800 * seed) / 9
    soundfile.write(buffer, samples, 16000, format="WAV")
    return buffer.getvalue()


@dataclass
class Kind:
    """A kind of files, and how they are encoded."""

    preprocessor: Preprocessor
    other: Preprocessor
    file: Callable[[int], bytes]
    reads: tuple[Any, str]


KINDS = {
    "image": Kind(ImagePreprocessor(size=8), ImagePreprocessor(size=9), picture, (image, "_open")),
    "video": Kind(
        VideoPreprocessor(size=8, n_frames=3), VideoPreprocessor(size=8, n_frames=4), clip, (video, "frames_of")
    ),
    "audio": Kind(AudioPreprocessor(n_mels=8), AudioPreprocessor(n_mels=9), sound, (audio, "read_sound")),
    "waveform": Kind(
        AudioPreprocessor(features="waveform"),
        AudioPreprocessor(features="waveform", normalise=True),
        sound,
        (audio, "read_sound"),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def read(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The cells that were read."""
    read: list[Any] = []
    module, name = kind.reads
    function = getattr(module, name)

    def counting(cell: Any, *arguments: Any, **named: Any) -> Any:
        read.append(cell)
        return function(cell, *arguments, **named)

    monkeypatch.setattr(module, name, counting)
    return read


def assert_same(one: Encoded, other: Encoded, preprocessor: Preprocessor) -> None:
    assert type(one.items) is type(other.items)
    for item, expected in zip(one.items, other.items, strict=True):
        assert item.dtype == expected.dtype
        np.testing.assert_array_equal(item, expected)
    np.testing.assert_array_equal(one.present, other.present)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    assert one.errors == other.errors
    rows = np.arange(len(one))[::-1]
    batch, expected_batch = preprocessor.collate(one, rows), preprocessor.collate(other, rows)
    assert batch.keys() == expected_batch.keys()
    for name, array in batch.items():
        assert array.dtype == expected_batch[name].dtype
        np.testing.assert_array_equal(array, expected_batch[name])


WAYS: dict[str, Callable[[bytes, Path], Any]] = {
    "bytes": lambda file, path: file,
    "bytearray": lambda file, path: bytearray(file),
    "path": lambda file, path: path,
    "str": lambda file, path: str(path),
    "struct of bytes": lambda file, path: {"bytes": file, "path": "a name"},
    "struct of a path": lambda file, path: {"bytes": None, "path": str(path)},
}


@pytest.mark.parametrize("way", WAYS)
def test_files_are_decoded_once(kind: Kind, read: list[Any], tmp_path: Path, way: str) -> None:
    cells = []
    for number in range(N_FILES):
        (tmp_path / str(number)).write_bytes(kind.file(number))
        cells.append(WAYS[way](kind.file(number), tmp_path / str(number)))
    expected = kind.preprocessor.encode(cells)
    assert expected.present.all()
    read.clear()
    with Store.of(tmp_path).active():
        assert_same(encode_rows(kind.preprocessor, cells[:3]), kind.preprocessor.encode(cells[:3]), kind.preprocessor)
        read.clear()
        assert_same(encode_rows(kind.preprocessor, cells), expected, kind.preprocessor)
        assert read == cells[3:]
        read.clear()
        found = encode_rows(kind.preprocessor, np.asarray([*cells, None], dtype=object)[::-1])
        assert read == []
        assert_same(found, kind.preprocessor.encode([None, *cells[::-1]]), kind.preprocessor)
        read.clear()
        encode_rows(kind.other, cells)
        assert read == cells, "another preprocessor encodes anew"
        encode_rows(kind.preprocessor, cells)
        assert read == cells
    encode_rows(kind.preprocessor, cells)
    assert read == cells * 2, "there is no store"


@pytest.mark.parametrize(
    ("numbers", "file"),
    [
        (ImagePreprocessor(size=np.int64(8), resize="crop", resize_to=np.int64(9)), picture),
        (VideoPreprocessor(size=np.int64(8), n_frames=np.int64(3), resize_to=np.int64(9)), clip),
        (
            AudioPreprocessor(
                sampling_rate=np.int64(8000),
                max_seconds=np.float32(0.5),
                n_mels=np.int64(8),
                n_fft=np.int64(256),
                hop_length=np.int64(80),
                mean=np.float32(0.5),
                std=np.float32(2.0),
                normalise=np.bool_(True),
            ),
            sound,
        ),
    ],
    ids=["image", "video", "audio"],
)
def test_parameters_may_be_numbers_of_numpy(
    numbers: Preprocessor, file: Callable[[int], bytes], tmp_path: Path
) -> None:
    plain = preprocessor_from_dict(json.loads(json.dumps(numbers.to_dict())))
    assert plain == numbers
    with Store.of(tmp_path).active():
        for _ in range(2):
            assert_same(encode_rows(numbers, [file(0)]), plain.encode([file(0)]), plain)


@pytest.mark.parametrize("step", [1, 1000, 10**9])
def test_missing_and_bad_files_are_as_without_a_store(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(cached_rows, "TRANSACTION_BYTES", step)
    files = [kind.file(number) for number in range(N_FILES)]
    (tmp_path / "good").write_bytes(files[1])
    (tmp_path / "bad").write_bytes(b"of no known format")
    cells = [
        None,
        files[0],
        b"of no known format",
        tmp_path / "good",
        tmp_path / "bad",
        tmp_path / "not there",
        float("nan"),
        "",
        {"bytes": None, "path": None},
        files[2][:40],
        files[0],
        tmp_path,
        7,
    ]
    expected = kind.preprocessor.encode(cells)
    assert np.flatnonzero(expected.present).tolist() == [1, 3, 10]
    with Store.of(tmp_path).active():
        for _ in range(2):
            assert_same(encode_rows(kind.preprocessor, cells), expected, kind.preprocessor)
        (tmp_path / "bad").write_bytes(files[3])
        assert encode_rows(kind.preprocessor, [None, tmp_path / "bad"]).present.tolist() == [False, True]
        assert len(encode_rows(kind.preprocessor, [])) == 0
        assert encode_rows(kind.preprocessor, [None, None]).present.tolist() == [False, False]


def test_a_changed_file_is_decoded_anew(kind: Kind, read: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(kind.file(0))
    with Store.of(tmp_path).active():
        encode_rows(kind.preprocessor, [path])
        stamp = path.stat().st_mtime_ns
        path.write_bytes(kind.file(1))
        os.utime(path, ns=(stamp, stamp + 1_000_000))
        assert_same(encode_rows(kind.preprocessor, [path]), kind.preprocessor.encode([path]), kind.preprocessor)
        read.clear()
        encode_rows(kind.preprocessor, [path])
    assert read == []


def test_a_relative_path_is_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessor, size = ImagePreprocessor(size=8), 2000
    with Store.of(tmp_path).active():
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            monkeypatch.chdir(tmp_path / str(number))
            Path("a").write_bytes(picture(number).ljust(size, b"\0"))
            os.utime("a", ns=(0, 0))
            assert_same(encode_rows(preprocessor, ["a"]), preprocessor.encode(["a"]), preprocessor)


def test_another_version_of_a_decoder_decodes_anew(
    kind: Kind, read: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [kind.file(0)]
    known = cached_rows.versions
    with Store.of(tmp_path).active():
        encode_rows(kind.preprocessor, cells)
        for package in ("numpy", *kind.preprocessor.decoders):
            read.clear()
            with monkeypatch.context() as newer:
                newer.setattr(
                    cached_rows, "versions", lambda *names, p=package: (*known(*names), p if p in names else "")
                )
                encode_rows(kind.preprocessor, cells)
            assert read == cells
            read.clear()
            encode_rows(kind.preprocessor, cells)
            assert read == []


def test_a_preprocessor_of_a_guest_counts_by_its_code(tmp_path: Path) -> None:
    with Store.of(tmp_path).active():
        for shift in (1, 2, 1):

            class Shifted(ImagePreprocessor):
                def encode(self, cells: Any, shift: int = shift) -> Encoded:
                    encoded = super().encode(cells)
                    return Encoded(encoded.items + np.uint8(shift), encoded.present, encoded.errors, encoded.lengths)

            guest = Shifted(size=8)
            assert_same(encode_rows(guest, [picture(0)]), guest.encode([picture(0)]), guest)


def test_what_is_quicker_encoded_than_found_is_not_kept(tmp_path: Path) -> None:
    pixels = np.zeros((4, 10, 10, 3), dtype=np.uint8)
    with Store.of(tmp_path).active():
        encode_rows(ImagePreprocessor(size=8), list(pixels))
        encode_rows(ImagePreprocessor(size=8), [Image.fromarray(pixels[0])])
        encode_rows(VideoPreprocessor(size=8), [pixels])
        encode_rows(AudioPreprocessor(), [{"array": [0.0, 0.5], "sampling_rate": 16000, "path": __file__}])
        encode_rows(TabularPreprocessor({"a": "number"}), [1.0, 2.0])
    assert not (tmp_path / "encodings.sqlite").exists()


def embedded(encoded: Encoded) -> list[int]:
    """Embed rows; return those that were computed."""
    computed: list[int] = []

    def compute(positions: np.ndarray) -> list[np.ndarray]:
        computed.extend(positions.tolist())
        return [np.asarray([encoded.items[position].mean()], dtype=np.float32) for position in positions]

    rows = np.arange(len(encoded))
    made = embed_rows(b"mean", encoded.contents(rows), compute)
    for item, embedding in zip(encoded.items, made, strict=True):
        assert embedding == np.float32(item.mean())
    return computed


def test_an_embedding_is_found_by_the_file(kind: Kind, tmp_path: Path) -> None:
    files = [kind.file(number) for number in range(3)]
    with Store.of(tmp_path).active():
        assert embedded(encode_rows(kind.preprocessor, files[:2])) == [0, 1]
        encoded = encode_rows(kind.preprocessor, [files[2], files[1], None, files[0], files[2]])
        assert [type(content) for content in encoded.contents(np.arange(5))] == [bytes, bytes, np.ndarray, bytes, bytes]
        assert embedded(encoded) == [0, 2]
        assert embedded(encode_rows(kind.other, files[:2])) == [0, 1], "they are encoded otherwise"


def test_encodings_that_make_room_leave_the_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_rows, "ENCODING_BYTES", 400_000)
    preprocessor = ImagePreprocessor(size=64)
    cells = [picture(seed) for seed in range(60)]
    expected = preprocessor.encode(cells)
    with Store.of(tmp_path).active():
        first = encode_rows(preprocessor, cells[:10])
        assert embedded(first) == list(range(10))
        for start in range(0, 60, 10):  # each 123 kB
            made = encode_rows(preprocessor, cells[start : start + 10])
            np.testing.assert_array_equal(made.items, expected.items[start : start + 10])
            assert (tmp_path / "encodings.sqlite").stat().st_size <= 400_000
        assert embedded(encode_rows(preprocessor, cells[:10])) == []


def work_on(folder: Path, start: int, stop: int) -> np.ndarray:
    with Store.of(folder).active():
        return encode_rows(ImagePreprocessor(size=8), [picture(seed) for seed in range(start, stop)]).items


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_jobs_share_the_encodings(tmp_path: Path, backend: str) -> None:
    ranges = [(start, start + 20) for start in range(0, 60, 10)]
    made = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(work_on)(tmp_path, *both) for both in ranges)
    for (start, stop), items in zip(ranges, made, strict=True):
        expected = ImagePreprocessor(size=8).encode([picture(seed) for seed in range(start, stop)]).items
        np.testing.assert_array_equal(items, expected)


def in_a_fork(folder: Path, queue: Any) -> None:
    read: list[Any] = []
    opened = image._open
    image._open = lambda cell: read.append(cell) or opened(cell)
    items = work_on(folder, 0, 6)
    queue.put((len(read), items))


def test_a_fork_finds_them(tmp_path: Path) -> None:
    work_on(tmp_path, 0, 4)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=in_a_fork, args=(tmp_path, queue))
    process.start()
    n_read, items = queue.get(timeout=30)
    process.join()
    assert n_read == 2
    np.testing.assert_array_equal(items, work_on(tmp_path, 0, 6))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32", "float64", ">f4", "bool"])
def test_arrays_come_back_as_they_are(tmp_path: Path, dtype: str) -> None:
    store = RowStore(tmp_path / "rows.sqlite", 2**20)
    shapes = [(), (0,), (3,), (2, 0, 3), (2, 3, 4)]
    made = {digest(b"", str(shape).encode()): np.ones(shape).cumsum().reshape(shape).astype(dtype) for shape in shapes}
    made[b"a slice"] = np.arange(24).astype(dtype).reshape(4, 6)[::2, 1:5].T
    store.put(made)
    found = store.get([*made, b"nothing"])
    assert found.keys() == made.keys()
    for key, value in made.items():
        assert found[key].dtype == value.dtype
        assert found[key].shape == value.shape
        np.testing.assert_array_equal(found[key], value)
