"""Log-mel spectrograms by numpy, the same in training and in scoring. Imports numpy only.

Two kinds, as the two families of pretrained networks want them:

`log_mel`
    Whisper's: centred frames, power, Slaney's mel filters, log10 within 8 decades of the loudest.
`filter_bank`
    Kaldi's filter-bank energies, which AST takes: frames that lie wholly within the sound, the mean taken off,
    pre-emphasis, power, natural logarithm.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

__all__ = ["filter_bank", "log_mel"]

# Of each filter, its first frequency bin and its weights from there on.
Filters = tuple[tuple[int, np.ndarray], ...]

# Frames that are transformed together: few enough for a processor's cache, which takes a third of the time of all of
# them at once for a sound of 10 s, and many enough that numpy's calls cost little.
_BLOCK = 64

# Whisper: the smallest power, and the decades below the loudest that are kept.
_FLOOR = 1e-10
_DECADES = 8.0
# Kaldi: its frames in seconds, its pre-emphasis, its lowest frequency, and the smallest power, float32's epsilon.
_FRAME, _HOP = 0.025, 0.010
_PREEMPHASIS = 0.97
_LOWEST = 20.0
_EPSILON = float(np.finfo(np.float32).eps)


def log_mel(sound: np.ndarray, *, sampling_rate: int, n_mels: int, n_fft: int, hop_length: int) -> np.ndarray:
    """Compute the spectrogram that Whisper takes, of a sound that silence follows.

    Parameters
    ----------
    sound : ndarray of float32, shape (n_samples,)
    sampling_rate : int
        Samples per second.
    n_mels : int
        Mel filters, from 0 Hz to 8 kHz or half the rate.
    n_fft, hop_length : int
        Samples of a frame, and from one to the next.

    Returns
    -------
    ndarray of float32, shape (n_frames, n_mels)
        A frame per `hop_length` samples that are begun, and one more, which sees the end of the last.

    References
    ----------
    Radford et al. (2023). Robust speech recognition via large-scale weak supervision. ICML.
    """
    n_frames = -(-len(sound) // hop_length) + 1
    half = n_fft // 2
    # What comes before the sound is its mirror image, and a sound shorter than that is followed by silence first.
    sound = np.pad(sound, (0, max(0, half + 1 - len(sound))))
    after = max(0, (n_frames - 1) * hop_length + half - len(sound))
    padded = np.concatenate([sound[half:0:-1], sound, np.zeros(after, dtype=np.float32)])
    window = _window(n_fft, periodic=True)
    filters = _slaney_filters(n_fft // 2 + 1, n_mels, sampling_rate)
    energies = _energies(_frames(padded, n_fft, hop_length, n_frames), n_fft, filters, lambda frames: frames * window)
    decades = np.log10(np.maximum(energies, _FLOOR))
    scaled = (np.maximum(decades, decades.max() - _DECADES) + 4.0) / 4.0
    return np.asarray(scaled, dtype=np.float32, order="C")


def filter_bank(sound: np.ndarray, *, sampling_rate: int, n_mels: int) -> np.ndarray:
    """Compute Kaldi's log filter-bank energies of 25 ms every 10 ms.

    Parameters
    ----------
    sound : ndarray of float32, shape (n_samples,)
        At least 25 ms.
    sampling_rate : int
        Samples per second.
    n_mels : int
        Mel filters, from 20 Hz to half the rate.

    Returns
    -------
    ndarray of float32, shape (n_frames, n_mels)

    References
    ----------
    Povey et al. (2011). The Kaldi speech recognition toolkit. ASRU.

    Gong, Chung, Glass (2021). AST: audio spectrogram transformer. Interspeech.
    """
    length, hop = int(sampling_rate * _FRAME), int(sampling_rate * _HOP)
    n_fft = 1 << (length - 1).bit_length()
    window = _window(length, periodic=False)

    def emphasised(frames: np.ndarray) -> np.ndarray:
        centred = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
        emphasised = centred.copy()
        emphasised[:, 1:] -= _PREEMPHASIS * centred[:, :-1]
        emphasised[:, 0] *= 1 - _PREEMPHASIS
        return np.asarray(emphasised * window)

    frames = _frames(sound, length, hop, 1 + (len(sound) - length) // hop)
    energies = _energies(frames, n_fft, _kaldi_filters(n_fft, n_mels, sampling_rate), emphasised)
    return np.asarray(np.log(np.maximum(energies, _EPSILON)), dtype=np.float32, order="C")


def _frames(sound: np.ndarray, length: int, hop: int, n_frames: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(sound, length)[::hop][:n_frames]


def _energies(
    frames: np.ndarray, n_fft: int, filters: Filters, prepare: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return what each filter lets through of each prepared frame, (n_frames, n_filters) float64.

    A filter passes few bins, so it takes no product of matrices. That would be BLAS's, whose threads wait for each
    other where the cores are busy: on two of them it took 12 ms for what takes 0.4 ms here.
    """
    power = np.empty((n_fft // 2 + 1, len(frames)))
    for start in range(0, len(frames), _BLOCK):
        spectrum = np.fft.rfft(prepare(frames[start : start + _BLOCK]), n_fft, axis=1).T
        power[:, start : start + _BLOCK] = spectrum.real**2 + spectrum.imag**2
    energies = np.empty((len(filters), len(frames)))
    for energy, (first, weights) in zip(energies, filters, strict=True):
        np.einsum("b,bf->f", weights, power[first : first + len(weights)], out=energy)
    return energies.T


@functools.lru_cache(maxsize=8)
def _window(length: int, *, periodic: bool) -> np.ndarray:
    """Return Hann's window in float64, so that what is multiplied by it is too."""
    steps = length if periodic else length - 1
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / steps))


@functools.lru_cache(maxsize=8)
def _slaney_filters(n_bins: int, n_mels: int, sampling_rate: int) -> Filters:
    """Return the filters of Slaney's Auditory Toolbox (1998), each of area 1: linear to 1 kHz, logarithmic above."""
    step = np.log(6.4) / 27

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(step * (mel - 15)))

    highest = min(8000.0, sampling_rate / 2)
    top = 15 + np.log(highest / 1000) / step if highest >= 1000 else 3 * highest / 200
    edges = to_hertz(np.linspace(0, top, n_mels + 2))
    filters = _triangles(np.linspace(0, sampling_rate / 2, n_bins), edges)
    return _without_zeros(filters * 2 / (edges[2:] - edges[:-2]))


@functools.lru_cache(maxsize=8)
def _kaldi_filters(n_fft: int, n_mels: int, sampling_rate: int) -> Filters:
    """Return Kaldi's filters, triangles on the mel scale."""

    def to_mel(hertz: np.ndarray) -> np.ndarray:
        return np.asarray(1127 * np.log(1 + hertz / 700))

    low, high = to_mel(np.array([_LOWEST, sampling_rate / 2]))
    bins = to_mel(np.arange(n_fft // 2 + 1) * sampling_rate / n_fft)
    return _without_zeros(_triangles(bins, np.linspace(low, high, n_mels + 2)))


def _triangles(bins: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return triangles over `bins`, (n_bins, len(edges) - 2), each from one edge to the next but one."""
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def _without_zeros(filters: np.ndarray) -> Filters:
    """Take each column's weights from the first to the last that is not 0; a narrow filter may have none."""
    passed = [np.flatnonzero(weights) for weights in filters.T]
    ends = [(bins[0], bins[-1] + 1) if len(bins) else (0, 0) for bins in passed]
    return tuple((int(a), np.ascontiguousarray(w[a:b])) for (a, b), w in zip(ends, filters.T, strict=True))
