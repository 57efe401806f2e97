from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from mmensemble.exceptions import ConfigurationError, DataError, ExportError
from mmensemble.graph import Graph, GraphOperations, Outputs, graph_outputs
from mmensemble.learning.outputs import (
    aligned_outputs,
    check_can_answer,
    distributions,
    flat,
    informative_columns,
    output_names,
    outputs_of,
)
from mmensemble.operations import NUMPY
from mmensemble.preprocessing import TabularPreprocessor
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, Task

ABC = np.array(["a", "b", "c"])
CLASSES = Classification(ABC)
COLUMNS = Multioutput([CLASSES, Classification(np.array([7, 9]))])
LABELS = Multilabel(3)
TASKS = {"classes": CLASSES, "columns": COLUMNS, "multilabel": LABELS}


class Made:
    """An estimator that gives what it was made of."""

    def __init__(self, outputs: Any, classes: Any = None) -> None:
        self.outputs = outputs
        self.classes_ = classes

    def predict_proba(self, X: Any) -> Any:
        return self.outputs

    predict = predict_proba


# What an estimator gives


def test_classes_are_put_in_order() -> None:
    proba = np.array([[0.2, 0.8], [0.5, 0.5]])
    result = outputs_of(Made(proba, np.array(["c", "a"])), CLASSES, None)
    np.testing.assert_array_equal(result, [[0.8, 0, 0.2], [0.5, 0, 0.5]])
    same = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_array_equal(outputs_of(Made(same, ABC), CLASSES, None), same)


def test_columns_of_labels_are_put_in_order() -> None:
    first, second = np.array([[0.4, 0.6]]), np.array([[1.0]])
    result = outputs_of(Made([first, second], [np.array(["b", "c"]), np.array([9])]), COLUMNS, None)
    np.testing.assert_array_equal(result, [[0, 0.4, 0.6, 0, 1]])


def test_numbered_classes_are_put_in_order() -> None:
    numbered = Made(np.array([[0.2, 0.8]]), np.array([0, 1]))
    np.testing.assert_array_equal(outputs_of(numbered, CLASSES, None, [ABC[[0, 2]]]), [[0.2, 0, 0.8]])


@pytest.mark.parametrize(
    ("second", "expected"), [([7, 9], [0.75, 0, 0.25, 0.5, 0.5]), ([9], [0.75, 0, 0.25, 0, 1])], ids=str
)
def test_columns_of_two_labels_that_were_independent_labels_to_a_member(second: Any, expected: Any) -> None:
    member, labels = Made(np.array([[0.25, 0.5]]), np.arange(2)), [ABC[[0, 2]], np.array(second)]
    np.testing.assert_array_equal(outputs_of(member, COLUMNS, None, labels), [expected])
    graph, value = graph_of(2)
    result = graph_outputs("m", member, Outputs(graph, probabilities=value, task=Multilabel(2)), COLUMNS, labels)
    model = graph.to_model({"scores": (result, 5)})
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"raw.features": np.array([[0.25, 0.5]], dtype=np.float32)})[0]
    np.testing.assert_allclose(scores, [expected])


def test_lists_of_labels() -> None:
    """As forests give them: a label that no fitting row had, or all of them, has one column."""
    proba = [np.array([[0.3, 0.7]]), np.array([[1.0]]), np.array([[1.0]])]
    result = outputs_of(Made(proba, [np.array([0, 1]), np.array([0]), np.array([1])]), LABELS, None)
    np.testing.assert_array_equal(result, [[0.7, 0, 1]])


@pytest.mark.parametrize("shape", [(2, 2), (2,), (2, 3, 1)])
def test_labels_of_another_number(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"gave outputs of shape .*, not \(n, 3\)"):
        outputs_of(Made(np.zeros(shape)), LABELS, None)


def test_numbers() -> None:
    one, two = Regression(1, one_dimensional=True), Regression(2, one_dimensional=False)
    for given in (np.array([1.0, 2]), np.array([[1], [2]])):
        np.testing.assert_array_equal(outputs_of(Made(given), one, None), [[1.0], [2.0]])
    result = outputs_of(Made(np.array([[1, 2]], dtype=np.float32)), two, None)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [[1, 2]])


def test_single_precision_probabilities_add_up_to_1() -> None:
    rng = np.random.default_rng(0)
    rough = rng.random((50, 3)).astype(np.float32)
    rough /= rough.sum(axis=1, keepdims=True)
    result = outputs_of(Made(rough, ABC), CLASSES, None)
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(result, rough, rtol=1e-6)


def test_aligned_outputs_of_no_rows() -> None:
    assert aligned_outputs(np.zeros((0, 1)), [ABC[:1]], CLASSES).shape == (0, 3)


