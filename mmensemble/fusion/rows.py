"""What a late strategy reads of the rows beside the members' outputs: columns of X, on arrays and in a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mmensemble.frames import column_cells
from mmensemble.fusion.strategy import Fusion
from mmensemble.graph import Frame, GraphValue, Tensor, graph_outputs, to_graph
from mmensemble.learning.outputs import outputs_of
from mmensemble.operations import Value
from mmensemble.preprocessing.tabular import FEATURES, TabularPreprocessor
from mmensemble.tasks import Task

__all__ = ["FrameRows", "GraphRows", "Rows"]


class Rows(Protocol):
    """The rows that a strategy joins the members' outputs of."""

    def numbers(self, name: str, columns: Sequence[str]) -> Value:
        """Return numeric columns of X as they are, (n, n_columns); NaN where a number is missing.

        Parameters
        ----------
        name : str
            The prefix of the graph's inputs for them.
        columns : sequence of str
        """

    def outputs_of(self, name: str, estimator: Any, features: Value, labels: Sequence[np.ndarray] | None) -> Value:
        """Return the outputs of an estimator that the strategy fitted, (n, width).

        Parameters
        ----------
        name : str
            What an error calls it.
        estimator : estimator
            Fitted.
        features : value, shape (n, n_features)
            What its `X` is.
        labels : sequence of ndarray, or None
            By column of `y`, the labels that its classes number: ``task_.label_sets`` of an estimator that was fitted
            on `y` as `LateFusion.learn` gets it. None where the task has no classes.
        """

    def outputs_of_strategy(self, strategy: Fusion) -> Value:
        """Return the outputs of a fitted strategy that has members of its own, (n, width).

        Parameters
        ----------
        strategy : Fusion
        """


class FrameRows:
    """Rows of a frame.

    Parameters
    ----------
    X : DataFrame, n rows
    task : Task
    """

    def __init__(self, X: Any, task: Task) -> None:
        self.X = X
        self.task = task

    def numbers(self, name: str, columns: Sequence[str]) -> np.ndarray:
        preprocessor = _numeric(columns)
        encoded = preprocessor.encode(*(column_cells(self.X, column) for column in columns))
        encoded.raise_for_errors()
        return np.asarray(preprocessor.collate(encoded, slice(None))[FEATURES], dtype=np.float64)

    def outputs_of(
        self, name: str, estimator: Any, features: np.ndarray, labels: Sequence[np.ndarray] | None
    ) -> np.ndarray:
        return outputs_of(estimator, self.task, features, labels)

    def outputs_of_strategy(self, strategy: Fusion) -> np.ndarray:
        return strategy.outputs(self.X)


class GraphRows:
    """The rows of a graph's batch.

    Parameters
    ----------
    source : Frame
    task : Task
    """

    def __init__(self, source: Frame, task: Task) -> None:
        self.source = source
        self.task = task

    def numbers(self, name: str, columns: Sequence[str]) -> GraphValue:
        graph = self.source.graph
        path = f"{self.source.name}.{name}" if self.source.name else name
        return GraphValue(graph, graph.feed(path, columns, _numeric(columns))[FEATURES])

    def outputs_of(
        self, name: str, estimator: Any, features: GraphValue, labels: Sequence[np.ndarray] | None
    ) -> GraphValue:
        graph = self.source.graph
        outputs = to_graph(estimator, Tensor(graph, features.value))
        return GraphValue(graph, graph_outputs(name, estimator, outputs, self.task, labels))

    def outputs_of_strategy(self, strategy: Fusion) -> GraphValue:
        graph, name = self.source.graph, type(strategy).__name__
        with graph.scope(name):
            outputs = to_graph(strategy, self.source)
        return GraphValue(graph, graph_outputs(name, strategy, outputs, self.task))


def _numeric(columns: Sequence[str]) -> TabularPreprocessor:
    return TabularPreprocessor(dict.fromkeys(columns, "float"))
