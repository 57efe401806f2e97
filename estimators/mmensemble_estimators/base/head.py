"""The head of a frozen encoder, which is solved: a linear model of the embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar

from mmensemble.exceptions import DataError
from mmensemble.linear import LinearSolution, pareto_scale
from mmensemble_estimators.base.rows import column_of

__all__ = ["calibrate_head", "solve_head"]

# What raw outputs are multiplied by at least and at most.
SCALES = (0.1, 3.0)


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


def calibrate_head(estimator: Any, raw: np.ndarray, target: np.ndarray, weight: np.ndarray) -> None:
    """Multiply a classifier's raw outputs by what gives held-out rows the least log loss (Guo et al. 2017), in place.

    Parameters
    ----------
    estimator : TorchEstimator
    raw : ndarray of float32, shape (n, n_outputs)
        Of rows that were not trained on.
    target : ndarray, shape (n,) or (n, n_outputs)
    weight : ndarray of float, shape (n,)

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML.
    """
    loss, outputs, truth = estimator.target_.loss(0.0), torch.from_numpy(raw).double(), torch.as_tensor(target)

    def mean_loss(log_scale: float) -> float:
        losses = loss(np.exp(log_scale) * outputs, truth).numpy()
        return float(np.average(losses, weights=weight))

    found = minimize_scalar(mean_loss, bounds=np.log(SCALES), method="bounded")
    if found.fun < mean_loss(0.0):
        linear = estimator.module_.head_network().linear
        with torch.no_grad():
            linear.weight.mul_(np.exp(found.x))
            linear.bias.mul_(np.exp(found.x))


def _history(solutions: list[LinearSolution]) -> pd.DataFrame:
    """Return the paths of all parts, one below the other."""
    part, table = 0, []
    for solution in solutions:
        for number, chosen in enumerate(solution.penalty.tolist()):
            path = [(penalty, float(losses[number])) for penalty, losses in solution.path] or [(chosen, np.nan)]
            table += [(part, penalty, loss, penalty == chosen) for penalty, loss in path]
            part += 1
    return pd.DataFrame(table, columns=["part", "penalty", "valid_loss", "chosen"])
