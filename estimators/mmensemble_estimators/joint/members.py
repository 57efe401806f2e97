"""What a member of a joint fusion brings: its rows as batches, and an encoder that embeds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from torch import Tensor

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import Cells, leaf_cells
from mmensemble.fusion import Member
from mmensemble.learning.columns import select_columns
from mmensemble.learning.members import member_target
from mmensemble.learning.representations import feature_steps
from mmensemble.preprocessing import PRESENT, Encoded
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.base.embedding import frozen_embedding, frozen_tokens, learning_rate_of, new_encoder
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.base.rows import arrays_of, cells_to_fit, encode, encode_to_fit

__all__ = ["FrozenRows", "JointRows", "Standardize", "fit_rows", "rows_of"]


def fit_rows(
    member: Member, X: Any, y: np.ndarray, label_sets: Sequence[np.ndarray], *, token_level: bool
) -> JointRows:
    """Prepare an unfitted member and its fitting rows for joint training, as tokens where the fuser wants them."""
    return _rows_class(member).fit(member, X, y, label_sets, token_level=token_level)


def rows_of(member: Member, X: Any, *, token_level: bool) -> JointRows:
    """Prepare rows for a fitted member."""
    return _rows_class(member).of(member, X, token_level=token_level)


def _rows_class(member: Member) -> type[JointRows]:
    if not isinstance(member.estimator, TorchEstimator):
        return FeatureRows
    return FrozenRows if member.estimator.fine_tune == "head" else NetworkRows


class JointRows(ABC):
    """The rows of one member, ready to be batched.

    Attributes
    ----------
    estimator : estimator
        The member as it is kept: able to `transform`.
    encoder : Encoder
        The arrays of a batch, ``present`` excepted → (batch, embedding_size), or tokens.
    present : ndarray of bool, shape (n_rows,)
    lengths : ndarray of int, shape (n_rows,)
    learning_rate : (float, float) or None
        Learning rate and weight decay of the encoder, where it has any of its own.
    """

    estimator: Any
    encoder: Encoder
    present: np.ndarray
    lengths: np.ndarray
    learning_rate: tuple[float, float] | None

    @classmethod
    @abstractmethod
    def fit(
        cls, member: Member, X: Any, y: np.ndarray, label_sets: Sequence[np.ndarray], *, token_level: bool
    ) -> JointRows:
        """Prepare an unfitted member and its fitting rows for joint training."""

    @classmethod
    @abstractmethod
    def of(cls, member: Member, X: Any, *, token_level: bool) -> JointRows:
        """Prepare rows for a fitted member."""

    @abstractmethod
    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, ``present`` among them."""

    @abstractmethod
    def training_batch(self, rows: np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, augmented."""


class NetworkRows(JointRows):
    """Rows of a torch estimator, which contributes its encoder."""

    def __init__(self, estimator: TorchEstimator, cells: Cells, encoded: Encoded) -> None:
        self.estimator = estimator
        self.encoder = estimator.module_.encoder
        self.cells = cells
        self.encoded = encoded
        self.present = encoded.present
        self.lengths = encoded.lengths
        self.learning_rate = (learning_rate_of(estimator), estimator.weight_decay)

    @classmethod
    def fit(
        cls, member: Member, X: Any, y: np.ndarray, label_sets: Sequence[np.ndarray], *, token_level: bool
    ) -> NetworkRows:
        """Fit the preprocessor on rows and build the encoder, untrained."""
        return cls(*_fit_estimator(member, X))

    @classmethod
    def of(cls, member: Member, X: Any, *, token_level: bool) -> NetworkRows:
        """Encode rows by a fitted estimator."""
        column = select_columns(X, member.columns)
        return cls(member.estimator, leaf_cells(column), encode(member.estimator, column))

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, ``present`` among them."""
        return {**arrays_of(self.estimator.preprocessor_, self.encoded, rows), PRESENT: self.present[rows]}

    def training_batch(self, rows: np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, augmented."""
        arrays = self.estimator.modality.training_batch(self.estimator, self.cells, self.encoded, rows, rng)
        return {**arrays, PRESENT: self.present[rows]}


def _fit_estimator(member: Member, X: Any) -> tuple[TorchEstimator, Cells, Encoded]:
    """Fit a clone's preprocessor and build its encoder, without a head."""
    estimator: TorchEstimator = clone(member.estimator)
    estimator.check_parameters()
    if estimator.fine_tune == "lora":
        raise ConfigurationError(f"member {member.name!r}: a joint fusion trains with fine_tune 'all' or 'head'")
    cells = cells_to_fit(estimator, select_columns(X, member.columns))
    estimator.preprocessor_ = estimator.modality.fit_preprocessor(estimator, cells)
    encoded = encode_to_fit(estimator, cells)
    estimator.module_ = Network(new_encoder(estimator), None)
    return estimator, cells, encoded


class Given(Encoder):
    """What a frozen encoder has made already, passed on."""

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.embedding_size = embedding_size

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the embedding."""
        return embedding

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states and the mask."""
        return inputs["states"], inputs["mask"]


class FrozenRows(JointRows):
    """Rows of a torch estimator whose encoder is frozen: it runs once per row, not once per epoch."""

    learning_rate = None

    def __init__(self, estimator: TorchEstimator, encoded: Encoded, *, token_level: bool) -> None:
        self.estimator = estimator
        self.encoder = Given(estimator.module_.encoder.embedding_size)
        self.present = encoded.present
        self.embedding = None if token_level else frozen_embedding(estimator, encoded)
        self.tokens = frozen_tokens(estimator, encoded) if token_level else []
        self.lengths = np.asarray([len(t) for t in self.tokens]) if token_level else np.ones(len(encoded), np.int64)

    @classmethod
    def fit(
        cls, member: Member, X: Any, y: np.ndarray, label_sets: Sequence[np.ndarray], *, token_level: bool
    ) -> FrozenRows:
        """Fit the preprocessor on rows, build the encoder, and run it."""
        estimator, _, encoded = _fit_estimator(member, X)
        return cls(estimator, encoded, token_level=token_level)

    @classmethod
    def of(cls, member: Member, X: Any, *, token_level: bool) -> FrozenRows:
        """Encode rows by a fitted estimator."""
        encoded = encode(member.estimator, select_columns(X, member.columns))
        return cls(member.estimator, encoded, token_level=token_level)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, ``present`` among them."""
        present = self.present[rows]
        if self.embedding is not None:
            return {"embedding": self.embedding[rows], PRESENT: present}
        chosen = [self.tokens[row] for row in rows]
        states = np.zeros((len(rows), int(self.lengths[rows].max()), self.encoder.embedding_size), dtype=np.float32)
        mask = np.arange(states.shape[1]) < self.lengths[rows][:, None]
        states[mask] = np.concatenate(chosen)
        return {"states": states, "mask": mask, PRESENT: present}

    def training_batch(self, rows: np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return the arrays of some rows; what a frozen encoder gives is not augmented."""
        return self.batch(rows)


class Standardize(Encoder):
    """Features → features of mean 0 and variance 1, by the moments of the fitting rows."""

    def __init__(self, mean: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.embedding_size = len(mean)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


class FeatureRows(JointRows):
    """Rows of a scikit-learn estimator, which contributes the features that its final step would see."""

    learning_rate = None

    def __init__(self, estimator: Any, features: np.ndarray, present: np.ndarray, encoder: Encoder) -> None:
        self.estimator = estimator
        self.encoder = encoder
        self.features = np.zeros((len(present), features.shape[1]), dtype=np.float32)
        self.features[present] = features
        self.present = present
        self.lengths = np.ones(len(present), dtype=np.int64)

    @classmethod
    def fit(
        cls, member: Member, X: Any, y: np.ndarray, label_sets: Sequence[np.ndarray], *, token_level: bool
    ) -> FeatureRows:
        """Fit the steps that make features, and measure their moments."""
        present, rows = member.rows(X)
        if not present.any():
            raise DataError(f"every row misses member {member.name!r}; leave it out")
        steps = feature_steps(clone(member.estimator))
        y, _ = member_target(steps, y[present], label_sets)
        transformer = member.call(present, rows, steps.fit, rows, y)
        features = _features(transformer, rows, member, present)
        scale = features.std(axis=0)
        encoder = Standardize(features.mean(axis=0), np.where(scale > 0, scale, 1.0))
        return cls(transformer, features, present, encoder)

    @classmethod
    def of(cls, member: Member, X: Any, *, token_level: bool) -> FeatureRows:
        """Make the features of rows by fitted steps."""
        present, rows = member.rows(X)
        features = _features(member.estimator, rows, member, present) if present.any() else np.zeros((0, 0), np.float32)
        return cls(member.estimator, features, present, Given(features.shape[1]))

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of some rows, ``present`` among them."""
        return {"features": self.features[rows], PRESENT: self.present[rows]}

    def training_batch(self, rows: np.ndarray, rng: np.random.RandomState) -> dict[str, np.ndarray]:
        """Return the arrays of some rows; features are not augmented."""
        return self.batch(rows)


def _features(transformer: Pipeline, rows: Any, member: Member, present: np.ndarray) -> np.ndarray:
    """Return the float32 features (n, n_features) of the rows that have the modality."""
    features = member.call(present, rows, transformer.transform, rows)
    try:
        features = np.asarray(features.toarray() if hasattr(features, "toarray") else features, dtype=np.float32)
        features = features.reshape(len(features), -1)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"member {member.name!r} gives a joint fusion no numbers but {type(features).__name__}: put a transformer "
            "(TfidfVectorizer, OneHotEncoder, ...) before its final estimator"
        ) from error
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise DataError(
            f"member {member.name!r} has NaN or infinite features; put a SimpleImputer into its pipeline",
            row=int(np.flatnonzero(present)[finite.argmin()]),
        )
    return features
