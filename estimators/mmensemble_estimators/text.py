"""Text estimators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedConfig

from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, NGramPreprocessor, TextPreprocessor
from mmensemble_estimators.backbones.contrastive import (
    TextTowerEncoder,
    is_contrastive,
    is_contrastive_folder,
    load_model,
    read_tower_processor,
    text_tower_from_architecture,
)
from mmensemble_estimators.backbones.encoder import Encoder, ModuleEncoder
from mmensemble_estimators.backbones.static import (
    is_static_folder,
    read_static_encoder,
    read_static_processor,
    static_encoder_from_architecture,
)
from mmensemble_estimators.backbones.text import (
    POOLINGS,
    TEXT_BACKBONES,
    TextEncoder,
    read_text_processor,
    text_encoder_from_architecture,
    text_encoder_from_config,
    text_encoder_from_model,
)
from mmensemble_estimators.base.classifier import TorchClassifier
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import (
    check_backbone,
    check_choice,
    check_fractions,
    check_integers,
    check_positions,
)
from mmensemble_estimators.base.regressor import TorchRegressor
from mmensemble_estimators.base.rows import arrays_of
from mmensemble_estimators.training.loop import as_tensors

__all__ = ["TextClassifier", "TextRegressor"]

# Of `subword_dropout` None, for a network from scratch. A pretrained tokenizer's words must not be cut.
SUBWORD_DROPOUT = 0.1


class TextParameters(Protocol):
    """The parameters of an estimator that concern what it reads."""

    backbone: Any
    pretrained: str | None
    pooling: str
    vocab_size: int
    n_grams: int | None
    subword_dropout: float | None
    max_length: int
    preprocessor_: Any


class TextModality(EncodedModality):
    """Texts: tokens, and a network whose states over them become one embedding."""

    name = "text"
    learning_rate = 1e-3
    label_smoothing = 0.1
    of_strings = True

    def check_parameters(self, estimator: TextParameters) -> None:
        self.check_reading(estimator)
        check_backbone(estimator.backbone, TEXT_BACKBONES)
        # A token and the end; the 256 bytes and two special tokens.
        check_integers(estimator, max_length=2, vocab_size=258)
        if estimator.n_grams is not None:
            check_integers(estimator, n_grams=1)

    def check_reading(self, estimator: TextParameters) -> None:
        """Raise `ConfigurationError` for a parameter that cannot work, whatever the network is."""
        check_choice("pooling", estimator.pooling, POOLINGS)
        if estimator.subword_dropout is not None:
            check_fractions(estimator, "subword_dropout")

    def fit_preprocessor(self, estimator: TextParameters, cells: Cells) -> TextPreprocessor:
        if estimator.pretrained is not None:
            read: Any = read_text_processor
            if is_static_folder(estimator.pretrained):
                read = read_static_processor
            elif is_contrastive_folder(estimator.pretrained):
                read = read_tower_processor
            return read(estimator.pretrained, max_length=estimator.max_length)
        texts = (cell for cell in cells if isinstance(cell, str))
        settings: dict[str, Any] = {"vocab_size": estimator.vocab_size, "max_length": estimator.max_length}
        # A module of the user's own takes tokens alone.
        if estimator.n_grams is None or callable(estimator.backbone):
            return TextPreprocessor.train(texts, **settings)
        return NGramPreprocessor.train(texts, **settings, n_features=estimator.n_grams)

    def build_encoder(self, estimator: TextParameters, preprocessor: Any) -> Encoder:
        backbone, pooling, max_length = estimator.backbone, estimator.pooling, estimator.max_length
        if estimator.pretrained is not None:
            if is_static_folder(estimator.pretrained):
                return read_static_encoder(estimator.pretrained, pooling=pooling)
            model = load_model(estimator.pretrained)
            if is_contrastive(model.config):
                return TextTowerEncoder(model, pad_id=preprocessor.pad_id)
            check_positions(max_length, getattr(model.config, "max_position_embeddings", None))
            return text_encoder_from_model(model, pooling=pooling)
        if isinstance(backbone, PreTrainedConfig):
            check_positions(max_length, getattr(backbone, "max_position_embeddings", None))
            encoder = text_encoder_from_config(backbone, vocab_size=preprocessor.vocab_size, pooling=pooling)
            return _with_n_grams(encoder, preprocessor)
        if callable(backbone):
            example = arrays_of(preprocessor, preprocessor.encode(["", ""]), np.arange(2))
            return ModuleEncoder(backbone(), as_tensors(example))
        build = TEXT_BACKBONES[backbone]
        encoder = build(vocab_size=preprocessor.vocab_size, max_length=max_length, pooling=pooling)
        return _with_n_grams(encoder, preprocessor)

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Encoder:
        if "static" in architecture:
            return static_encoder_from_architecture(architecture)
        if "contrastive" in architecture:
            return text_tower_from_architecture(architecture)
        return text_encoder_from_architecture(architecture)

    def training_batch(
        self, estimator: TextParameters, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        preprocessor, probability = estimator.preprocessor_, estimator.subword_dropout
        if probability is None:
            probability = 0.0 if estimator.pretrained is not None else SUBWORD_DROPOUT
        arrays = arrays_of(preprocessor, encoded, rows)
        if not probability:
            return arrays
        recoded = preprocessor.encode_cut([cells[row] for row in rows], probability, rng)
        return {**arrays, **preprocessor.token_arrays(recoded.items)}


def _with_n_grams(encoder: TextEncoder, preprocessor: TextPreprocessor) -> TextEncoder:
    """Let an encoder take what its preprocessor gives."""
    return encoder.with_n_grams(preprocessor.n_features) if isinstance(preprocessor, NGramPreprocessor) else encoder


@documented(rate="1e-3", smoothing="None", preprocessor="TextPreprocessor")
class TextClassifier(TorchClassifier):
    """Classify texts with a small transformer or LSTM from scratch, or with pretrained weights.

    From scratch, a byte-level BPE tokenizer is trained on the fitting texts, so any language works and nothing is
    downloaded.

    Parameters
    ----------
    backbone : {"gpt", "bert", "lstm"}, transformers config or callable, default="gpt"
        The architecture: a causal transformer of 2 layers and 128 features (Radford et al. 2018), a bidirectional one
        (Devlin et al. 2019) or a bidirectional LSTM; or what a config says, with a vocabulary of the tokenizer's size;
        or a callable without arguments that returns a module with its weights loaded, from ``input_ids`` and
        ``attention_mask`` (batch, length) int64 to embeddings (batch, size).
    pretrained : str, default=None
        A local folder or hub id of any text model that ``transformers.AutoModel`` loads, with its tokenizer; of CLIP
        and SigLIP the half for texts, which are cut to the positions that it has, `max_length` at most; or a
        folder of static embeddings, a vector per token, as model2vec writes it and
        `mmensemble_estimators.packaged.wordllama_folder` returns it. Wins over `backbone`.
    <<fine_tune>>
    pooling : {"mean", "last", "cls", "max"}, default="mean"
        How the states of the tokens become one embedding. CLIP and SigLIP have one of their own, in the space that
        they share with images, whatever the pooling is.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    n_grams : int, default=16384
        From scratch, what a text's n-grams of 2 to 5 characters and of 1 and 2 words say is added to its embedding
        (Joulin et al. 2017): by their hashes they share this many vectors, those of words as many again. None adds
        nothing, nor does a network with weights of its own, pretrained or a callable's.
    subword_dropout : float, default=None
        In training, each text is cut before each character with this probability and no token crosses a cut, so that
        the network sees a word in many segmentations. The idea is BPE-dropout (Provilkov et al. 2020). None takes 0.1
        from scratch and 0 for pretrained weights.
    max_length : int, default=128
        Longest text in tokens; the rest is cut.
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
    Radford, Narasimhan, Salimans, Sutskever (2018). Improving language understanding by generative pre-training.

    Devlin, Chang, Lee, Toutanova (2019). BERT: pre-training of deep bidirectional transformers. NAACL.

    Joulin, Grave, Bojanowski, Mikolov (2017). Bag of tricks for efficient text classification. EACL.

    Provilkov, Emelianenko, Voita (2020). BPE-dropout: simple and effective subword regularization. ACL.

    Hu et al. (2022). LoRA: low-rank adaptation of large language models. ICLR.

    Examples
    --------
    >>> from mmensemble_estimators import TextClassifier
    >>> texts = ["red apple", "green apple", "fast car", "slow car"] * 4
    >>> clf = TextClassifier(max_epochs=16, vocab_size=300, random_state=0)
    >>> clf.fit(texts, ["fruit", "fruit", "vehicle", "vehicle"] * 4).predict(["an apple", "my car"]).tolist()
    ['fruit', 'vehicle']
    """

    __module__ = "mmensemble_estimators"
    modality = TextModality()

    def __init__(
        self,
        *,
        backbone: Any = "gpt",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str = "mean",
        vocab_size: int = 4000,
        n_grams: int | None = 16384,
        subword_dropout: float | None = None,
        max_length: int = 128,
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
        label_smoothing: float | None = None,
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
        self.vocab_size = vocab_size
        self.n_grams = n_grams
        self.subword_dropout = subword_dropout
        self.max_length = max_length
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


@documented(rate="1e-3", preprocessor="TextPreprocessor")
class TextRegressor(TorchRegressor):
    """Predict one or several numbers from texts; networks and training are those of `TextClassifier`.

    Parameters
    ----------
    backbone : {"gpt", "bert", "lstm"}, transformers config or callable, default="gpt"
        As in `TextClassifier`.
    pretrained : str, default=None
        As in `TextClassifier`.
    <<fine_tune>>
    pooling : {"mean", "last", "cls", "max"}, default="mean"
        How the states of the tokens become one embedding. CLIP and SigLIP have one of their own, in the space that
        they share with images, whatever the pooling is.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    n_grams : int, default=16384
        As in `TextClassifier`.
    subword_dropout : float, default=None
        As in `TextClassifier`.
    max_length : int, default=128
        Longest text in tokens; the rest is cut.
    <<training>>
    <<stopping>>
    <<device>>

    Attributes
    ----------
    <<fitted>>

    Examples
    --------
    >>> from mmensemble_estimators import TextRegressor
    >>> texts = ["one apple", "two apples", "ten cars", "nine cars"] * 4
    >>> reg = TextRegressor(max_epochs=8, vocab_size=300, random_state=0).fit(texts, [1.0, 2.0, 10.0, 9.0] * 4)
    >>> bool(reg.predict(["two apples"])[0] < reg.predict(["ten cars"])[0])
    True
    """

    __module__ = "mmensemble_estimators"
    modality = TextModality()

    def __init__(
        self,
        *,
        backbone: Any = "gpt",
        pretrained: str | None = None,
        fine_tune: str = "all",
        pooling: str = "mean",
        vocab_size: int = 4000,
        n_grams: int | None = 16384,
        subword_dropout: float | None = None,
        max_length: int = 128,
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
        self.vocab_size = vocab_size
        self.n_grams = n_grams
        self.subword_dropout = subword_dropout
        self.max_length = max_length
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
