"""How a model's outputs become predictions, for every kind of task. Imports numpy and `mmensemble.preprocessing`.

The estimators and the predictor share these, so that both read the same outputs in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mmensemble.tasks.base import Task, names_or_numbers

__all__ = [
    "ONE_OF_CLASSES",
    "Classification",
    "Decided",
    "Multilabel",
    "MultilabelVotes",
    "Multioutput",
    "Thresholded",
    "Votes",
    "placement",
]


class Classification(Task):
    """One of several classes.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    """

    name = "classification"

    def __init__(self, classes: np.ndarray) -> None:
        self._classes = classes
        self.width = len(classes)

    @property
    def classes(self) -> np.ndarray:
        """The labels, in the order of the probabilities."""
        return self._classes

    @property
    def label_sets(self) -> list[np.ndarray]:
        return [self._classes]

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self._classes[outputs.argmax(axis=1)]
        return labels

    def prediction_columns(self) -> list[str]:
        return ["prediction"]

    def probability_columns(self) -> list[str]:
        return [f"probability_{label}" for label in self._classes.tolist()]

    def to_dict(self) -> dict[str, Any]:
        dtype = "object" if self._classes.dtype == object else self._classes.dtype.str
        return {"name": self.name, "dtype": dtype, "classes": self._classes.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(_classes(state))


class Thresholded(Classification):
    """One of two classes, with a threshold of its own in place of the more probable one.

    Parameters
    ----------
    classes : ndarray of shape (2,)
    threshold : float
        The positive class is predicted from this probability on.
    positive : int, default=1
        Its number among the classes.
    """

    name = "thresholded"

    def __init__(self, classes: np.ndarray, threshold: float, positive: int = 1) -> None:
        super().__init__(classes)
        self.threshold = threshold
        self.positive = positive

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        # A probability that equals the threshold in float64 does so in the graph's float32 as well.
        threshold = outputs.dtype.type(self.threshold)
        reached = outputs[:, self.positive] >= threshold
        labels: np.ndarray = self._classes[np.where(reached, self.positive, 1 - self.positive)]
        return labels

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "threshold": self.threshold, "positive": self.positive}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(_classes(state), state["threshold"], state["positive"])


class Decided(Classification):
    """One of several classes, which the model names beside their probabilities, for it need not be the most probable.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    """

    name = "decided"

    @property
    def n_decided(self) -> int:
        return 1

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self._classes[outputs[:, self.width].astype(np.intp)]
        return labels


class Votes(Classification):
    """One of several classes, by each one's share of the votes; there are no probabilities.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    """

    name = "votes"
    output = "votes"

    def probability_columns(self) -> list[str]:
        return [f"votes_{label}" for label in self._classes.tolist()]


# The kinds of task that a column of labels can be, by name.
ONE_OF_CLASSES: dict[str, type[Classification]] = {
    kind.name: kind for kind in (Classification, Decided, Thresholded, Votes)
}


class Multilabel(Task):
    """Any of several labels at once; each counts from a probability above 0.5.

    Parameters
    ----------
    n_labels : int
    names : sequence of str, default=None
        Of the labels; None numbers them.
    """

    name = "multilabel"

    def __init__(self, n_labels: int, names: Sequence[str] | None = None) -> None:
        self.width = n_labels
        self.names = names_or_numbers(n_labels, names)

    @property
    def classes(self) -> np.ndarray:
        """The labels' numbers."""
        return np.arange(self.width)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        return (outputs > 0.5).astype(np.int64)

    def prediction_columns(self) -> list[str]:
        return [f"prediction_{label}" for label in self.names]

    def probability_columns(self) -> list[str]:
        return [f"probability_{label}" for label in self.names]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "n_labels": self.width, "names": self.names}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(state["n_labels"], state.get("names"))


class MultilabelVotes(Multilabel):
    """Any of several labels at once, each of them 0 or 1; there are no probabilities.

    Parameters
    ----------
    n_labels : int
    names : sequence of str, default=None
        Of the labels; None numbers them.
    """

    name = "multilabel_votes"
    output = "votes"

    def probability_columns(self) -> list[str]:
        return []


class Multioutput(Task):
    """Several columns of labels; their probabilities stand side by side.

    Parameters
    ----------
    columns : list of Classification
    names : sequence of str, default=None
        Of the columns; None numbers them.
    """

    name = "multioutput"

    def __init__(self, columns: list[Classification], names: Sequence[str] | None = None) -> None:
        self.columns = columns
        if any(isinstance(column, Votes) for column in columns):
            self.output = Votes.output
        self.names = names_or_numbers(len(columns), names)
        self.bounds = np.cumsum([0, *(column.width for column in columns)])
        self.width = int(self.bounds[-1])

    @property
    def classes(self) -> list[np.ndarray]:
        """The labels of each column."""
        return self.label_sets

    @property
    def label_sets(self) -> list[np.ndarray]:
        return [column.classes for column in self.columns]

    @property
    def n_decided(self) -> int:
        return sum(column.n_decided for column in self.columns)

    def split(self, outputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of each column, (n, n_classes of the column)."""
        return np.split(outputs[:, : self.width], self.bounds[1:-1], axis=1)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        parts, decided = self.split(outputs), iter(outputs[:, self.width :].T)
        for number, column in enumerate(self.columns):
            if column.n_decided:
                parts[number] = np.column_stack([parts[number], next(decided)])
        labels = [column.predict(part) for column, part in zip(self.columns, parts, strict=True)]
        if len({column.dtype.kind for column in labels}) > 1:
            labels = [column.astype(object) for column in labels]
        return np.column_stack(labels)

    def prediction_columns(self) -> list[str]:
        return [f"prediction_{name}" for name in self.names]

    def probability_columns(self) -> list[str]:
        columns = zip(self.names, self.columns, strict=True)
        what = "probability" if self.output == "probabilities" else "votes"
        return [f"{what}_{name}_{label}" for name, column in columns for label in column.classes.tolist()]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "columns": [column.to_dict() for column in self.columns], "names": self.names}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        columns = [ONE_OF_CLASSES[column["name"]].from_dict(column) for column in state["columns"]]
        return cls(columns, state.get("names"))


def placement(known: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> np.ndarray | None:
    """Tell how outputs over some labels become outputs over others, with 0 for labels that are not known.

    Parameters
    ----------
    known, wanted : sequence of ndarray
        A task's `Task.label_sets`.

    Returns
    -------
    ndarray of float32, shape (n_known, n_wanted), or None
        To multiply the outputs by; None where they are in order as they are.
    """
    if all(np.array_equal(mine, other) for mine, other in zip(known, wanted, strict=True)):
        return None
    blocks = [np.asarray(mine)[:, None] == other[None] for mine, other in zip(known, wanted, strict=True)]
    matrix = np.zeros((sum(len(b) for b in blocks), sum(b.shape[1] for b in blocks)), dtype=np.float32)
    row = column = 0
    for block in blocks:
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return matrix


def _classes(state: dict[str, Any]) -> np.ndarray:
    return np.array(state["classes"], dtype=state["dtype"])
