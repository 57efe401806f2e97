"""Video estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, VideoPreprocessor
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.image import HALF, IMAGE_BACKBONES, IMAGE_POOLINGS, read_image_processor
from mmensemble_estimators.backbones.pretrained import loading
from mmensemble_estimators.backbones.video import (
    video_encoder_from_architecture,
    video_encoder_from_config,
    video_encoder_from_model,
    video_encoder_from_module,
    video_encoder_from_scratch,
    wanted,
)
from mmensemble_estimators.base.classifier import TorchClassifier
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import check_augmentation, check_backbone, check_choice, check_integers
from mmensemble_estimators.base.regressor import TorchRegressor
from mmensemble_estimators.base.rows import arrays_of
from mmensemble_estimators.training.augmentation import AUGMENTATIONS, vary_clips

__all__ = ["VideoClassifier", "VideoRegressor"]

N_FRAMES, IMAGE_SIZE = 8, 64


class VideoParameters(Protocol):
    """The parameters of an estimator that concern what it reads."""

    backbone: Any
    pretrained: str | None
    pooling: str | None
    n_frames: int | None
    image_size: int | None
    augmentation: tuple[str, ...]
    preprocessor_: Any


class VideoModality(EncodedModality):
    """Clips: frames, and a network over all of them."""

    name = "video"

    def check_parameters(self, estimator: VideoParameters) -> None:
        check_backbone(estimator.backbone, IMAGE_BACKBONES)
        check_choice("pooling", estimator.pooling, IMAGE_POOLINGS)
        if estimator.n_frames is not None:
            check_integers(estimator, n_frames=1)
        if estimator.image_size is not None:
            check_integers(estimator, image_size=32)
        check_augmentation(estimator, AUGMENTATIONS)

    def fit_preprocessor(self, estimator: VideoParameters, cells: Cells) -> VideoPreprocessor:
        if estimator.pretrained is None:
            n_frames, size = wanted(estimator.backbone)
            return VideoPreprocessor(
                n_frames=estimator.n_frames or n_frames or N_FRAMES, size=estimator.image_size or size or IMAGE_SIZE
            )
        with loading(estimator.pretrained):
            n_frames, _ = wanted(AutoConfig.from_pretrained(estimator.pretrained))
        n_frames = estimator.n_frames or n_frames or N_FRAMES
        image, _ = read_image_processor(estimator.pretrained)
        if estimator.image_size is not None:
            return VideoPreprocessor(n_frames=n_frames, size=estimator.image_size, resample=image.resample)
        return VideoPreprocessor(
            n_frames=n_frames,
            size=image.size,
            resize=image.resize,
            resize_to=image.resize_to,
            resample=image.resample,
        )

    def build_encoder(self, estimator: VideoParameters, preprocessor: Any) -> Encoder:
        backbone, pooling = estimator.backbone, estimator.pooling
        if estimator.pretrained is not None:
            _, normalisation = read_image_processor(estimator.pretrained)
            with loading(estimator.pretrained):
                model = AutoModel.from_pretrained(estimator.pretrained)
            return video_encoder_from_model(model, preprocessor, normalisation=normalisation, pooling=pooling)
        if isinstance(backbone, PreTrainedConfig):
            return video_encoder_from_config(backbone, preprocessor, normalisation=HALF, pooling=pooling)
        if callable(backbone):
            return video_encoder_from_module(backbone(), preprocessor)
        return video_encoder_from_scratch(backbone, preprocessor, pooling=pooling)

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Encoder:
        return video_encoder_from_architecture(architecture, preprocessor)

    def training_batch(
        self, estimator: VideoParameters, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        frames = arrays_of(estimator.preprocessor_, encoded, rows)["frames"]
        return {"frames": vary_clips(frames, estimator.augmentation, rng)}


@documented(rate="2e-3", smoothing="0.0", preprocessor="VideoPreprocessor")
class VideoClassifier(TorchClassifier):
    """Classify clips with a small network over frames from scratch, or with pretrained weights.

    A cell is a path, encoded bytes, ``{"bytes", "path"}`` or a uint8 array T×H×W or T×H×W×C. Animations (WebP, GIF,
    PNG) are read by Pillow, video files by PyAV (the extra ``video``); a still picture is a clip of one frame. Of each
    clip `n_frames` are taken at the centres of equal segments, see `mmensemble.preprocessing.VideoPreprocessor`.

    Parameters
    ----------
    backbone : {"cnn", "vit"}, transformers config or callable, default="cnn"
        The architecture: the ResNet or the vision transformer of `ImageClassifier` over each frame and its difference
        to the frame before, and over what they give of the frames a transformer of 2 layers and 128 features with
        learned positions; or what a config says (VideoMAE, TimeSformer, ViViT, V-JEPA 2); or a callable without
        arguments that returns a module with its weights loaded, from ``pixel_values`` (batch, n_frames, 3, height,
        width) float in [0, 1] to embeddings (batch, size).
    pretrained : str, default=None
        A local folder or hub id of a video model that ``transformers.AutoModel`` loads. Its config says the number of
        frames, its ``preprocessor_config.json`` size, crop, filter and normalisation. Wins over `backbone`.
    <<fine_tune>>
    pooling : {"mean", "max", "cls"} or None, default=None
        How the frames, or the tokens of a video transformer, become one embedding; ``"cls"`` is the first of them. None
        takes their mean.
    n_frames : int, default=None
        Frames taken of each clip. None is 8, or what `pretrained` or a config wants.
    image_size : int, default=None
        Height and width in pixels to which frames are scaled, at least 32. None is 64, or what `pretrained` or a config
        wants.
    augmentation : tuple of {"flip", "shift", "crop", "colour"}, default=("shift",)
        What is varied at random in training, alike for all frames of a clip: mirror left and right, which turns what
        moves to the left into what moves to the right; move by up to a tenth of the size; enlarge a square of 64 to
        100 % of the edge; change brightness, contrast and saturation by up to 30 %. Not with ``fine_tune="head"``,
        where each clip passes the network once.
    <<training>>
    <<stopping>>
    <<classifier>>
    <<device>>

    Attributes
    ----------
    <<classes>>
    <<fitted>>

    References
    ----------
    He, Zhang, Ren, Sun (2016). Deep residual learning for image recognition. CVPR.

    Wang, Xiong, Wang, Qiao, Lin, Tang, Van Gool (2016). Temporal segment networks: towards good practices for deep
    action recognition. ECCV.

    Neimark, Bar, Zohar, Asselmann (2021). Video transformer network. ICCV workshops.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import VideoClassifier
    >>> rng = np.random.default_rng(0)
    >>> dark = [rng.integers(0, 80, (5, 32, 32), dtype=np.uint8) for _ in range(12)]
    >>> light = [rng.integers(170, 250, (9, 32, 32), dtype=np.uint8) for _ in range(12)]
    >>> clf = VideoClassifier(image_size=32, max_epochs=4, random_state=0)
    >>> clf.fit(dark + light, ["dark"] * 12 + ["light"] * 12).predict([dark[0], light[0]]).tolist()
    ['dark', 'light']
    """

    __module__ = "mmensemble_estimators"
    modality = VideoModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        n_frames: int | None = None,
        image_size: int | None = None,
        augmentation: tuple[str, ...] = ("shift",),
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
        self.n_frames = n_frames
        self.image_size = image_size
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


@documented(rate="2e-3", preprocessor="VideoPreprocessor")
class VideoRegressor(TorchRegressor):
    """Predict one or several numbers from clips; networks and training are those of `VideoClassifier`.

    Parameters
    ----------
    backbone : {"cnn", "vit"}, transformers config or callable, default="cnn"
        As in `VideoClassifier`.
    pretrained : str, default=None
        As in `VideoClassifier`.
    <<fine_tune>>
    pooling : {"mean", "max", "cls"} or None, default=None
        As in `VideoClassifier`.
    n_frames : int, default=None
        As in `VideoClassifier`.
    image_size : int, default=None
        As in `VideoClassifier`.
    augmentation : tuple of {"flip", "shift", "crop", "colour"}, default=("shift",)
        As in `VideoClassifier`.
    <<training>>
    <<stopping>>
    <<device>>

    Attributes
    ----------
    <<fitted>>

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import VideoRegressor
    >>> steps = np.arange(8, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 32), dtype=np.uint8)
    >>> clips = [100 + speed * steps for speed in range(20)]
    >>> reg = VideoRegressor(image_size=32, max_epochs=8, random_state=0).fit(clips, np.arange(20.0))
    >>> bool(reg.predict(clips[:1])[0] < reg.predict(clips[-1:])[0])
    True
    """

    __module__ = "mmensemble_estimators"
    modality = VideoModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        n_frames: int | None = None,
        image_size: int | None = None,
        augmentation: tuple[str, ...] = ("shift",),
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
        self.n_frames = n_frames
        self.image_size = image_size
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
