from __future__ import annotations

import io
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmensemble.exceptions import DataError
from mmensemble.preprocessing import ImagePreprocessor, preprocessor_from_dict

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
PICTURE = Image.fromarray(COLORS)


def encoded_bytes(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def pixels(cell: Any, **parameters: Any) -> np.ndarray:
    """The pixels of one cell, of which nothing may be wrong."""
    encoded = ImagePreprocessor(**{"size": 8, **parameters}).encode([cell])
    assert encoded.errors == {}
    assert encoded.present.tolist() == [True]
    assert encoded.items.dtype == np.uint8
    return encoded.items[0]


def assert_all(array: np.ndarray, color: list[int]) -> None:
    assert np.unique(array.reshape(-1, 3), axis=0).tolist() == [color]


def flat(mode: str, value: Any, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, value)


# --- what a cell may be


def test_every_kind_of_cell_gives_the_same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    data = encoded_bytes(PICTURE)
    path.write_bytes(data)
    cells = [
        str(path),
        path,
        data,
        bytearray(data),
        memoryview(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": data, "path": "a file that is not there.png"},
        {"bytes": data},
        {"path": path},
        PICTURE,
        Image.open(path),
        COLORS,
        np.asfortranarray(COLORS),
        np.dstack([COLORS, np.full(COLORS.shape[:2], 255, dtype=np.uint8)]),
    ]
    encoded = ImagePreprocessor(size=8).encode(cells)
    assert encoded.errors == {}
    assert encoded.present.all()
    expected = np.asarray(PICTURE.resize((8, 8), Image.Resampling.BILINEAR))
    for row, item in enumerate(encoded.items):
        np.testing.assert_array_equal(item, expected, err_msg=str(row))


def test_grey_arrays() -> None:
    grey = RNG.integers(0, 256, (8, 8), dtype=np.uint8)
    for cell in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(pixels(cell), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize(
    "cell",
    [None, float("nan"), pd.NA, {"bytes": None, "path": None}, {"bytes": None}],
    ids=["None", "nan", "NA", "struct", "half a struct"],
)
def test_missing(cell: object) -> None:
    image = ImagePreprocessor(size=8)
    encoded = image.encode([COLORS, cell])
    assert encoded.present.tolist() == [True, False]
    assert encoded.errors == {}
    assert not encoded.items[1].any()


def truncated_png() -> bytes:
    data = encoded_bytes(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    return data[: len(data) // 2]


def damaged_dds() -> bytes:
    # Pillow's reader gives up by NotImplementedError, as several of its readers do on headers they do not know.
    return b"DDS " + struct.pack("<7I", 124, 0x100F, 8, 8, 24, 0, 0) + bytes(44) + struct.pack("<2I", 32, 0) + bytes(44)


BAD_CELLS = {
    "no image": (b"not an image", "cannot identify image file"),
    "empty": (b"", "cannot identify image file"),
    "truncated": (truncated_png(), ""),
    "code": (encoded_bytes(Image.new("RGB", (8, 8)), "EPS"), "cannot identify image file"),
    "unknown header": (damaged_dds(), ""),
    "no such file": ("no/such/file.png", "No such file"),
    "a folder": (str(Path(__file__).parent), "Is a directory"),
    "NUL in the path": ("a\0b.png", ""),
    "floats": (np.zeros((4, 4, 3), dtype=np.float32), "must be uint8, not float32"),
    "booleans": (np.zeros((4, 4), dtype=bool), "must be uint8, not bool"),
    "1-D": (np.zeros(4, dtype=np.uint8), "not of shape (4,)"),
    "4-D": (np.zeros((1, 4, 4, 3), dtype=np.uint8), "not of shape (1, 4, 4, 3)"),
    "2 channels": (np.zeros((4, 4, 2), dtype=np.uint8), "not of shape (4, 4, 2)"),
    "channels first": (np.zeros((3, 8, 8), dtype=np.uint8), "not of shape (3, 8, 8)"),
    "no pixels": (np.zeros((0, 4, 3), dtype=np.uint8), "not of shape (0, 4, 3)"),
    "no pixels, Pillow": (Image.new("RGB", (0, 5)), ""),
    "a number": (3, "int is none of: path, bytes"),
    "other keys": ({"file": "a.png"}, "a dict must have 'bytes' or 'path', not ['file']"),
    "a list": ([[0, 1], [1, 0]], "list is none of: path, bytes"),
}


@pytest.mark.parametrize("resize", ["stretch", "shortest_edge"])
@pytest.mark.parametrize("name", BAD_CELLS)
def test_a_bad_cell_costs_its_own_row_only(name: str, resize: Any) -> None:
    cell, reason = BAD_CELLS[name]
    image = ImagePreprocessor(size=8, resize=resize)
    encoded = image.encode([COLORS, cell, COLORS])
    assert list(encoded.errors) == [1]
    assert encoded.errors[1].startswith("the image cannot be read: ")
    assert reason in encoded.errors[1]
    assert "0x" not in encoded.errors[1], "an address differs from run to run"
    assert encoded.present.tolist() == [True, False, True]
    assert not encoded.items[1].any()
    (alone,) = image.encode([COLORS]).items
    np.testing.assert_array_equal(encoded.items[[0, 2]], np.stack([alone, alone]))
    with pytest.raises(DataError, match="row 1, column 'picture': the image cannot be read"):
        encoded.raise_for_errors("picture")


def test_the_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("text")
    relative = "; a relative path starts at the working directory"
    as_it_is = "; a path is taken as it stands: ~ is not expanded, and nothing is fetched"
    none = "[Errno 2] No such file or directory: "
    for cell, reason in (
        ("text.png", "cannot identify image file ('text.png')"),
        ({"bytes": b"text", "path": "text.png"}, "cannot identify image file ('text.png')"),
        ("a.png", f"{none}'a.png'{relative}"),
        (Path("a.png"), f"{none}'a.png'{relative}"),
        (tmp_path / "a.png", f"{none}'{tmp_path / 'a.png'}'"),
        ("~/a.png", f"{none}'~/a.png'{as_it_is}"),
        ("https://a.org/a.png", f"{none}'https://a.org/a.png'{as_it_is}"),
        (b"text", "cannot identify image file"),
    ):
        assert ImagePreprocessor().encode([cell]).errors == {0: f"the image cannot be read: {reason}"}


def test_what_is_no_file_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(encoded_bytes(flat("RGB", 0, (40, 40))))
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    cells = [str(tmp_path / "pipe.png"), tmp_path / "link.png", "/dev/zero", tmp_path / "large.png"]
    monkeypatch.setenv("MMENSEMBLE_MAX_FILE_BYTES", "50")
    errors = ImagePreprocessor(size=8).encode(cells).errors
    assert all("it is no regular file" in errors[row] for row in range(3))
    assert "bytes, and at most 50 are read; set MMENSEMBLE_MAX_FILE_BYTES" in errors[3]
    monkeypatch.setenv("MMENSEMBLE_MAX_FILE_BYTES", "1000000")
    assert list(ImagePreprocessor(size=8).encode(cells).errors) == [0, 1, 2]


def test_an_image_too_large_to_be_true_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded_bytes(flat("RGB", 0, (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    encoded = ImagePreprocessor(size=8).encode([data, COLORS])
    assert "decompression bomb" in encoded.errors[0]
    assert encoded.present.tolist() == [False, True]


# --- modes


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (flat("L", 77), [77, 77, 77]),
        (flat("1", 1), [255, 255, 255]),
        (flat("1", 0), [0, 0, 0]),
        (flat("LA", (0, 255)), [0, 0, 0]),
        (flat("LA", (0, 0)), [255, 255, 255]),
        (flat("LA", (0, 127)), [128, 128, 128]),
        (flat("RGBA", (255, 0, 0, 255)), [255, 0, 0]),
        (flat("RGBA", (255, 0, 0, 0)), [255, 255, 255]),
        (flat("RGBA", (255, 0, 0, 127)), [255, 128, 128]),
        (flat("CMYK", (0, 255, 255, 0)), [255, 0, 0]),
        (flat("F", 77.6), [77, 77, 77]),
        (flat("F", -5.0), [0, 0, 0]),
        (flat("F", 1e6), [255, 255, 255]),
        (flat("I;16", 65535), [255, 255, 255]),
        (flat("I;16", 0x8080), [128, 128, 128]),
        (flat("I;16", 300), [1, 1, 1]),
        (flat("I;16B", 0x8080), [128, 128, 128]),
        (flat("I", 0x8080), [128, 128, 128]),
        (flat("I", -7), [0, 0, 0]),
        (flat("P", 0).convert("P"), [0, 0, 0]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_modes(image: Image.Image, color: list[int]) -> None:
    assert_all(pixels(image), color)


def palette_image() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    return image


def test_palette() -> None:
    array = pixels(encoded_bytes(palette_image()))
    assert_all(array[:, :4], [255, 0, 0])
    assert_all(array[:, 4:], [0, 0, 255])


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"], ids=["index", "alpha per entry"])
def test_transparent_palette_entries_become_white(transparency: Any) -> None:
    array = pixels(encoded_bytes(palette_image(), transparency=transparency))
    assert_all(array[:, :4], [255, 255, 255])
    assert_all(array[:, 4:], [0, 0, 255])


@pytest.mark.parametrize(("mode", "value"), [("RGB", (255, 0, 0)), ("L", 40)])
def test_a_transparent_color_becomes_white(mode: str, value: Any) -> None:
    data = encoded_bytes(flat(mode, value), transparency=value)
    assert Image.open(io.BytesIO(data)).mode == mode
    assert_all(pixels(data), [255, 255, 255])


def test_16_bit_png_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    array = pixels(encoded_bytes(Image.fromarray(ramp)))
    np.testing.assert_allclose(array[:, :, 0], ramp / 257, atol=1)
    assert len(np.unique(array)) > 50


RAMP = np.linspace(0, 1, 64).reshape(8, 8)
SMIN, SMAX, PHOTOMETRIC = 340, 341, 262


def tiff(array: np.ndarray, tags: dict[int, Any] | None = None) -> bytes:
    return encoded_bytes(Image.fromarray(array), "TIFF", tiffinfo=tags or {})


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Write a strip of grey levels that are packed two to three bytes, which Pillow reads and does not write."""
    bits = "".join(f"{value:012b}" for value in values.ravel().tolist())
    strip = int(bits, 2).to_bytes(len(bits) // 8, "big")
    entries = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8 + 2 + 9 * 12 + 4),
        (277, 3, 1),
        (278, 4, values.shape[0]),
        (279, 4, len(strip)),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II" + struct.pack("<HIH", 42, 8, len(entries)) + directory + struct.pack("<I", 0) + strip


@pytest.mark.parametrize(
    "data",
    [
        tiff_of_12_bits((RAMP * 4095).astype(int)),
        tiff(RAMP.astype(np.float32), {SMIN: 0.0, SMAX: 1.0}),
        tiff((RAMP * 255).astype(np.int32), {SMAX: 255}),
        tiff((RAMP * 65535).astype(np.uint16)),
        tiff((500 - 400 * RAMP).astype(np.float32), {SMIN: 100.0, SMAX: 500.0, PHOTOMETRIC: 0}),
    ],
    ids=["12 bits", "floats", "int32", "16 bits", "white is zero"],
)
def test_a_tiff_is_scaled_by_its_tags(data: bytes) -> None:
    np.testing.assert_allclose(pixels(data)[:, :, 0], RAMP * 255, atol=1.01)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(RAMP.astype(np.float32)), "its grey levels are floats of 32 bits, and the file does not say"),
        (tiff((RAMP * 255).astype(np.int32)), "signed integers of 32 bits, and the file does not say"),
        (tiff(RAMP.astype(np.float32), {SMIN: 2.0, SMAX: 1.0}), "go from 2.0 to 1.0"),
        (tiff(np.full((8, 8), np.nan, np.float32), {SMAX: 1.0}), "NaN"),
        (b"Pf\n8 8\n-1.0\n" + RAMP.astype("<f4").tobytes(), "the format PPM does not say"),
        (Image.fromarray(RAMP.astype(np.float32)), "go up to 1, and in memory 255 is white"),
        (Image.fromarray((RAMP * 255).astype(np.int32)), "go up to 255, and in memory 65535 is white"),
    ],
    ids=["floats", "int32", "upside down", "NaN", "PFM", "floats in memory", "int32 in memory"],
)
def test_grey_levels_that_nobody_explains_are_refused(data: Any, reason: str) -> None:
    errors = ImagePreprocessor(size=8).encode([data]).errors
    assert reason in errors[0]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [flat("RGB", color) for color in ("red", "lime", "blue")]
    data = encoded_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    (tmp_path / "animated.gif").write_bytes(data)
    for cell in (data, tmp_path / "animated.gif"):
        assert_all(pixels(cell), [255, 0, 0])


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation(orientation: int) -> None:
    upright = Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded_bytes(upright.transpose(TURNS[orientation]), exif=exif)
    np.testing.assert_array_equal(pixels(stored), np.asarray(upright))
    # Where an edge is kept by its length, the turn must come before the resizing.
    tall = flat("RGB", "red", (8, 16)).transpose(TURNS[orientation])
    assert pixels(encoded_bytes(tall, exif=exif), resize="shortest_edge").shape == (8, 8, 3)


def test_a_cell_is_not_changed() -> None:
    image, array = PICTURE.copy(), COLORS.copy()
    ImagePreprocessor(size=4).encode([image, array])
    assert image.size == PICTURE.size
    np.testing.assert_array_equal(np.asarray(image), COLORS)
    np.testing.assert_array_equal(array, COLORS)


# --- resizing


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_stretch(resample: str) -> None:
    expected = PICTURE.resize((5, 5), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(pixels(COLORS, size=5, resample=resample), np.asarray(expected))


def test_stretch_then_crop() -> None:
    expected = PICTURE.resize((12, 12), Image.Resampling.BICUBIC).crop((2, 2, 10, 10))
    np.testing.assert_array_equal(pixels(COLORS, resize_to=12, resample="bicubic"), np.asarray(expected))


@pytest.mark.parametrize(("size", "scaled", "corner"), [((32, 16), (16, 8), (4, 0)), ((16, 40), (8, 20), (0, 6))])
def test_shortest_edge_then_center_crop(
    size: tuple[int, int], scaled: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    left, top = corner
    expected = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + 8, top + 8))
    np.testing.assert_array_equal(pixels(image, resize="shortest_edge"), np.asarray(expected))


def test_shortest_edge_with_a_larger_edge() -> None:
    image = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    expected = image.resize((15, 10), Image.Resampling.BILINEAR).crop((3, 1, 11, 9))
    np.testing.assert_array_equal(pixels(image, resize="shortest_edge", resize_to=10), np.asarray(expected))


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (7, 100), (101, 67)])
def test_odd_sizes_fill_the_square(size: tuple[int, int]) -> None:
    for resize in ("stretch", "shortest_edge"):
        assert_all(pixels(flat("RGB", (9, 8, 7), size), resize=resize, resize_to=11), [9, 8, 7])


# Not "box" and "nearest", which take one pixel or its neighbour where a border falls between them.
@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos", "hamming"])
@pytest.mark.parametrize("size", [(300, 9), (11, 400), (997, 1), (1, 500), (90, 10)])
@pytest.mark.parametrize("resize_to", [10, 8, 6])
def test_a_thin_picture_is_scaled_as_it_would_be_whole(size: tuple[int, int], resample: str, resize_to: int) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    target = (size[0] * resize_to // min(size), size[1] * resize_to // min(size))
    left, top = (target[0] - 8) // 2, (target[1] - 8) // 2
    whole = image.resize(target, Image.Resampling[resample.upper()]).crop((left, top, left + 8, top + 8))
    found = pixels(image, resize="shortest_edge", resize_to=resize_to, resample=resample)
    np.testing.assert_allclose(found.astype(int), np.asarray(whole).astype(int), atol=1)


def test_a_thin_picture_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    resize = Image.Image.resize

    def noted(image: Image.Image, size: tuple[int, int], *arguments: Any, **options: Any) -> Image.Image:
        made.append(size)
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    image = ImagePreprocessor(size=224, resize="shortest_edge", resize_to=256)
    assert image.encode([encoded_bytes(Image.new("L", (10_000, 1), 200))]).errors == {}
    assert made == [(224, 224)]


def test_an_image_of_the_right_size_is_left_alone() -> None:
    array = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(array), array)


# --- batches and JSON


def test_collate() -> None:
    image = ImagePreprocessor(size=8)
    encoded = image.encode([flat("RGB", "red"), None, flat("RGB", "blue")])
    assert encoded.lengths.tolist() == [1, 1, 1]
    batch = image.collate(encoded, [2, 1, 0])
    assert batch["pixels"].shape == (3, 8, 8, 3)
    assert batch["pixels"].dtype == np.uint8
    assert batch["pixels"][:, 0, 0].tolist() == [[0, 0, 255], [0, 0, 0], [255, 0, 0]]
    assert batch["present"].tolist() == [True, False, True]
    assert image.tensors["pixels"].shape == ("batch", *batch["pixels"].shape[1:])
    assert image.tensors["pixels"].dtype == "uint8"


def test_json_round_trip() -> None:
    image = ImagePreprocessor(size=5, resize="shortest_edge", resize_to=7, resample="bicubic")
    copy = preprocessor_from_dict(json.loads(json.dumps(image.to_dict())))
    assert copy == image
    assert image != ImagePreprocessor(size=5, resize="shortest_edge", resize_to=7)
    np.testing.assert_array_equal(copy.encode([COLORS]).items, image.encode([COLORS]).items)


def test_an_empty_path_is_told_from_a_missing_picture() -> None:
    encoded = ImagePreprocessor(size=8).encode(["", None])
    assert list(encoded.errors) == [0]
    assert "the path is empty; what is missing is None" in encoded.errors[0]
