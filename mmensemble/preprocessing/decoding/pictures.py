"""Pictures as the network takes them: upright, RGB, square. What images and the frames of videos share.

Imports numpy and Pillow.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps

from mmensemble.preprocessing.decoding.levels import Levels, levels_of, to_grey

__all__ = ["Resize", "open_picture", "to_rgb", "to_square"]

Resize = Literal["stretch", "shortest_edge"]


# A picture whose one edge is so many times the other is cropped before it is scaled: scaled whole, one of 10,000 × 1
# pixels takes gigabytes.
_LONGEST = 8

# Pillow gives these to another program: EPS, which is code, to Ghostscript.
_BY_OTHER_PROGRAMS = {"EPS"}


def open_picture(file: BinaryIO) -> Image.Image:
    """Open a file of any format that Pillow decodes by itself.

    Raises
    ------
    PIL.UnidentifiedImageError
        If it is of no such format.
    """
    return Image.open(file, formats=_formats())


@cache
def _formats() -> list[str]:
    # What Pillow finds odd about a file it can read, it does not say which one. Whoever asks to see it still does.
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    Image.preinit()  # the most common ones, which so are tried first
    Image.init()
    return [name for name in Image.ID if name not in _BY_OTHER_PROGRAMS]


def to_square(image: Image.Image, *, size: int, resize: Resize, resize_to: int | None, resample: str) -> np.ndarray:
    """Turn a picture upright, make it RGB, scale it and crop its centre.

    Parameters
    ----------
    image : PIL.Image.Image
    size : int
        Height and width of the result in pixels.
    resize : {"stretch", "shortest_edge"}
        Scale both edges to `resize_to`, or scale the shorter edge to it and keep the aspect ratio.
    resize_to : int or None
        The edge after scaling, in pixels; `size` where None.
    resample : str
        Pillow's filter for scaling, in lower case.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    ValueError
        If the picture has no pixels, or nothing says which of its grey levels is white.
    """
    levels = levels_of(image)
    image = to_rgb(ImageOps.exif_transpose(image), levels)
    edge = resize_to or size
    width, height = image.size
    if not width or not height:
        raise ValueError(f"it has no pixels: its size is {width}×{height}")
    if resize == "stretch":
        target = (edge, edge)
    else:
        # Rounded down, as transformers' image processors do.
        shortest = min(width, height)
        target = (width * edge // shortest, height * edge // shortest)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    filter = Image.Resampling[resample.upper()]
    if max(target) > _LONGEST * edge:
        return np.asarray(_part(image, target, (left, top, left + size, top + size), filter))
    if image.size != target:
        image = image.resize(target, filter)
    if image.size != (size, size):
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def _part(
    image: Image.Image, target: tuple[int, int], crop: tuple[int, int, int, int], filter: Image.Resampling
) -> Image.Image:
    """Return what scaling to the target and cropping then would give, up to the rounding of sums."""
    x0, y0, x1, y1 = max(crop[0], 0), max(crop[1], 0), min(crop[2], target[0]), min(crop[3], target[1])
    across, down = image.width / target[0], image.height / target[1]
    box = (x0 * across, y0 * down, min(x1 * across, image.width), min(y1 * down, image.height))
    scaled = image.resize((x1 - x0, y1 - y0), filter, box=box)
    return scaled.crop((crop[0] - x0, crop[1] - y0, crop[2] - x0, crop[3] - y0))


def to_rgb(image: Image.Image, levels: Levels | None) -> Image.Image:
    """Make a picture of any mode RGB; what is transparent is laid over white.

    Parameters
    ----------
    image : PIL.Image.Image
    levels : Levels or None
        Its grey levels, where they are no bytes: `levels_of`.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if levels is not None:
        return to_grey(image, levels).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")
