"""What is varied at random in the training of image and video networks, alike for all frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance

__all__ = ["AUGMENTATIONS", "vary_clips"]

AUGMENTATIONS = ("flip", "shift", "crop", "colour")


def vary_clips(clips: np.ndarray, augmentation: Sequence[str], rng: np.random.RandomState) -> np.ndarray:
    """Vary clips at random.

    Parameters
    ----------
    clips : ndarray of uint8, shape (batch, n_frames, size, size, 3)
        An image is a clip of one frame.
    augmentation : sequence of {"flip", "shift", "crop", "colour"}
        Mirror left and right; move by up to a tenth of the size; enlarge a square of 64 to 100 % of the edge; change
        brightness, contrast and saturation by up to 30 %.
    rng : RandomState

    Returns
    -------
    ndarray of uint8, shape (batch, n_frames, size, size, 3)
    """
    size = clips.shape[2]
    if "flip" in augmentation:
        mirrored = rng.random_sample(len(clips)) < 0.5
        clips = np.where(mirrored[:, None, None, None, None], clips[:, :, :, ::-1], clips)
    if "shift" in augmentation:
        reach = size // 10
        padded = np.pad(clips, ((0, 0), (0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        corners = rng.randint(0, 2 * reach + 1, (len(clips), 2))
        clips = np.stack([c[:, i : i + size, j : j + size] for c, (i, j) in zip(padded, corners, strict=True)])
    if "crop" in augmentation:
        clips = np.stack([_random_crop(clip, rng) for clip in clips])
    if "colour" in augmentation:
        clips = np.stack([_vary_colour(clip, rng) for clip in clips])
    return clips


def _random_crop(clip: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Enlarge a square of 64 to 100 % of the edge at a random place."""
    size = clip.shape[1]
    edge = rng.randint(int(0.64 * size), size + 1)
    top, left = rng.randint(0, size - edge + 1, 2)
    squares = [Image.fromarray(np.ascontiguousarray(frame[top : top + edge, left : left + edge])) for frame in clip]
    return np.stack([np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)) for square in squares])


def _vary_colour(clip: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Change brightness, contrast and saturation by up to 30 %."""
    # One below the other the frames are one picture, whose mean grey is what contrast is measured from.
    image = Image.fromarray(np.ascontiguousarray(clip.reshape(-1, *clip.shape[2:])))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.7, 1.3))
    return np.asarray(image).reshape(clip.shape)
