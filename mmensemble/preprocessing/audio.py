"""Sounds: decoded, mixed to one channel, resampled, cut, and made a spectrogram. Imports numpy; what decodes, at use.

All of it is on the host, so that training and scoring share one spectrogram; the network gets frames and a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from mmensemble.exceptions import ConfigurationError, MissingDependencyError
from mmensemble.frames import Cells
from mmensemble.preprocessing.base import Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.decoding.cells import is_missing_file, why_unreadable
from mmensemble.preprocessing.decoding.sound import SOUND_KEYS, read_sound
from mmensemble.preprocessing.registry import register_preprocessor
from mmensemble.preprocessing.spectrogram import filter_bank, log_mel

__all__ = ["AudioPreprocessor"]

# A row's length is counted in steps of that many seconds, the tokens of Whisper and wav2vec 2.0.
_STEP_SECONDS = 0.02
# A shorter sound is followed by silence: 16 frames and more, which a patch of AST takes.
_SHORTEST_SECONDS = 0.2


@register_preprocessor
class AudioPreprocessor(Preprocessor):
    """Sounds → ``input_features`` (batch, frames, n_mels) or ``input_values`` (batch, samples), and a mask.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, ``{"array", "sampling_rate"}`` or an array of floats of one
    axis at `sampling_rate`, from -1 to 1. Samples beyond 100 are an error: so far beyond full scale are integers of 16
    bits that became floats and were not divided by 32768. Any number of channels becomes their mean. Rows of a batch
    are padded with zeros to the longest; ``attention_mask`` (int64) is 1 where a frame or sample is real.

    Parameters
    ----------
    features : {"log_mel", "filter_bank", "waveform"}, default="log_mel"
        Whisper's log-mel spectrogram, Kaldi's filter-bank energies (of AST), or the samples themselves (of wav2vec
        2.0).
    sampling_rate : int, default=16000
        Samples per second, to which sounds are resampled.
    max_seconds : float, default=10.0
        The longest sound; the rest is cut.
    n_mels : int, default=64
        Mel filters of a spectrogram.
    n_fft, hop_length : int, default=400, 160
        Samples of a frame of ``"log_mel"``, and from one to the next.
    mean, std : float, default=0.0, 1.0
        Taken off and divided by, in a spectrogram.
    normalise : bool, default=False
        Bring each waveform to mean 0 and variance 1.

    Raises
    ------
    ConfigurationError
        If `features` is unknown, or a number so small that there are no frames.

    Examples
    --------
    >>> import numpy as np
    >>> audio = AudioPreprocessor(n_mels=40)
    >>> encoded = audio.encode([np.zeros(16000, dtype=np.float32), np.zeros(0, dtype=np.float32)])
    >>> audio.collate(encoded, [0])["input_features"].shape
    (1, 101, 40)
    >>> encoded.errors[1]
    'the sound cannot be read: it has no samples'
    """

    __module__ = "mmensemble.preprocessing"
    kind: ClassVar[str] = "audio"
    decoders: ClassVar[tuple[str, ...]] = ("soundfile", "av")

    def __init__(
        self,
        *,
        features: Literal["log_mel", "filter_bank", "waveform"] = "log_mel",
        sampling_rate: int = 16000,
        max_seconds: float = 10.0,
        n_mels: int = 64,
        n_fft: int = 400,
        hop_length: int = 160,
        mean: float = 0.0,
        std: float = 1.0,
        normalise: bool = False,
    ) -> None:
        if features not in ("log_mel", "filter_bank", "waveform"):
            raise ConfigurationError(f"features must be 'log_mel', 'filter_bank' or 'waveform', not {features!r}")
        # Below 100 Hz a hop of 10 ms has no sample.
        least = {"sampling_rate": 100, "n_mels": 1, "n_fft": 2, "hop_length": 1}
        given = {"sampling_rate": sampling_rate, "n_mels": n_mels, "n_fft": n_fft, "hop_length": hop_length}
        for name, value in given.items():
            if value < least[name]:
                raise ConfigurationError(f"{name} must be at least {least[name]}, not {value!r}")
        if not max_seconds > 0 or not std > 0:
            raise ConfigurationError(f"max_seconds and std must be above 0, not {max_seconds!r} and {std!r}")
        self.features = features
        self.sampling_rate = sampling_rate
        self.max_seconds = max_seconds
        self.n_mels = n_mels
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.mean = mean
        self.std = std
        self.normalise = normalise

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        if self.features == "waveform":
            return {
                "input_values": TensorSpec("float32", ("batch", "samples")),
                "attention_mask": TensorSpec("int64", ("batch", "samples")),
            }
        return {
            "input_features": TensorSpec("float32", ("batch", "frames", self.n_mels)),
            "attention_mask": TensorSpec("int64", ("batch", "frames")),
        }

    def encode(self, *columns: Cells) -> Encoded:
        (cells,) = columns
        silence = self._features(np.zeros(0, dtype=np.float32))
        items = [silence] * len(cells)
        present = np.zeros(len(cells), dtype=bool)
        errors: dict[int, str] = {}
        for row, cell in enumerate(cells):
            if is_missing_file(cell, SOUND_KEYS):
                continue
            try:
                sound = read_sound(cell, sampling_rate=self.sampling_rate, max_seconds=self.max_seconds)
            except MissingDependencyError:
                raise
            except Exception as error:  # what decoders raise has no base class in common
                errors[row] = f"the sound cannot be read: {why_unreadable(cell, error)}"
            else:
                items[row] = self._features(sound)
                present[row] = True
        return Encoded(items, present, errors, self.lengths(items))

    def lengths(self, items: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return `Encoded.lengths` of items, in steps of 0.02 s."""
        step = _STEP_SECONDS * self.sampling_rate / (1 if self.features == "waveform" else self._hop)
        return np.fromiter((max(1, round(len(item) / step)) for item in items), dtype=np.int64, count=len(items))

    @property
    def _hop(self) -> int:
        return self.hop_length if self.features == "log_mel" else self.sampling_rate // 100

    @property
    def max_length(self) -> int:
        """The most frames or samples of a row."""
        samples = round(self.max_seconds * self.sampling_rate)
        return samples if self.features == "waveform" else samples // self._hop

    @property
    def row_bytes(self) -> int:
        """What a row of `max_seconds` takes, so that a window of long sounds is no larger than one of images."""
        return self.max_length * super().row_bytes

    def _features(self, sound: np.ndarray) -> np.ndarray:
        """Return frames (n, n_mels) or samples (n,) of a sound, float32."""
        if self.features == "waveform" and self.normalise and len(sound):
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        shortest = int(_SHORTEST_SECONDS * self.sampling_rate)
        sound = np.pad(sound.astype(np.float32, copy=False), (0, max(0, shortest - len(sound))))
        if self.features == "waveform":
            return sound
        if self.features == "log_mel":
            frames = log_mel(
                sound,
                sampling_rate=self.sampling_rate,
                n_mels=self.n_mels,
                n_fft=self.n_fft,
                hop_length=self.hop_length,
            )
        else:
            frames = filter_bank(sound, sampling_rate=self.sampling_rate, n_mels=self.n_mels)
        return (frames[: self.max_length] - np.float32(self.mean)) / np.float32(self.std)

    def arrays(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        items = [encoded.items[row] for row in rows] or [self._features(np.zeros(0, dtype=np.float32))]
        longest = max(len(item) for item in items)
        values = np.zeros((len(rows), longest, *items[0].shape[1:]), dtype=np.float32)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for value, real, item in zip(values, mask, items, strict=False):
            value[: len(item)] = item
            real[: len(item)] = 1
        return {"input_values" if self.features == "waveform" else "input_features": values, "attention_mask": mask}

    def example_cells(self, n: int, rng: np.random.Generator) -> list[list[Any]]:
        """Return noises and tones, of several lengths."""
        cells = []
        for number, seconds in enumerate(rng.uniform(0.3, min(1.0, self.max_seconds), size=n)):
            time = np.arange(int(seconds * self.sampling_rate)) / self.sampling_rate
            noise = rng.normal(scale=0.1, size=len(time))
            tone = np.sin(2 * np.pi * rng.uniform(80, 2000) * time)
            cells.append((noise if number % 2 else 0.5 * tone + 0.1 * noise).astype(np.float32))
        return [cells]

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "features": self.features,
            "sampling_rate": self.sampling_rate,
            "max_seconds": self.max_seconds,
            "n_mels": self.n_mels,
            "n_fft": self.n_fft,
            "hop_length": self.hop_length,
            "mean": self.mean,
            "std": self.std,
            "normalise": self.normalise,
        }
