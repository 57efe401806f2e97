"""Videos: frames taken evenly, made RGB and resized. Imports numpy and Pillow; video files need the extra ``video``.

The arrays stay ``uint8``, as those of images do.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mmensemble.exceptions import ConfigurationError, MissingDependencyError
from mmensemble.frames import Cells
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.decoding.cells import is_missing_file, why_unreadable
from mmensemble.preprocessing.decoding.clips import frames_of
from mmensemble.preprocessing.decoding.pictures import Resize, to_square
from mmensemble.preprocessing.registry import register_preprocessor

__all__ = ["VideoPreprocessor"]


@register_preprocessor
class VideoPreprocessor(Preprocessor):
    """Videos → ``frames``, uint8 of shape (batch, n_frames, size, size, 3).

    A cell is a path, encoded bytes, ``{"bytes", "path"}`` or a uint8 array T×H×W or T×H×W×C. By its content, not by its
    name, a file is an animation (WebP, GIF, PNG), a still picture, which is a clip of one frame, or a video file of any
    format that PyAV reads (the extra ``video``). Transparency is laid over white; frames are turned upright.

    Of a clip of duration *d*, the frame is taken that stands on the screen at *d* (*i* + 1/2) / `n_frames`, for *i* = 0
    … `n_frames` - 1: the centres of equal segments, as temporal segment networks are tested (Wang et al. 2016). The
    frames of an array last equally long. A clip of fewer frames repeats them.

    Of a video file only what is needed is decoded, and one frame at a time is held. Where its end or a part of it
    cannot be decoded, the last frame before stays on the screen; if more than half of the frames are lost so, the cell
    is bad. An animation that breaks off is bad, as a picture is.

    Parameters
    ----------
    n_frames : int, default=8
        Frames taken of each clip.
    size : int, default=64
        Height and width of each frame in pixels.
    resize, resize_to, resample : default="stretch", None, "bilinear"
        As in `ImagePreprocessor`.

    Raises
    ------
    ConfigurationError
        If there are no frames or no pixels.

    References
    ----------
    Wang, Xiong, Wang, Qiao, Lin, Tang, Van Gool (2016). Temporal segment networks: towards good practices for deep
    action recognition. ECCV.

    Examples
    --------
    >>> import numpy as np
    >>> video = VideoPreprocessor(n_frames=4, size=8)
    >>> clip = np.arange(16, dtype=np.uint8)[:, None, None] * np.ones((1, 20, 30), dtype=np.uint8)
    >>> encoded = video.encode([clip, b"no video"])
    >>> frames = video.collate(encoded, [0])["frames"]
    >>> frames.shape, frames[0, :, 0, 0, 0].tolist()
    ((1, 4, 8, 8, 3), [2, 6, 10, 14])
    >>> encoded.errors[1]
    'the video cannot be read: Invalid data found when processing input'
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "video"
    decoders: ClassVar[tuple[str, ...]] = ("pillow", "av")

    def __init__(
        self,
        *,
        n_frames: int = 8,
        size: int = 64,
        resize: Resize = "stretch",
        resize_to: int | None = None,
        resample: str = "bilinear",
    ) -> None:
        if n_frames < 1 or size < 1:
            raise ConfigurationError(f"n_frames and size must be at least 1, not {n_frames!r} and {size!r}")
        self.n_frames = n_frames
        self.size = size
        self.resize = resize
        self.resize_to = resize_to
        self.resample = resample

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        return {"frames": TensorSpec("uint8", ("batch", self.n_frames, self.size, self.size, 3))}

    def encode(self, *columns: Cells) -> Encoded:
        """Encode rows; see `Preprocessor.encode`.

        Raises
        ------
        MissingDependencyError
            If a cell holds a video file and PyAV is not installed.
        """
        (cells,) = columns
        items = np.zeros((len(cells), self.n_frames, self.size, self.size, 3), dtype=np.uint8)
        present = np.zeros(len(cells), dtype=bool)
        errors: dict[int, str] = {}
        for row, cell in enumerate(cells):
            if is_missing_file(cell):
                continue
            try:
                self._fill(items[row], cell)
            except MissingDependencyError:
                raise
            except Exception as error:  # as of Pillow's plugins, see ImagePreprocessor
                items[row] = 0
                errors[row] = f"the video cannot be read: {why_unreadable(cell, error)}"
            else:
                present[row] = True
        return Encoded(items, present, errors, self.lengths(items))

    def _fill(self, item: np.ndarray, cell: Any) -> None:
        """Write a clip's frames into an array (n_frames, size, size, 3)."""
        last = None
        for number, frame in enumerate(frames_of(cell, self.n_frames)):
            if frame is last:
                item[number] = item[number - 1]
                continue
            item[number] = to_square(
                frame, size=self.size, resize=self.resize, resize_to=self.resize_to, resample=self.resample
            )
            last = frame

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"frames": encoded.items[rows]}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return short clips of noise, of several lengths and sizes."""
        shapes = rng.integers((1, 4, 4), (self.n_frames + 3, 32, 32), size=(n, 3))
        return [[rng.integers(256, size=(*shape, 3), dtype=np.uint8) for shape in shapes]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "n_frames": self.n_frames,
            "size": self.size,
            "resize": self.resize,
            "resize_to": self.resize_to,
            "resample": self.resample,
        }
