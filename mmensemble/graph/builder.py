"""One graph for a whole composition: what is added to it, and how its parts are joined. Imports onnx_ir.

A part of a composition adds itself to a `Graph` through `to_graph(estimator, source)`. Its `source` is either a
`Frame` (columns of X, still on the host) or a `Tensor` (what an earlier step made, in the graph); what it returns are
`Outputs`, values in the same graph. So nothing is ever merged: every part writes into the one graph, and a feed or a
weight that two parts share is there once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import Sequential
from onnx_ir.passes import common as passes

from mmensemble.exceptions import ExportError
from mmensemble.graph.values import gives_double, graph_input
from mmensemble.preprocessing import PRESENT, Preprocessor, TensorSpec
from mmensemble.preprocessing.registry import check_registered
from mmensemble.scoring.manifest import Feed

__all__ = ["ENCODER_SCOPE", "GENERATION_OPSET", "IR_VERSION", "ML_OPSET", "OPSET", "Graph"]

# Opset 23 has attention as one operator; before it ONNX Runtime is slower than eager torch. IR 11 came with it.
# ai.onnx.ml 3 is the last version with the tree ensembles that skl2onnx writes.
# Opset 24 has the operator that writes keys and values in place, which texts are written with.
OPSET = 23
GENERATION_OPSET = 24
ML_OPSET = 3
IR_VERSION = 11
# Constants of as many numbers at most, like axes and shapes, are named by what they hold.
_FEW = 4
# The scope of a neural network's encoder. No name that scikit-learn takes for a step or a member has two underscores.
ENCODER_SCOPE = "network__encoder"


class Graph:
    """An ONNX graph that grows part by part.

    A converter gets it as ``source.graph`` and adds operators to it; see `mmensemble.to_graph`. Values are those of
    `onnx_ir`.

    Parameters
    ----------
    opset : int, default=23
        The version of ONNX's operators.

    Attributes
    ----------
    FLOAT, INT64 : int
        ONNX's numbers of these types, for ``Cast``.
    feeds : list of Feed
        What fills the graph's inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble.export import Graph
    >>> from mmensemble.preprocessing import TabularPreprocessor
    >>> graph = Graph()
    >>> inputs = graph.feed("facts", ["weight"], TabularPreprocessor({"weight": "float"}))
    >>> with graph.scope("Halved"):
    ...     half = graph.op("Mul", inputs["features"], graph.constant(np.float32(0.5)))
    >>> list(inputs), half.name
    (['features', 'present'], 'Halved/Mul_output')
    """

    FLOAT, DOUBLE, INT64 = ir.DataType.FLOAT.value, ir.DataType.DOUBLE.value, ir.DataType.INT64.value

    def __init__(self, opset: int = OPSET) -> None:
        self.opset = opset
        self.feeds: list[Feed] = []
        # Whether an answer can hang on the order in which an estimator keeps what is equal, which no file repeats.
        self.may_tie = False
        self.refusals: list[ir.Value] = []  # rows (batch, 1) bool that a part would refuse; see `refuse_where_present`
        self._inputs: dict[str, dict[str, ir.Value]] = {}
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []
        self._scopes: list[str] = []
        self._names: set[str] = set()
        # The numbers of each path that were not tried yet, so that many operators of one kind cost one try each.
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: count(1))
        self._few: dict[tuple[Any, ...], ir.Value] = {}
        self._located: ExportError | None = None
        self._opsets = {"": opset, "ai.onnx.ml": ML_OPSET}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` before the names of all that is added inside the block, and before the message of a failure."""
        self._scopes.append(name)
        try:
            yield
        except ExportError as error:
            if error is not self._located:  # by an inner scope
                error.args = (f"{'/'.join(self._scopes)}: {error}", *error.args[1:])
                self._located = error
            raise
        finally:
            self._scopes.pop()

    def _name(self, name: str) -> str:
        """Return a name inside the scopes that nothing has yet, with a number where it needs one."""
        path = "/".join([*self._scopes, name])
        numbered = (path if i == 1 else f"{path}_{i}" for i in self._numbers[path])
        unique = next(name for name in numbered if name not in self._names)
        self._names.add(unique)
        return unique

    def feed(self, name: str, columns: Sequence[str], preprocessor: Preprocessor) -> dict[str, ir.Value]:
        """Return the inputs that a preprocessor fills, ``present`` as (batch, 1); equal feeds are one.

        Parameters
        ----------
        name : str
            The inputs' prefix; a number is added where it is taken.
        columns : sequence of str
            The columns of X.
        preprocessor : Preprocessor

        Returns
        -------
        dict of str to Value

        Raises
        ------
        ExportError
            If no file with the preprocessor could be opened.
        """
        check_registered(preprocessor)
        for feed in self.feeds:
            if feed.columns == tuple(columns) and feed.preprocessor == preprocessor:
                return self._inputs[feed.name]
        taken = {feed.name for feed in self.feeds}
        unique = next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        self.feeds.append(Feed(unique, tuple(columns), preprocessor))
        specs = {**preprocessor.tensors, PRESENT: TensorSpec("bool", ("batch",))}
        self._inputs[unique] = {tensor: graph_input(unique, tensor, spec) for tensor, spec in specs.items()}
        return self._inputs[unique]

    def further_input(self, group: str, tensor: str, spec: TensorSpec) -> ir.Value:
        """Return a new input ``<group>.<tensor>`` that no preprocessor fills."""
        value = graph_input(group, tensor, spec)
        self._inputs.setdefault(group, {})[tensor] = value
        return value

    def present(self, inputs: Mapping[str, ir.Value]) -> ir.Value:
        """Return a feed's ``present`` input as a column (batch, 1)."""
        return self.op("Unsqueeze", inputs[PRESENT], self.constant(np.asarray([1])))

    def constant(self, value: Any, name: str = "constant") -> ir.Value:
        """Add a constant.

        Parameters
        ----------
        value : array-like
            Its dtype is kept: floats should be given as float32.
        name : str, default="constant"
            Its name inside the scopes. Of a few numbers without a name there is one in the graph, named
            ``constants/<numbers>``.

        Returns
        -------
        Value
        """
        array = np.asarray(value, order="C")
        if name == "constant" and array.size <= _FEW and array.dtype.kind in "biuf":
            key = (array.dtype, array.shape, array.tobytes())
            if key not in self._few:
                numbers = ",".join(map(str, array.ravel().tolist()))
                with self._outside():
                    self._few[key] = self.constant(array, f"constants/{numbers if array.ndim == 0 else f'[{numbers}]'}")
            return self._few[key]
        tensor = ir.tensor(array, name=self._name(name))
        initializer = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self._initializers.append(initializer)
        return initializer

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Leave all scopes for a while."""
        scopes, self._scopes = self._scopes, []
        try:
            yield
        finally:
            self._scopes = scopes

    def single(self, value: ir.Value) -> ir.Value:
        """Return a value as float32, where it is float64."""
        return self.op("Cast", value, to=self.FLOAT) if value.dtype == ir.DataType.DOUBLE else value

    def double(self, value: ir.Value) -> ir.Value:
        """Return a value as float64."""
        return value if value.dtype == ir.DataType.DOUBLE else self.op("Cast", value, to=self.DOUBLE)

    def alike(self, *values: ir.Value) -> list[ir.Value]:
        """Return values as float64 where one of them is, or else as they are."""
        doubles = any(value.dtype == ir.DataType.DOUBLE for value in values)
        return [self.double(value) for value in values] if doubles else list(values)

    def number(self, number: float, like: ir.Value) -> ir.Value:
        """Return a constant of the type of a value: float64, or else float32."""
        return self.constant(np.float64(number) if like.dtype == ir.DataType.DOUBLE else np.float32(number))

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Add an operator with one output.

        Parameters
        ----------
        op_type : str
            Its name in ONNX, such as ``"MatMul"``.
        *inputs : Value or None
            In its order; None is an optional input that is left out.
        domain : str, default=""
            ``"ai.onnx.ml"`` for those of ONNX-ML.
        **attributes
            Its attributes, as Python numbers, strings, lists and arrays.

        Returns
        -------
        Value
        """
        (output,) = self.ops(op_type, *inputs, domain=domain, **attributes)
        return output

    def ops(
        self, op_type: str, *inputs: ir.Value | None, n_outputs: int = 1, domain: str = "", **attributes: Any
    ) -> Sequence[ir.Value]:
        """Add an operator with several outputs; see `op`.

        Returns
        -------
        sequence of Value, of length `n_outputs`
        """
        name = self._name(op_type)
        node = ir.node(op_type, inputs, attributes or None, domain=domain, name=name, num_outputs=n_outputs)
        for number, output in enumerate(node.outputs):
            output.name = f"{name}_output{number or ''}"
            if number == 0 and gives_double(op_type, inputs, attributes):
                output.type = ir.TensorType(ir.DataType.DOUBLE)
        self._nodes.append(node)
        return node.outputs

    def inline(
        self,
        model: ir.Model,
        inputs: Mapping[str, ir.Value],
        *,
        name_of: Callable[[ir.Node | ir.Value], str | None] | None = None,
    ) -> dict[str, ir.Value]:
        """Add another model's graph. The model is used up.

        Parameters
        ----------
        model : ir.Model
            At the graph's opset.
        inputs : mapping of str to Value
            What each input of the model is in this graph.
        name_of : callable, default=None
            → what a node or an initializer is called here, inside the scopes. By default nodes are called by their
            operator and initializers as in the model.

        Returns
        -------
        dict of str to Value
            The model's outputs by name.
        """
        if model.functions:
            passes.InlinePass()(model)
        graph = model.graph
        for domain, version in graph.opset_imports.items():
            ours = self._opsets.setdefault(domain, version)
            if version > ours or (domain == "" and version != ours):
                raise ExportError(f"a part of the graph has opset {version} of domain {domain!r}, not {ours}")
        names = [str(value.name) for value in graph.outputs]  # before an input that is an output takes its new name
        for value in graph.inputs:
            if value.name not in graph.initializers:
                convenience.replace_all_uses_with(value, inputs[str(value.name)], replace_graph_outputs=True)
        outputs = dict(zip(names, graph.outputs, strict=True))
        graph.outputs.clear()
        given = {id(item): name_of(item) for item in (*graph.initializers.values(), *graph)} if name_of else {}
        nodes = list(graph)
        graph.remove(nodes)
        for initializer in list(graph.initializers.values()):
            del graph.initializers[str(initializer.name)]
            name = given.get(id(initializer)) or str(initializer.name)
            if initializer.const_value is not None:
                # torch stores some weights transposed, and what finds equal ones reads their bytes in order.
                array = np.require(initializer.const_value.numpy(), requirements="C")
                if name == "constant" and initializer not in outputs.values():
                    convenience.replace_all_uses_with(initializer, self.constant(array))
                    continue
                name = self._name(name)
                initializer.const_value = ir.tensor(array, name=name)
            initializer.name = name
            self._initializers.append(initializer)
        for node in nodes:
            node.name = self._name(given.get(id(node)) or node.op_type)
            for number, output in enumerate(node.outputs):
                # An exporter may have left its example's sizes here (torch does, behind an LSTM).
                output.shape = None
                output.name = f"{node.name}_output{number or ''}"
            self._nodes.append(node)
        return outputs

    @contextmanager
    def only_if(self, condition: ir.Value, outputs: dict[str, tuple[ir.Value, TensorSpec]]) -> Iterator[None]:
        """Run what is added inside only where a condition, a bool scalar, holds.

        Parameters
        ----------
        condition : Value
        outputs : dict of str to (Value, TensorSpec)
            To be filled inside. Afterwards they hold values that are empty where the condition does not hold.
        """
        before = len(self._nodes)
        yield
        results = {name: (self.op("Identity", value), spec) for name, (value, spec) in outputs.items()}
        nodes = self._nodes[before:]
        del self._nodes[before:]
        empty = []
        for name, (value, spec) in results.items():
            dtype = np.dtype(spec.dtype)
            value.type = ir.TensorType(ir.DataType.from_numpy(dtype))
            shape = [axis if isinstance(axis, int) else 0 for axis in spec.shape]
            nothing = ir.tensor(np.zeros(shape, dtype=dtype))
            constant = ir.node("Constant", [], {"value": nothing}, name=self._name(name))
            constant.outputs[0].name = self._name(f"no_{name}")
            constant.outputs[0].type = value.type
            empty.append(constant)
        branches = {
            "then_branch": ir.Graph([], [value for value, _ in results.values()], nodes=nodes, name="then"),
            "else_branch": ir.Graph([], [constant.outputs[0] for constant in empty], nodes=empty, name="else"),
        }
        node = ir.node("If", [condition], branches, name=self._name("If"), num_outputs=len(results))
        self._nodes.append(node)
        for (name, (_, spec)), output in zip(results.items(), node.outputs, strict=True):
            output.name = self._name(f"if_{name}")
            outputs[name] = (output, spec)

    def to_model(self, outputs: Mapping[str, tuple[ir.Value, int | TensorSpec]]) -> ir.Model:
        """Close the graph: name its outputs, share what is equal, drop what nothing needs.

        Parameters
        ----------
        outputs : mapping of str to (Value, int or TensorSpec)
            A float32 value (batch, width) and its width, or any value and its dtype and shape.

        Returns
        -------
        ir.Model
        """
        results = []
        for name, (value, what) in outputs.items():
            spec = what if isinstance(what, TensorSpec) else TensorSpec("float32", ("batch", what))
            # An Identity gives the output its name even where the value is an input, or an output already.
            result = self.op("Identity", value)
            result.name = name
            result.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(spec.dtype)))
            result.shape = ir.Shape(spec.shape)
            results.append(result)
        inputs = [value for group in self._inputs.values() for value in group.values() if value.uses()]
        graph = ir.Graph(
            inputs,
            results,
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports=self._opsets,
            name="mmensemble",
        )
        for node in self._nodes:
            for output in node.outputs:
                if output.shape is None and not output.is_graph_output():
                    output.type = None  # it said whether numbers are float64, and is no whole value_info
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="mmensemble")
        Sequential(
            # First, for what nothing needs may be strings, which the passes below do not take.
            passes.RemoveUnusedNodesPass(),
            passes.TopologicalSortPass(),
            passes.LiftConstantsToInitializersPass(),
            passes.DeduplicateHashedInitializersPass(size_limit=2**40),
            passes.CommonSubexpressionEliminationPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            passes.RemoveUnusedOpsetsPass(),
            passes.NameFixPass(),
            passes.ClearMetadataAndDocStringPass(),
        )(model)
        # What only unused nodes needed is needed no more.
        for value in [value for value in inputs if not value.uses()]:
            graph.inputs.remove(value)
        return model
