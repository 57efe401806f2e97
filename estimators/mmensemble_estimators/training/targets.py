"""What a network is trained to give, and how its outputs become predictions: one class per kind of task.

A target knows how `y` is encoded for the loss, the loss per sample, how raw outputs become the estimator's outputs, and
what a row without input gets. How outputs become predictions, its task knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_array, column_or_1d
from torch import Tensor, nn

from mmensemble.exceptions import DataError
from mmensemble.learning.targets import LearnedTask, label_columns, learn_numbers
from mmensemble.linear import LinearSolution, solve_classes, solve_labels, solve_numbers
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, Task, task_from_dict

__all__ = [
    "ClassTarget",
    "MultilabelTarget",
    "MultioutputTarget",
    "NumberTarget",
    "Target",
    "target_from_dict",
    "target_of",
]


class Target(ABC):
    """How `y` is learned and predicted.

    Attributes
    ----------
    task : Task
        What the outputs mean, for predictions and for an exported model.
    n_outputs : int
        Raw outputs of the network.
    fill : ndarray of float, shape (n_outputs,)
        The outputs of a row without input: what the fitting rows had on average.
    """

    task: Task
    fill: np.ndarray

    @property
    def n_outputs(self) -> int:
        """Raw outputs of the network."""
        return self.task.width

    @abstractmethod
    def check(self, y: Any) -> np.ndarray:
        """Return a further `y` in the form of the one learned from, or raise ValueError."""

    @abstractmethod
    def encode(self, y: np.ndarray) -> np.ndarray:
        """Turn `y` into what the loss takes, (n,) or (n, n_outputs)."""

    @abstractmethod
    def loss(self, label_smoothing: float) -> nn.Module:
        """Return (outputs, encoded) → loss per sample (n,)."""

    @abstractmethod
    def solve(self, X: np.ndarray, encoded: np.ndarray, **settings: Any) -> list[LinearSolution]:
        """Solve for linear maps of features to the raw outputs, side by side; see `mmensemble.linear`.

        Parameters
        ----------
        X : ndarray of float, shape (n, n_features)
        encoded : ndarray
            As `encode` gives it.
        **settings : Any
            Of ``solve_classes``, ``solve_labels`` or ``solve_numbers``.
        """

    @abstractmethod
    def activate(self, xp: Operations, raw: Value) -> Value:
        """Turn raw outputs (n, n_outputs) into probabilities or numbers of that shape."""

    def outputs(self, raw: np.ndarray) -> np.ndarray:
        """Turn raw outputs (n, n_outputs) into probabilities or numbers of that shape, float64."""
        # As scikit-learn's classifiers: rows then add up to 1 as closely as its metrics ask for.
        return np.asarray(self.activate(NUMPY, raw.astype(np.float64)))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `target_from_dict` rebuilds the target."""
        return {"task": self.task.to_dict(), "fill": self.fill.tolist()}


class ClassTarget(Target):
    """One of several classes; softmax and cross-entropy."""

    def __init__(self, classes: np.ndarray, fill: np.ndarray) -> None:
        self.classes = classes
        self.fill = fill
        self.task: Classification = Classification(classes)

    def check(self, y: Any) -> np.ndarray:
        return np.asarray(column_or_1d(y, warn=True))

    def encode(self, y: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(y, self.classes).tolist()
        if unknown:
            raise DataError(f"y holds {unknown[0]!r}, which is not among the classes {self.classes.tolist()}")
        return np.searchsorted(self.classes, y)

    def loss(self, label_smoothing: float) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=label_smoothing)

    def solve(self, X: np.ndarray, encoded: np.ndarray, **settings: Any) -> list[LinearSolution]:
        return [solve_classes(X, encoded, self.n_outputs, **settings)]

    def activate(self, xp: Operations, raw: Value) -> Value:
        return xp.softmax(raw)


class MultilabelTarget(Target):
    """Any number of labels at once, as a 0/1 matrix; a sigmoid and binary cross-entropy per label."""

    def __init__(self, task: Multilabel, fill: np.ndarray) -> None:
        self.fill = fill
        self.task = task

    def check(self, y: Any) -> np.ndarray:
        y = check_array(y, dtype=np.int64, input_name="y")
        if y.shape[1] != self.n_outputs or not np.isin(y, (0, 1)).all():
            raise DataError(f"y must be a 0/1 matrix of {self.n_outputs} columns, as the one that was fitted")
        return np.asarray(y)

    def encode(self, y: np.ndarray) -> np.ndarray:
        return y.astype(np.float32)

    def loss(self, label_smoothing: float) -> nn.Module:
        return _BinaryLoss(label_smoothing)

    def solve(self, X: np.ndarray, encoded: np.ndarray, **settings: Any) -> list[LinearSolution]:
        return [solve_labels(X, encoded, **settings)]

    def activate(self, xp: Operations, raw: Value) -> Value:
        return xp.sigmoid(raw)


