"""The branches of a graph that run on one condition, as what encodes once for a generator: laid open, and closed again.

ONNX Runtime's tools convert the nodes of a graph and not those of its branches, though these read the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

__all__ = ["Branch", "closed", "laid_open"]


@dataclass(frozen=True)
class Branch:
    """An ``If`` that `mmensemble.export.Graph.only_if` made, without its nodes.

    Parameters
    ----------
    name : str
        Of the node.
    condition : str
        The graph's input that decides.
    outputs : list of str
        What the node gives.
    inner : list of str
        The same, as it was called in the branch.
    otherwise : Graph
        What is given where the condition does not hold: constants.
    """

    name: str
    condition: str
    outputs: list[str]
    inner: list[str]
    otherwise: ir.Graph


@contextmanager
def laid_open(source: Path) -> Iterator[tuple[Path, list[Branch]]]:
    """Write a model whose branches always run, beside a file, for as long as the block lasts.

    Yields
    ------
    path : Path
        `source` itself where it has no such branches.
    branches : list of Branch
        For `closed`.
    """
    model = ir.load(source)
    branches = [_opened(model.graph, node) for node in list(model.graph) if _is_ours(node)]
    if not branches:
        yield source, branches
        return
    path = source.with_name(f"{source.name}.open")
    ir.save(model, path)
    try:
        yield path, branches
    finally:
        path.unlink()


def _is_ours(node: ir.Node) -> bool:
    if node.op_type != "If" or node.inputs[0] is None or not node.inputs[0].is_graph_input():
        return False
    return all(inner.op_type == "Constant" for inner in node.attributes["else_branch"].as_graph())


def _opened(graph: ir.Graph, node: ir.Node) -> Branch:
    """Put the nodes of the first branch in the place of the ``If``."""
    branch = node.attributes["then_branch"].as_graph()
    inner = list(branch.outputs)
    names = [str(value.name) for value in inner]
    branch.outputs.clear()
    for weight in list(branch.initializers.values()):
        del branch.initializers[str(weight.name)]
        graph.register_initializer(weight)
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    outputs = [str(value.name) for value in node.outputs]
    for value, output in zip(inner, node.outputs, strict=True):
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        value.type, value.shape = output.type, output.shape
    condition = node.inputs[0]
    graph.remove(node, safe=True)
    for value, name in zip(inner, outputs, strict=True):
        value.name = name
    assert condition is not None  # noqa: S101 - `_is_ours` has seen to it
    return Branch(str(node.name), str(condition.name), outputs, names, node.attributes["else_branch"].as_graph())


def closed(model: ir.Model, branches: list[Branch]) -> None:
    """Let what is needed for a branch's outputs alone run on its condition only, as before `laid_open`.

    Parameters
    ----------
    model : Model
        In topological order; changed. Its tools may have added nodes and changed types, but not the outputs' names.
    branches : list of Branch
    """
    for branch in branches:
        _close(model.graph, branch)


def _close(graph: ir.Graph, branch: Branch) -> None:
    named = {str(value.name): value for node in graph for value in node.outputs}
    values = [named[name] for name in branch.outputs]
    inside = _needed_alone(graph, values)
    for value, constant in zip(values, branch.otherwise.outputs, strict=True):
        _take_type(constant, value.dtype)
    nodes = [node for node in graph if node in inside]
    graph.remove(nodes)
    outputs = [ir.Value(name=value.name, type=value.type, shape=value.shape) for value in values]
    for value, output, name in zip(values, outputs, branch.inner, strict=True):
        for user, index in list(value.uses()):
            if user not in inside:
                user.replace_input_with(index, output)
        for index, result in enumerate(graph.outputs):
            if result is value:
                graph.outputs[index] = output
        value.name, value.shape = name, None
    attributes = {
        "then_branch": ir.Graph([], values, nodes=nodes, name="then"),
        "else_branch": branch.otherwise,
    }
    condition = next(value for value in graph.inputs if value.name == branch.condition)
    graph.append(ir.node("If", [condition], attributes, outputs=outputs, name=branch.name))


def _needed_alone(graph: ir.Graph, values: list[ir.Value]) -> set[ir.Node]:
    """Return the nodes that give some values, and those that only such nodes read, with the nodes of their branches."""
    wanted = {value.producer() for value in values}
    inside: set[ir.Node] = set()
    for node in reversed(list(graph)):
        users = {user for value in node.outputs for user in value.uses()}
        given = any(value.is_graph_output() for value in node.outputs)
        if node in wanted or (users and not given and all(user.node in inside for user in users)):
            inside.add(node)
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    inside.update(attribute.as_graph().all_nodes())
    return inside


def _take_type(constant: ir.Value, dtype: ir.DataType | None) -> None:
    node = constant.producer()
    if node is None or dtype is None or dtype == constant.dtype:
        return
    numbers = node.attributes["value"].as_tensor().numpy()
    node.attributes["value"] = ir.AttrTensor("value", ir.tensor(numbers.astype(dtype.numpy())))
    constant.type = ir.TensorType(dtype)
