"""Audio estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from transformers import AutoModel, PreTrainedConfig

from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import Cells
from mmensemble.preprocessing import AudioPreprocessor, Encoded
from mmensemble_estimators.backbones.audio import (
    AUDIO_BACKBONES,
    AUDIO_POOLINGS,
    EXAMPLE_FRAMES,
    MAX_SECONDS,
    N_MELS,
    SAMPLING_RATE,
    audio_encoder_from_architecture,
    audio_encoder_from_config,
    audio_encoder_from_model,
    audio_preprocessor_for,
    read_audio_processor,
)
from mmensemble_estimators.backbones.encoder import Encoder, ModuleEncoder
from mmensemble_estimators.backbones.pretrained import loading
from mmensemble_estimators.base.classifier import TorchClassifier
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import check_augmentation, check_backbone, check_choice, check_integers
from mmensemble_estimators.base.regressor import TorchRegressor
from mmensemble_estimators.base.rows import arrays_of
from mmensemble_estimators.training.loop import as_tensors

__all__ = ["AudioClassifier", "AudioRegressor"]

AUGMENTATIONS = ("shift", "mask", "gain")
# Of `max_seconds`, what a patch of the smallest transformer needs.
SHORTEST_SECONDS = 0.2


class AudioParameters(Protocol):
    """The parameters of an estimator that concern what it reads."""

    backbone: Any
    pretrained: str | None
    pooling: str | None
    sampling_rate: int | None
    max_seconds: float | None
    augmentation: tuple[str, ...]
    preprocessor_: Any


class AudioModality(EncodedModality):
    """Sounds: spectrograms or samples, and a network over them."""

    name = "audio"

    def check_parameters(self, estimator: AudioParameters) -> None:
        check_backbone(estimator.backbone, AUDIO_BACKBONES)
        check_choice("pooling", estimator.pooling, AUDIO_POOLINGS)
        if estimator.sampling_rate is not None:
            check_integers(estimator, sampling_rate=4000)
        seconds = estimator.max_seconds
        if seconds is not None and not (
            isinstance(seconds, (int, float, np.number)) and SHORTEST_SECONDS <= seconds < np.inf
        ):
            raise ConfigurationError(f"max_seconds must be a number of at least {SHORTEST_SECONDS}, not {seconds!r}")
        check_augmentation(estimator, AUGMENTATIONS)

    def fit_preprocessor(self, estimator: AudioParameters, cells: Cells) -> AudioPreprocessor:
        rate, seconds = estimator.sampling_rate, estimator.max_seconds
        if estimator.pretrained is not None:
            return read_audio_processor(estimator.pretrained, sampling_rate=rate, max_seconds=seconds)
        if isinstance(estimator.backbone, PreTrainedConfig):
            return audio_preprocessor_for(estimator.backbone, sampling_rate=rate, max_seconds=seconds)
        rate = rate or SAMPLING_RATE
        # Frames of 25 ms every 10 ms, whatever the rate.
        return AudioPreprocessor(
            sampling_rate=rate,
            max_seconds=seconds or MAX_SECONDS,
            n_mels=N_MELS,
            n_fft=rate // 40,
            hop_length=rate // 100,
        )

    def build_encoder(self, estimator: AudioParameters, preprocessor: Any) -> Encoder:
        backbone, pooling = estimator.backbone, estimator.pooling
        if estimator.pretrained is not None:
            with loading(estimator.pretrained):
                model = AutoModel.from_pretrained(estimator.pretrained)
            return audio_encoder_from_model(model, pooling=pooling)
        if isinstance(backbone, PreTrainedConfig):
            return audio_encoder_from_config(backbone, pooling=pooling)
        if callable(backbone):
            second = np.zeros(preprocessor.sampling_rate, dtype=np.float32)
            encoded = preprocessor.encode([second, second[: len(second) // 2]])
            example = as_tensors(arrays_of(preprocessor, encoded, np.arange(2)))
            return ModuleEncoder(backbone(), example, example_length=EXAMPLE_FRAMES)
        return AUDIO_BACKBONES[backbone](preprocessor, pooling=pooling)

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Encoder:
        return audio_encoder_from_architecture(architecture)

    def training_batch(
        self, estimator: AudioParameters, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        batch = arrays_of(estimator.preprocessor_, encoded, rows)
        values = next(array for name, array in batch.items() if name != "attention_mask")
        for row, length in zip(values, batch["attention_mask"].sum(axis=1), strict=True):
            real = row[:length]
            if "gain" in estimator.augmentation:
                _vary_gain(real, rng, estimator.preprocessor_)
            if "shift" in estimator.augmentation:
                _shift(real, rng)
            if "mask" in estimator.augmentation:
                _mask(real, rng)
        return batch


def _vary_gain(real: np.ndarray, rng: np.random.RandomState, preprocessor: AudioPreprocessor) -> None:
    """Make a sound up to 6 dB louder or softer."""
    decibels = rng.uniform(-6, 6)
    if preprocessor.features == "log_mel":  # decades of power, divided by 4
        real += decibels / 10 / 4 / preprocessor.std
    elif preprocessor.features == "filter_bank":  # its natural logarithm
        real += decibels / 10 * np.log(10) / preprocessor.std
    elif not preprocessor.normalise:
        real *= 10 ** (decibels / 20)


def _shift(real: np.ndarray, rng: np.random.RandomState) -> None:
    """Move a sound by up to a tenth of its length; silence comes in."""
    reach = len(real) // 10
    by = rng.randint(-reach, reach + 1)
    silence = 0.0 if real.ndim == 1 else real.min()
    moved = np.full_like(real, silence)
    moved[max(by, 0) : len(real) + min(by, 0)] = real[max(-by, 0) : len(real) - max(by, 0)]
    real[:] = moved


def _mask(real: np.ndarray, rng: np.random.RandomState) -> None:
    """Blank two spans of time and two of frequency, each of up to an eighth (Park et al. 2019)."""
    blank = real.mean()
    for array in (real, real.T)[: real.ndim]:
        for _ in range(2):
            width = rng.randint(0, len(array) // 8 + 1)
            start = rng.randint(0, len(array) - width + 1)
            array[start : start + width] = blank


@documented(rate="2e-3", smoothing="0.0", preprocessor="AudioPreprocessor")
class AudioClassifier(TorchClassifier):
    """Classify sounds with a small ResNet or transformer from scratch, or with pretrained weights.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, ``{"array", "sampling_rate"}`` or an array of floats of one
    axis at `sampling_rate`. Files are read by soundfile, and by PyAV what soundfile does not know (the extra
    ``audio``); any channels are mixed to one, any rate is resampled. A row costs what its own length costs, and its
    prediction does not depend on how long the rows beside it are.

    Parameters
    ----------
    backbone : {"cnn", "ast"}, transformers config or callable, default="cnn"
        The architecture over a log-mel spectrogram of 64 bands: a ResNet of three blocks with 32, 64 and 128 channels
        (He et al. 2016) or an audio spectrogram transformer of 4 layers and 128 features (Gong et al. 2021); or what a
        config of Whisper (its encoder), AST, wav2vec 2.0 or HuBERT says; or a callable without arguments that returns
        a module with its weights loaded, from ``input_features`` (batch, frames, 64) float and ``attention_mask``
        (batch, frames) int64 to embeddings (batch, size).
    pretrained : str, default=None
        A local folder or hub id of weights of Whisper (its encoder is taken), AST, wav2vec 2.0 or HuBERT. Its
        ``preprocessor_config.json`` says how sounds are prepared. Wins over `backbone`.
    <<fine_tune>>
    pooling : {"mean", "max"} or None, default=None
        How a network's states become one embedding; None takes the mean of the class tokens of an AST from a config or
        folder, and the mean of all states elsewhere.
    sampling_rate : int, default=None
        Samples per second to which sounds are resampled, at least 4000. None is 16000, or what `pretrained` wants.
    max_seconds : float, default=None
        The longest sound; the rest is cut. None is 10, or what `pretrained` takes at most: Whisper 30, AST 10.24.
    augmentation : tuple of {"shift", "mask", "gain"}, default=()
        What is varied at random in training: move by up to a tenth of the length; blank two spans of time and two of
        frequency, each of up to an eighth (Park et al. 2019); up to 6 dB louder or softer. Not with
        ``fine_tune="head"``, where each sound passes the network once.
    <<training>>
    <<stopping>>
    <<classifier>>
    <<device>>

    Attributes
    ----------
    <<classes>>
    <<fitted>>

    Notes
    -----
    Whisper was trained on sounds that silence fills up to 30 s. Here its encoder sees the sound alone, which took a
    twentieth of the time for sounds of 1.3 s, and lost no accuracy where it was measured.

    References
    ----------
    He, Zhang, Ren, Sun (2016). Deep residual learning for image recognition. CVPR.

    Gong, Chung, Glass (2021). AST: audio spectrogram transformer. Interspeech.

    Park et al. (2019). SpecAugment: a simple data augmentation method for automatic speech recognition. Interspeech.

    Radford et al. (2023). Robust speech recognition via large-scale weak supervision. ICML.

    Baevski, Zhou, Mohamed, Auli (2020). wav2vec 2.0: a framework for self-supervised learning of speech
    representations. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import AudioClassifier
    >>> rng = np.random.default_rng(0)
    >>> seconds = np.arange(8000) / 16000
    >>> low = [np.sin(2 * np.pi * pitch * seconds) for pitch in rng.uniform(100, 300, 12)]
    >>> high = [np.sin(2 * np.pi * pitch * seconds) for pitch in rng.uniform(1000, 3000, 12)]
    >>> clf = AudioClassifier(max_epochs=8, batch_size=8, random_state=0)
    >>> clf.fit(low + high, ["low"] * 12 + ["high"] * 12).predict([low[0], high[0]]).tolist()
    ['low', 'high']
    """

    __module__ = "mmensemble_estimators"
    modality = AudioModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        augmentation: tuple[str, ...] = (),
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float | None = None,
        layer_decay: float = 0.9,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        time_limit: float | None = None,
        warm_start: bool = False,
        label_smoothing: float = 0.0,
        class_weight: Mapping[Any, float] | str | None = None,
        device: str = "auto",
        precision: str = "fp32",
        random_state: Any = None,
        verbose: int = False,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.fine_tune = fine_tune
        self.pooling = pooling
        self.sampling_rate = sampling_rate
        self.max_seconds = max_seconds
        self.augmentation = augmentation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.time_limit = time_limit
        self.warm_start = warm_start
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose


@documented(rate="2e-3", preprocessor="AudioPreprocessor")
class AudioRegressor(TorchRegressor):
    """Predict one or several numbers from sounds; networks and training are those of `AudioClassifier`.

    Parameters
    ----------
    backbone : {"cnn", "ast"}, transformers config or callable, default="cnn"
        As in `AudioClassifier`.
    pretrained : str, default=None
        As in `AudioClassifier`.
    <<fine_tune>>
    pooling : {"mean", "max"} or None, default=None
        As in `AudioClassifier`.
    sampling_rate : int, default=None
        As in `AudioClassifier`.
    max_seconds : float, default=None
        As in `AudioClassifier`.
    augmentation : tuple of {"shift", "mask", "gain"}, default=()
        As in `AudioClassifier`.
    <<training>>
    <<stopping>>
    <<device>>

    Attributes
    ----------
    <<fitted>>

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import AudioRegressor
    >>> seconds = np.arange(8000) / 16000
    >>> pitches = np.linspace(200.0, 2000.0, 24)
    >>> sounds = [np.sin(2 * np.pi * pitch * seconds) for pitch in pitches]
    >>> reg = AudioRegressor(max_epochs=8, random_state=0).fit(sounds, pitches)
    >>> bool(reg.predict(sounds[:1])[0] < reg.predict(sounds[-1:])[0])
    True
    """

    __module__ = "mmensemble_estimators"
    modality = AudioModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        sampling_rate: int | None = None,
        max_seconds: float | None = None,
        augmentation: tuple[str, ...] = (),
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float | None = None,
        layer_decay: float = 0.9,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.1,
        time_limit: float | None = None,
        warm_start: bool = False,
        device: str = "auto",
        precision: str = "fp32",
        random_state: Any = None,
        verbose: int = False,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.fine_tune = fine_tune
        self.pooling = pooling
        self.sampling_rate = sampling_rate
        self.max_seconds = max_seconds
        self.augmentation = augmentation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.layer_decay = layer_decay
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.time_limit = time_limit
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose
