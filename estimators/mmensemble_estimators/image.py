"""Image estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, ImagePreprocessor
from mmensemble_estimators.backbones.contrastive import load_model
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.image import (
    HALF,
    IMAGE_BACKBONES,
    IMAGE_POOLINGS,
    image_encoder_from_architecture,
    image_encoder_from_config,
    image_encoder_from_model,
    image_encoder_from_module,
    read_image_processor,
)
from mmensemble_estimators.base.classifier import TorchClassifier
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import check_augmentation, check_backbone, check_choice, check_integers
from mmensemble_estimators.base.regressor import TorchRegressor
from mmensemble_estimators.base.rows import arrays_of
from mmensemble_estimators.training.augmentation import AUGMENTATIONS, vary_clips

__all__ = ["ImageClassifier", "ImageRegressor"]

IMAGE_SIZE = 64


class ImageParameters(Protocol):
    """The parameters of an estimator that concern what it reads."""

    backbone: Any
    pretrained: str | None
    pooling: str | None
    image_size: int | None
    augmentation: tuple[str, ...]
    preprocessor_: Any


class ImageModality(EncodedModality):
    """Images: pixels, and a network over them."""

    name = "image"

    def check_parameters(self, estimator: ImageParameters) -> None:
        check_backbone(estimator.backbone, IMAGE_BACKBONES)
        check_choice("pooling", estimator.pooling, IMAGE_POOLINGS)
        if estimator.image_size is not None:
            check_integers(estimator, image_size=32)
        check_augmentation(estimator, AUGMENTATIONS)

    def fit_preprocessor(self, estimator: ImageParameters, cells: Cells) -> ImagePreprocessor:
        if estimator.pretrained is not None:
            preprocessor, _ = read_image_processor(estimator.pretrained)
            if estimator.image_size is None:
                return preprocessor
            return ImagePreprocessor(size=estimator.image_size, resample=preprocessor.resample)
        size = estimator.image_size or getattr(estimator.backbone, "image_size", None) or IMAGE_SIZE
        return ImagePreprocessor(size=size)

    def build_encoder(self, estimator: ImageParameters, preprocessor: Any) -> Encoder:
        size, pooling = preprocessor.size, estimator.pooling
        if estimator.pretrained is not None:
            _, normalisation = read_image_processor(estimator.pretrained)
            model = load_model(estimator.pretrained)
            return image_encoder_from_model(model, image_size=size, normalisation=normalisation, pooling=pooling)
        config = estimator.backbone
        if callable(config):
            return image_encoder_from_module(config(), image_size=size)
        if isinstance(config, str):
            config = IMAGE_BACKBONES[config](image_size=size)
        return image_encoder_from_config(config, image_size=size, normalisation=HALF, pooling=pooling)

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Encoder:
        return image_encoder_from_architecture(architecture, image_size=preprocessor.size)

    def training_batch(
        self, estimator: ImageParameters, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        pixels = arrays_of(estimator.preprocessor_, encoded, rows)["pixels"]
        return {"pixels": vary_clips(pixels[:, None], estimator.augmentation, rng)[:, 0]}


@documented(rate="2e-3", smoothing="0.0", preprocessor="ImagePreprocessor")
class ImageClassifier(TorchClassifier):
    """Classify images with a small ResNet or vision transformer from scratch, or with pretrained weights.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, a ``PIL.Image`` or a uint8 array H×W or H×W×C.

    Parameters
    ----------
    backbone : {"cnn", "vit"}, transformers config or callable, default="cnn"
        The architecture: a ResNet of three basic blocks with 32, 64 and 128 channels (He et al. 2016) or a vision
        transformer of 4 layers and 128 features (Dosovitskiy et al. 2021); or what a config says; or a callable without
        arguments that returns a module with its weights loaded, from ``pixel_values`` (batch, 3, height, width) float
        in [0, 1] to embeddings (batch, size).
    pretrained : str, default=None
        A local folder or hub id of any image model that ``transformers.AutoModel`` loads. Its
        ``processor_config.json`` or ``preprocessor_config.json`` says size, crop, filter and normalisation. Wins over
        `backbone`. Of CLIP and SigLIP the half for images is taken.
    <<fine_tune>>
    pooling : {"mean", "max", "cls"} or None, default=None
        How a network's tokens or places become one embedding; None takes what a ResNet-like network pools itself, the
        mean of a transformer's tokens, and of CLIP and SigLIP the embedding in the space that they share with texts.
    image_size : int, default=None
        Height and width in pixels to which images are scaled, at least 32. None is 64, or what `pretrained` wants.
    augmentation : tuple of {"flip", "shift", "crop", "colour"}, default=("flip", "shift")
        What is varied at random in training: mirror left and right; move by up to a tenth of the size; enlarge a
        square of 64 to 100 % of the edge; change brightness, contrast and saturation by up to 30 %. Not with
        ``fine_tune="head"``, where each image passes the network once.
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

    Dosovitskiy et al. (2021). An image is worth 16x16 words. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import ImageClassifier
    >>> rng = np.random.default_rng(0)
    >>> dark = [rng.integers(0, 80, (32, 32), dtype=np.uint8) for _ in range(12)]
    >>> light = [rng.integers(170, 250, (32, 32), dtype=np.uint8) for _ in range(12)]
    >>> clf = ImageClassifier(image_size=32, max_epochs=4, random_state=0)
    >>> clf.fit(dark + light, ["dark"] * 12 + ["light"] * 12).predict([dark[0], light[0]]).tolist()
    ['dark', 'light']
    """

    __module__ = "mmensemble_estimators"
    modality = ImageModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        image_size: int | None = None,
        augmentation: tuple[str, ...] = ("flip", "shift"),
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


@documented(rate="2e-3", preprocessor="ImagePreprocessor")
class ImageRegressor(TorchRegressor):
    """Predict one or several numbers from images; networks and training are those of `ImageClassifier`.

    Parameters
    ----------
    backbone : {"cnn", "vit"}, transformers config or callable, default="cnn"
        As in `ImageClassifier`.
    pretrained : str, default=None
        As in `ImageClassifier`.
    <<fine_tune>>
    pooling : {"mean", "max", "cls"} or None, default=None
        As in `ImageClassifier`.
    image_size : int, default=None
        As in `ImageClassifier`.
    augmentation : tuple of {"flip", "shift", "crop", "colour"}, default=("flip", "shift")
        As in `ImageClassifier`.
    <<training>>
    <<stopping>>
    <<device>>

    Attributes
    ----------
    <<fitted>>

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import ImageRegressor
    >>> images = [np.full((32, 32), grey, dtype=np.uint8) for grey in range(0, 250, 10)]
    >>> reg = ImageRegressor(image_size=32, max_epochs=8, random_state=0).fit(images, np.arange(25.0))
    >>> bool(reg.predict(images[:1])[0] < reg.predict(images[-1:])[0])
    True
    """

    __module__ = "mmensemble_estimators"
    modality = ImageModality()

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str | None = None,
        image_size: int | None = None,
        augmentation: tuple[str, ...] = ("flip", "shift"),
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
