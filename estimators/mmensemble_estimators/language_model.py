"""Language models: pretraining from scratch, fine-tuning, likelihoods and generation."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from transformers import PreTrainedConfig

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import Cells, leaf_cells
from mmensemble.preprocessing import PromptPreprocessor
from mmensemble.progress import fitting
from mmensemble_estimators.backbones.text import PooledStates
from mmensemble_estimators.backbones.writers.causal_folder import read_network, read_prompts
from mmensemble_estimators.backbones.writers.networks import CausalNetwork, build_causal_gpt, causal_network_from_config
from mmensemble_estimators.backbones.writers.token_loss import Pieces, TokenLoss
from mmensemble_estimators.base.documented import documented
from mmensemble_estimators.base.generator import TorchGenerator
from mmensemble_estimators.base.modality import Modality
from mmensemble_estimators.base.parameters import check_choice, check_integers, check_positions, fitted_or_path
from mmensemble_estimators.base.rows import cells_to_fit, column_of, encode, encode_to_fit
from mmensemble_estimators.frozen.stamps import folder_stamp
from mmensemble_estimators.storage.language_models import load_language_model, save_language_model
from mmensemble_estimators.training.loop import resolve_device, run_in_batches

__all__ = ["CausalLM"]

POOLINGS = ("mean", "last", "max")


class PromptModality(Modality):
    """Texts that are written on: tokens alone, without an encoder."""

    name = "text"
    learning_rate = 1e-3
    of_strings = True


@documented(rate="1e-3", preprocessor="PromptPreprocessor")
class CausalLM(TorchGenerator):
    """Model texts token by token: learn from raw texts, tell how likely a text is, and write on.

    From scratch, a byte-level BPE tokenizer is trained on the fitting texts, so any language works and nothing is
    downloaded. Training maximises the likelihood of each next token. What it has learned of a language is of use to
    others: `save` it and give the folder to ``TextClassifier(pretrained=folder)``.

    Parameters
    ----------
    backbone : {"gpt"} or transformers config, default="gpt"
        The architecture: a GPT (Radford et al. 2018) of the size below; or what the config of any model of
        ``transformers.AutoModelForCausalLM`` says, with a vocabulary of the tokenizer's size.
    pretrained : str, CausalLM or FrozenEstimator, default=None
        What to start from, tokenizer included: a local folder or hub id of any ``AutoModelForCausalLM``, or another
        `CausalLM` that is fitted. scikit-learn's ``clone`` forgets what an estimator has learned unless it is wrapped
        in ``sklearn.frozen.FrozenEstimator``. Wins over `backbone`.
    fine_tune : {"all", "lora"}, default="all"
        What is trained: the whole network; or low-rank adapters of rank 8 on every linear layer but the last (Hu et al.
        2022; needs the extra ``lora``), merged into the weights after training.
    pooling : {"mean", "last", "max"}, default="mean"
        How the states of the tokens become `transform`'s embedding.
    n_layers, n_heads, embedding_size : int, default=2, 4, 128
        The size of ``backbone="gpt"``.
    vocab_size : int, default=4000
        Most entries in the tokenizer's vocabulary, at least 258.
    max_length : int, default=128
        Most tokens that the network sees at once. Longer texts are learned, and scored, in pieces; of a longer prompt
        the last tokens are kept. From scratch, also the most tokens of a prompt and its continuation together.
    <<training>>
    early_stopping : bool, default=False
        Set `validation_fraction` of the texts aside, stop when their loss has not fallen for 5 epochs, and restore the
        best weights.
    validation_fraction : float, default=0.1
        Share of the texts set aside by `early_stopping`.
    warm_start : bool, default=False
        Let a further `fit` go on from the weights that are there, instead of forgetting them.
    <<device>>

    Attributes
    ----------
    module_ : GenerativeNetwork
        The trained network, in evaluation mode; ``module_.backbone`` is the transformers model.
    preprocessor_ : PromptPreprocessor
        How texts become tokens.
    history_ : pandas.DataFrame
        A row per epoch: ``epoch``, ``train_loss`` (mean negative log-likelihood per token), ``train_perplexity``, with
        `early_stopping` ``valid_loss`` and ``valid_perplexity``, and ``dur`` in seconds.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.

    References
    ----------
    Radford, Narasimhan, Salimans, Sutskever (2018). Improving language understanding by generative pre-training.

    Hu et al. (2022). LoRA: low-rank adaptation of large language models. ICLR.

    Examples
    --------
    >>> from mmensemble_estimators import CausalLM
    >>> lm = CausalLM(max_epochs=60, vocab_size=300, random_state=0)
    >>> lm.fit(["red apple", "green apple", "fast car", "slow car"] * 8).generate(["green", "fast"], temperature=0)
    array([[' apple'],
           [' car']], dtype=object)
    >>> lm.perplexity(["red apple"]) < lm.perplexity(["apple red"])
    True
    """

    __module__ = "mmensemble_estimators"
    modality = PromptModality()
    _adapted: ClassVar[str] = "backbone"
    module_: CausalNetwork
    preprocessor_: PromptPreprocessor
    pooling: str

    def __init__(
        self,
        *,
        backbone: Any = "gpt",
        pretrained: Any = None,
        fine_tune: str = "all",
        pooling: str = "mean",
        n_layers: int = 2,
        n_heads: int = 4,
        embedding_size: int = 128,
        vocab_size: int = 4000,
        max_length: int = 128,
        max_epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
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
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.embedding_size = embedding_size
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    def check_parameters(self) -> None:
        super().check_parameters()
        if not isinstance(self.backbone, PreTrainedConfig) and self.backbone != "gpt":
            raise ConfigurationError(f"backbone must be 'gpt' or a transformers config, not {self.backbone!r}")
        check_choice("pooling", self.pooling, POOLINGS)
        check_integers(self, max_length=2, vocab_size=258, n_layers=1, n_heads=1, embedding_size=1)
        if self.embedding_size % self.n_heads:
            raise ConfigurationError(f"embedding_size={self.embedding_size} is not divisible by n_heads={self.n_heads}")

    @property
    def _origin(self) -> Any:
        """What to start from: another fitted `CausalLM`, a path, or None."""
        return None if self.pretrained is None else fitted_or_path("pretrained", self.pretrained, CausalLM)

    def cache_stamp(self) -> Any:
        origin = self._origin
        return None if isinstance(origin, CausalLM) else folder_stamp(origin)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Learn from texts.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows
            Rows that are None or NaN are missing and are left out.
        y : ignored
        sample_weight : array-like of float, shape (n_samples,), default=None
            A weight of 2 counts in the loss as the text given twice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            For a cell that is no text, or if there is nothing to learn from.
        ConfigurationError
            For a parameter that cannot work, or a training that diverges.
        DeviceError
            If a `device` is named that torch cannot use here.
        """
        afresh = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, sample_weight, afresh=afresh, epochs=self.max_epochs)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on some texts, on top of what was learned before.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows
            The first call's texts train the tokenizer.
        y : ignored
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._fit(X, sample_weight, afresh=not hasattr(self, "module_"), epochs=1)

    def _fit(self, X: Any, sample_weight: Any, *, afresh: bool, epochs: int) -> Self:
        self.check_parameters()
        with fitting(self, X, None, sample_weight):
            cells = cells_to_fit(self, X)
            if afresh:
                self.preprocessor_, self.end_ids_ = self._prompts(cells)
            encoded, pieces = encode_to_fit(self, cells), self._pieces(cells)
            weight = self._row_weights(encoded, sample_weight)[pieces.row_of]
            rows = np.flatnonzero(weight > 0)
            if not len(rows):
                raise DataError("no text has a token to predict and a weight above 0", column=column_of(self))
            self._train(
                self._build,
                rows,
                pieces.batch,
                n_tokens=pieces.n_predicted,
                weight=weight,
                rng=check_random_state(self.random_state),
                afresh=afresh,
                epochs=epochs,
            )
        return self

    def _prompts(self, cells: Cells) -> tuple[PromptPreprocessor, list[int]]:
        """Return how texts become tokens, and the tokens that end a text."""
        origin = self._origin
        if isinstance(origin, CausalLM):
            known = origin.preprocessor_
            preprocessor = PromptPreprocessor(known.tokenizer, max_length=self.max_length, pad_id=known.pad_id)
            return preprocessor, origin.end_ids_
        if origin is not None:
            return read_prompts(origin, self.max_length)
        texts = (cell for cell in cells if isinstance(cell, str))
        preprocessor = PromptPreprocessor.train(texts, vocab_size=self.vocab_size, max_length=self.max_length)
        return preprocessor, preprocessor.encode([""]).items[0].tolist()  # the one special token that is not padding

    def _build(self) -> CausalNetwork:
        origin, vocab_size = self._origin, self.preprocessor_.vocab_size
        if isinstance(origin, CausalLM):
            network = copy.deepcopy(origin.module_)
        elif origin is not None:
            network = read_network(origin)
        elif isinstance(self.backbone, PreTrainedConfig):
            end, pad = self.end_ids_[0], self.preprocessor_.pad_id
            ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
            network = causal_network_from_config(self.backbone, vocab_size=vocab_size, **ids)
        else:
            network = build_causal_gpt(
                vocab_size=vocab_size,
                max_length=self.max_length,
                n_layers=self.n_layers,
                n_heads=self.n_heads,
                size=self.embedding_size,
                end_id=self.end_ids_[0],
            )
        check_positions(self.max_length, network.max_length)
        return network

    def _pieces(self, cells: Cells) -> Pieces:
        texts = self.preprocessor_.encode_whole(cells)
        return Pieces.of(texts, self.end_ids_, max_length=self.max_length, pad_id=self.preprocessor_.pad_id)

    def log_likelihood(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return each text's log-likelihood, its end included.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows

        Returns
        -------
        log_likelihood : ndarray of float64, shape (n_samples,)
            Natural logarithms; 0 of a missing row.
        n_tokens : ndarray of int64, shape (n_samples,)
            How many tokens it is of. The first one counts where the tokenizer puts a start token before it, as the one
            from scratch does.
        """
        encoded = encode(self, X)
        pieces = self._pieces(leaf_cells(X))
        sums, counts = np.zeros(len(encoded)), np.zeros(len(encoded), dtype=np.int64)
        if pieces.items:
            device = resolve_device(self.device)
            self.module_.to(device).eval()
            found = run_in_batches(
                TokenLoss(self.module_).eval().sums,
                pieces.batch,
                np.argsort(pieces.n_predicted, kind="stable"),
                batch_size=self.batch_size,
                device=device,
            )
            np.add.at(sums, pieces.row_of, found[:, 0])
            np.add.at(counts, pieces.row_of, found[:, 1].astype(np.int64))
        return sums, counts

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean log-likelihood per token.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows
        y : ignored

        Returns
        -------
        float
            At most 0; higher is better. Of two models it compares only if their tokenizers are the same.
        """
        sums, counts = self.log_likelihood(X)
        if not counts.sum():
            raise DataError("there is no token to score", column=column_of(self))
        return float(sums.sum() / counts.sum())

    def perplexity(self, X: Any) -> float:
        """Return the exponential of the mean negative log-likelihood per token.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows

        Returns
        -------
        float
            At least 1; a model that guesses among k equally likely tokens has a perplexity of k.
        """
        return math.exp(-self.score(X))

    @property
    def embedder_(self) -> PooledStates:
        return PooledStates(self.module_, self.pooling)

    def save(self, folder: str | Path) -> None:
        """Write the fitted model as a folder that `load`, ``TextClassifier(pretrained=)`` and transformers read.

        ``transformers.AutoModelForCausalLM`` and ``AutoTokenizer`` load it as any other. Nothing in it is pickled.

        Parameters
        ----------
        folder : str or path
            Made where it is not there. Files of an earlier `save` in it are replaced.

        Raises
        ------
        ConfigurationError
            If the folder holds other files, or a parameter has no JSON form; an estimator as `pretrained` is left out.
        """
        check_is_fitted(self, "module_")
        save_language_model(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote, or take any causal language model of transformers as it is.

        Parameters
        ----------
        folder : str or path
            What `save` wrote, or a folder or hub id of any ``AutoModelForCausalLM`` with its tokenizer.

        Returns
        -------
        CausalLM
            Fitted.

        Raises
        ------
        ConfigurationError
            If there is no such model.
        ModelFileError
            If the folder is damaged, or was written by a newer version.
        """
        return load_language_model(cls, folder)
