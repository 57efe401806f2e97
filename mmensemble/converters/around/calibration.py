"""Calibrated classifiers, as graphs: sigmoid, isotonic and temperature scaling over any member of a graph.

Calibrated probabilities are put together in float64, as in scikit-learn: those of an isotonic calibration are shares of
few rows, and two that are equal there must not differ in their last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.calibration import CalibratedClassifierCV
from sklearn.isotonic import IsotonicRegression
from sklearn.utils.validation import check_is_fitted

from mmensemble.converters.linear import sigmoid
from mmensemble.exceptions import ExportError
from mmensemble.graph import Frame, Graph, Outputs, Source, graph_outputs, to_graph
from mmensemble.tasks import Classification

__all__: list[str] = []

# What scikit-learn adds to a probability before it takes the logarithm.
_EPSILON = 1e-12


@to_graph.register
def _calibrated(estimator: CalibratedClassifierCV, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph, terms, present = source.graph, [], None
    for number, calibrated in enumerate(estimator.calibrated_classifiers_):
        with graph.scope(f"calibrated_{number}"):
            outputs = to_graph(calibrated.estimator, source)
            present = outputs.present
            terms.append(_calibrate(calibrated, outputs))
    mean = terms[0] if len(terms) == 1 else graph.op("Sum", *terms)
    if len(terms) > 1:
        mean = graph.op("Div", mean, graph.constant(np.float64(len(terms))))
    return Outputs(graph, probabilities=graph.op("Cast", mean, to=Graph.FLOAT), present=present)


def _calibrate(calibrated: Any, outputs: Outputs) -> ir.Value:
    """Map a classifier's decisions or probabilities to calibrated ones, float64, in the order of all classes."""
    graph, member, classes = outputs.graph, calibrated.estimator, np.asarray(calibrated.classes)
    if hasattr(member, "decision_function"):
        if outputs.decision is None:
            raise ExportError(
                f"CalibratedClassifierCV calibrates the decision_function of {type(member).__name__}, "
                "which has no ONNX form here; of linear classifiers, compositions and leaf estimators it has"
            )
        values, from_probabilities = outputs.decision, False
    else:
        values = graph_outputs("the calibrated estimator", member, outputs, Classification(np.asarray(member.classes_)))
        from_probabilities = True
    binary = len(classes) == 2
    if calibrated.method == "temperature":
        if from_probabilities:
            values = graph.op("Log", graph.op("Add", values, graph.constant(np.float32(_EPSILON))))
        elif binary:
            values = graph.op("Concat", graph.op("Neg", values), values, axis=1)
        scaled = graph.op("Mul", values, graph.constant(np.float32(calibrated.calibrators[0].beta_)))
        return _double(graph, graph.op("Softmax", scaled, axis=1))
    if binary and from_probabilities:
        values = _column(graph, values, 1)
    columns = [
        _mapped(graph, values if binary else _column(graph, values, position), calibrator)
        for position, calibrator in enumerate(calibrated.calibrators)
    ]
    if binary:
        return graph.op("Concat", graph.op("Sub", graph.constant(np.float64(1)), columns[0]), columns[0], axis=1)
    return _normalised(graph, columns, np.asarray(member.classes_), classes)


def _mapped(graph: Graph, column: ir.Value, calibrator: Any) -> ir.Value:
    """Map one column (batch, 1) by a fitted calibrator, to float64."""
    if not isinstance(calibrator, IsotonicRegression):
        slope, offset = (graph.constant(np.float32(-value)) for value in (calibrator.a_, calibrator.b_))
        return _double(graph, sigmoid(graph, graph.op("Add", graph.op("Mul", column, slope), offset)))
    x, y = (np.asarray(v, dtype=np.float64) for v in (calibrator.X_thresholds_, calibrator.y_thresholds_))
    first, zero, one = (graph.constant(np.float64(number)) for number in (y[0], 0, 1))
    column = _double(graph, column)
    if len(x) == 1:
        return graph.op("Add", graph.op("Mul", column, zero), first)
    # Each piece of the line rises from 0 to 1 between its ends, and counts by how much the line rises there.
    lower, width = (graph.constant(v[None]) for v in (x[:-1], np.diff(x)))
    share = graph.op("Div", graph.op("Sub", column, lower), width)
    share = graph.op("Clip", share, zero, one)
    rise = graph.op("MatMul", share, graph.constant(np.diff(y)[:, None]))
    return graph.op("Add", rise, first)


def _normalised(graph: Graph, columns: Sequence[ir.Value], known: np.ndarray, classes: np.ndarray) -> ir.Value:
    """Put one-against-rest probabilities side by side and let them add up to 1; all alike where all are 0."""
    zero = graph.op("Mul", columns[0], graph.constant(np.float64(0)))
    of_class = dict(zip(known.tolist(), columns, strict=True))
    side_by_side = graph.op("Concat", *(of_class.get(label, zero) for label in classes.tolist()), axis=1)
    total = graph.op("ReduceSum", side_by_side, graph.constant(np.asarray([1])), keepdims=1)
    nothing = graph.op("Equal", total, graph.constant(np.float64(0)))
    divided = graph.op("Div", side_by_side, graph.op("Where", nothing, graph.constant(np.float64(1)), total))
    return graph.op("Where", nothing, graph.constant(np.float64(1 / len(classes))), divided)


def _double(graph: Graph, value: ir.Value) -> ir.Value:
    return graph.op("Cast", value, to=ir.DataType.DOUBLE)


def _column(graph: Graph, values: ir.Value, number: int) -> ir.Value:
    return graph.op("Gather", values, graph.constant(np.asarray([number])), axis=1)
