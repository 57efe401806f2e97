"""Classification by a language model that has learned no classes: by the label that it would write behind a text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.base import ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import leaf_cells
from mmensemble.preprocessing import PromptPreprocessor
from mmensemble.preprocessing.text import read_tokenizer
from mmensemble.tasks import Classification
from mmensemble_estimators.backbones.writers.likelihood import LabelLikelihood, shared_prefix
from mmensemble_estimators.base.leaf import TorchLeaf
from mmensemble_estimators.base.parameters import check_integers, check_target, fitted_or_path, label_text
from mmensemble_estimators.base.rows import cells_to_fit, column_of, encode, encode_to_fit, run
from mmensemble_estimators.frozen.stamps import folder_stamp
from mmensemble_estimators.language_model import CausalLM, PromptModality
from mmensemble_estimators.storage.language_models import load_prompt_classifier, save_prompt_classifier

__all__ = ["ZeroShotTextClassifier"]

# What Zhao et al. take for texts that say nothing.
CONTENT_FREE = ("N/A", "[MASK]", "")
BETWEEN_EXAMPLES = "\n\n"
# Positions taken of a network that bounds none.
MANY_POSITIONS = 2048


class ZeroShotTextClassifier(ClassifierMixin, TorchLeaf):
    r"""Classify texts by how likely a language model takes each label to be what comes next.

    Nothing is trained. With ``n_examples=0`` it learns from `fit` only which labels there are (zero-shot); above that,
    so many rows and their labels are written before each text (few-shot; Brown et al. 2020). What a language model
    thinks of a label without any text can be taken out again (`calibrate`).

    Parameters
    ----------
    language_model : CausalLM, FrozenEstimator or str
        A fitted `CausalLM`, or a local folder or hub id of any ``transformers.AutoModelForCausalLM``. scikit-learn's
        ``clone``, and so every search and ensemble, forgets what an estimator has learned unless it is wrapped in
        ``sklearn.frozen.FrozenEstimator``.
    template : str, default="{text}\n{label}"
        How a text and its label are written; ``{label}`` stands at the end.
    labels : dict or list of str, default=None
        How the classes are written, if not by their own names: by class, or in the order of the sorted classes.
        scikit-learn's ``VotingClassifier`` and ``StackingClassifier`` number the classes before they fit their members,
        which so know no names; give a list there.
    n_examples : int, default=0
        Rows of `fit` that are written before each text, drawn in the proportions of the classes. Each is cut to
        `example_length` characters.
    example_length : int, default=200
    calibrate : bool or list of str, default=True
        Divide the probability of each label by its mean behind some texts. A list are texts of the kind that will be
        classified, which need no labels; a hundred are enough (Zhou et al. 2024). True are texts without content:
        "N/A", "[MASK]" and nothing (Zhao et al. 2021).
    batch_size : int, default=32
        Texts that are run at a time.
    device : str, default="auto"
        A torch device; ``"auto"`` takes a GPU where torch sees one, else the CPU.
    random_state : int, RandomState or None, default=None
        Of the choice of examples.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    class_prior_ : ndarray of float, shape (n_classes,)
        The classes' share in `fit`, the prediction for a missing row.
    examples_ : list of str
        The examples as they are written before each text.
    bias_ : ndarray of float, shape (n_classes,)
        What is subtracted from the log-likelihoods; 0 without `calibrate`.
    module_ : torch.nn.Module
        Prompts → the log-likelihood of each label.
    preprocessor_ : PromptPreprocessor
        How texts become prompts.
    n_features_in_ : int
        1.
    feature_names_in_ : ndarray of shape (1,)
        The column's name, where it had one.

    References
    ----------
    Brown et al. (2020). Language models are few-shot learners. NeurIPS.

    Zhao, Wallace, Feng, Klein, Singh (2021). Calibrate before use: improving few-shot performance of language models.
    ICML.

    Zhou et al. (2024). Batch calibration: rethinking calibration for in-context learning and prompt engineering. ICLR.

    Examples
    --------
    >>> from mmensemble_estimators import CausalLM, ZeroShotTextClassifier
    >>> texts = ["an apple is a fruit", "a pear is a fruit", "a car is a vehicle", "a bus is a vehicle"] * 8
    >>> lm = CausalLM(max_epochs=40, vocab_size=300, learning_rate=3e-3, random_state=0).fit(texts)
    >>> clf = ZeroShotTextClassifier(lm, template="{text} is a {label}", calibrate=False)
    >>> clf.fit(None, ["fruit", "vehicle"]).predict(["a pear", "a bus"]).tolist()
    ['fruit', 'vehicle']
    """

    __module__ = "mmensemble_estimators"
    modality = PromptModality()
    # As a member of a composition it gets the labels, and not numbers in their place, for it reads them.
    reads_labels: ClassVar[bool] = True

    module_: LabelLikelihood
    preprocessor_: PromptPreprocessor
    classes_: np.ndarray
    class_prior_: np.ndarray
    bias_: np.ndarray
    examples_: list[str]
    language_model_: CausalLM
    label_ids_: list[list[int]]
    prefix_ids_: list[int]

    def __init__(
        self,
        language_model: Any,
        *,
        template: str = "{text}\n{label}",
        labels: Mapping[Any, str] | Sequence[str] | None = None,
        n_examples: int = 0,
        example_length: int = 200,
        calibrate: bool | Sequence[str] = True,
        batch_size: int = 32,
        device: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.language_model = language_model
        self.template = template
        self.labels = labels
        self.n_examples = n_examples
        self.example_length = example_length
        self.calibrate = calibrate
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Learn which labels there are, and choose examples.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows; or None
            With None, `y` are the labels, and there are no examples.
        y : array-like of shape (n_samples,)

        Returns
        -------
        self

        Raises
        ------
        ConfigurationError
            For a parameter that cannot work, a language model that is not fitted, or examples that do not fit into it.
        DataError
            For a cell that is no text, or a `y` of one class.
        """
        check_target(self, y)
        before, between = self._template()
        check_integers(self, n_examples=0, example_length=1, batch_size=1)
        self._check_calibrate()
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, counts = np.unique(y, return_counts=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class only, {self.classes_[0]!r}; there is nothing to tell apart")
        self.class_prior_ = counts / counts.sum()
        model = self._language_model()
        space = between[len(between.rstrip(" ")) :]
        written = [f"{space}{self._label(label)}" for label in self.classes_.tolist()]
        tokenizer = read_tokenizer(model.preprocessor_.tokenizer, None)
        self.label_ids_ = [tokenizer.encode(text, add_special_tokens=False).ids for text in written]
        if not all(self.label_ids_):
            raise ConfigurationError(f"a label is written by no token: {written}")
        self.examples_ = self._examples(X, y)
        self.language_model_ = model
        written_before = "".join(f"{example}{BETWEEN_EXAMPLES}" for example in self.examples_) + before
        preprocessor = self._whole_prompts(written_before, between.rstrip(" "))
        self.prefix_ids_, self.preprocessor_ = shared_prefix(preprocessor)
        if X is None:
            self.n_features_in_ = 1
        else:
            cells = cells_to_fit(self, X)
            check_consistent_length(cells, y)
            encode_to_fit(self, cells)
        self.module_ = self._likelihood()
        self.bias_ = self._bias()
        return self

    def _check_calibrate(self) -> None:
        given = self.calibrate
        if isinstance(given, bool):
            return
        if not isinstance(given, (list, tuple)) or not given or not all(isinstance(text, str) for text in given):
            raise ConfigurationError(f"calibrate must be True, False or a list of texts, not {given!r}")

    def _template(self) -> tuple[str, str]:
        """Return what stands before the text, and between it and the label."""
        before, found, rest = str(self.template).partition("{text}")
        between, also, after = rest.partition("{label}")
        if not found or not also or after:
            raise ConfigurationError(
                f"template must hold {{text}} and behind it, at its end, {{label}}; it is {self.template!r}"
            )
        return before, between

    def _language_model(self) -> CausalLM:
        model = fitted_or_path("language_model", self.language_model, CausalLM)
        return model if isinstance(model, CausalLM) else CausalLM.load(os.fspath(model))

    def _label(self, label: Any) -> str:
        return label_text(label, self.labels, self.classes_)

    def _examples(self, X: Any, y: np.ndarray) -> list[str]:
        if not self.n_examples:
            return []
        cells = [] if X is None else leaf_cells(X)
        rows = np.asarray([row for row, cell in enumerate(cells) if isinstance(cell, str)], dtype=np.int64)
        if len(rows) < self.n_examples:
            raise DataError(f"n_examples={self.n_examples} and there are {len(rows)} texts", column=column_of(self))
        if len(rows) > self.n_examples:
            _, sizes = np.unique(y[rows], return_counts=True)
            fits = sizes.min() > 1 and len(sizes) <= min(self.n_examples, len(rows) - self.n_examples)
            _, rows = train_test_split(
                rows,
                test_size=self.n_examples,
                stratify=y[rows] if fits else None,
                random_state=check_random_state(self.random_state),
            )
        return [
            self.template.replace("{label}", self._label(label)).replace("{text}", cells[row][: self.example_length], 1)
            for row, label in zip(rows, y[rows].tolist(), strict=True)
        ]

    def _whole_prompts(self, prefix: str, suffix: str) -> PromptPreprocessor:
        """Return how texts become tokens between what stands before and behind all of them."""
        known = self.language_model_.preprocessor_
        longest = (self.language_model_.module_.max_length or MANY_POSITIONS) - max(map(len, self.label_ids_)) + 1
        taken = PromptPreprocessor(known.tokenizer).encode_whole([f"{prefix}{suffix}"]).lengths[0]
        if taken >= longest:
            raise ConfigurationError(
                f"template and examples take {taken} tokens, and the language model has room for {longest}; "
                "fewer examples, or a smaller example_length, leave some for the text"
            )
        return PromptPreprocessor(
            known.tokenizer, max_length=longest, pad_id=known.pad_id, prefix=prefix, suffix=suffix
        )

    def _bias(self) -> np.ndarray:
        """Return the logarithm of each label's mean probability behind the texts that calibrate."""
        if self.calibrate is False:
            return np.zeros(len(self.classes_))
        texts = list(CONTENT_FREE if isinstance(self.calibrate, bool) else self.calibrate)
        raw = run(self, self.module_, self.preprocessor_.encode(texts)).astype(np.float64)
        bias: np.ndarray = logsumexp(log_softmax(raw, axis=1), axis=0) - np.log(len(texts))
        return bias

    def _likelihood(self) -> LabelLikelihood:
        return LabelLikelihood(self.language_model_.module_, self.label_ids_, self.prefix_ids_).eval()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each label among the labels.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            Columns in the order of `classes_`; a missing row gets the classes' share in `fit`.

        Raises
        ------
        DataError
            For a cell that is no text; it names the row and the column.
        """
        encoded = encode(self, X)
        if len(encoded) == 0:
            return np.zeros((0, len(self.classes_)))
        raw = np.asarray(run(self, self.module_, encoded), dtype=np.float64)
        probabilities: np.ndarray = softmax(raw - self.bias_, axis=1)
        probabilities[~encoded.present] = self.class_prior_
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : sequence of str, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        probabilities = self.predict_proba(X)
        return Classification(self.classes_).predict(probabilities)

    def save(self, folder: str | Path) -> None:
        """Write the fitted classifier, language model included, as safetensors and JSON; nothing in it is pickled.

        Parameters
        ----------
        folder : str or path
            Made where it is not there. Files of an earlier `save` in it are replaced. The language model is in the
            folder ``language_model`` in it, which `CausalLM.load` and transformers read.

        Raises
        ------
        ConfigurationError
            If a parameter has no JSON form, as a ``RandomState``, or the folder holds other files.
        """
        check_is_fitted(self, "module_")
        save_prompt_classifier(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        folder : str or path

        Returns
        -------
        ZeroShotTextClassifier
            Fitted. Where `language_model` was no folder, it is the one that was saved, frozen.

        Raises
        ------
        ModelFileError
            If the folder is damaged, holds another class, or was written by a newer version.
        """
        return load_prompt_classifier(cls, Path(folder), CausalLM, cls._likelihood)

    def cache_stamp(self) -> Any:
        model = self.language_model
        return folder_stamp(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else None
