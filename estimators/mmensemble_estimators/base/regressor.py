"""What the regressors of all modalities share."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import RegressorMixin

from mmensemble.learning.targets import learn_numbers
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.training.targets import Target, target_of

__all__ = ["TorchRegressor"]


class TorchRegressor(RegressorMixin, TorchEstimator):
    """What the regressors of all modalities share."""

    # As in `TorchClassifier`.
    __metadata_request__fit: ClassVar = {"groups": True}

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the network on targets that are standardised inside, or solve for the head of a frozen one.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            Rows that are None or NaN are missing and are left out.
        y : array-like of float, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of float, shape (n_samples,), default=None
            A weight of 2 counts in the loss as the row given twice.
        groups : array-like of shape (n_samples,), default=None
            Rows of a group are held out together, by early stopping and where the penalty of a head is chosen.

        Returns
        -------
        self

        Raises
        ------
        DataError
            For a cell that cannot be read.
        ConfigurationError
            For a parameter that cannot work, or a training that diverges.
        DeviceError
            If a `device` is named that torch cannot use here.
        """
        afresh = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, y, sample_weight, learn_targets, afresh=afresh, groups=groups)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch on some rows, on top of what was learned before; the head of a frozen backbone too.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            The first call's rows train the tokenizer and set the targets' scale.
        y : array-like of float, shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, learn_targets, afresh=not hasattr(self, "module_"), partial=True)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the targets.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_targets)
            A missing row gets the targets' mean in the fitting data.

        Raises
        ------
        DataError
            For a cell that cannot be read; it names the row and the column.
        """
        outputs = self._outputs(X)
        return self.target_.task.predict(outputs)


def learn_targets(y: Any, weight: np.ndarray) -> tuple[Target, np.ndarray]:
    """Return what numbers (n,) or (n, n_targets) are, by the rows' weights, and the numbers checked."""
    learned = learn_numbers(y, weight)
    return target_of(learned, weight), learned.y
