"""Classification of images by the names of the classes, by a model that embeds texts and images in one space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils import Tags
from sklearn.utils.validation import check_consistent_length
from torch import Tensor, nn

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import naming_rows
from mmensemble_estimators.backbones.contrastive import TextTowerEncoder, load_contrastive, read_tower_processor
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.classifier import ClassPredictor, learn_classes
from mmensemble_estimators.base.embedding import new_encoder
from mmensemble_estimators.base.parameters import check_integers, check_target, label_text
from mmensemble_estimators.base.rows import arrays_of, cells_to_fit, encode_to_fit
from mmensemble_estimators.image import ImageModality
from mmensemble_estimators.training.loop import resolve_device, run_in_batches

__all__ = ["ZeroShotImageClassifier"]

# Texts are cut to fewer tokens where a model has fewer positions.
MOST_TOKENS = 512


class ZeroShotImageClassifier(ClassPredictor):
    r"""Classify images by how near they lie to the names of the classes, in the space that texts and images share.

    Nothing is trained: `fit` learns only which classes there are, and embeds what `template` makes of their names. The
    probabilities are the softmax of ``s * cos(image, text)`` with the scale `s` that the model was trained with
    (Radford et al. 2021). SigLIP was trained to tell pairs apart one by one, and gives each class a probability of its
    own, ``sigmoid(s * cos(image, text) + b)`` (Zhai et al. 2023). Here exactly one class is right: the probabilities
    are the softmax of the same scores, from which the bias `b` drops out, and rank the classes as the sigmoids do.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, a ``PIL.Image`` or a uint8 array H×W or H×W×C.

    Parameters
    ----------
    pretrained : str
        A local folder or hub id of a CLIP or SigLIP model, with its ``tokenizer.json`` and
        ``preprocessor_config.json`` or ``processor_config.json``.
    template : str or list of str, default="a photo of a {label}"
        What is embedded for a class; ``{label}`` is its name. Of several ones the class is the mean, each embedding
        counting as equally long.
    labels : dict or list of str, default=None
        How the classes are written, if not by their own names: by class, or in the order of the sorted classes.
        scikit-learn's ``VotingClassifier`` and ``StackingClassifier`` number the classes before they fit their members,
        which so know no names; give a list there.
    batch_size : int, default=32
        Images, and in `fit` texts, that are run at a time.
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    class_prior_ : ndarray of float, shape (n_classes,)
        The classes' share in `fit`, the prediction for a missing row.
    module_ : torch.nn.Module
        Pixels → scores; its head holds the embeddings of the classes.
    preprocessor_ : ImagePreprocessor
        How images become pixels.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.

    See Also
    --------
    ImageClassifier : With ``pretrained`` and ``fine_tune="head"``, the same embedding with a head that is solved for.

    References
    ----------
    Radford et al. (2021). Learning transferable visual models from natural language supervision. ICML.

    Zhai, Mustafa, Kolesnikov, Beyer (2023). Sigmoid loss for language image pre-training. ICCV.

    Examples
    --------
    >>> from mmensemble_estimators import ZeroShotImageClassifier
    >>> clf = ZeroShotImageClassifier("clip-vit-base-patch32")  # a local folder
    >>> clf.fit(None, ["cat", "dog"]).predict(["pictures/1.jpg"])  # doctest: +SKIP
    array(['cat'], dtype='<U3')
    """

    __module__ = "mmensemble_estimators"
    modality = ImageModality()
    # As a member of a composition it gets the labels, and not numbers in their place, for it reads them.
    reads_labels: ClassVar[bool] = True

    # What a frozen network for images is asked for.
    fine_tune = "head"
    backbone = "cnn"
    pooling = None
    image_size = None
    random_state = None

    def __init__(
        self,
        pretrained: str,
        *,
        template: str | Sequence[str] = "a photo of a {label}",
        labels: Mapping[Any, str] | Sequence[str] | None = None,
        batch_size: int = 32,
        device: str = "auto",
    ) -> None:
        self.pretrained = pretrained
        self.template = template
        self.labels = labels
        self.batch_size = batch_size
        self.device = device

    def check_parameters(self) -> None:
        """Raise `ConfigurationError` for a parameter that cannot work."""
        check_integers(self, batch_size=1)
        templates = self._templates()
        if not templates or not all(isinstance(each, str) and "{label}" in each for each in templates):
            raise ConfigurationError(f"template must hold {{label}}, each one of several, and is {self.template!r}")
        self._folder()

    def _folder(self) -> str:
        if not isinstance(self.pretrained, str):
            raise ConfigurationError(f"pretrained must be a folder or hub id, not {self.pretrained!r}")
        return self.pretrained

    def _templates(self) -> list[str]:
        return [self.template] if isinstance(self.template, str) else list(self.template)

    def fit(self, X: Any, y: Any) -> Self:
        """Learn which classes there are, and embed their names.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows; or None
            Read, and not learned from. With None, `y` are the labels.
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ConfigurationError
            For a parameter that cannot work, or a model that does not embed texts and images in one space.
        DataError
            For a cell that cannot be read, or a `y` of one class, or that is no column of labels.
        """
        check_target(self, y)
        self.check_parameters()
        target, y = learn_classes(y, np.ones(np.asarray(y).shape[:1]))
        if y.ndim > 1:
            raise DataError("y must be one column of labels, for a class is told by its name")
        self.target_ = target
        if X is None:
            self.preprocessor_ = self.modality.fit_preprocessor(self, [])
            self.n_features_in_ = 1
        else:
            cells = cells_to_fit(self, X)
            check_consistent_length(cells, y)
            with naming_rows(X):
                self.preprocessor_ = self.modality.fit_preprocessor(self, cells)
                encode_to_fit(self, cells)
        weight = self._class_embeddings()
        network = Network(new_encoder(self), self.target_.n_outputs, normalised=True)
        head = network.head_network()
        with torch.no_grad():
            # The head makes an embedding as long as this.
            head.linear.weight.copy_(weight / math.sqrt(weight.shape[1]))
            head.linear.bias.zero_()
        self.module_ = network.to(resolve_device(self.device)).eval()
        return self

    def _class_embeddings(self) -> Tensor:
        """Return a row for each class, as long as the scale that the model was trained with, (n_classes, size)."""
        names = [label_text(label, self.labels, self.classes_) for label in self.classes_.tolist()]
        templates = self._templates()
        model = load_contrastive(self._folder())
        preprocessor = read_tower_processor(self._folder(), max_length=MOST_TOKENS)
        encoded = preprocessor.encode([each.replace("{label}", name) for each in templates for name in names])
        device = resolve_device(self.device)
        features = run_in_batches(
            TextTowerEncoder(model, pad_id=preprocessor.pad_id).to(device).eval(),
            lambda rows: arrays_of(preprocessor, encoded, rows),
            np.argsort(encoded.lengths, kind="stable"),
            batch_size=self.batch_size,
            device=device,
        )
        of_templates = nn.functional.normalize(torch.from_numpy(features)).reshape(len(templates), len(names), -1)
        return nn.functional.normalize(of_templates.mean(dim=0)) * model.logit_scale.detach().cpu().exp()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = False
        tags.target_tags.multi_output = False
        return tags
