"""Pictures of one size on white, as PNG."""

from __future__ import annotations

import io

from PIL import Image

from mmensemble.exceptions import ConfigurationError


def check_size(size: int) -> None:
    """Refuse a height and width without pixels."""
    if size < 1:
        raise ConfigurationError(f"size must be at least 1 pixel; got {size!r}")


def on_white(picture: Image.Image, size: int) -> bytes:
    """Fit a picture into the middle of a white square of ``size`` pixels, proportions kept, and encode it as PNG."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    drawn = picture.convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (size, size), "white")
    canvas.paste(drawn, ((size - width) // 2, (size - height) // 2), mask=drawn)
    encoded = io.BytesIO()
    canvas.save(encoded, format="PNG")
    return encoded.getvalue()
