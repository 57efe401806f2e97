"""What every task is: what a model's outputs mean. Imports numpy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

__all__ = ["Task", "names_or_numbers"]


class Task(ABC):
    """What the outputs of a model mean.

    Attributes
    ----------
    name : str
        The manifest's word for it.
    output : {"probabilities", "votes", "predictions", "logits"}
        The graph's output, float32 of shape (n, width).
    width : int
    """

    name: ClassVar[str]
    output: str = "probabilities"
    width: int

    @abstractmethod
    def predict(self, outputs: np.ndarray) -> np.ndarray:
        """Turn outputs (n, width) into predictions, (n,) or (n, n_columns)."""

    @abstractmethod
    def prediction_columns(self) -> list[str]:
        """Return the names that the predictions have in a file of scores."""

    def probability_columns(self) -> list[str]:
        """Return the names that the outputs have in a file of scores; none where they are the predictions."""
        return []

    @property
    def outputs(self) -> list[str]:
        """The graph's outputs; their columns stand side by side in what `predict` takes."""
        return [self.output, "labels"] if self.n_decided else [self.output]

    @property
    def n_columns(self) -> int:
        """Columns of what `predict` takes."""
        return self.width + self.n_decided

    @property
    def n_decided(self) -> int:
        """Columns of labels that the graph decides itself, by their numbers in its output ``labels``."""
        return 0

    @property
    def further_inputs(self) -> list[str]:
        """The graph's inputs that no preprocessor fills."""
        return []

    def check_scores(self) -> None:
        """Raise AttributeError if the model has no predictions."""
        if self.output == "logits":
            raise AttributeError("the model writes texts and has neither predict nor predict_proba; use generate")

    def check_probabilities(self) -> None:
        """Raise AttributeError if the model has no probabilities."""
        self.check_scores()
        if self.output != "probabilities":
            what = "gives labels" if self.classes is not None else "predicts numbers"
            raise AttributeError(f"the model {what} and has no predict_proba; use predict")

    def check_texts(self) -> None:
        """Raise AttributeError if the model writes no texts."""
        raise AttributeError(f"the model does {self.name} and writes no texts; use predict")

    @property
    def classes(self) -> Any:
        """The labels, as the estimators' ``classes_``; None for numbers."""
        return None

    @property
    def label_sets(self) -> list[np.ndarray]:
        """The labels of each group of outputs that add up to 1; none of independent labels or numbers."""
        return []

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `from_dict` rebuilds the task, and `task_from_dict` any task."""

    @classmethod
    @abstractmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Rebuild a task of this class from its `to_dict`."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


def names_or_numbers(n: int, names: Sequence[str] | None) -> list[str]:
    """Return the names, or else numbers in their place."""
    return [str(number) for number in range(n)] if names is None else list(names)
