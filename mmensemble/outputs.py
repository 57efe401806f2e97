"""Members' outputs in the form of the composition's task, in numpy and as a graph; and what they are made of.

Every strategy works on arrays (n_rows, task.width). Classes come as distributions: one of `n_classes` probabilities,
one per column of labels, or one of (1 - p, p) per independent label.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_regressor

from mmensemble.exceptions import ConfigurationError, DataError, ExportError
from mmensemble.scoring.tasks import (
    Classification,
    Multilabel,
    Multioutput,
    Regression,
    Task,
    Thresholded,
    placement,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.export.graph import Graph, Outputs

__all__ = [
    "aligned_outputs",
    "check_can_answer",
    "distributions",
    "flat",
    "graph_distributions",
    "graph_flat",
    "graph_labels",
    "graph_outputs",
    "informative_columns",
    "output_names",
    "outputs_of",
]


def check_can_answer(name: str, estimator: Any, task: Task, user: str) -> None:
    """Raise `ConfigurationError` where an estimator lacks the method that the task asks for."""
    method = "predict" if isinstance(task, Regression) else "predict_proba"
    if hasattr(estimator, method):
        return
    remedy = ""
    if hasattr(estimator, "__sklearn_tags__") and is_regressor(estimator):
        remedy = "; it is a regressor: give a classifier"
    elif method == "predict_proba":
        remedy = "; put a CalibratedClassifierCV around it"
    raise ConfigurationError(f"{name} ({type(estimator).__name__}) has no {method}, which {user} needs{remedy}")


def outputs_of(estimator: Any, task: Task, X: Any) -> np.ndarray:
    """Return a fitted estimator's probabilities or predictions in the order of the task.

    Parameters
    ----------
    estimator : estimator
    task : Task
    X : what the estimator takes, n rows

    Returns
    -------
    ndarray of float, shape (n, task.width)
        Classes that the estimator does not know have probability 0.
    """
    if isinstance(task, Regression):
        return np.asarray(estimator.predict(X), dtype=np.float64).reshape(-1, task.width)
    proba = estimator.predict_proba(X)
    if isinstance(task, Multilabel):
        if isinstance(proba, list):  # as scikit-learn's multi-output classifiers: (n, 2) per label, or (n, 1)
            return np.column_stack([_second(p, c) for p, c in zip(proba, estimator.classes_, strict=True)])
        return _of_width(np.asarray(proba), task.width)
    if isinstance(proba, np.ndarray) and proba.dtype == np.float32:
        # Rows that add up to 1 as closely as float32 can are too far off for scikit-learn's metrics in float64.
        proba = proba.astype(np.float64)
        proba /= proba.sum(axis=1, keepdims=True)
    known = list(estimator.classes_) if isinstance(task, Multioutput) else [np.asarray(estimator.classes_)]
    return aligned_outputs(np.hstack(proba) if isinstance(proba, list) else np.asarray(proba), known, task)


def aligned_outputs(proba: np.ndarray, known: Sequence[np.ndarray], task: Task) -> np.ndarray:
    """Put probabilities over known labels into the order of the task's."""
    matrix = placement(known, task.label_sets)
    return proba if matrix is None else proba @ matrix


