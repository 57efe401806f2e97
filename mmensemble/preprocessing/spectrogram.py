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

import numpy as np

__all__ = ["filter_bank", "log_mel"]

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
    frames = _frames(padded, n_fft, hop_length, n_frames) * _window(n_fft, periodic=True)
    power = _power(frames, n_fft)
    filters = _slaney_filters(n_fft // 2 + 1, n_mels, sampling_rate)
    decades = np.log10(np.maximum(power @ filters, _FLOOR))
    scaled = (np.maximum(decades, decades.max() - _DECADES) + 4.0) / 4.0
    return np.asarray(scaled, dtype=np.float32)


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
    frames = _frames(sound, length, hop, 1 + (len(sound) - length) // hop).astype(np.float64)
    frames -= frames.mean(axis=1, keepdims=True)
    emphasised = frames.copy()
    emphasised[:, 1:] -= _PREEMPHASIS * frames[:, :-1]
    emphasised[:, 0] *= 1 - _PREEMPHASIS
    power = _power(emphasised * _window(length, periodic=False), n_fft)
    energies = np.log(np.maximum(power @ _kaldi_filters(n_fft, n_mels, sampling_rate), _EPSILON))
    return np.asarray(energies, dtype=np.float32)


def _frames(sound: np.ndarray, length: int, hop: int, n_frames: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(sound, length)[::hop][:n_frames]


def _power(frames: np.ndarray, n_fft: int) -> np.ndarray:
    spectrum = np.fft.rfft(frames, n_fft, axis=1)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


@functools.lru_cache(maxsize=8)
def _window(length: int, *, periodic: bool) -> np.ndarray:
    """Return Hann's window in float64, so that what is multiplied by it is too."""
    steps = length if periodic else length - 1
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / steps))


@functools.lru_cache(maxsize=8)
def _slaney_filters(n_bins: int, n_mels: int, sampling_rate: int) -> np.ndarray:
    """Return the filters of Slaney's Auditory Toolbox (1998), each of area 1: linear to 1 kHz, logarithmic above."""
    step = np.log(6.4) / 27

    def to_hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(step * (mel - 15)))

    highest = min(8000.0, sampling_rate / 2)
    top = 15 + np.log(highest / 1000) / step if highest >= 1000 else 3 * highest / 200
    edges = to_hertz(np.linspace(0, top, n_mels + 2))
    filters = _triangles(np.linspace(0, sampling_rate / 2, n_bins), edges)
    return np.asarray(filters * 2 / (edges[2:] - edges[:-2]))


@functools.lru_cache(maxsize=8)
def _kaldi_filters(n_fft: int, n_mels: int, sampling_rate: int) -> np.ndarray:
    """Return Kaldi's filters, triangles on the mel scale."""

    def to_mel(hertz: np.ndarray) -> np.ndarray:
        return np.asarray(1127 * np.log(1 + hertz / 700))

    low, high = to_mel(np.array([_LOWEST, sampling_rate / 2]))
    bins = to_mel(np.arange(n_fft // 2 + 1) * sampling_rate / n_fft)
    return _triangles(bins, np.linspace(low, high, n_mels + 2))


def _triangles(bins: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return triangles over `bins`, (n_bins, len(edges) - 2), each from one edge to the next but one."""
    rising = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))