class MultioutputTarget(Target):
    """Several label columns over one network; a softmax and cross-entropy per column, added up."""

    def __init__(self, task: Multioutput, fill: np.ndarray) -> None:
        fills = task.split(fill[None])
        self.columns = [ClassTarget(c, f[0]) for c, f in zip(task.classes, fills, strict=True)]
        self.fill = fill
        self.task: Multioutput = task

    def check(self, y: Any) -> np.ndarray:
        y = np.asarray(y)
        if y.ndim != 2 or y.shape[1] != len(self.columns):
            raise DataError(f"y must have {len(self.columns)} columns of labels, as the one that was fitted")
        return y

    def encode(self, y: np.ndarray) -> np.ndarray:
        columns = zip(self.columns, label_columns(y), strict=True)
        return np.column_stack([target.encode(column) for target, column in columns])

    def loss(self, label_smoothing: float) -> nn.Module:
        return _ColumnsLoss([column.n_outputs for column in self.columns], label_smoothing)

    def solve(self, X: np.ndarray, encoded: np.ndarray, **settings: Any) -> list[LinearSolution]:
        columns = zip(self.columns, encoded.T, strict=True)
        return [solution for target, codes in columns for solution in target.solve(X, codes, **settings)]

    def activate(self, xp: Operations, raw: Value) -> Value:
        parts = xp.split(raw, [column.n_outputs for column in self.columns])
        return xp.concat(*(column.activate(xp, part) for column, part in zip(self.columns, parts, strict=True)))


class NumberTarget(Target):
    """One or several numbers, standardised for training; squared error."""

    def __init__(self, task: Regression, mean: np.ndarray, scale: np.ndarray) -> None:
        self.fill = self.mean = mean
        self.scale = scale
        self.task: Regression = task

    def check(self, y: Any) -> np.ndarray:
        y = learn_numbers(y, np.ones(len(y))).y
        if (y.ndim == 1) != self.task.one_dimensional or y.reshape(len(y), -1).shape[1] != self.n_outputs:
            wanted = "(n,)" if self.task.one_dimensional else f"(n, {self.n_outputs})"
            raise DataError(f"y must be of shape {wanted}, as the one that was fitted, not {y.shape}")
        return y

    def encode(self, y: np.ndarray) -> np.ndarray:
        return ((y.reshape(len(y), -1) - self.mean) / self.scale).astype(np.float32)

    def loss(self, label_smoothing: float) -> nn.Module:
        return _SquaredLoss()

    def solve(self, X: np.ndarray, encoded: np.ndarray, **settings: Any) -> list[LinearSolution]:
        return [solve_numbers(X, encoded, **settings)]

    def activate(self, xp: Operations, raw: Value) -> Value:
        return raw * self.scale + self.mean

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "scale": self.scale.tolist()}


def target_of(learned: LearnedTask, weight: np.ndarray) -> Target:
    """Return how a task is learned by a network.

    Parameters
    ----------
    learned : LearnedTask
    weight : ndarray of float, shape (n,)
        Sample weights, by which a regression's targets are standardised.
    """
    if not isinstance(learned.task, Regression):
        return _label_target(learned.task, learned.prior)
    table = learned.y.reshape(len(learned.y), -1)
    scale = np.sqrt(np.average((table - learned.prior) ** 2, axis=0, weights=weight))
    return NumberTarget(learned.task, learned.prior, np.where(scale > 0, scale, 1.0))


def target_from_dict(state: dict[str, Any]) -> Target:
    """Rebuild any target from its `Target.to_dict`."""
    task, fill = task_from_dict(state["task"]), np.array(state["fill"])
    if isinstance(task, Regression):
        return NumberTarget(task, fill, np.array(state["scale"]))
    return _label_target(task, fill)


def _label_target(task: Task, fill: np.ndarray) -> Target:
    if isinstance(task, Multilabel):
        return MultilabelTarget(task, fill)
    if isinstance(task, Multioutput):
        return MultioutputTarget(task, fill)
    assert isinstance(task, Classification)  # noqa: S101 - narrows the type
    return ClassTarget(task.classes, fill)


class _BinaryLoss(nn.Module):
    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, raw: Tensor, labels: Tensor) -> Tensor:
        smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(raw, smoothed, reduction="none").mean(dim=1)


class _ColumnsLoss(nn.Module):
    def __init__(self, sizes: list[int], label_smoothing: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.label_smoothing = label_smoothing

    def forward(self, raw: Tensor, codes: Tensor) -> Tensor:
        losses = [
            nn.functional.cross_entropy(part, column, reduction="none", label_smoothing=self.label_smoothing)
            for part, column in zip(raw.split(self.sizes, dim=1), codes.unbind(dim=1), strict=True)
        ]
        return torch.stack(losses).sum(dim=0)


class _SquaredLoss(nn.Module):
    def forward(self, raw: Tensor, values: Tensor) -> Tensor:
        return ((raw - values) ** 2).mean(dim=1)