def _second(proba: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the probability of label 1 out of those of the classes that were seen."""
    present = np.flatnonzero(np.asarray(classes) == 1)
    return proba[:, present[0]] if len(present) else np.zeros(len(proba))


def _of_width(outputs: np.ndarray, width: int) -> np.ndarray:
    if outputs.ndim != 2 or outputs.shape[1] != width:
        raise DataError(f"a member gave outputs of shape {outputs.shape}, not (n, {width})")
    return outputs


def distributions(outputs: np.ndarray, task: Task) -> list[np.ndarray]:
    """Split outputs (..., width) into distributions (..., n_distributions, n_classes), equal sizes together."""
    if isinstance(task, Multilabel):
        return [np.stack([1 - outputs, outputs], axis=-1)]
    bounds = np.cumsum([len(labels) for labels in task.label_sets])[:-1]
    return [part[..., None, :] for part in np.split(outputs, bounds, axis=-1)]


def flat(parts: Sequence[np.ndarray], task: Task) -> np.ndarray:
    """Undo `distributions`."""
    if isinstance(task, Multilabel):
        return parts[0][..., 1]
    return np.concatenate([part[..., 0, :] for part in parts], axis=-1)


def informative_columns(task: Task) -> np.ndarray:
    """Return the outputs that others do not give away: of two classes, as scikit-learn does, the second one's."""
    if not task.label_sets:
        return np.arange(task.width)
    keep: list[int] = []
    start = 0
    for labels in task.label_sets:
        keep += range(start + (len(labels) == 2), start + len(labels))
        start += len(labels)
    return np.asarray(keep)


def output_names(task: Task) -> list[str]:
    """Return a name per output: the label, with the name of its column where there are several, or the target."""
    if isinstance(task, Multioutput):
        columns = zip(task.names, task.label_sets, strict=True)
        return [f"{name}_{label}" for name, labels in columns for label in labels.tolist()]
    if isinstance(task, Regression):
        return task.prediction_columns()
    if isinstance(task, Multilabel):
        return task.names
    return [str(label) for label in task.classes.tolist()]


# The same, as graphs


def graph_outputs(name: str, estimator: Any, outputs: Outputs, task: Task) -> ir.Value:
    """Return a member's outputs in a graph in the order of the task, (batch, task.width).

    Raises
    ------
    ExportError
        If the member gives something else.
    """
    value = outputs.predictions if isinstance(task, Regression) else outputs.probabilities
    known = outputs.task
    if known is None and outputs.probabilities is not None:
        known = Classification(np.asarray(estimator.classes_))
    if known is None and isinstance(task, Regression):
        known = task
    if isinstance(task, Multilabel) and isinstance(known, Multioutput) and value is not None:
        return _of_label_one(outputs, known, value)
    if value is None or not isinstance(known, type(task)) or known.output != task.output:
        wanted = "predictions" if isinstance(task, Regression) else f"probabilities of a {task.name} task"
        raise ExportError(f"{name} ({type(estimator).__name__}) gives no {wanted}")
    if not task.label_sets:
        return value
    matrix = placement(known.label_sets, task.label_sets)
    if matrix is None:
        return value
    return outputs.graph.op("MatMul", value, outputs.graph.constant(matrix, "class_placement"))


def _of_label_one(outputs: Outputs, known: Multioutput, value: ir.Value) -> ir.Value:
    """Return the probabilities of label 1 out of those of columns of 0 and 1."""
    matrix = np.zeros((known.width, len(known.label_sets)), dtype=np.float32)
    start = 0
    for column, labels in enumerate(known.label_sets):
        matrix[start + np.flatnonzero(labels == 1), column] = 1
        start += len(labels)
    return outputs.graph.op("MatMul", value, outputs.graph.constant(matrix, "label_one"))


def graph_labels(name: str, estimator: Any, outputs: Outputs) -> ir.Value:
    """Return the numbers of the classes that a classifier predicts, (batch, 1) int64.

    Raises
    ------
    ExportError
        If the member gives something else.
    """
    graph = outputs.graph
    if outputs.labels is not None:
        return outputs.labels
    if outputs.probabilities is None or not isinstance(outputs.task, (Classification, type(None))):
        raise ExportError(f"{name} ({type(estimator).__name__}) predicts no classes")
    task = outputs.task
    if not isinstance(task, Thresholded):
        return graph.op("ArgMax", outputs.probabilities, axis=1, keepdims=1)
    probability = graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([task.positive])), axis=1)
    reached = graph.op("GreaterOrEqual", probability, graph.constant(np.float32(task.threshold)))
    positive, other = (graph.constant(np.asarray(number)) for number in (task.positive, 1 - task.positive))
    return graph.op("Where", reached, positive, other)


def graph_distributions(graph: Graph, outputs: ir.Value, task: Task) -> list[ir.Value]:
    """Do what `distributions` does: values (batch, n_distributions, n_classes)."""
    if isinstance(task, Multilabel):
        others = graph.op("Sub", graph.constant(np.float32(1)), outputs)
        last = graph.constant(np.asarray([2]))
        return [graph.op("Concat", *(graph.op("Unsqueeze", v, last) for v in (others, outputs)), axis=2)]
    axis = graph.constant(np.asarray([1]))
    if len(task.label_sets) == 1:
        return [graph.op("Unsqueeze", outputs, axis)]
    bounds = np.cumsum([0, *(len(labels) for labels in task.label_sets)])
    return [
        graph.op(
            "Unsqueeze",
            graph.op("Slice", outputs, *(graph.constant(np.asarray([v])) for v in (start, stop, 1))),
            axis,
        )
        for start, stop in pairwise(bounds)
    ]


def graph_flat(graph: Graph, parts: Sequence[ir.Value], task: Task) -> ir.Value:
    """Undo `graph_distributions`."""
    if isinstance(task, Multilabel):
        return graph.op("Gather", parts[0], graph.constant(np.asarray(1)), axis=2)
    squeezed = [graph.op("Squeeze", part, graph.constant(np.asarray([1]))) for part in parts]
    return squeezed[0] if len(squeezed) == 1 else graph.op("Concat", *squeezed, axis=1)
