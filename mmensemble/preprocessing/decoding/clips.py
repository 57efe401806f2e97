"""Evenly spaced frames of animations (Pillow), video files (PyAV) and arrays. Imports numpy and Pillow.

PyAV, of the extra ``video``, is imported for the first cell that Pillow does not know.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmensemble.preprocessing.decoding.cells import file_of, open_file
from mmensemble.preprocessing.decoding.pictures import open_picture
from mmensemble.preprocessing.decoding.pyav import decoded_frames, open_by_av, require_av

__all__ = ["even_times", "frames_of"]

# Browsers show a frame that gives no duration for so long.
_DEFAULT_MILLISECONDS = 100

# Frames lie up to so far apart from the last one from which they can be decoded (x264's default is 250 frames). What
# is further ahead is jumped to; up to there decoding on is as quick.
_JUMP_SECONDS = 10.0


def even_times(n: int) -> np.ndarray:
    """Return the centres of n equal parts of [0, 1], ndarray of float64, shape (n,)."""
    return (np.arange(n) + 0.5) / n


def frames_of(cell: Any, n_frames: int) -> Iterator[Image.Image]:
    """Yield the frames that stand on the screen at `even_times` of a clip's duration, in any mode and of any size.

    Parameters
    ----------
    cell : path, bytes, dict or ndarray
        As in `mmensemble.preprocessing.VideoPreprocessor`.
    n_frames : int

    Yields
    ------
    PIL.Image.Image
        A frame that stays on the screen is the same object again.
    """
    if isinstance(cell, np.ndarray):
        frames = _checked(cell)
        return (Image.fromarray(frames[i]) for i in (even_times(n_frames) * len(frames)).astype(int))
    cell = file_of(cell)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return _decoded(nullcontext(io.BytesIO(cell)), n_frames)
    if isinstance(cell, (str, os.PathLike)):
        return _decoded(open_file(cell), n_frames)
    raise TypeError(
        f"{type(cell).__name__} is none of: path, bytes, {{'bytes', 'path'}}, uint8 array; "
        "convert the column to one of them, a list of frames by numpy.stack"
    )


def _checked(array: np.ndarray) -> np.ndarray:
    """Return T×H×W or T×H×W×C with 3 or 4 channels."""
    if array.dtype != np.uint8:
        raise TypeError(f"an array must be uint8, not {array.dtype}; scale it to 0 … 255 and convert it")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise ValueError(
            f"an array of shape {array.shape} looks like one picture, H×W or H×W×C; rows are clips, so give a single "
            "clip as [clip], and a picture as the clip of one frame picture[None]"
        )
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[:, :, :, 0]
    if array.size == 0 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (3, 4))):
        raise ValueError(f"an array must be T×H×W or T×H×W×C with 1, 3 or 4 channels, not of shape {array.shape}")
    return np.ascontiguousarray(array)


def _decoded(opened: Any, n_frames: int) -> Iterator[Image.Image]:
    with opened as file:
        try:
            image = open_picture(file)
        except UnidentifiedImageError:
            image = None
        # Pillow knows the first bytes of an MPEG stream, and nothing more of it.
        if image is None or image.format == "MPEG":
            file.seek(0)
            yield from _video_frames(file, n_frames)
        else:
            yield from _animation_frames(image, file, n_frames)


# Animations


def _animation_frames(image: Image.Image, file: BinaryIO, n_frames: int) -> Iterator[Image.Image]:
    # The default image of an animated PNG, where it is none of the frames, is for readers that know none.
    first = int(bool(image.info.get("default_image")))
    durations = _durations(image, file, first)
    ends = np.cumsum(durations)
    wanted = np.searchsorted(ends, even_times(n_frames) * ends[-1], side="right")
    picture, shown = image, -1
    for number in wanted.tolist():
        if number != shown:
            image.seek(first + number)
            picture, shown = image.copy(), number
        yield picture


def _durations(image: Image.Image, file: BinaryIO, first: int) -> np.ndarray:
    """Return the duration of each frame in milliseconds."""
    n_frames = getattr(image, "n_frames", 1) - first
    durations = [0.0] * n_frames
    if image.format == "WEBP":
        file.seek(0)
        found = _webp_durations(file.read())
        durations = found if len(found) == n_frames else durations
    elif n_frames > 1:
        for number in range(n_frames):
            image.seek(first + number)
            image.load()
            durations[number] = float(image.info.get("duration") or 0)
    return np.asarray([duration or _DEFAULT_MILLISECONDS for duration in durations])


def _webp_durations(data: bytes) -> list[float]:
    """Read the durations out of the headers of a WebP's frames, which is far quicker than decoding them.

    The format is that of RFC 9649, section 2.7.1.1.
    """
    durations, start = [], 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start : start + 4] == b"ANMF":
            durations.append(float(int.from_bytes(data[start + 20 : start + 23], "little")))
        start += 8 + size + size % 2
    return durations


# Video files


def _video_frames(file: BinaryIO, n_frames: int) -> Iterator[Image.Image]:
    av = require_av("video")
    try:
        with open_by_av(file, "video") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise ValueError("it holds no video")
            if stream.codec_context is None:
                raise ValueError("it is of a codec that PyAV does not know")
            stream.codec_context.thread_count = 1  # clips are decoded side by side
            yield from _shown_at(container, stream, even_times(n_frames))
    except av.FFmpegError as error:
        # The rest of its text is the name of the file, which in memory is none.
        raise ValueError(error.strerror) from error


def _end(container: Any, stream: Any) -> float:
    """Return when a video stream ends, in units of its time base, by its header or else by its packets."""
    # Matroska's duration is counted from 0, wherever the first frame is.
    start = 0 if "matroska" in container.format.name else stream.start_time or 0
    if stream.duration:
        return float(start + stream.duration)
    if container.duration:
        return float(start + container.duration / 1e6 / stream.time_base)
    end = 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            end = max(end, packet.pts + (packet.duration or 0))
    if not end:
        raise ValueError("its frames have no times; put them into a container such as mp4 or webm")
    container.seek(0)
    return float(end)


def _shown_at(container: Any, stream: Any, parts: np.ndarray) -> Iterator[Image.Image]:
    """Yield the frame that is shown at each of some rising parts of the duration, numbers in [0, 1)."""
    until = _end(container, stream)
    frames = _timed_frames(container, stream)
    shown, ahead = next(frames, None), next(frames, None)
    if shown is None:
        raise ValueError("none of its frames can be decoded")
    start = shown.pts if stream.start_time is None else stream.start_time
    duration = until - start if until > start else until
    picture, n_lost = _upright(shown), 0
    for time in (start + parts * duration).tolist():
        before = shown
        if ahead is not None and (time - ahead.pts) * stream.time_base > _JUMP_SECONDS:
            frames, ahead = _from_before(container, stream, time)
            shown = shown if ahead is None else ahead
        while ahead is not None and ahead.pts <= time:
            shown, ahead = ahead, next(frames, None)
        if shown is not before:
            picture = _upright(shown)
        end = shown.pts + max(shown.duration, 1)
        n_lost += ahead is None and time >= end
        if n_lost > len(parts) // 2:
            seconds, of = float((end - start) * stream.time_base), float(duration * stream.time_base)
            raise ValueError(f"it breaks off after {seconds:.1f} of {of:.1f} seconds")
        yield picture


def _from_before(container: Any, stream: Any, time: float) -> tuple[Iterator[Any], Any]:
    """Go to the last frame before a time that needs no other, and return what follows it, and it."""
    frames, first = iter(()), None
    for earlier in (0.0, _JUMP_SECONDS):  # without an index, a seek may end behind the time
        container.seek(int(time - earlier / float(stream.time_base)), stream=stream)
        frames = _timed_frames(container, stream)
        first = next(frames, None)
        if first is not None and first.pts <= time:
            break
    return frames, first


def _timed_frames(container: Any, stream: Any) -> Iterator[Any]:
    return (frame for frame in decoded_frames(container, stream) if frame.pts is not None)


def _upright(frame: Any) -> Image.Image:
    image: Image.Image = frame.to_image()
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
