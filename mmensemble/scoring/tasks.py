"""How a model's outputs become predictions, for every kind of task. Imports numpy and `mmensemble.preprocessing`.

The estimators and the predictor share these, so that both read the same outputs in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmensemble.exceptions import ModelFileError
from mmensemble.preprocessing import TensorSpec

__all__ = [
    "Classification",
    "Generation",
    "Multilabel",
    "Multioutput",
    "Regression",
    "Task",
    "Thresholded",
    "Votes",
    "placement",
    "task_from_dict",
]


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
    output: ClassVar[str] = "probabilities"
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
        """Return JSON values from which `task_from_dict` rebuilds the task."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self.to_dict()))


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
        return {"name": self.name, "dtype": _dtype(self._classes), "classes": self._classes.tolist()}


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
        self.names = _names(n_labels, names)

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
        self.names = _names(len(columns), names)
        self.bounds = np.cumsum([0, *(column.width for column in columns)])
        self.width = int(self.bounds[-1])

    @property
    def classes(self) -> list[np.ndarray]:
        """The labels of each column."""
        return self.label_sets

    @property
    def label_sets(self) -> list[np.ndarray]:
        return [column.classes for column in self.columns]

    def split(self, outputs: np.ndarray) -> list[np.ndarray]:
        """Return the outputs of each column, (n, n_classes of the column)."""
        return np.split(outputs, self.bounds[1:-1], axis=1)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        labels = [column.predict(part) for column, part in zip(self.columns, self.split(outputs), strict=True)]
        if len({column.dtype.kind for column in labels}) > 1:
            labels = [column.astype(object) for column in labels]
        return np.column_stack(labels)

    def prediction_columns(self) -> list[str]:
        return [f"prediction_{name}" for name in self.names]

    def probability_columns(self) -> list[str]:
        columns = zip(self.names, self.columns, strict=True)
        return [f"probability_{name}_{label}" for name, column in columns for label in column.classes.tolist()]

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "columns": [column.to_dict() for column in self.columns], "names": self.names}


class Regression(Task):
    """One or several numbers.

    Parameters
    ----------
    n_targets : int
    one_dimensional : bool
        Whether predictions are (n,) rather than (n, 1).
    names : sequence of str, default=None
        Of the targets; None numbers them.
    """

    name = "regression"
    output = "predictions"

    def __init__(self, n_targets: int, *, one_dimensional: bool, names: Sequence[str] | None = None) -> None:
        self.width = n_targets
        self.one_dimensional = one_dimensional
        self.names = _names(n_targets, names)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0] if self.one_dimensional else outputs

    def prediction_columns(self) -> list[str]:
        return ["prediction"] if self.one_dimensional else [f"prediction_{name}" for name in self.names]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "n_targets": self.width,
            "one_dimensional": self.one_dimensional,
            "names": self.names,
        }


class Generation(Task):
    """Texts, token by token: the graph gives the scores of each row's next token and a state to go on from.

    A step of the graph takes ``input_ids`` and ``attention_mask``, of the one feed where the prompt is tokens and of
    ``decoder`` where the feed is encoded first, ``decoder.past``, the number of places of each row that are taken, and
    ``state.<name>`` for every tensor of the state; it gives ``logits`` and ``next.<name>``. What is encoded once is
    given by ``encoded.<name>`` from the feed's inputs alone, in a run in
    which ``decoder.encode`` is true.

    Parameters
    ----------
    vocab_size : int
    end_ids : list of int
        Tokens that end a text.
    start_ids : list of int
        Tokens that every text begins with; none where the prompt is tokens.
    max_length : int or None
        Most tokens of a row, prompt and continuation together.
    state : dict of str to TensorSpec
        What changes with every step. One with an axis ``"capacity"`` is a buffer with places for tokens to come, as
        many as ``attention_mask`` is long; the step writes behind those that are taken, in place where
        ``state.<name>`` and ``next.<name>`` are bound to the same memory.
    encoded : dict of str to TensorSpec
        What is encoded once and stays.
    tokenizer : str or None
        Of what is written, in the JSON form of the `tokenizers` library; None is that of the feed.
    """

    name = "generation"
    output = "logits"

    def __init__(
        self,
        *,
        vocab_size: int,
        end_ids: list[int],
        start_ids: list[int],
        max_length: int | None,
        state: dict[str, TensorSpec],
        encoded: dict[str, TensorSpec],
        tokenizer: str | None = None,
    ) -> None:
        self.width = vocab_size
        self.end_ids = end_ids
        self.start_ids = start_ids
        self.max_length = max_length
        self.state = state
        self.encoded = encoded
        self.tokenizer = tokenizer

    @property
    def further_inputs(self) -> list[str]:
        states = [f"state.{name}" for name in (*self.encoded, *self.state)]
        further = ["decoder.encode", "decoder.input_ids", "decoder.attention_mask"] if self.start_ids else []
        return [*states, "decoder.past", *further]

    def take_types(self, dtypes: Mapping[str, np.dtype]) -> None:
        """Say the state's types as they are in a graph, by its inputs' names."""
        for specs in (self.state, self.encoded):
            for name, spec in specs.items():
                specs[name] = TensorSpec(str(dtypes.get(f"state.{name}", spec.dtype)), spec.shape)

    def check_texts(self) -> None:
        """Do nothing: texts are what it writes."""

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        self.check_scores()
        return outputs

    def prediction_columns(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vocab_size": self.width,
            "end_ids": self.end_ids,
            "start_ids": self.start_ids,
            "max_length": self.max_length,
            "state": _specs_to_dict(self.state),
            "encoded": _specs_to_dict(self.encoded),
            "tokenizer": self.tokenizer,
        }


def _specs_to_dict(specs: dict[str, TensorSpec]) -> dict[str, Any]:
    return {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in specs.items()}


def _specs_from_dict(state: dict[str, Any]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(spec["dtype"], tuple(spec["shape"])) for name, spec in state.items()}


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


def task_from_dict(state: dict[str, Any]) -> Task:
    """Rebuild any task from its `Task.to_dict`.

    Raises
    ------
    ModelFileError
        If its name is unknown to this version.
    """
    name = state["name"]
    if name in (Classification.name, Thresholded.name, Votes.name):
        return _one_of_classes(state)
    if name == Multilabel.name:
        return Multilabel(state["n_labels"], state.get("names"))
    if name == Multioutput.name:
        return Multioutput([_one_of_classes(column) for column in state["columns"]], state.get("names"))
    if name == Regression.name:
        return Regression(state["n_targets"], one_dimensional=state["one_dimensional"], names=state.get("names"))
    if name == Generation.name:
        rest = {key: value for key, value in state.items() if key not in ("name", "state", "encoded")}
        return Generation(**rest, state=_specs_from_dict(state["state"]), encoded=_specs_from_dict(state["encoded"]))
    raise ModelFileError(f"the task {name!r} is unknown to this version; upgrade mmensemble on this machine")


def _names(n: int, names: Sequence[str] | None) -> list[str]:
    return [str(number) for number in range(n)] if names is None else list(names)


def _one_of_classes(state: dict[str, Any]) -> Classification:
    classes = np.array(state["classes"], dtype=state["dtype"])
    if state["name"] == Thresholded.name:
        return Thresholded(classes, state["threshold"], state["positive"])
    return Votes(classes) if state["name"] == Votes.name else Classification(classes)


def _dtype(classes: np.ndarray) -> str:
    return "object" if classes.dtype == object else classes.dtype.str
