"""What a modality is: how its cells become arrays, and arrays an embedding. One object for each modality.

A further modality is a subclass of `EncodedModality`, and a classifier and a regressor whose `modality` it is, as
`mmensemble_estimators.text` has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, Preprocessor
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.base.rows import arrays_of

__all__ = ["EncodedModality", "Modality"]


class Modality:
    """What an estimator reads.

    Attributes
    ----------
    name : str
        By it an exported model calls its inputs where they have no other name.
    learning_rate : float
        AdamW's highest rate for a network from scratch.
    label_smoothing : float
        Of the classes of a network from scratch, where the estimator does not say it.
    of_strings : bool
        Whether a cell is a string.
    """

    name: ClassVar[str]
    learning_rate: ClassVar[float] = 2e-3
    label_smoothing: ClassVar[float] = 0.0
    of_strings: ClassVar[bool] = False


class EncodedModality(Modality, ABC):
    """What an estimator reads by an encoder: all that it has to know of that.

    The methods look at the estimator's parameters and change nothing of it.
    """

    @abstractmethod
    def check_parameters(self, estimator: Any) -> None:
        """Raise `ConfigurationError` for a parameter of the modality that cannot work."""

    @abstractmethod
    def fit_preprocessor(self, estimator: Any, cells: Cells) -> Preprocessor:
        """Return the preprocessor, learned from the cells where it learns."""

    @abstractmethod
    def build_encoder(self, estimator: Any, preprocessor: Any) -> Encoder:
        """Return an untrained, or pretrained, encoder: the preprocessor's arrays → (batch, embedding_size)."""

    @abstractmethod
    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Encoder:
        """Return an untrained encoder from what `Encoder.architecture` said of it."""

    def training_batch(
        self, estimator: Any, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Return the arrays of the rows of a training batch, varied at random where the estimator augments.

        Parameters
        ----------
        estimator : estimator
            With its `preprocessor_`.
        cells : sequence of cells
            All fitting rows.
        encoded : Encoded
            The same, as the preprocessor encoded them.
        rows : ndarray of int
            Those of the batch.
        rng : RandomState
        """
        return arrays_of(estimator.preprocessor_, encoded, rows)
