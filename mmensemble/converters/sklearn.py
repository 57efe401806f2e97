"""scikit-learn's own ways to put steps and columns together, as graphs: pipelines, column transformers, unions.

skl2onnx gives every part the same one input; here each part brings its own columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import BaseSearchCV, column_indices
from mmensemble.converters.fallback.skl2onnx import as_tensor, takes_nan
from mmensemble.converters.functions import add_function
from mmensemble.converters.text import dense
from mmensemble.exceptions import ExportError
from mmensemble.graph import Block, Frame, Graph, Outputs, Source, Tensor, Terms, any_present, to_graph
from mmensemble.learning.columns import ColumnSelector
from mmensemble.learning.pipelines import prediction_steps
from mmensemble.preprocessing import CategoryPreprocessor

__all__: list[str] = []


@to_graph.register
def _pipeline(estimator: Pipeline, source: Source | None = None) -> Outputs:
    source = Frame() if source is None else source
    check_is_fitted(estimator)
    outputs = None
    steps = prediction_steps(estimator)
    for position, (name, step) in enumerate(steps):
        with source.graph.scope(name):
            if isinstance(step, ColumnSelector):
                source = _selected(step, source)
                continue
            outputs = _with_what_it_refuses(step, to_graph(step, source))
            if position < len(steps) - 1:
                source = _next_source(step, outputs)
    if outputs is None:
        outputs = as_tensor(estimator, source).outputs()
    return outputs


def _selected(step: ColumnSelector, source: Source) -> Frame:
    if not isinstance(source, Frame):
        raise ExportError("ColumnSelector selects columns behind a step that makes a matrix")
    label = source.name or "_".join([step.columns] if isinstance(step.columns, str) else step.columns)
    return Frame(source.graph, label, step.columns, step.kinds_)


def _next_source(step: Any, outputs: Outputs) -> Source:
    if outputs.frame is not None:
        return outputs.frame
    if outputs.transformed is None:
        raise ExportError(f"{type(step).__name__} has no ONNX form of its transform")
    return Tensor(
        outputs.graph, outputs.transformed, outputs.present, outputs.blocks, outputs.sparse, refused=outputs.refused
    )


def _with_what_it_refuses(step: Any, outputs: Outputs) -> Outputs:
    """Note that NaN in what a step gives is a row that it refuses, for a later step may take it."""
    joins = isinstance(step, (Pipeline, ColumnTransformer, FeatureUnion))  # of which each part notes its own
    if joins or outputs.transformed is None or takes_nan(step) or any(block.terms for block in outputs.blocks):
        return outputs
    return replace(outputs, refused=(outputs.transformed,))


@to_graph.register
def _search(estimator: BaseSearchCV, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator, "best_estimator_")
    return to_graph(estimator.best_estimator_, source)


@to_graph.register
def _frozen(estimator: FrozenEstimator, source: Source | None = None) -> Outputs:
    return to_graph(estimator.estimator, source)


@to_graph.register
def _function(estimator: FunctionTransformer, source: Source | None = None) -> Outputs:
    source = Frame() if source is None else source
    if estimator.func is None and isinstance(source, Frame):
        return Outputs(source.graph, frame=source)
    if estimator.kw_args:
        raise ExportError("FunctionTransformer(kw_args=...) has no ONNX form here")
    X = as_tensor(estimator, source)
    with X.graph.scope("FunctionTransformer"):
        value = X.exact if estimator.func is None else add_function(X.graph, X.exact, estimator.func, "func")
        return replace(X.outputs(), transformed=value, blocks=())


@to_graph.register
def _column_transformer(estimator: ColumnTransformer, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    names = _input_names(estimator, source)
    parts: list[_Part] = []
    read: set[str] = set()
    for name, transformer, columns in estimator.transformers_:
        indices = column_indices(estimator, name)
        if len(indices) == 0 or (isinstance(transformer, str) and transformer == "drop"):
            continue
        with graph.scope(name):
            if isinstance(source, Tensor):
                inner: Source = source.some(indices)
            else:
                labels = [names[index] for index in indices]
                read.update(labels)
                one = isinstance(columns, (str, int, np.integer))
                inner = _part_of(source, name, labels[0] if one else labels)
            output = estimator.output_indices_[name]
            weight = (estimator.transformer_weights or {}).get(name)
            parts.append(_transform(transformer, inner, weight, output.stop - output.start))
    if isinstance(source, Frame) and source.columns is not None and not read.issuperset(names):
        # A row counts as present where any of the columns is there, those that nothing reads included.
        columns_feed = CategoryPreprocessor({name: [] for name in names})
        everything = graph.present(graph.feed(f"{source.name or 'tabular'}.columns", names, columns_feed))
        joined = _side_by_side(graph, parts, everything)
    else:
        joined = _side_by_side(graph, parts, source.present if isinstance(source, Tensor) else None)
    return replace(joined, sparse=estimator.sparse_output_)


def _input_names(estimator: ColumnTransformer, source: Source) -> list[str]:
    if isinstance(source, Tensor):
        return []
    names = source.column_list() or [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    if not names:
        raise ExportError("ColumnTransformer was fitted on rows without column names; fit it on a frame")
    return names


def _part_of(source: Frame, name: str, columns: str | list[str]) -> Frame:
    """Return some of a frame's columns."""
    wanted = [columns] if isinstance(columns, str) else columns
    kinds = None if source.kinds is None else {column: source.kinds[column] for column in wanted}
    fill = None if source.fill is None else {c: v for c, v in source.fill.items() if c in wanted}
    return Frame(source.graph, f"{source.name}.{name}" if source.name else name, columns, kinds, fill)


