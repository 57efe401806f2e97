"""scikit-learn's encoders of categories, as graphs: the host numbers the categories, the graph looks them up.

What an encoder gives for a category, grouping, dropping and unknown ones included, is asked of the encoder itself.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder
from sklearn.utils.validation import check_is_fitted

from mmensemble.converters.linear import matrix
from mmensemble.converters.scalers import impute
from mmensemble.converters.text import dense
from mmensemble.exceptions import ExportError
from mmensemble.frames import is_missing
from mmensemble.graph import Frame, Graph, Outputs, Source, Tensor, Terms, to_graph
from mmensemble.preprocessing.categories import CODES, CategoryPreprocessor

__all__: list[str] = []

# A category that no data hold.
_UNSEEN = "\0a category that was not seen in fit"


def _add_codes(estimator: Any, source: Source | None, *, refuses: bool) -> tuple[Graph, Any, Any]:
    """Give categories numbers from 0, unknown ones the last; return the graph, the codes, and which rows are there.

    A row with an unknown category is refused where the estimator `refuses` it.
    """
    check_is_fitted(estimator, "categories_")
    source = Frame() if source is None else source
    graph = source.graph
    if isinstance(source, Tensor):
        codes, present = _codes_of_numbers(estimator, source), source.present
    else:
        codes, present = _codes_of_columns(estimator, source, refuses=refuses)
    sizes = graph.constant(np.asarray([[len(values) for values in estimator.categories_]]))
    codes = graph.op("Where", graph.op("Less", codes, graph.constant(np.asarray(0))), sizes, codes)
    if refuses:
        unknown = graph.op("Cast", graph.op("Equal", codes, sizes), to=Graph.INT64)
        any_unknown = graph.op("ReduceMax", unknown, graph.constant(np.asarray([1])), keepdims=1)
        graph.refusals.append(graph.op("Cast", any_unknown, to=ir.DataType.BOOL))
    return graph, codes, present


def _codes_of_columns(estimator: Any, source: Frame, *, refuses: bool) -> tuple[ir.Value, ir.Value]:
    """Give categories in columns of X their numbers on the host, -1 where they are unknown."""
    name = type(estimator).__name__
    columns = source.column_list() or [str(column) for column in getattr(estimator, "feature_names_in_", [])]
    if len(columns) != len(estimator.categories_):
        raise ExportError(f"{name} was fitted on rows without column names; fit it on a frame")
    known = {c: [_plain(v) for v in values] for c, values in zip(columns, estimator.categories_, strict=True)}
    for column, values in known.items():
        if not all(isinstance(v, (str, int, float)) or is_missing(v) for v in values):
            raise ExportError(f"{name} has categories of column {column!r} that are no strings or numbers")
    fill = {column: _plain(value) for column, value in (source.fill or {}).items() if column in known}
    preprocessor = CategoryPreprocessor(known, unknown="error" if refuses else "ignore", fill=fill)
    inputs = source.graph.feed(source.name or "tabular", columns, preprocessor)
    return inputs[CODES], source.graph.present(inputs)


def _codes_of_numbers(estimator: Any, source: Tensor) -> ir.Value:
    """Give categories in a matrix their numbers, (batch, n_columns) int64, -1 where they are unknown."""
    graph, x, axis = source.graph, source.graph.double(source.exact), source.graph.constant(np.asarray([1]))
    codes = []
    for column, values in enumerate(estimator.categories_):
        if not _is_number(np.asarray(values)):
            raise ExportError(f"{type(estimator).__name__} of strings stands behind a step that makes a matrix")
        known = np.asarray(values, dtype=np.float64)
        cells = graph.op("Gather", x, graph.constant(np.asarray([column])), axis=1)
        equal = graph.op("Equal", cells, graph.constant(known[None]))
        if np.isnan(known).any():
            missing = graph.op("And", graph.op("IsNaN", cells), graph.constant(np.isnan(known)[None]))
            equal = graph.op("Or", equal, missing)
        number = graph.op("Cast", equal, to=Graph.INT64)
        found = graph.op("ReduceMax", number, axis, keepdims=1)
        code = graph.op("ArgMax", number, axis=1, keepdims=1)
        is_known = graph.op("Cast", found, to=ir.DataType.BOOL)
        codes.append(graph.op("Where", is_known, code, graph.constant(np.asarray(-1))))
    return graph.op("Concat", *codes, axis=1)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else None if value is pd.NA or value is pd.NaT else value


def _answers(estimator: Any, *, unknown: bool) -> Any:
    """Transform one row for every number of a category, and a last row of unknown ones where there is an answer."""
    categories: Sequence[np.ndarray] = estimator.categories_
    longest = max(len(values) for values in categories)
    columns = []
    for values in categories:
        cells = [values[min(row, len(values) - 1)] for row in range(longest)]
        if unknown:
            cells.append(_unseen(values))
        columns.append(pd.Series(cells, dtype=values.dtype if _is_number(values) else object))
    names = getattr(estimator, "feature_names_in_", range(len(columns)))
    frame = pd.concat(columns, axis=1, keys=list(names))
    quiet = copy.deepcopy(estimator).set_output(transform="default")
    if isinstance(quiet, OneHotEncoder):
        quiet.sparse_output = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quiet.transform(frame if hasattr(estimator, "feature_names_in_") else _as_array(columns))


def _as_array(columns: Sequence[pd.Series]) -> np.ndarray:
    if all(column.dtype != object for column in columns):
        return np.column_stack([column.to_numpy() for column in columns])
    array = np.empty((len(columns[0]), len(columns)), dtype=object)
    for number, column in enumerate(columns):
        array[:, number] = column.to_numpy(dtype=object)
    return array


def _is_number(values: np.ndarray) -> bool:
    return values.dtype.kind in "iufb"


def _unseen(values: np.ndarray) -> Any:
    if values.dtype.kind == "b":
        return not values[0]
    if not _is_number(values):
        return _UNSEEN
    known = [v for v in values.tolist() if not (isinstance(v, float) and math.isnan(v))]
    return max(known, default=0) + 1


def _widths(estimator: OneHotEncoder) -> list[int]:
    """Return how many outputs each column has: one for all rare categories, none for what is dropped."""
    widths = np.asarray([len(values) for values in estimator.categories_])
    for column, rare in enumerate(getattr(estimator, "infrequent_categories_", [])):
        widths[column] -= 0 if rare is None else len(rare) - 1
    if estimator.drop_idx_ is not None:
        widths -= [index is not None for index in estimator.drop_idx_]
    return widths.tolist()


@to_graph.register
def _one_hot(estimator: OneHotEncoder, source: Source | None = None) -> Outputs:
    refuses = estimator.handle_unknown == "error"
    graph, codes, present = _add_codes(estimator, source, refuses=refuses)
    answers = _answers(estimator, unknown=not refuses)
    starts = np.cumsum([0, *_widths(estimator)])
    longest = max(len(values) for values in estimator.categories_)
    # For each column, the output of each of its categories and then of an unknown one; -1 is none of them.
    outputs = np.full((len(estimator.categories_), longest + 1), -1)
    for row in range(answers.shape[0]):
        for output in answers.indices[answers.indptr[row] : answers.indptr[row + 1]]:
            column = int(np.searchsorted(starts, output, side="right")) - 1
            size = len(estimator.categories_[column])
            if row < size:
                outputs[column, row] = output
            if row == longest:
                outputs[column, size] = output
    with graph.scope("OneHotEncoder"):
        table = graph.constant(outputs.astype(np.int64).ravel())
        offsets = graph.constant(np.arange(len(outputs))[None] * (longest + 1))
        chosen = graph.op("Gather", table, graph.op("Add", codes, offsets), axis=0)
        zero, one = graph.constant(np.float32(0)), graph.constant(np.float32(1))
        none = graph.op("Less", chosen, graph.constant(np.asarray(0)))
        values = graph.op("Where", none, zero, one)
        terms = Terms(graph.op("Max", chosen, graph.constant(np.asarray(0))), values)
        block = dense(graph, terms, int(starts[-1]))
        sparse = bool(estimator.sparse_output)
        return Outputs(graph, transformed=block.value, present=present, blocks=(block,), sparse=sparse)


@to_graph.register(OrdinalEncoder)
@to_graph.register(TargetEncoder)
def _table(estimator: Any, source: Source | None = None) -> Outputs:
    refuses = isinstance(estimator, OrdinalEncoder) and estimator.handle_unknown == "error"
    graph, codes, present = _add_codes(estimator, source, refuses=refuses)
    answers = np.asarray(_answers(estimator, unknown=not refuses), dtype=np.float64)
    sizes = [len(values) for values in estimator.categories_]
    per_column = answers.shape[1] // len(sizes)  # of several classes, a TargetEncoder has one number for each
    longest = max(sizes)
    with graph.scope(type(estimator).__name__):
        parts = []
        for column, size in enumerate(sizes):
            mine = answers[:, column * per_column : (column + 1) * per_column]
            last = np.full((1, per_column), np.nan) if refuses else mine[longest:]
            table = graph.constant(np.concatenate([mine[:size], last]), "table")
            code = graph.op("Gather", codes, graph.constant(np.asarray(column)), axis=1)
            parts.append(graph.op("Gather", table, code, axis=0))
        return Outputs(graph, transformed=graph.op("Concat", *parts, axis=1), present=present)


@to_graph.register
def _simple_imputer(estimator: SimpleImputer, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    if np.asarray(estimator.statistics_).dtype.kind in "fiub":
        return impute(estimator, matrix(estimator, source))
    if not isinstance(source, Frame):
        raise ExportError("SimpleImputer of strings takes columns of X, and stands behind a step that makes a matrix")
    columns = source.column_list() or [str(column) for column in getattr(estimator, "feature_names_in_", [])]
    if estimator.add_indicator:
        raise ExportError("SimpleImputer(add_indicator=True) of strings has no ONNX form here")
    if not is_missing(estimator.missing_values):
        raise ExportError(
            f"SimpleImputer(missing_values={estimator.missing_values!r}) of strings has no ONNX form here; "
            "missing values must be None or NaN"
        )
    if len(columns) != len(estimator.statistics_):
        raise ExportError("SimpleImputer was fitted on rows without column names; fit it on a frame")
    filled = dict(zip(columns, map(_plain, estimator.statistics_), strict=True))
    if any(is_missing(value) for value in filled.values()) and not estimator.keep_empty_features:
        raise ExportError("SimpleImputer leaves out a column of strings that was empty in fit; leave it out yourself")
    frame = replace(source, columns=columns, fill={**(source.fill or {}), **filled})
    return Outputs(source.graph, frame=frame)
