"""The estimator that writes a text for a text: translations, summaries, answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedConfig

from mmensemble.exceptions import ConfigurationError
from mmensemble.frames import Cells
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.pretrained import loading
from mmensemble_estimators.backbones.text import read_text_processor
from mmensemble_estimators.backbones.writers.encoder_decoder import (
    SEQUENCE_BACKBONES,
    EncoderDecoder,
    encoder_decoder_from_architecture,
    encoder_decoder_from_config,
    encoder_decoder_from_model,
)
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.encoder_decoder import EncoderDecoderGenerator
from mmensemble_estimators.base.parameters import check_positions
from mmensemble_estimators.text import TextModality

__all__ = ["Seq2SeqGenerator"]


class SourceModality(TextModality):
    """Texts that are read in the tokens of what is written, by a network of which the encoder is a part."""

    learning_rate = 2e-3

    def check_parameters(self, estimator: Any) -> None:
        self.check_reading(estimator)
        backbone = estimator.backbone
        built = isinstance(backbone, PreTrainedConfig)
        if not built and not (isinstance(backbone, str) and backbone in SEQUENCE_BACKBONES):
            raise ConfigurationError(
                f"backbone must be one of {sorted(SEQUENCE_BACKBONES)} or a transformers config of an encoder-decoder, "
                f"not {backbone!r}"
            )
        if built and not backbone.is_encoder_decoder:
            raise ConfigurationError(
                f"backbone must be the config of an encoder-decoder, as T5Config, not {type(backbone).__name__}"
            )

    def fit_preprocessor(self, estimator: Any, cells: Cells) -> TextPreprocessor:
        preprocessor: TextPreprocessor = estimator.target_preprocessor_
        return preprocessor


@documented(
    rate='2e-3 from scratch, 5e-5 for pretrained weights, and 5e-4 with ``fine_tune="lora"``',
    preprocessor="TextPreprocessor",
)
class Seq2SeqGenerator(EncoderDecoderGenerator):
    """Write a text for a text, as its translation, its summary or an answer, with attention to what is read.

    From scratch, one byte-level BPE tokenizer is trained on the fitting texts of both sides, so any pair of languages
    works and nothing is downloaded. In training each token is predicted from the source and the right tokens before
    it.

    Parameters
    ----------
    backbone : {"transformer", "lstm"} or transformers config, default="transformer"
        The architecture: a transformer (Vaswani et al. 2017) of 2 + 2 layers and 128 features, whose source, target and
        scores share the tokens' vectors; or a bidirectional LSTM that is read by two layers of LSTM with global
        attention (Luong et al. 2015; the idea is Bahdanau et al. 2015); or what the config of an encoder-decoder says,
        as ``T5Config``, with a vocabulary of the tokenizer's size.
    pretrained : str, default=None
        A local folder or hub id of any model that ``transformers.AutoModelForSeq2SeqLM`` loads, with its tokenizer.
        Wins over `backbone`.
    fine_tune : {"all", "lora"}, default="all"
        What is trained: the whole network; or low-rank adapters of rank 8 on every linear layer but the last (Hu et al.
        2022; needs the extra ``lora``), merged into the weights after training.
    pooling : {"mean", "last", "cls", "max"}, default="mean"
        How the states of the encoder become `transform`'s embedding.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    subword_dropout : float, default=None
        In training, each source is cut before each character with this probability and no token crosses a cut, so that
        the network sees a word in many segmentations. The idea is BPE-dropout (Provilkov et al. 2020). None takes 0.1
        from scratch and 0 for pretrained weights.
    max_length : int, default=128
        Longest source and longest target in tokens; the rest is cut.
    <<writer>>
    <<device>>

    Attributes
    ----------
    <<writer_fitted>>

    References
    ----------
    Vaswani et al. (2017). Attention is all you need. NeurIPS.

    Bahdanau, Cho, Bengio (2015). Neural machine translation by jointly learning to align and translate. ICLR.

    Luong, Pham, Manning (2015). Effective approaches to attention-based neural machine translation. EMNLP.

    Provilkov, Emelianenko, Voita (2020). BPE-dropout: simple and effective subword regularization. ACL.

    Hu et al. (2022). LoRA: low-rank adaptation of large language models. ICLR.

    Examples
    --------
    >>> from mmensemble_estimators import Seq2SeqGenerator
    >>> english = ["red apple", "green pear", "red pear", "green apple"] * 8
    >>> german = ["roter Apfel", "grüne Birne", "rote Birne", "grüner Apfel"] * 8
    >>> translator = Seq2SeqGenerator(max_epochs=10, vocab_size=300, max_length=24, random_state=0)
    >>> translator.fit(english, german).predict(["red pear", "green apple"])
    array(['rote Birne', 'grüner Apfel'], dtype=object)
    """

    __module__ = "mmensemble_estimators"
    modality = SourceModality()
    pooling: str

    def __init__(
        self,
        *,
        backbone: Any = "transformer",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str = "mean",
        vocab_size: int = 4000,
        subword_dropout: float | None = None,
        max_length: int = 128,
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
        self.pooling = pooling
        self.vocab_size = vocab_size
        self.subword_dropout = subword_dropout
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

    def _fit_target_preprocessor(self, cells: Cells, targets: list[str]) -> TextPreprocessor:
        if self.pretrained is not None:
            preprocessor = read_text_processor(self.pretrained, max_length=self.max_length)
            with loading(self.pretrained):
                config = AutoConfig.from_pretrained(self.pretrained)
            self.start_ids_ = [int(config.decoder_start_token_id)]
            self.end_ids_ = np.atleast_1d(config.eos_token_id).tolist()
            return preprocessor
        # One vocabulary for both sides (Sennrich et al. 2016): what is alike in both, as names, is the same token.
        return self._trained_on([*(cell for cell in cells if isinstance(cell, str)), *targets])

    def _build_network(self) -> EncoderDecoder:
        vocab_size = self.target_preprocessor_.vocab_size
        if self.pretrained is not None:
            with loading(self.pretrained):
                model = AutoModelForSeq2SeqLM.from_pretrained(self.pretrained)
            network = encoder_decoder_from_model(model, attention="own", pooling=self.pooling)
        elif isinstance(self.backbone, PreTrainedConfig):
            network = encoder_decoder_from_config(
                self.backbone, vocab_size=vocab_size, attention="own", pooling=self.pooling
            )
        else:
            build = SEQUENCE_BACKBONES[self.backbone]
            network = build(vocab_size=vocab_size, max_length=self.max_length, pooling=self.pooling)
        check_positions(self.max_length, network.max_length)
        return network

    def _rebuild_network(self, architecture: dict[str, Any]) -> EncoderDecoder:
        return encoder_decoder_from_architecture(architecture)