@to_graph.register
def _feature_union(estimator: FeatureUnion, source: Source | None = None) -> Outputs:
    source = Frame() if source is None else source
    weights = estimator.transformer_weights or {}
    parts = []
    for name, transformer in estimator.transformer_list:
        if isinstance(transformer, str) and transformer == "drop":
            continue
        inner = source.member(name, source.columns, source.kinds) if isinstance(source, Frame) else source
        with source.graph.scope(name):
            parts.append(_transform(transformer, inner, weights.get(name), None))
    return _side_by_side(source.graph, parts, None)


_Part = tuple[Outputs, int | None]


def _transform(transformer: Any, source: Source, weight: float | None, width: int | None) -> _Part:
    """Add a transformer of a union; return what it makes, and how wide it is where that is known."""
    if isinstance(transformer, str):  # "passthrough"
        outputs = as_tensor(transformer, source).outputs()
    else:
        outputs = _with_what_it_refuses(transformer, to_graph(transformer, source))
        if outputs.frame is not None:
            outputs = as_tensor(transformer, outputs.frame).outputs()
        if outputs.transformed is None:
            raise ExportError(f"{type(transformer).__name__} has no ONNX form of its transform")
    if weight is not None:
        outputs = _scaled(outputs, weight)
    return outputs, width


def _scaled(outputs: Outputs, weight: float) -> Outputs:
    graph = outputs.graph
    assert outputs.transformed is not None  # noqa: S101 - narrows the type
    blocks = []
    for block in outputs.blocks:
        if block.terms is None:
            blocks.append(Block(block.width, graph.op("Mul", block.value, graph.number(weight, block.value))))
        else:
            terms = Terms(
                block.terms.columns, graph.op("Mul", block.terms.values, graph.number(weight, block.terms.values))
            )
            blocks.append(dense(graph, terms, block.width))
    value = graph.op("Mul", outputs.transformed, graph.number(weight, outputs.transformed))
    return replace(outputs, transformed=value, blocks=tuple(blocks))


def _side_by_side(graph: Graph, parts: Sequence[_Part], present: ir.Value | None) -> Outputs:
    """Join what several transformers make; where their widths are known, lists of terms stay lists."""
    if not parts:
        raise ExportError("it has no columns and makes nothing")
    values = [outputs.transformed for outputs, _ in parts if outputs.transformed is not None]
    value = values[0] if len(values) == 1 else graph.op("Concat", *graph.alike(*values), axis=1)
    there = [outputs.present for outputs, _ in parts if outputs.present is not None]
    if present is None and there:
        present = any_present(graph, there)
    sparse = any(outputs.sparse for outputs, _ in parts)
    refused = tuple(value for outputs, _ in parts for value in outputs.refused)
    blocks: list[Block] = []
    for outputs, width in parts:
        if outputs.blocks:
            blocks += outputs.blocks
        elif width is not None and outputs.transformed is not None:
            blocks.append(Block(width, outputs.transformed))
        else:
            return Outputs(graph, transformed=value, present=present, sparse=sparse, refused=refused)
    return Outputs(graph, transformed=value, present=present, blocks=tuple(blocks), sparse=sparse, refused=refused)
