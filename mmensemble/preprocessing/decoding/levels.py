"""Which number is white in a picture of grey levels that are more than 8 bits. Imports numpy and Pillow.

Pillow's modes ``I``, ``I;16`` and ``F`` hold whatever numbers a file holds. What they mean, the file says or nobody.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

__all__ = ["Levels", "levels_of", "to_grey"]

# Tags of TIFF 6.0, sections 8 and 19 and 20.
_BITS, _PHOTOMETRIC, _FORMAT, _SMIN, _SMAX = 258, 262, 339, 340, 341
_UNSIGNED = 1
_WHITE_IS_ZERO = 0
# Pillow scales these to 16 bits itself.
_SCALED_BY_PILLOW = {"PNG", "PPM", "JPEG2000"}


class Levels(NamedTuple):
    """The numbers that are black and white.

    Attributes
    ----------
    black, white : float
    in_memory : bool
        Whether they are Pillow's, of a picture without a file.
    """

    black: float
    white: float
    in_memory: bool = False


def levels_of(image: Image.Image) -> Levels | None:
    """Find out what is black and white in a picture; None where a grey level is a byte.

    Parameters
    ----------
    image : PIL.Image.Image
        As it was opened: a copy does not have what the file says.

    Raises
    ------
    ValueError
        If nothing says it.
    """
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    if image.format is None:  # Pillow clips floats at 255 where it makes bytes of them
        return Levels(0, 255 if image.mode == "F" else 65535, in_memory=True)
    if image.format == "TIFF":
        return _levels_of_tags(dict(image.tag_v2))  # type: ignore[attr-defined]
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SCALED_BY_PILLOW):
        return Levels(0, 65535)
    raise ValueError(
        f"its grey levels are {'floats' if image.mode == 'F' else 'integers of 32 bits'}, and the format "
        f"{image.format} does not say which one is white; {_REMEDY}"
    )


_REMEDY = "save it with 8 or 16 bits"


def _levels_of_tags(tags: dict[int, Any]) -> Levels:
    bits, number = _first(tags.get(_BITS, 1)), _first(tags.get(_FORMAT, _UNSIGNED))
    black, white = _first(tags.get(_SMIN, 0)), _first(tags.get(_SMAX))
    if white is None:
        if number != _UNSIGNED or bits > 16:
            kind = {2: "signed integers", 3: "floats"}.get(number, "integers")
            raise ValueError(
                f"its grey levels are {kind} of {bits} bits, and the file does not say which one is white; {_REMEDY}, "
                "or with the tag SMaxSampleValue"
            )
        white = 2**bits - 1
    black, white = float(black), float(white)
    if not black < white:
        raise ValueError(f"its tags say that its grey levels go from {black} to {white}")
    return Levels(white, black) if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else Levels(black, white)


def _first(value: Any) -> Any:
    """Return what a tag says of the first channel; pictures of several are no grey levels."""
    return value[0] if isinstance(value, tuple) else value


def to_grey(image: Image.Image, levels: Levels) -> Image.Image:
    """Scale grey levels to bytes.

    Raises
    ------
    ValueError
        If one is not finite, or if all of a picture in memory are so low that all would be black.
    """
    values: np.ndarray = np.asarray(image).astype(np.float64 if image.mode == "I" else np.float32)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are NaN or infinite")
    if levels.in_memory:
        brightest = float(values.max(initial=0))
        if 0 < brightest <= levels.white / 255:
            raise ValueError(
                f"its grey levels go up to {brightest:g}, and in memory {levels.white:g} is white; multiply them, or "
                "make bytes of them"
            )
    scaled = (values - levels.black) * (255 / (levels.white - levels.black))
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
