"""Images: decoded, turned upright, made RGB, resized and cropped by Pillow. Imports numpy and Pillow.

The arrays stay ``uint8``: rescaling and normalisation belong to the network, so that they are part of the exported
graph and a quarter of the bytes travel to it.
"""

from __future__ import annotations

import io
import os
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmensemble.frames import Cells
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.decoding.cells import file_of, is_missing_file, open_file, why_unreadable
from mmensemble.preprocessing.decoding.pictures import Resize, open_picture, to_square
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["ImagePreprocessor"]


@register_preprocessor
class ImagePreprocessor(Preprocessor):
    """Images → ``pixels``, uint8 of shape (batch, size, size, 3).

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, a ``PIL.Image`` or a uint8 array H×W or H×W×C. Of an
    animated image the first frame is taken; transparency is laid over white.

    Parameters
    ----------
    size : int, default=64
        Height and width of the result in pixels.
    resize : {"stretch", "shortest_edge"}, default="stretch"
        Scale both edges to `resize_to`, or scale the shorter edge to it and keep the aspect ratio.
    resize_to : int, default=None
        The edge after scaling, in pixels; `size` where None. What is larger than `size` is cropped at the centre.
    resample : {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"}, default="bilinear"
        Pillow's filter for scaling.

    Examples
    --------
    >>> import numpy as np
    >>> image = ImagePreprocessor(size=8)
    >>> encoded = image.encode([np.zeros((20, 30), dtype=np.uint8), b"not an image"])
    >>> image.collate(encoded, [0])["pixels"].shape
    (1, 8, 8, 3)
    >>> encoded.errors[1]
    'the image cannot be read: cannot identify image file'
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "image"
    decoders: ClassVar[tuple[str, ...]] = ("pillow",)

    def __init__(
        self,
        *,
        size: int = 64,
        resize: Resize = "stretch",
        resize_to: int | None = None,
        resample: str = "bilinear",
    ) -> None:
        self.size = size
        self.resize = resize
        self.resize_to = resize_to
        self.resample = resample

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {"pixels": TensorSpec("uint8", ("batch", self.size, self.size, 3))}

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        items = np.zeros((len(cells), self.size, self.size, 3), dtype=np.uint8)
        present = np.zeros(len(cells), dtype=bool)
        errors: dict[int, str] = {}
        for row, cell in enumerate(cells):
            if is_missing_file(cell):
                continue
            try:
                items[row] = to_square(
                    _open(cell),
                    size=self.size,
                    resize=self.resize,
                    resize_to=self.resize_to,
                    resample=self.resample,
                )
            except Exception as error:  # Pillow's plugins raise anything: struct.error, NotImplementedError, ...
                errors[row] = f"the image cannot be read: {why_unreadable(cell, error)}"
            else:
                present[row] = True
        return Encoded(items, present, errors, self.lengths(items))

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"pixels": encoded.items[rows]}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return small pictures of noise, in colour and grey, of several sizes."""
        shapes = [
            (*edges, 3) if number % 4 else tuple(edges) for number, edges in enumerate(rng.integers(4, 48, (n, 2)))
        ]
        return [[rng.integers(256, size=shape, dtype=np.uint8) for shape in shapes]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "size": self.size,
            "resize": self.resize,
            "resize_to": self.resize_to,
            "resample": self.resample,
        }


def _open(cell: Any) -> Image.Image:
    if isinstance(cell, Image.Image):
        return cell
    cell = file_of(cell)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return open_picture(io.BytesIO(cell))
    if isinstance(cell, (str, os.PathLike)):
        with open_file(cell) as file:
            return open_picture(io.BytesIO(file.read()))
    if isinstance(cell, np.ndarray):
        if cell.dtype != np.uint8:
            raise TypeError(f"an array must be uint8, not {cell.dtype}")
        if cell.ndim == 3 and cell.shape[2] == 1:
            cell = cell[:, :, 0]
        if cell.size == 0 or not (cell.ndim == 2 or (cell.ndim == 3 and cell.shape[2] in (3, 4))):
            raise ValueError(f"an array must be H×W or H×W×C with 1, 3 or 4 channels, not of shape {cell.shape}")
        return Image.fromarray(np.ascontiguousarray(cell))
    raise TypeError(
        f"{type(cell).__name__} is none of: path, bytes, {{'bytes', 'path'}}, PIL.Image, uint8 array; "
        "convert the column to one of them"
    )
