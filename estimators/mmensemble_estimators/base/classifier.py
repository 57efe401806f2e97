"""What the classifiers of all modalities share."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import column_or_1d
from torch import nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.learning.targets import LabelsMixin, learn_labels
from mmensemble.tasks import Multioutput
from mmensemble_estimators.base.estimator import TorchEstimator
from mmensemble_estimators.base.parameters import check_fractions
from mmensemble_estimators.training.targets import ClassTarget, Target, target_of

__all__ = ["ClassPredictor", "TorchClassifier", "learn_classes"]


class ClassPredictor(LabelsMixin, TorchEstimator):
    """What predicts classes by an encoder and a head, however the head came about."""

    @property
    def classes_(self) -> Any:
        """The labels; of several label columns, those of each."""
        return self.target_.task.classes

    @property
    def class_prior_(self) -> np.ndarray:
        """The classes' share in the fitting rows."""
        return self.target_.fill

    def predict_proba(self, X: Any) -> Any:
        """Predict class probabilities.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes), or list of them
            Columns in the order of `classes_`; a missing row gets the classes' share in the fitting data. Of a 0/1
            matrix, the probability of each label; of several label columns, one array per column.

        Raises
        ------
        DataError
            For a cell that cannot be read; it names the row and the column.
        """
        outputs = self._outputs(X)
        task = self.target_.task
        return task.split(outputs) if isinstance(task, Multioutput) else outputs

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the form of `y`; a label of a 0/1 matrix counts from a probability above 0.5.
        """
        outputs = self._outputs(X)
        return self.target_.task.predict(outputs)


class TorchClassifier(ClassPredictor):
    """What the classifiers of all modalities share."""

    # Groups are no more than a hint to the leaves: whoever has some need not ask each leaf to take them.
    __metadata_request__fit: ClassVar = {"groups": True}

    class_weight: Any
    label_smoothing: float | None

    def check_parameters(self) -> None:
        super().check_parameters()
        if self.label_smoothing is not None:
            check_fractions(self, "label_smoothing")

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the network, a pretrained one from a solved head on, or solve for the head of a frozen one.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            Rows that are None or NaN are missing and are left out.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels of any dtype, of two classes or more; a 0/1 matrix is multilabel; other columns of labels are so
            many tasks over one network.
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
            For a cell that cannot be read or has no finite embedding, or a `y` of one class.
        ConfigurationError
            For a parameter that cannot work, or a training that diverges.
        DeviceError
            If a `device` is named that torch cannot use here.
        """
        afresh = not (self.warm_start and hasattr(self, "module_"))
        return self._fit(X, y, sample_weight, learn_classes, afresh=afresh, groups=groups)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on some rows, on top of what was learned before; the head of a frozen backbone too.

        Parameters
        ----------
        X : sequence of cells, or frame or array of one column, n_samples rows
            The first call's texts train the tokenizer.
        y : array-like of shape (n_samples,)
        classes : array-like of shape (n_classes,), default=None
            All labels that will come; in the first call only, where `y` has not all of them.
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        self

        Raises
        ------
        DataError
            As `fit`, and for a label that is not among the classes.
        """
        learn = functools.partial(learn_classes, known=classes)
        return self._fit(X, y, sample_weight, learn, afresh=not hasattr(self, "module_"), partial=True)

    def _class_weights(self, y: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return np.ones(len(y))
        if not isinstance(self.target_, ClassTarget):
            raise ConfigurationError("class_weight is for one column of labels; give sample_weight instead")
        return np.asarray(compute_sample_weight(self.class_weight, y))

    def _loss(self) -> nn.Module:
        smoothing = self.label_smoothing
        if smoothing is None:
            smoothing = 0.0 if self._starts_solved else self.modality.label_smoothing
        return self.target_.loss(smoothing)


def learn_classes(y: Any, weight: np.ndarray, known: Any = None) -> tuple[Target, np.ndarray]:
    """Return what labels are, and the labels checked.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_columns)
    weight : ndarray of float, shape (n,)
    known : array-like of shape (n_classes,), default=None
        All labels of one column, where `y` may lack some; None takes those of `y`.
    """
    if known is None:
        learned = learn_labels(y, weight)
        return target_of(learned, weight), learned.y
    y = np.asarray(column_or_1d(y, warn=True))
    classes = np.unique(known)
    share = np.array([weight[y == label].sum() for label in classes])
    return ClassTarget(classes, share / share.sum()), y
