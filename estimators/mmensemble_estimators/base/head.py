"""The head of a frozen encoder, which is solved: a linear model of the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from mmensemble.exceptions import DataError
from mmensemble.linear import LinearSolution, pareto_scale
from mmensemble_estimators.base.rows import column_of

__all__ = ["solve_head"]


def solve_head(
    estimator: Any,
    embedding: np.ndarray,
    rows: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    groups: np.ndarray | None,
) -> pd.DataFrame:
    """Solve for the head of an estimator, in place.

    Parameters
    ----------
    estimator : TorchEstimator
    embedding : ndarray of float32, shape (n, embedding_size)
    rows : ndarray of int
        The rows to fit.
    target : ndarray, shape (n,) or (n, n_outputs)
        As the estimator's target encodes it.
    weight : ndarray of float, shape (n,)
    groups : ndarray, shape (n,), or None

    Returns
    -------
    DataFrame
        A row per penalty that was tried; see the estimators' `history_`.
    """
    head = estimator.module_.head_network()
    with torch.inference_mode():
        X = head.scaled(torch.from_numpy(embedding[rows]).double()).numpy()
    settings = {
        "sample_weight": weight[rows],
        "groups": None if groups is None else groups[rows],
        "name": f"the head of {type(estimator).__name__}",
    }
    try:
        scale = pareto_scale(X, weight[rows])
        solutions = estimator.target_.solve(X, target[rows], penalty_scale=scale, **settings)
    except DataError as error:
        if error.row is None:
            raise
        message = "the backbone's embedding of the row is NaN or infinite"
        raise DataError(message, row=int(rows[error.row]), column=column_of(estimator)) from error
    with torch.no_grad():
        head.linear.weight.copy_(torch.from_numpy(np.concatenate([solution.coef for solution in solutions])))
        head.linear.bias.copy_(torch.from_numpy(np.concatenate([solution.intercept for solution in solutions])))
    return _history(solutions)


def _history(solutions: list[LinearSolution]) -> pd.DataFrame:
    """Return the paths of all parts, one below the other."""
    part, table = 0, []
    for solution in solutions:
        for number, chosen in enumerate(solution.penalty.tolist()):
            path = [(penalty, float(losses[number])) for penalty, losses in solution.path] or [(chosen, np.nan)]
            table += [(part, penalty, loss, penalty == chosen) for penalty, loss in path]
            part += 1
    return pd.DataFrame(table, columns=["part", "penalty", "valid_loss", "chosen"])
