"""What the torch estimators share: parameters, the way from cells to a trained network, prediction, pickling."""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_consistent_length, check_is_fitted, column_or_1d
from torch import nn

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.preprocessing import PRESENT, Cells, Encoded, Preprocessor
from mmensemble.preprocessing.frames import column_names, leaf_cells
from mmensemble_estimators._network import Network
from mmensemble_estimators._training import (
    TrainingData,
    TrainingSettings,
    resolve_device,
    run_in_batches,
    seeded,
    train,
)

__all__ = ["TorchClassifier", "TorchEstimator"]

_NO_HEAD = "This %(name)s has no head of its own: it is not fitted, or only as a member of a joint fusion."


class TorchEstimator(TransformerMixin, BaseEstimator):
    """A scikit-learn estimator of one modality around a torch network.

    A subclass says how its preprocessor is fitted and how its encoder is built; the rest is here.
    """

    modality: ClassVar[str]
    _fractions: ClassVar[tuple[str, ...]] = ("warmup_fraction", "validation_fraction", "label_smoothing")

    # The parameters that every leaf has; subclasses list them in their own __init__, as scikit-learn wants it.
    fine_tune: str
    max_epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    label_smoothing: float
    early_stopping: bool
    validation_fraction: float
    device: str
    precision: str
    random_state: Any
    verbose: int

    module_: Network
    preprocessor_: Preprocessor
    history_: list[dict[str, Any]]

    @abstractmethod
    def _fit_preprocessor(self, cells: Cells) -> Preprocessor:
        """Return the preprocessor, learned from the cells where it learns."""

    @abstractmethod
    def _build_encoder(self, preprocessor: Preprocessor) -> nn.Module:
        """Return an untrained (or pretrained) encoder: the preprocessor's arrays → (batch, embedding_size)."""

    @abstractmethod
    def _training_batch(
        self, cells: Cells, encoded: Encoded, rows: np.ndarray, rng: np.random.RandomState
    ) -> dict[str, np.ndarray]:
        """Return the arrays of a training batch, varied at random where the estimator augments."""

    def _check_parameters(self) -> None:
        """Raise `ConfigurationError` for a parameter that cannot work."""
        for name, least in (("max_epochs", 1), ("batch_size", 1)):
            if not isinstance(getattr(self, name), (int, np.integer)) or getattr(self, name) < least:
                raise ConfigurationError(f"{name} must be an integer of at least {least}, not {getattr(self, name)!r}")
        for name, choices in (("fine_tune", ("all", "head")), ("precision", ("fp32", "bf16"))):
            if getattr(self, name) not in choices:
                raise ConfigurationError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        if not self.learning_rate > 0:
            raise ConfigurationError(f"learning_rate must be above 0, not {self.learning_rate!r}")
        for name in self._fractions:
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must lie in [0, 1), not {getattr(self, name)!r}")

    def _settings(self) -> TrainingSettings:
        return TrainingSettings(
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            warmup_fraction=self.warmup_fraction,
            device=resolve_device(self.device),
            autocast=self.precision == "bf16",
            verbose=self.verbose,
        )

    def _encode_to_fit(self, X: Any) -> tuple[Cells, Encoded]:
        """Check the parameters, learn the preprocessor and return the fitting rows' cells and encoding."""
        self._check_parameters()
        cells = leaf_cells(X)
        if len(cells) == 0:
            raise DataError("0 rows were given to fit; at least 2 are needed")
        names = column_names(X)
        name = getattr(X, "name", None)
        if names is None and isinstance(name, str):
            names = [name]
        if names is not None:
            self.feature_names_in_ = np.asarray(names, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        self.n_features_in_ = 1
        self.preprocessor_ = self._fit_preprocessor(cells)
        encoded = self.preprocessor_.encode(cells)
        encoded.raise_for_errors(self._column)
        if not encoded.present.any():
            raise DataError("every row is missing; there is nothing to fit", column=self._column)
        return cells, encoded

    def _encode(self, X: Any) -> Encoded:
        check_is_fitted(self)
        names = column_names(X)
        if names is not None and self._column is not None and names != [self._column]:
            raise DataError(f"column {self._column!r} was fitted, and {names} was given", column=self._column)
        encoded = self.preprocessor_.encode(leaf_cells(X))
        encoded.raise_for_errors(self._column)
        return encoded

    @property
    def _column(self) -> str | None:
        """The column's name, where the estimator was fitted on something that has one."""
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else str(names[0])

    def _batch(self, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
        batch = self.preprocessor_.collate(encoded, rows)
        del batch[PRESENT]
        return batch

    def _run(self, part: nn.Module, encoded: Encoded) -> np.ndarray:
        """Apply the network, or a part of it, to encoded rows."""
        device = resolve_device(self.device)
        self.module_.to(device).eval()
        return run_in_batches(
            part,
            lambda rows: self._batch(encoded, rows),
            np.argsort(encoded.lengths, kind="stable"),
            batch_size=4 * self.batch_size,
            device=device,
        )

    def transform(self, X: Any) -> np.ndarray:
        """Embed rows by the pooled representation under the head.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float32, shape (n_samples, embedding_size)
            Zeros where the row is missing.
        """
        encoded = self._encode(X)
        if len(encoded) == 0:
            return np.zeros((0, self._n_features_out), dtype=np.float32)
        embedding = self._run(self.module_.encoder, encoded)
        embedding[~encoded.present] = 0.0
        return embedding

    @property
    def _n_features_out(self) -> int:
        return int(self.module_.encoder.embedding_size)  # type: ignore[arg-type]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of `transform`'s columns: the class name in lower case and a number.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str objects, shape (embedding_size,)
        """
        check_is_fitted(self)
        prefix = type(self).__name__.lower()
        return np.asarray([f"{prefix}{i}" for i in range(self._n_features_out)], dtype=object)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the weights from the CPU, so that a machine without the training device can read them."""
        state = dict(super().__getstate__())
        if "module_" in state and next(state["module_"].parameters()).device.type != "cpu":
            state["module_"] = copy.deepcopy(state["module_"]).to("cpu")
        return state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def __onnx_graph__(self, source: Any) -> Any:
        """Take part in `mmensemble.to_graph`."""
        from mmensemble_estimators._export import leaf_graph

        return leaf_graph(self, source)


class TorchClassifier(ClassifierMixin, TorchEstimator):
    """What the classifiers of all modalities share."""

    class_weight: Any
    classes_: np.ndarray
    class_prior_: np.ndarray

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TorchClassifier:
        """Train the network.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            Rows that are None or NaN are missing and are left out.
        y : array-like of shape (n_samples,)
            Labels of any dtype, of two classes or more.
        sample_weight : array-like of float, shape (n_samples,), default=None
            A weight of 2 counts in the loss as the row given twice.

        Returns
        -------
        self

        Raises
        ------
        DataError
            For a cell that cannot be read, or a `y` of one class.
        ConfigurationError
            For a parameter that cannot work, or a training that diverges.
        DeviceError
            If a `device` is named that torch cannot use here.
        """
        if y is None:
            raise DataError(f"{type(self).__name__}.fit needs y, the labels")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        cells, encoded = self._encode_to_fit(X)
        check_consistent_length(encoded.present, y)
        weight = np.asarray(_check_sample_weight(sample_weight, encoded.present[:, None], dtype=np.float64))
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(
                f"y holds one class only ({self.classes_.tolist()[0]!r}); at least two are needed to classify"
            )
        self.class_prior_ = np.bincount(target, weights=weight) / weight.sum()
        weight = weight * compute_sample_weight(self.class_weight, y)

        rng = check_random_state(self.random_state)
        settings = self._settings()
        rows = np.flatnonzero(encoded.present & (weight > 0))
        fitting, validating = self._split(rows, target, rng)
        with seeded(int(rng.randint(2**31)), settings.device):
            self.module_ = Network(self._build_encoder(self.preprocessor_), len(self.classes_))
            if self.fine_tune == "head":
                self.module_.encoder.requires_grad_(False)
            self.history_ = train(
                self.module_,
                TrainingData(fitting, lambda r: self._training_batch(cells, encoded, r, rng), target, weight),
                settings,
                loss=nn.CrossEntropyLoss(reduction="none", label_smoothing=self.label_smoothing),
                learning_rates=[("*", self.learning_rate, self.weight_decay)],
                validation=(
                    None
                    if validating is None
                    else TrainingData(validating, lambda r: self._batch(encoded, r), target, weight)
                ),
            )
        return self

    def _split(
        self, rows: np.ndarray, target: np.ndarray, rng: np.random.RandomState
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Set rows aside for early stopping, in the proportions of the classes."""
        if not self.early_stopping:
            return rows, None
        try:
            fitting, validating = train_test_split(
                rows, test_size=self.validation_fraction, stratify=target[rows], random_state=rng
            )
        except ValueError as error:
            raise DataError(
                f"early_stopping cannot set {self.validation_fraction:.0%} of {len(rows)} rows aside by class: {error}"
            ) from error
        return fitting, validating

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            Columns in the order of `classes_`; a missing row gets the classes' share in the fitting data.

        Raises
        ------
        DataError
            For a cell that cannot be read; it names the row and the column.
        """
        check_is_fitted(self, "classes_", msg=_NO_HEAD)
        encoded = self._encode(X)
        if len(encoded) == 0:
            return np.zeros((0, len(self.classes_)))
        # In float64, as scikit-learn's classifiers: rows then add up to 1 as closely as its metrics ask for.
        probabilities: np.ndarray = softmax(self._run(self.module_, encoded).astype(np.float64), axis=1)
        probabilities[~encoded.present] = self.class_prior_
        return probabilities

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of shape (n_samples,), of the dtype of `classes_`
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]
