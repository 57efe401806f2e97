"""What every torch estimator of one modality shares: parameters, the way from cells to arrays, device, pickling."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import DataError
from mmensemble.preprocessing import PRESENT, Cells, Encoded, Preprocessor
from mmensemble.preprocessing.frames import column_names, leaf_cells
from mmensemble_estimators._frozen import folder_stamp, module_stamp
from mmensemble_estimators._parameters import check_choice, check_fractions, check_integers, check_rates
from mmensemble_estimators._training import TrainingSettings, resolve_device, run_in_batches

__all__ = ["LEARNING_RATE_OF", "TorchLeaf"]

# AdamW's rate where the estimator's learning_rate is None. From scratch it is the modality's own.
LEARNING_RATE_OF = {"pretrained": 5e-5, "lora": 5e-4}


class TorchLeaf(BaseEstimator):
    """A scikit-learn estimator of one modality around a torch network.

    A subclass says how its preprocessor is fitted, what its network is and what that is trained for.
    """

    modality: ClassVar[str]
    _learning_rate_from_scratch: ClassVar[float] = 1e-3
    _fractions: ClassVar[tuple[str, ...]] = ("warmup_fraction", "validation_fraction")
    _fine_tunes: ClassVar[tuple[str, ...]] = ("all", "head", "lora")

    # The parameters that every leaf has; subclasses list them in their own __init__, as scikit-learn wants it.
    backbone: Any
    pretrained: str | None
    fine_tune: str
    pooling: str | None
    max_epochs: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float
    warmup_fraction: float
    early_stopping: bool
    validation_fraction: float
    warm_start: bool
    device: str
    precision: str
    random_state: Any
    verbose: int

    module_: Any
    preprocessor_: Preprocessor
    history_: pd.DataFrame

    @abstractmethod
    def _fit_preprocessor(self, cells: Cells) -> Preprocessor:
        """Return the preprocessor, learned from the cells where it learns."""

    def _check_parameters(self) -> None:
        """Raise `ConfigurationError` for a parameter that cannot work."""
        check_integers(self, max_epochs=1, batch_size=1)
        check_choice("fine_tune", self.fine_tune, self._fine_tunes)
        check_choice("precision", self.precision, ("fp32", "bf16"))
        check_fractions(self, *self._fractions)
        check_rates(self)

    @property
    def _is_pretrained(self) -> bool:
        return self.pretrained is not None or callable(self.backbone)

    def _settings(self, epochs: int) -> TrainingSettings:
        return TrainingSettings(
            max_epochs=epochs,
            batch_size=self.batch_size,
            warmup_fraction=self.warmup_fraction,
            device=resolve_device(self.device),
            autocast=self.precision == "bf16",
            verbose=self.verbose,
        )

    def _record(self, history: pd.DataFrame, *, afresh: bool) -> None:
        """Keep the history of a training, behind that of earlier ones if it went on from them."""
        if not afresh:
            history["epoch"] += len(self.history_)
            history = pd.concat([self.history_, history], ignore_index=True)
        self.history_ = history

    def _split(
        self, rows: np.ndarray, rng: np.random.RandomState, stratify: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Set rows aside for early stopping, in the proportions of the classes where there are classes."""
        if not self.early_stopping:
            return rows, None
        try:
            fitting, validating = train_test_split(
                rows,
                test_size=self.validation_fraction,
                stratify=None if stratify is None else stratify[rows],
                random_state=rng,
            )
        except ValueError as error:
            raise DataError(
                f"early_stopping cannot set {self.validation_fraction:.0%} of {len(rows)} rows aside: {error}"
            ) from error
        return fitting, validating

    def _encode_to_fit(self, X: Any, *, afresh: bool = True) -> tuple[Cells, Encoded]:
        """Learn the preprocessor and return the fitting rows' cells and encoding."""
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
        if afresh:
            self.preprocessor_ = self._fit_preprocessor(cells)
        encoded = self.preprocessor_.encode(cells)
        encoded.raise_for_errors(self._column)
        if not encoded.present.any():
            raise DataError("every row is missing; there is nothing to fit", column=self._column)
        return cells, encoded

    def _encode(self, X: Any) -> Encoded:
        check_is_fitted(self, "module_")
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

    def _run(
        self, function: Callable[..., Any], encoded: Encoded, rows: np.ndarray | None = None, *, run: Any = None
    ) -> Any:
        """Apply the network, or a part of it, to all encoded rows or to some of them."""
        device = resolve_device(self.device)
        self.module_.to(device).eval()
        positions = np.arange(len(encoded)) if rows is None else rows
        return (run_in_batches if run is None else run)(
            function,
            lambda chosen: self._batch(encoded, positions[chosen]),
            np.argsort(encoded.lengths[positions], kind="stable"),
            batch_size=self.batch_size,
            device=device,
        )

    def cache_stamp(self) -> Any:
        """Return what a fit depends on beyond parameters and data: the weights that it starts from."""
        if self.pretrained is not None:
            return folder_stamp(self.pretrained)
        return module_stamp(self.backbone) if callable(self.backbone) else None

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
        tags.input_tags.string = self.modality == "text"
        tags.input_tags.allow_nan = True
        return tags
