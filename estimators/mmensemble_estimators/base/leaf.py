"""What every torch estimator of one modality shares: the way from cells to arrays, device, pickling."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from mmensemble.cache import encode_rows
from mmensemble.exceptions import DataError
from mmensemble.frames import Cells, column_names, leaf_cells
from mmensemble.preprocessing import PRESENT, Encoded, Preprocessor
from mmensemble_estimators.training.loop import resolve_device, run_in_batches

__all__ = ["TorchLeaf"]


class TorchLeaf(BaseEstimator):
    """A scikit-learn estimator of one modality around a torch network.

    A subclass says how its preprocessor is fitted, and what its network is.
    """

    modality: ClassVar[str]

    batch_size: int
    device: str

    module_: Any
    preprocessor_: Preprocessor

    @abstractmethod
    def _fit_preprocessor(self, cells: Cells) -> Preprocessor:
        """Return the preprocessor, learned from the cells where it learns."""

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
        encoded = encode_rows(self.preprocessor_, cells)
        encoded.raise_for_errors(self._column)
        if not encoded.present.any():
            raise DataError("every row is missing; there is nothing to fit", column=self._column)
        return cells, encoded

    def _encode(self, X: Any) -> Encoded:
        check_is_fitted(self, "module_")
        names = column_names(X)
        if names is not None and self._column is not None and names != [self._column]:
            raise DataError(f"column {self._column!r} was fitted, and {names} was given", column=self._column)
        encoded = encode_rows(self.preprocessor_, leaf_cells(X))
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

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = self.modality == "text"
        tags.input_tags.allow_nan = True
        return tags
