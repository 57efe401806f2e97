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
from mmensemble.preprocessing.decoding.cells import FILE_KEYS, open_file
from mmensemble.preprocessing.decoding.pyav import decoded_frames, open_by_av, require_av

__all__ = ["SOUND_KEYS", "read_sound"]

_SOURCES = "path, bytes, {'bytes', 'path'}, {'array', 'sampling_rate'}, 1-D float array"
# The keys of a dict that hold a sound; the first one that has a value counts.
SOUND_KEYS = ("array", *FILE_KEYS)
# Files of floats may go beyond full scale, which is 1. 40 dB beyond it samples are integers that became floats.
_LOUDEST = 100.0
# A sound that ends before so much of what its file promises is broken off; what headers say is often a frame off.
_ENOUGH = 0.9
_EMPTY = "it has no samples"
# Formats without a header, whose duration FFmpeg guesses from the first packets.
_GUESSED = {"aac", "ac3", "amr", "dts", "eac3", "mp3", "mpeg", "mpegts", "truehd"}


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
        raise ValueError(_EMPTY)
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
        with open_file(source) as file:
            yield file


def _read(source: Any, max_seconds: float) -> tuple[np.ndarray, int]:
    """Return the mean of the channels, and the rate.

    What soundfile reads to the end is taken. Where it reads nothing or breaks off, PyAV is asked, and its verdict
    counts if it gets as far as the file promises.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: a soundfile without its library
        raise MissingDependencyError("soundfile", "audio") from error
    promised = 0.0
    with _opened(source) as file:
        try:
            with soundfile.SoundFile(file) as sound:
                rate = int(sound.samplerate)
                promised = min(max_seconds, sound.frames / rate)
                samples = sound.read(max(1, round(max_seconds * rate)), dtype="float32", always_2d=True)
            reason = _why_incomplete(len(samples) / rate, promised)
            if reason is None:
                return samples.mean(axis=1), rate
        except soundfile.SoundFileError as error:
            reason = _without_address(error)
        file.seek(0)
        try:
            return _read_by_av(file, max_seconds, promised)
        except MissingDependencyError:
            raise ValueError(reason) from None
        except ValueError:
            if reason == _EMPTY:
                raise ValueError(reason) from None
            raise


def _without_address(error: Exception) -> str:
    """Take the file object out of a message, which is there by its address and differs from run to run."""
    return str(error).rsplit(": ", 1)[-1]


def _why_incomplete(seconds: float, promised: float) -> str | None:
    """Say what is wrong with a sound that is shorter than its file promises; headers may be off by a little."""
    if not seconds:
        return _EMPTY
    if seconds < _ENOUGH * promised:
        return f"it breaks off after {seconds:.1f} of {promised:.1f} seconds"
    return None


def _read_by_av(file: IO[bytes], max_seconds: float, promised: float) -> tuple[np.ndarray, int]:
    av = require_av("audio")
    try:
        with open_by_av(file, "audio") as container:
            if not container.streams.audio:
                raise ValueError("it has no sound")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise ValueError("it is of a codec that PyAV does not know")
            rate = _rate(stream.rate)
            if stream.duration and container.format.name not in _GUESSED:
                promised = promised or min(max_seconds, float(stream.duration * stream.time_base))
            parts, n_samples = [], 0
            for part in _decoded(container, stream, rate):
                parts.append(part)
                n_samples += len(part)
                if n_samples >= max_seconds * rate:
                    break
            reason = _why_incomplete(n_samples / rate, promised)
            if reason is not None:
                raise ValueError(reason)
            return np.concatenate(parts).astype(np.float32), rate
    except av.FFmpegError as error:
        raise ValueError(f"neither soundfile nor PyAV knows its format ({error.strerror})") from error


def _decoded(container: Any, stream: Any, rate: int) -> Iterator[np.ndarray]:
    """Yield the mean of the channels."""
    av = require_av("audio")
    # To float32 at the file's own rate, the channels packed into one plane: of the planes of many channels PyAV reads
    # some that are not there, and the process ends.
    convert = av.AudioResampler(format="flt", rate=rate)
    for frame in decoded_frames(container, stream):
        for part in convert.resample(frame):
            yield part.to_ndarray().reshape(part.samples, -1).mean(axis=1)


def _resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    av = require_av("audio")
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="flt", layout="mono", rate=wanted)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    resampled = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    # A few samples at a high rate may become none.
    return resampled if len(resampled) else sound[:1]
