"""What the torch estimators of one modality that are trained share: parameters, what of them is trained, embedding."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from mmensemble._sklearn import CallbackSupportMixin, check_sample_weight
from mmensemble.exceptions import DataError
from mmensemble.learning.related_rows import grouped_split
from mmensemble.preprocessing import Encoded
from mmensemble.time_limits import TimeLimit, check_time_limit
from mmensemble_estimators.base.leaf import TorchLeaf
from mmensemble_estimators.base.parameters import check_choice, check_fractions, check_integers, check_rates
from mmensemble_estimators.base.rows import column_of, encode, run
from mmensemble_estimators.frozen.stamps import folder_stamp, module_stamp
from mmensemble_estimators.training.fine_tuning import frozen, with_lora
from mmensemble_estimators.training.loop import TrainingSettings, resolve_device

__all__ = ["TrainedLeaf"]


class TrainedLeaf(CallbackSupportMixin, TransformerMixin, TorchLeaf):
    """An estimator of one modality around a torch network that it trains, and a part of which embeds rows.

    A subclass says what the network is and what it is trained for.
    """

    _fine_tunes: ClassVar[tuple[str, ...]] = ("all", "head", "lora")
    # The part of `module_` whose linear layers fine_tune="lora" adapts.
    _adapted: ClassVar[str] = "encoder.backbone"

    # The parameters that they all have; subclasses list them in their own __init__, as scikit-learn wants it.
    backbone: Any
    pretrained: str | None
    fine_tune: str
    pooling: str | None
    max_epochs: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float
    warmup_fraction: float
    early_stopping: bool | str
    validation_fraction: float
    warm_start: bool
    device: str
    precision: str
    random_state: Any
    verbose: int

    history_: pd.DataFrame

    # Of those that not all of them have, and no pickle of version 0.1 has.
    layer_decay: float = 1.0
    time_limit: float | None = None

    @property
    def can_be_cut(self) -> bool:
        """Whether it is trained step by step, so that a time limit can end it."""
        return self.fine_tune != "head"

    def check_parameters(self) -> None:
        """Raise `ConfigurationError` for a parameter that cannot work; `fit` does so first of all."""
        check_time_limit(self.time_limit)
        check_integers(self, max_epochs=1, batch_size=1)
        check_choice("fine_tune", self.fine_tune, self._fine_tunes)
        check_choice("precision", self.precision, ("fp32", "bf16"))
        check_fractions(self, "warmup_fraction", "validation_fraction")
        check_rates(self)

    def _trainable(self) -> AbstractContextManager[None]:
        """Freeze what `fine_tune` says, or put LoRA adapters in, which are merged into the weights afterwards."""
        if self.fine_tune == "head":
            return frozen(self.module_.encoder)
        if self.fine_tune == "lora":
            return with_lora(self.module_.get_submodule(self._adapted))
        return nullcontext()

    def _settings(self, epochs: int, limit: TimeLimit | None = None) -> TrainingSettings:
        return TrainingSettings(
            max_epochs=epochs,
            batch_size=self.batch_size,
            warmup_fraction=self.warmup_fraction,
            device=resolve_device(self.device),
            autocast=self.precision == "bf16",
            limit=limit,
            name=type(self).__name__,
        )

    def _record(self, history: pd.DataFrame, *, afresh: bool) -> None:
        """Keep the history of a training, behind that of earlier trainings if it went on from them."""
        if not afresh and "epoch" in self.history_:
            history["epoch"] += self.history_["epoch"].max()
            history = pd.concat([self.history_.drop(columns="cut", errors="ignore"), history], ignore_index=True)
            if "cut" in history:
                history["cut"] = history["cut"].eq(True)
        self.history_ = history

    @staticmethod
    def _row_weights(encoded: Encoded, sample_weight: Any) -> np.ndarray:
        """Return a weight for each row, float64, from what was given as `sample_weight`."""
        return np.asarray(
            check_sample_weight(sample_weight, encoded.present[:, None], dtype=np.float64, ensure_non_negative=True)
        )

    def _rows_to_fit(self, encoded: Encoded, weight: np.ndarray) -> np.ndarray:
        """Return the rows that are present and weigh something."""
        rows = np.flatnonzero(encoded.present & (weight > 0))
        if not len(rows):
            column = column_of(self)
            raise DataError("no row is present and has a weight above 0; there is nothing to fit", column=column)
        return rows

    def _split(
        self,
        rows: np.ndarray,
        rng: np.random.RandomState,
        stratify: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Set rows aside for early stopping, whole groups, in the proportions of the classes where there are some."""
        if not self.early_stopping:
            return rows, None
        strata = None if stratify is None else stratify[rows]
        try:
            if groups is None:
                fitting, validating = train_test_split(
                    rows, test_size=self.validation_fraction, stratify=strata, random_state=rng
                )
            else:
                fitting, validating = (
                    rows[part] for part in grouped_split(groups[rows], self.validation_fraction, rng, strata)
                )
        except ValueError as error:
            raise DataError(
                f"early_stopping cannot set {self.validation_fraction:.0%} of {len(rows)} rows aside: {error}"
            ) from error
        return fitting, validating

    @property
    def embedder_(self) -> nn.Module:
        """The network, or the part of it, that embeds rows; it has the attribute ``embedding_size``."""
        embedder: nn.Module = self.module_.encoder
        return embedder

    def _embed(self, encoded: Encoded) -> np.ndarray:
        """Return the embeddings, (n_rows, embedding_size) float32; zeros where missing."""
        embedding = np.asarray(run(self, self.embedder_, encoded))
        embedding[~encoded.present] = 0.0
        return embedding

    def transform(self, X: Any) -> np.ndarray:
        """Embed rows by the network's pooled representation.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float32, shape (n_samples, embedding_size)
            Zeros where the row is missing.
        """
        encoded = encode(self, X)
        if len(encoded) == 0:
            return np.zeros((0, self._n_features_out), dtype=np.float32)
        return self._embed(encoded)

    @property
    def _n_features_out(self) -> int:
        return int(self.embedder_.embedding_size)  # type: ignore[arg-type]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of `transform`'s columns: the class name in lower case and a number.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects, shape (embedding_size,)
        """
        check_is_fitted(self, "module_")
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(self._n_features_out)], dtype=object)

    def cache_stamp(self) -> Any:
        """Return what a fit depends on beyond parameters and data: the weights that it starts from."""
        if self.pretrained is not None:
            return folder_stamp(self.pretrained)
        return module_stamp(self.backbone) if callable(self.backbone) else None

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # an embedding is float32, whatever the cells are
        return tags
