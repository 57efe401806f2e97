"""Text estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import Cells, Encoded, TextPreprocessor
from mmensemble_estimators._base import TorchClassifier
from mmensemble_estimators.backbones.text import POOLINGS, TEXT_BACKBONES

__all__ = ["TextClassifier"]


class TextClassifier(TorchClassifier):
    """Classify texts with a small GPT, trained from scratch.

    A byte-level BPE tokenizer is trained on the fitting texts, so any language works and nothing is downloaded.

    Parameters
    ----------
    backbone : {"gpt"}, default="gpt"
        The architecture: a causal transformer of 2 layers, 128 features and 4 heads (Radford et al. 2018).
    fine_tune : {"all", "head"}, default="all"
        What is trained: the whole network, or the linear head on a frozen backbone.
    pooling : {"mean", "last", "cls", "max"}, default="mean"
        How the states of the tokens become one embedding.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    subword_dropout : float, default=0.1
        In training, each text is cut before each character with this probability and no token crosses a cut, so that
        the network sees a word in many segmentations. The idea is BPE-dropout (Provilkov et al. 2020).
    max_length : int, default=128
        Longest text in tokens; the rest is cut.
    max_epochs : int, default=20
        Passes over the fitting rows.
    batch_size : int, default=32
        Rows per step.
    learning_rate : float, default=1e-3
        Highest learning rate of AdamW, reached after the warm-up; a cosine takes it to 0.
    weight_decay : float, default=0.01
        AdamW's decoupled weight decay.
    warmup_fraction : float, default=0.1
        Share of the steps over which the learning rate rises from 0.
    label_smoothing : float, default=0.1
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
        The classes' share in the fitting rows, the prediction for a missing text.
    module_ : torch.nn.Module
        The trained network, in evaluation mode.
    preprocessor_ : TextPreprocessor
        The tokenizer.
    history_ : list of dict
        Per epoch: ``epoch``, ``train_loss``, ``valid_loss`` with `early_stopping`, ``dur`` in seconds.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.

    References
    ----------
    Radford, Narasimhan, Salimans, Sutskever (2018). Improving language understanding by generative pre-training.

    Provilkov, Emelianenko, Voita (2020). BPE-dropout: simple and effective subword regularization. ACL.

    Examples
    --------
    >>> from mmensemble_estimators import TextClassifier
    >>> texts = ["red apple", "green apple", "fast car", "slow car"] * 4
    >>> clf = TextClassifier(max_epochs=8, vocab_size=300, random_state=0)
    >>> clf.fit(texts, ["fruit", "fruit", "vehicle", "vehicle"] * 4).predict(["an apple", "my car"]).tolist()
    ['fruit', 'vehicle']
    """

    modality: ClassVar[str] = "text"
    preprocessor_: TextPreprocessor

    def __init__(
        self,
        *,
        backbone: str = "gpt",
        fine_tune: str = "all",
        pooling: str = "mean",
        vocab_size: int = 4000,
        subword_dropout: float = 0.1,
        max_length: int = 128,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        label_smoothing: float = 0.1,
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
        self.pooling = pooling
        self.vocab_size = vocab_size
        self.subword_dropout = subword_dropout
        self.max_length = max_length
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

    _fractions: ClassVar[tuple[str, ...]] = (*TorchClassifier._fractions, "subword_dropout")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.backbone not in TEXT_BACKBONES:
            raise ConfigurationError(f"backbone must be one of {sorted(TEXT_BACKBONES)}, not {self.backbone!r}")
        if self.pooling not in POOLINGS:
            raise ConfigurationError(f"pooling must be one of {POOLINGS}, not {self.pooling!r}")
        if self.max_length < 2:
            raise ConfigurationError(f"max_length must be at least 2 (a token and the end), not {self.max_length!r}")
        if self.vocab_size < 258:
            raise ConfigurationError(f"vocab_size must be at least 258 (256 bytes and 2), not {self.vocab_size!r}")

    def _fit_preprocessor(self, cells: Cells) -> TextPreprocessor:
        texts = (cell for cell in cells if isinstance(cell, str))
        return TextPreprocessor.train(texts, vocab_size=self.vocab_size, max_length=self.max_length)

    def _training_batch(
        self, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        if not self.subword_dropout:
            return self._batch(encoded, rows)
        recoded = self.preprocessor_.encode_cut([cells[row] for row in rows], self.subword_dropout, rng)
        return self._batch(recoded, np.arange(len(rows)))

    def _build_encoder(self, preprocessor: Any) -> nn.Module:
        build = TEXT_BACKBONES[self.backbone]
        return build(vocab_size=preprocessor.vocab_size, max_length=self.max_length, pooling=self.pooling)
