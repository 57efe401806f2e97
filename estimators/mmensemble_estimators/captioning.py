"""The estimator that writes what is in an image."""

from __future__ import annotations

from typing import Any

from mmensemble.frames import Cells
from mmensemble.preprocessing import ImagePreprocessor, TextPreprocessor
from mmensemble_estimators.backbones.writers.decoders import DECODERS, decoder_from_architecture
from mmensemble_estimators.backbones.writers.encoder_decoder import EncoderDecoder
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.embedding import PRETRAINED_LEARNING_RATE, is_pretrained
from mmensemble_estimators.base.encoder_decoder import EncoderDecoderGenerator
from mmensemble_estimators.base.parameters import check_choice
from mmensemble_estimators.image import ImageModality
from mmensemble_estimators.storage.folder import rebuilt_encoder

__all__ = ["ImageCaptioner"]


@documented(rate="2e-3; of a pretrained encoder that is trained too, 5e-5", preprocessor="ImagePreprocessor")
class ImageCaptioner(EncoderDecoderGenerator):
    """Write what is in an image: an image encoder, and a decoder that attends to the places that it gives.

    A cell is a path, encoded bytes, ``{"bytes", "path"}``, a ``PIL.Image`` or a uint8 array H×W or H×W×C. The texts are
    written by a decoder from scratch, whose byte-level BPE tokenizer is trained on the fitting texts.

    Parameters
    ----------
    backbone : {"cnn", "vit"}, transformers config or callable, default="cnn"
        The image encoder, as in `ImageClassifier`. The decoder attends to each place of its map, or to each of its
        tokens, as in "Show, attend and tell" (Xu et al. 2015); to one embedding of a callable's module.
    pretrained : str, default=None
        A local folder or hub id of any image model that ``transformers.AutoModel`` loads, with its image processor.
        Wins over `backbone`.
    fine_tune : {"all", "head"}, default="all"
        What is trained: the whole network, or the decoder on a frozen encoder.
    text_decoder : {"transformer", "lstm"}, default="transformer"
        What writes: 2 layers of a transformer (Vaswani et al. 2017) or of an LSTM with attention (Luong et al. 2015).
    pooling : {"mean", "max", "cls"}, default=None
        How the encoder's states become `transform`'s embedding; None takes the network's own.
    image_size : int, default=None
        Height and width in pixels, at least 32; None takes 64 from scratch, and what pretrained weights want.
    augmentation : tuple of {"flip", "shift", "crop", "colour"}, default=("flip", "shift")
        What is varied at random in training; where texts tell left from right, leave out ``"flip"``.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    max_length : int, default=64
        Longest text in tokens; the rest is cut.
    <<writer>>
    <<device>>

    Attributes
    ----------
    <<writer_fitted>>

    References
    ----------
    Vinyals, Toshev, Bengio, Erhan (2015). Show and tell: a neural image caption generator. CVPR.

    Xu et al. (2015). Show, attend and tell: neural image caption generation with visual attention. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble_estimators import ImageCaptioner
    >>> pictures = [np.full((32, 32), shade, dtype=np.uint8) for shade in [0, 255] * 16]
    >>> captioner = ImageCaptioner(image_size=32, max_epochs=10, vocab_size=300, max_length=16, random_state=0)
    >>> captioner.fit(pictures, ["a black square", "a white square"] * 16).predict(pictures[:2])
    array(['a black square', 'a white square'], dtype=object)
    """

    __module__ = "mmensemble_estimators"
    modality = ImageModality()
    _fine_tunes = ("all", "head")

    preprocessor_: ImagePreprocessor

    def __init__(
        self,
        *,
        backbone: Any = "cnn",
        pretrained: str | None = None,
        fine_tune: str = "all",
        text_decoder: str = "transformer",
        pooling: str | None = None,
        image_size: int | None = None,
        augmentation: tuple[str, ...] = ("flip", "shift"),
        vocab_size: int = 4000,
        max_length: int = 64,
        num_beams: int = 1,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        warm_start: bool = False,
        label_smoothing: float = 0.1,
        device: str = "auto",
        precision: str = "fp32",
        random_state: Any = None,
        verbose: int = False,
    ) -> None:
        self.backbone = backbone
        self.pretrained = pretrained
        self.fine_tune = fine_tune
        self.text_decoder = text_decoder
        self.pooling = pooling
        self.image_size = image_size
        self.augmentation = augmentation
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.num_beams = num_beams
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.label_smoothing = label_smoothing
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def check_parameters(self) -> None:
        super().check_parameters()
        check_choice("text_decoder", self.text_decoder, tuple(DECODERS))

    def _learning_rates(self) -> list[tuple[str, float, float]]:
        rate = self.modality.learning_rate if self.learning_rate is None else self.learning_rate
        own = PRETRAINED_LEARNING_RATE if is_pretrained(self) and self.learning_rate is None else rate
        return [("network.encoder.*", own, self.weight_decay), ("*", rate, self.weight_decay)]

    def _fit_target_preprocessor(self, cells: Cells, targets: list[str]) -> TextPreprocessor:
        return self._trained_on(targets)

    def _build_network(self) -> EncoderDecoder:
        encoder = self.modality.build_encoder(self, self.preprocessor_)
        decoder = DECODERS[self.text_decoder](
            vocab_size=self.target_preprocessor_.vocab_size,
            max_length=self.max_length,
            memory_size=encoder.embedding_size,
        )
        return EncoderDecoder(encoder, decoder)

    def _rebuild_network(self, architecture: dict[str, Any]) -> EncoderDecoder:
        encoder = rebuilt_encoder(self, architecture["encoder"])
        return EncoderDecoder(encoder, decoder_from_architecture(architecture["decoder"], encoder.embedding_size))
