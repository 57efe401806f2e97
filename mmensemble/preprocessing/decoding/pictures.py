"""Pictures as the network takes them: upright, RGB, square. What images and the frames of videos share.

Imports numpy and Pillow.
"""

from __future__ import annotations

from functools import cache
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps

__all__ = ["Resize", "open_picture", "to_rgb", "to_square"]

Resize = Literal["stretch", "shortest_edge"]


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
        If the picture has no pixels.
    """
    image = to_rgb(ImageOps.exif_transpose(image))
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
    if image.size != target:
        image = image.resize(target, Image.Resampling[resample.upper()])
    if image.size != (size, size):
        left, top = (target[0] - size) // 2, (target[1] - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """Make a picture of any mode RGB; what is transparent is laid over white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")
