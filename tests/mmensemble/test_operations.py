from __future__ import annotations

from collections.abc import Callable
from operator import add, and_, ge, gt, le, lt, mul, or_, sub, truediv
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from mmensemble.graph import Graph, GraphOperations
from mmensemble.operations import NUMPY, Operations, Value
from mmensemble.preprocessing import TabularPreprocessor

Rule = Callable[[Operations, Value, Value], Value]

RNG = np.random.default_rng(0)
N, WIDTH = 6, 4
X, Y = (RNG.normal(size=(N, WIDTH)).astype(np.float32) for _ in range(2))
X[0], Y[0] = [0, 1, 1, np.nan], [4, 2, 1, 3]  # equal to the other, equal along the row, and missing
ARRAY = np.array([0.5, -1.0, 2.0, 0.25])
COEF, INTERCEPT = RNG.normal(size=(WIDTH, 3)), RNG.normal(size=3)

# What comes out is float: of the other kinds, a choice between two numbers.
RULES: dict[str, Rule] = {
    "constant": lambda xp, x, y: y + xp.constant(ARRAY, "named"),
    "where": lambda xp, x, y: xp.where(x > 0, y, 7),
    "where_of_numbers": lambda xp, x, y: xp.where(x > 0, ARRAY, -ARRAY),
    "isnan": lambda xp, x, y: xp.where(xp.isnan(x), 1, 0),
    "log": lambda xp, x, y: xp.log(y * y + 1),
    "sigmoid": lambda xp, x, y: xp.sigmoid(10 * y),
    "softmax": lambda xp, x, y: xp.softmax(y),
    "add": lambda xp, x, y: xp.add(y, x, y),
    "maximum": lambda xp, x, y: xp.maximum(y, 0, x * 2),
    "minimum": lambda xp, x, y: xp.minimum(y, 0, x * 2),
    "of_one": lambda xp, x, y: xp.add(xp.maximum(xp.minimum(xp.concat(y)))),
    "linear": lambda xp, x, y: xp.linear(y, xp.constant(COEF, "coef"), xp.constant(INTERCEPT, "intercept")),
    "one_hot": lambda xp, x, y: xp.one_hot(xp.argmax(xp.where(xp.isnan(x), 0, x)), WIDTH),
    "take": lambda xp, x, y: xp.take(y, np.array([2, 0])),
    "take_one": lambda xp, x, y: xp.stack(xp.take(y, 1)),
    "split": lambda xp, x, y: xp.concat(*reversed(xp.split(y, [1, 2, 1]))),
    "split_to_one": lambda xp, x, y: xp.concat(*xp.split(y, [WIDTH])),
    "concat": lambda xp, x, y: xp.concat(x, y, x),
    "stack": lambda xp, x, y: xp.take(xp.stack(x, y, 2 * y), 2),
}
for operator in (add, sub, mul, truediv):
    RULES[operator.__name__] = lambda xp, x, y, operator=operator: operator(x, y)
    RULES[f"number_{operator.__name__}"] = lambda xp, x, y, operator=operator: operator(2, y) + operator(y, 2)
    RULES[f"array_{operator.__name__}"] = lambda xp, x, y, operator=operator: operator(ARRAY, y) + operator(y, ARRAY)
for operator in (lt, le, gt, ge):
    RULES[operator.__name__] = lambda xp, x, y, operator=operator: xp.where(operator(x, y), 1, 0)
    RULES[f"array_{operator.__name__}"] = lambda xp, x, y, operator=operator: xp.where(operator(ARRAY, y), 1, 0)
for operator in (and_, or_):
    RULES[operator.__name__] = lambda xp, x, y, operator=operator: xp.where(operator(x > 0, y > 0), 1, 0)


def graph_of(rule: Rule) -> ir.Model:
    graph, names = Graph(), [str(number) for number in range(WIDTH)]
    preprocessor = TabularPreprocessor(dict.fromkeys(names, "float"))
    xp = GraphOperations(graph)
    x, y = (xp.of(graph.feed(name, [name + n for n in names], preprocessor)["features"]) for name in "xy")
    return graph.to_model({"scores": (rule(xp, x, y).value, rule(NUMPY, X, Y).shape[-1])})


@pytest.mark.parametrize("name", RULES)
def test_a_graph_does_what_numpy_does(name: str) -> None:
    model = graph_of(RULES[name])
    inputs = {value.name: {"x.features": X, "y.features": Y}[value.name] for value in model.graph.inputs}
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, inputs)
    expected = RULES[name](NUMPY, X.astype(np.float64), Y.astype(np.float64))
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "nodes"),
    [
        (lambda xp, x, y: xp.add(y), []),
        (lambda xp, x, y: xp.concat(*xp.split(y, [WIDTH])), []),
        (lambda xp, x, y: xp.maximum(x, y, 0), ["Max"]),
        (lambda xp, x, y: xp.take(y, np.arange(2)) + 1, ["Gather", "Add"]),
    ],
)
def test_a_graph_has_an_operator_for_each_operation_at_most(rule: Any, nodes: list[str]) -> None:
    model = graph_of(rule)
    assert [node.op_type for node in model.graph if node.op_type != "Identity"] == nodes


def test_both_have_the_operations_of_the_protocol() -> None:
    names = {name for name in vars(Operations) | Operations.__annotations__ if not name.startswith("_")}
    for xp in (NUMPY, GraphOperations(Graph())):
        assert not [name for name in names if not hasattr(xp, name)]
    assert NUMPY.finfo.dtype == np.float64
    assert GraphOperations(Graph()).finfo.dtype == np.float32
