"""What the estimators that write a text about a row share: training on target texts, prediction, score, storage."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from mmensemble.exceptions import DataError
from mmensemble.frames import Cells, leaf_cells
from mmensemble.metrics import chrf_score
from mmensemble.preprocessing import Encoded, TextPreprocessor
from mmensemble.progress import fitting
from mmensemble_estimators.backbones.writers.encoder_decoder import EncoderDecoder
from mmensemble_estimators.base.generator import TorchGenerator
from mmensemble_estimators.base.modality import EncodedModality
from mmensemble_estimators.base.parameters import check_fractions, check_integers, check_target
from mmensemble_estimators.base.rows import cells_to_fit, encode_to_fit
from mmensemble_estimators.storage.writers import load_writer, save_writer

__all__ = ["EncoderDecoderGenerator"]


class EncoderDecoderGenerator(TorchGenerator):
    """An estimator that reads a row and writes a text about it.

    A subclass says how the preprocessor of texts is made, and how the network is built.
    """

    modality: ClassVar[EncodedModality]
    _adapted: ClassVar[str] = ""  # the whole network

    vocab_size: int
    max_length: int
    num_beams: int
    label_smoothing: float

    module_: EncoderDecoder
    target_preprocessor_: TextPreprocessor

    @abstractmethod
    def _fit_target_preprocessor(self, cells: Cells, targets: list[str]) -> TextPreprocessor:
        """Return how target texts become tokens, and set by which ones a text starts and ends."""

    @abstractmethod
    def _build_network(self) -> EncoderDecoder:
        """Return an untrained (or pretrained) network for the fitted preprocessors."""

    @abstractmethod
    def _rebuild_network(self, architecture: dict[str, Any]) -> EncoderDecoder:
        """Return an untrained network from its saved architecture."""

    def _trained_on(self, texts: list[str]) -> TextPreprocessor:
        """Return a byte-level BPE tokenizer trained on texts; its end token starts a text too."""
        preprocessor = TextPreprocessor.train(texts, vocab_size=self.vocab_size, max_length=self.max_length)
        self.start_ids_ = self.end_ids_ = preprocessor.encode([""]).items[0].tolist()
        return preprocessor

    def check_parameters(self) -> None:
        super().check_parameters()
        self.modality.check_parameters(self)
        # A token and the end; the 256 bytes and two special tokens.
        check_integers(self, max_length=2, vocab_size=258, num_beams=1)
        check_fractions(self, "label_smoothing")

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train the network to write the texts.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            Rows that are None or NaN are missing and are left out.
        y : array-like of str, shape (n_samples,)
            The text that belongs to each row.
        sample_weight : array-like of float, shape (n_samples,), default=None
            A weight of 2 counts in the loss as the row given twice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            For a cell that cannot be read, or a target that is no text; it names the row.
        ConfigurationError
            For a parameter that cannot work, or a training that diverges.
        DeviceError
            If a `device` is named that torch cannot use here.
        """
        afresh = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, y, sample_weight, afresh=afresh, epochs=self.max_epochs)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some rows, on top of what was learned before.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            The first call's rows and texts train the tokenizer.
        y : array-like of str, shape (n_samples,)
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, afresh=not hasattr(self, "module_"), epochs=1)

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, afresh: bool, epochs: int) -> Self:
        check_target(self, y)
        self.check_parameters()
        with fitting(self, X, y, sample_weight):
            self._fit_shown(X, y, sample_weight, afresh=afresh, epochs=epochs)
        return self

    def _fit_shown(self, X: Any, y: Any, sample_weight: Any, *, afresh: bool, epochs: int) -> None:
        targets = _as_targets(y)
        cells = cells_to_fit(self, X)
        check_consistent_length(cells, targets)
        if afresh:
            self.target_preprocessor_ = self._fit_target_preprocessor(cells, targets)
            self.preprocessor_ = self.modality.fit_preprocessor(self, cells)
        encoded = encode_to_fit(self, cells)
        written = self.target_preprocessor_.encode(targets)
        weight = self._row_weights(encoded, sample_weight)
        rows = self._rows_to_fit(encoded, weight)
        rng = check_random_state(self.random_state)

        def batch(chosen: np.ndarray) -> dict[str, np.ndarray]:
            read = self.modality.training_batch(self, cells, encoded, chosen, rng)
            return {**self._text_batch(written, chosen), **read}

        self._train(
            self._build_network,
            rows,
            batch,
            n_tokens=written.lengths,
            weight=weight,
            rng=rng,
            afresh=afresh,
            epochs=epochs,
            lengths=encoded.lengths + written.lengths,
            label_smoothing=self.label_smoothing,
        )

    def _text_batch(self, written: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the target texts of some rows from the start tokens on."""
        texts = self.target_preprocessor_.collate(written, rows)
        start = np.tile(np.asarray(self.start_ids_, dtype=np.int64), (len(rows), 1))
        return {
            "token_ids": np.hstack([start, texts["input_ids"]]),
            "token_mask": np.hstack([np.ones_like(start), texts["attention_mask"]]),
        }

    @property
    def _written_by(self) -> str:
        return self.target_preprocessor_.tokenizer

    def predict(self, X: Any) -> np.ndarray:
        """Write the most probable text for each row: greedily, or by a search with `num_beams`.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of object, shape (n_samples,)
            Strings; None where the row is missing.

        Raises
        ------
        DataError
            For a cell that cannot be read; it names the row and the column.
        """
        check_is_fitted(self, "module_")
        longest = self.max_length
        if self.module_.max_length is not None:
            longest = min(longest, self.module_.max_length - len(self.start_ids_))
        texts: np.ndarray = self.generate(X, max_new_tokens=longest, temperature=0, num_beams=self.num_beams)
        return texts[:, 0]

    def score(self, X: Any, y: Any) -> float:
        """Return the chrF of `predict`, which suits texts of any length and language: see `mmensemble.metrics`.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
        y : sequence of str, or of sequences of str, length n_samples
            The reference of each row, or its references.

        Returns
        -------
        float
            In [0, 100]. A row that is missing counts as an empty text.

        Raises
        ------
        MissingDependencyError
            If sacrebleu is not installed.
        """
        return chrf_score(y, self.predict(X))

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator as a folder of safetensors and JSON; nothing in it is pickled.

        Parameters
        ----------
        folder : str or path
            Made where it is not there. Files of an earlier `save` in it are replaced.

        Raises
        ------
        ConfigurationError
            If a parameter has no JSON form, as a ``RandomState``, or the folder holds other files.
        """
        check_is_fitted(self, "module_")
        save_writer(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, *, backbone: Any = None) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        folder : str or path
        backbone : callable, default=None
            The callable `backbone` that was fitted, which is code and so not in the folder.

        Returns
        -------
        estimator
            Fitted, of this class.

        Raises
        ------
        ConfigurationError
            If a callable `backbone` was fitted and is not given.
        ModelFileError
            If the folder is damaged, holds another class, or was written by a newer version.
        """
        return load_writer(cls, Path(folder), backbone, cls._rebuild_network)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _as_targets(y: Any) -> list[str]:
    targets = list(leaf_cells(y))
    for row, text in enumerate(targets):
        if not isinstance(text, str):
            raise DataError(f"a target text is expected as str, not {type(text).__name__}", row=row)
    return targets
