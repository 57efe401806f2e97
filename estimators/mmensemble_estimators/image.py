"""Image estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import Cells, Encoded, ImagePreprocessor
from mmensemble_estimators._base import TorchClassifier
from mmensemble_estimators.backbones.image import IMAGE_BACKBONES

__all__ = ["ImageClassifier"]

AUGMENTATIONS = ("flip", "shift")


class ImageClassifier(TorchClassifier):
    """Classify images with a small ResNet, trained from scratch.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, a ``PIL.Image`` or a uint8 array H×W or H×W×C.

    Parameters
    ----------
    backbone : {"cnn"}, default="cnn"
        The architecture: a ResNet of three basic blocks with 32, 64 and 128 channels (He et al. 2016).
    fine_tune : {"all", "head"}, default="all"
        What is trained: the whole network, or the linear head on a frozen backbone.
    image_size : int, default=64
        Height and width in pixels to which images are scaled; at least 32.
    augmentation : tuple of {"flip", "shift"}, default=("flip", "shift")
        What is varied at random in training: mirror left and right; move by up to a tenth of the size.
    max_epochs : int, default=20
        Passes over the fitting rows.
    batch_size : int, default=32
        Rows per step.
    learning_rate : float, default=2e-3
        Highest learning rate of AdamW, reached after the warm-up; a cosine takes it to 0.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises from 0.
    label_smoothing : float, default=0.0
        Share of each label that the loss spreads over all classes (Szegedy et al. 2016), against overconfidence.
    early_stopping : bool, default=False
        Set `validation_fraction` of the rows aside, stop when their loss has not fallen for 5 epochs, and restore the
        best weights.
    validation_fraction : float, default=0.1
        Share of the rows set aside by `early_stopping`.
    class_weight : dict, "balanced" or None, default=None
        As in scikit-learn's classifiers.
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.
    precision : {"fp32", "bf16"}, default="fp32"
        ``"bf16"``: train under torch's autocast.
    random_state : int, RandomState or None, default=None
        With an int, two fits on one CPU with the same number of threads give the same weights.
    verbose : int, default=0
        1 prints a line per epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    class_prior_ : ndarray of float, shape (n_classes,)
        The classes' share in the fitting rows, the prediction for a missing image.
    module_ : torch.nn.Module
        The trained network, in evaluation mode.
    preprocessor_ : ImagePreprocessor
        How images become arrays.
    history_ : list of dict
        Per epoch: ``epoch``, ``train_loss``, ``valid_loss`` with `early_stopping`, ``dur`` in seconds.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.

    References
    ----------
    He, Zhang, Ren, Sun (2016). Deep residual learning for image recognition.

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

    modality: ClassVar[str] = "image"

    def __init__(
        self,
        *,
        backbone: str = "cnn",
        fine_tune: str = "all",
        image_size: int = 64,
        augmentation: tuple[str, ...] = AUGMENTATIONS,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        label_smoothing: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        class_weight: Mapping[Any, float] | str | None = None,
        device: str = "auto",
        precision: str = "fp32",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.fine_tune = fine_tune
        self.image_size = image_size
        self.augmentation = augmentation
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.label_smoothing = label_smoothing
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.backbone not in IMAGE_BACKBONES:
            raise ConfigurationError(f"backbone must be one of {sorted(IMAGE_BACKBONES)}, not {self.backbone!r}")
        if self.image_size < 32:
            raise ConfigurationError(f"image_size must be at least 32, not {self.image_size!r}")
        unknown = set(self.augmentation) - set(AUGMENTATIONS)
        if unknown:
            raise ConfigurationError(f"augmentation knows {AUGMENTATIONS}, not {sorted(unknown)}")

    def _fit_preprocessor(self, cells: Cells) -> ImagePreprocessor:
        return ImagePreprocessor(size=self.image_size)

    def _build_encoder(self, preprocessor: Any) -> nn.Module:
        return IMAGE_BACKBONES[self.backbone]()

    def _training_batch(
        self, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        pixels = self._batch(encoded, rows)["pixels"]
        if "flip" in self.augmentation:
            mirrored = rng.random_sample(len(pixels)) < 0.5
            pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
        if "shift" in self.augmentation:
            reach = self.image_size // 10
            padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
            corners = rng.randint(0, 2 * reach + 1, (len(pixels), 2))
            size = self.image_size
            pixels = np.stack([p[i : i + size, j : j + size] for p, (i, j) in zip(padded, corners, strict=True)])
        return {"pixels": pixels}
