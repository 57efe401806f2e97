"""Sound files → samples of one channel at one rate, by soundfile and PyAV. Imports numpy; the two inside functions.

soundfile reads wav, flac, ogg, mp3 and the like; what it does not know, PyAV tries, which reads the sound of films too.
PyAV resamples.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from mmensemble.exceptions import MissingDependencyError
from mmensemble.preprocessing.decoding.cells import FILE_KEYS, not_empty
from mmensemble.preprocessing.decoding.pyav import open_by_av, require_av

__all__ = ["SOUND_KEYS", "read_sound"]

_SOURCES = "path, bytes, {'bytes', 'path'}, {'array', 'sampling_rate'}, 1-D float array"
# The keys of a dict that hold a sound; the first one that has a value counts.
SOUND_KEYS = ("array", *FILE_KEYS)
# Files of floats may go beyond full scale, which is 1. 40 dB beyond it samples are integers that became floats.
_LOUDEST = 100.0


def read_sound(cell: Any, *, sampling_rate: int, max_seconds: float) -> np.ndarray:
    """Read the beginning of a sound.

    Parameters
    ----------
    cell : path, bytes, dict or sequence of float
        A file, or samples from -1 to 1: as an array of one axis at `sampling_rate`, or as
        ``{"array", "sampling_rate"}``.
    sampling_rate : int
        Samples per second of the result.
    max_seconds : float
        What comes later is not read.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
        The mean of the channels.

    Raises
    ------
    TypeError, ValueError
        For what is no sound, or one without samples, or with samples that are not finite, or beyond 100, as 16-bit
        integers are that became floats and were not divided by 32768.
    MissingDependencyError
        If soundfile or PyAV is needed and not installed.
    """
    if isinstance(cell, dict):
        source = next((key for key in SOUND_KEYS if cell.get(key) is not None), None)
        if source is None:
            raise ValueError(f"a dict must have 'array' and 'sampling_rate', 'bytes' or 'path', not {list(cell)}")
        if source == "array":
            sound, rate = _samples(cell["array"]), _rate(cell.get("sampling_rate"))
        else:
            sound, rate = _read(cell[source], max_seconds)
    elif isinstance(cell, (bytes, bytearray, memoryview, str, os.PathLike)):
        sound, rate = _read(cell, max_seconds)
    else:
        sound, rate = _samples(cell), sampling_rate
    sound = sound[: max(1, round(max_seconds * rate))]
    _check(sound)
    sound = sound.astype(np.float32, copy=False)
    return sound if rate == sampling_rate else _resample(sound, rate, sampling_rate)


def _samples(array: Any) -> np.ndarray:
    if isinstance(array, (int, float, np.number)):
        raise TypeError("a number is no sound; rows are sounds, so give a single waveform as [waveform]")
    if not isinstance(array, (np.ndarray, list, tuple)):
        raise TypeError(f"{type(array).__name__} is none of: {_SOURCES}; convert the column to one of them")
    samples = np.asarray(array)
    if samples.ndim != 1:
        raise ValueError(f"an array must have one axis, not the shape {samples.shape}; average the channels")
    if not np.issubdtype(samples.dtype, np.floating) and len(samples):
        remedy = "; divide integers of 16 bits by 32768" if samples.dtype.kind in "iu" else ""
        raise TypeError(f"an array must hold floats from -1 to 1, not {samples.dtype}{remedy}")
    return samples


def _check(sound: np.ndarray) -> None:
    if not len(sound):
        raise ValueError("it has no samples")
    if not np.isfinite(sound).all():
        raise ValueError("it has samples that are NaN or infinite")
    peak = float(np.abs(sound).max())
    if peak > _LOUDEST:
        raise ValueError(
            f"its samples go up to {peak:.4g}, and full scale is 1; divide by 32768 what was integers of 16 bits"
        )


def _rate(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"sampling_rate must be an integer of at least 1, not {value!r}")
    return int(value)


@contextmanager
def _opened(source: Any) -> Iterator[IO[bytes]]:
    """Open a path or bytes; never an address of a network, which PyAV would take."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    else:
        with open(not_empty(source), "rb") as file:
            yield file


def _read(source: Any, max_seconds: float) -> tuple[np.ndarray, int]:
    """Return the mean of the channels, and the rate."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: a soundfile without its library
        raise MissingDependencyError("soundfile", "audio") from error
    with _opened(source) as file:
        try:
            with soundfile.SoundFile(file) as sound:
                n_samples = max(1, round(max_seconds * sound.samplerate))
                channels = sound.read(n_samples, dtype="float32", always_2d=True)
                return channels.mean(axis=1), int(sound.samplerate)
        except soundfile.SoundFileError as error:
            file.seek(0)
            try:
                return _read_by_av(file, max_seconds)
            except MissingDependencyError:
                raise ValueError(_without_address(error)) from error


def _without_address(error: Exception) -> str:
    """Take the file object out of a message, which is there by its address and differs from run to run."""
    return str(error).rsplit(": ", 1)[-1]


def _read_by_av(file: IO[bytes], max_seconds: float) -> tuple[np.ndarray, int]:
    av = require_av("audio")
    try:
        with open_by_av(file, "audio") as container:
            if not container.streams.audio:
                raise ValueError("it has no sound")
            stream = container.streams.audio[0]
            rate = _rate(stream.rate)
            # To float32 with the channels side by side, at the file's own rate.
            convert = av.AudioResampler(format="fltp", rate=rate)
            parts, n_samples = [], 0
            for frame in container.decode(stream):
                for part in convert.resample(frame):
                    parts.append(part.to_ndarray().mean(axis=0))
                    n_samples += part.samples
                if n_samples >= max_seconds * rate:
                    break
            sound = np.concatenate(parts) if parts else np.zeros(0)
            return sound.astype(np.float32), rate
    except av.FFmpegError as error:
        raise ValueError(f"neither soundfile nor PyAV knows its format ({error.strerror})") from error


def _resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    av = require_av("audio")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    resampled = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    # A few samples at a high rate may become none.
    return resampled if len(resampled) else sound[:1]