@pytest.mark.parametrize(
    ("task", "method"), [(CLASSES, "predict_proba"), (Regression(1, one_dimensional=True), "predict")]
)
def test_missing_method(task: Task, method: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"member 'm' \(object\) has no {method}, which Voting needs"):
        check_can_answer("member 'm'", object(), task, "Voting")
    check_can_answer("member 'm'", Made(None), task, "Voting")


# Distributions


def test_distributions() -> None:
    outputs = np.array([[0.1, 0.2, 0.7, 0.4, 0.6], [0.3, 0.3, 0.4, 1, 0]])
    first, second = distributions(NUMPY, outputs, COLUMNS)
    np.testing.assert_array_equal(first, [[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    np.testing.assert_array_equal(second, [[0.4, 0.6], [1, 0]])
    (pairs,) = distributions(NUMPY, np.array([[0.1, 1.0, 0.5]]), LABELS)
    np.testing.assert_allclose(pairs, [[[0.9, 0.1], [0, 1], [0.5, 0.5]]])
    (alone,) = distributions(NUMPY, outputs[:, :3], CLASSES)
    np.testing.assert_array_equal(alone, outputs[:, :3])


@pytest.mark.parametrize("kind", TASKS)
def test_flat_undoes_distributions(kind: str) -> None:
    task = TASKS[kind]
    outputs = np.random.default_rng(0).random((4, task.width))
    np.testing.assert_array_equal(flat(NUMPY, distributions(NUMPY, outputs, task), task), outputs)


@pytest.mark.parametrize("kind", TASKS)
def test_graph_does_the_same(kind: str) -> None:
    task = TASKS[kind]
    outputs = np.random.default_rng(0).random((4, task.width)).astype(np.float32)
    graph, names = Graph(), [str(n) for n in range(task.width)]
    value = graph.feed("raw", names, TabularPreprocessor(dict.fromkeys(names, "float")))["features"]
    xp = GraphOperations(graph)
    parts = distributions(xp, xp.of(value), task)
    squares = [part * part for part in parts]
    model = graph.to_model({"scores": (flat(xp, squares, task).value, task.width)})
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    result = session.run(["scores"], {"raw.features": outputs})[0]
    expected = flat(NUMPY, [part * part for part in distributions(NUMPY, outputs, task)], task)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


# Names and columns


@pytest.mark.parametrize(
    ("task", "names", "informative"),
    [
        (CLASSES, ["a", "b", "c"], [0, 1, 2]),
        (Classification(np.array([False, True])), ["False", "True"], [1]),
        (COLUMNS, ["0_a", "0_b", "0_c", "1_7", "1_9"], [0, 1, 2, 4]),
        (LABELS, ["0", "1", "2"], [0, 1, 2]),
        (Regression(1, one_dimensional=True), ["prediction"], [0]),
        (Regression(1, one_dimensional=False), ["prediction_0"], [0]),
        (Regression(2, one_dimensional=False), ["prediction_0", "prediction_1"], [0, 1]),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else None,
)
def test_names_and_informative_columns(task: Task, names: list[str], informative: list[int]) -> None:
    assert output_names(task) == names
    assert informative_columns(task).tolist() == informative


# Graphs


def graph_of(width: int) -> tuple[Graph, ir.Value]:
    graph, names = Graph(), [str(n) for n in range(width)]
    return graph, graph.feed("raw", names, TabularPreprocessor(dict.fromkeys(names, "float")))["features"]


def test_graph_outputs_put_classes_in_order() -> None:
    graph, value = graph_of(2)
    result = graph_outputs("m", Made(None, np.array(["c", "a"])), Outputs(graph, probabilities=value), CLASSES)
    model = graph.to_model({"scores": (result, 3)})
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    scores = session.run(["scores"], {"raw.features": np.array([[0.2, 0.8]], dtype=np.float32)})[0]
    np.testing.assert_allclose(scores, [[0.8, 0, 0.2]])


def test_graph_outputs_in_order_are_left_alone() -> None:
    graph, value = graph_of(3)
    assert graph_outputs("m", Made(None, ABC), Outputs(graph, probabilities=value), CLASSES) is value
    assert graph_outputs("m", Made(None), Outputs(graph, probabilities=value, task=LABELS), LABELS) is value
    number = Regression(3, one_dimensional=False)
    assert graph_outputs("m", Made(None), Outputs(graph, predictions=value), number) is value


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        (LABELS, {"probabilities": True}, r"m \(Made\) gives no probabilities of a multilabel task"),
        (CLASSES, {"predictions": True}, "gives no probabilities of a classification task"),
        (Regression(1, one_dimensional=True), {"probabilities": True}, "gives no predictions"),
    ],
)
def test_graph_outputs_of_another_kind(task: Task, given: dict[str, bool], message: str) -> None:
    graph, value = graph_of(3)
    with pytest.raises(ExportError, match=message):
        graph_outputs("m", Made(None, ABC), Outputs(graph, **dict.fromkeys(given, value)), task)
