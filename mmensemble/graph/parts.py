"""What the parts of a graph hand each other: sources, and what an estimator gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from mmensemble.graph.builder import Graph
from mmensemble.learning.columns import Columns, as_list
from mmensemble.preprocessing import TensorSpec
from mmensemble.tasks import Generation, Task

__all__ = [
    "Block",
    "Frame",
    "GeneratorGraph",
    "Outputs",
    "Source",
    "Tensor",
    "Terms",
    "any_present",
    "refuse_where_present",
]


@dataclass(frozen=True)
class Frame:
    """A source on the host: columns of X.

    Parameters
    ----------
    graph : Graph
    name : str, default=""
        The member's name, which its inputs carry.
    columns : str or list of str, default=None
        The columns that the estimator sees; None is all of X.
    kinds : dict of str to {"float", "string"}, default=None
        What they held in fit.
    fill : dict of str to value, default=None
        What an imputer puts in the place of the columns' missing cells.
    """

    graph: Graph = field(default_factory=Graph)
    name: str = ""
    columns: Columns | None = None
    kinds: dict[str, Any] | None = None
    fill: dict[str, Any] | None = None

    def member(self, name: str, columns: Columns | None, kinds: dict[str, Any] | None) -> Frame:
        """Return the source of a member."""
        return Frame(self.graph, f"{self.name}.{name}" if self.name else name, columns, kinds)

    def column_list(self) -> list[str]:
        """Return the columns as a list; empty where they are not known."""
        return [] if self.columns is None else as_list(self.columns)


@dataclass(frozen=True)
class Terms:
    """A matrix that is mostly 0, row by row; what stands in the same column adds up.

    Parameters
    ----------
    columns : Value
        (batch, length) int64: the columns of each row that are not 0.
    values : Value
        (batch, length) float32 or float64: what is there.
    """

    columns: ir.Value
    values: ir.Value


@dataclass(frozen=True)
class Block:
    """Some columns of a matrix, side by side.

    Parameters
    ----------
    width : int
    value : Value
        (batch, width) float32 or float64.
    terms : Terms, default=None
        The same, where most of it is 0. Who makes use of them never has the whole rows made.
    """

    width: int
    value: ir.Value
    terms: Terms | None = None


@dataclass(frozen=True)
class Tensor:
    """A source in the graph: a matrix (batch, n_features) from an earlier step.

    Parameters
    ----------
    graph : Graph
    value : Value
    present : Value, default=None
        Which rows have the modality, (batch, 1) bool.
    blocks : tuple of Block, default=()
        What `value` is put together from, where that is known.
    sparse : bool, default=False
        Whether the estimator's X is a sparse matrix here, which stores no 0; xgboost reads what is not stored as
        missing.
    refused : tuple of Value, default=()
        Earlier steps' matrices in which NaN stands for a row that they refuse; see `refuse`.

    Attributes
    ----------
    value : Value
        float32, whatever was given.
    exact : Value
        What was given: float64 where numbers have come from their cells without being rounded.
    """

    graph: Graph
    value: ir.Value
    present: ir.Value | None = None
    blocks: tuple[Block, ...] = ()
    sparse: bool = False
    refused: tuple[ir.Value, ...] = ()
    exact: ir.Value = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exact", self.value)
        object.__setattr__(self, "value", self.graph.single(self.value))

    def some(self, features: Any) -> Tensor:
        """Return some of the features, given their numbers."""
        chosen = self.graph.constant(np.asarray(features, dtype=np.int64))
        value = self.graph.op("Gather", self.exact, chosen, axis=1)
        return Tensor(self.graph, value, self.present, sparse=self.sparse, refused=self.refused)

    def refuse(self) -> Tensor:
        """Refuse what earlier steps refuse, before a step that takes NaN for a number that is missing."""
        graph = self.graph
        for value in self.refused:
            count = graph.op("Cast", graph.op("IsNaN", value), to=graph.FLOAT)
            total = graph.op("ReduceSum", count, graph.constant(np.asarray([1])), keepdims=1)
            graph.refusals.append(graph.op("Greater", total, graph.constant(np.float32(0))))
        return replace(self, value=self.exact, refused=())

    def outputs(self) -> Outputs:
        """Return the matrix as what a transformer gives that changes nothing."""
        return Outputs(
            self.graph,
            transformed=self.exact,
            present=self.present,
            blocks=self.blocks,
            sparse=self.sparse,
            refused=self.refused,
        )


Source = Frame | Tensor


@dataclass(frozen=True)
class Outputs:
    """What an estimator's part of the graph gives.

    Parameters
    ----------
    graph : Graph
    probabilities : Value, default=None
        (batch, n_classes) float32, of a classifier; of several labels or label columns, side by side.
    predictions : Value, default=None
        (batch, n_targets) float32, of a regressor.
    transformed : Value, default=None
        (batch, n_features_out) float32 or float64, of an estimator with ``transform``.
    present : Value, default=None
        Which rows have the modality, (batch, 1) bool.
    task : Task, default=None
        What the probabilities or predictions mean; None is one of the estimator's ``classes_``.
    decision : Value, default=None
        (batch, n_classes) float32, or (batch, 1) of two classes: a classifier's ``decision_function``.
    labels : Value, default=None
        (batch, 1) int64, the number of the predicted class where the probabilities do not tell it.
    blocks : tuple of Block, default=()
        What `transformed` is put together from, where that is known.
    sparse : bool, default=False
        Whether ``transform`` gives a sparse matrix.
    refused : tuple of Value, default=()
        Matrices in which NaN stands for a row that the estimator refuses, and that a later step may not refuse.
    frame : Frame, default=None
        What an estimator with ``transform`` gives where that still are columns on the host.
    """

    graph: Graph
    probabilities: ir.Value | None = None
    predictions: ir.Value | None = None
    transformed: ir.Value | None = None
    present: ir.Value | None = None
    task: Task | None = None
    decision: ir.Value | None = None
    labels: ir.Value | None = None
    # Any, so that `Outputs(graph, **{task.output: value})` has a type.
    blocks: Any = ()
    sparse: Any = False
    refused: Any = ()
    frame: Any = None

    def __post_init__(self) -> None:
        # Numbers stay float64 up to the first operator that does not need them; what an estimator answers is float32.
        for name in ("probabilities", "predictions", "decision"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self.graph.single(value))


@dataclass(frozen=True)
class GeneratorGraph:
    """What an estimator that writes texts gives; see `mmensemble.graph.to_generator_graph`.

    Parameters
    ----------
    task : Generation
    outputs : dict of str to (Value, TensorSpec)
        ``logits``, ``next.<name>`` and ``encoded.<name>`` as the task describes them.
    """

    task: Generation
    outputs: dict[str, tuple[ir.Value, TensorSpec]]


def refuse_where_present(graph: Graph, before: int, present: ir.Value) -> None:
    """Let what a member has added to a graph's refusals count only in rows that have its modality.

    Parameters
    ----------
    graph : Graph
    before : int
        How many refusals there were before the member.
    present : Value
        (batch, 1) bool.
    """
    own = graph.refusals[before:]
    if own:
        graph.refusals[before:] = [graph.op("And", present, any_present(graph, own))]


def any_present(graph: Graph, present: Sequence[ir.Value]) -> ir.Value:
    """Tell which rows have any of several modalities, (batch, 1) bool."""
    result = present[0]
    for value in present[1:]:
        result = graph.op("Or", result, value)
    return result
