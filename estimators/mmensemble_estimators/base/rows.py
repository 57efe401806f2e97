"""The way of rows: from cells to arrays, and through a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mmensemble.cache import encode_rows
from mmensemble.exceptions import DataError
from mmensemble.frames import Cells, column_names, leaf_cells, naming_rows
from mmensemble.preprocessing import PRESENT, Encoded, Preprocessor
from mmensemble.progress import Step
from mmensemble_estimators.training.loop import resolve_device, run_in_batches

__all__ = ["arrays_of", "cells_to_fit", "column_of", "encode", "encode_to_fit", "run"]


def cells_to_fit(estimator: Any, X: Any) -> Cells:
    """Return the cells of the fitting rows, and set the estimator's names of features.

    Raises
    ------
    DataError
        If there are none.
    """
    cells = leaf_cells(X)
    if len(cells) == 0:
        raise DataError("0 rows were given to fit; at least 2 are needed")
    names = column_names(X)
    name = getattr(X, "name", None)
    if names is None and isinstance(name, str):
        names = [name]
    if names is not None:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    elif hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    estimator.n_features_in_ = 1
    return cells


def encode_to_fit(estimator: Any, cells: Cells) -> Encoded:
    """Encode the fitting rows by the estimator's preprocessor.

    Raises
    ------
    DataError
        For a cell that cannot be read, or if every row is missing.
    """
    column = column_of(estimator)
    with Step("reading", label=f"{len(cells):,} rows", told=False):
        encoded = encode_rows(estimator.preprocessor_, cells)
    encoded.raise_for_errors(column)
    if not encoded.present.any():
        raise DataError("every row is missing; there is nothing to fit", column=column)
    return encoded


def encode(estimator: Any, X: Any) -> Encoded:
    """Encode rows by a fitted estimator.

    Raises
    ------
    DataError
        For a cell that cannot be read, or a column of another name than the fitted one.
    """
    check_is_fitted(estimator, "module_")
    names, column = column_names(X), column_of(estimator)
    if names is not None and column is not None and names != [column]:
        raise DataError(f"column {column!r} was fitted, and {names} was given", column=column)
    encoded = encode_rows(estimator.preprocessor_, leaf_cells(X))
    with naming_rows(X):
        encoded.raise_for_errors(column)
    return encoded


def column_of(estimator: Any) -> str | None:
    """Return the column's name, where the estimator was fitted on something that has one."""
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else str(names[0])


def arrays_of(preprocessor: Preprocessor, encoded: Encoded, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the arrays that a network takes of some encoded rows."""
    arrays = preprocessor.collate(encoded, rows)
    del arrays[PRESENT]
    return arrays


def run(
    estimator: Any,
    function: Callable[..., Any],
    encoded: Encoded,
    rows: np.ndarray | None = None,
    *,
    loop: Callable[..., Any] = run_in_batches,
) -> Any:
    """Apply an estimator's network, or a part of it, on its device.

    Parameters
    ----------
    estimator : estimator
    function : callable
        Tensors by name → what `loop` takes.
    encoded : Encoded
    rows : ndarray of int, default=None
        The rows to run; None is all.
    loop : callable, default=run_in_batches
    """
    device = resolve_device(estimator.device)
    estimator.module_.to(device).eval()
    positions = np.arange(len(encoded)) if rows is None else rows
    return loop(
        function,
        lambda chosen: arrays_of(estimator.preprocessor_, encoded, positions[chosen]),
        np.argsort(encoded.lengths[positions], kind="stable"),
        batch_size=estimator.batch_size,
        device=device,
    )
