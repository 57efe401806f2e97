"""The solution of linear models with given penalties, for several sets of rows at once. Imports numpy and scipy."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from mmensemble.linear.features import Preconditioned
from mmensemble.linear.losses import Loss

__all__ = ["descend"]

MAX_ITERATIONS = 2000
MEMORY = 10
ROUNDED = 100


def descend(
    features: Preconditioned,
    loss: Loss,
    weight: np.ndarray,
    penalty: np.ndarray,
    start: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, bool]:
    """Minimise the weighted sum of losses and half the penalty times the squared coefficients, by L-BFGS.

    Parameters
    ----------
    features : Preconditioned
    loss : Loss
    weight : ndarray of float, shape (n_sets, n)
        Of the rows, in each of the sets that a model is fitted to.
    penalty : ndarray of float, shape (k,)
    start : ndarray of float, shape (n_sets, k, features.width)
    tolerance : float
        Largest coordinate of the gradient, as a multiple of the root of the rows' weight. In coordinates in which the
        loss is round, half its square is how much lower the loss of the whole could be, by that coordinate.

    Returns
    -------
    coordinates : ndarray of float, shape (n_sets, k, features.width)
    converged : bool
    """
    known = loss.known(weight)
    ratio = (penalty / features.penalty)[:, None]
    each_row = weight[:, None]
    # |u|² less what the raw outputs of all rows, those of weight 0 too, say of it is what the coefficients cost.
    of_outputs = features.curvature * ratio * features.features.weight
    of_coordinates = np.hstack([np.ones(features.rows.shape[1]), features.sparse_penalty]) * ratio

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = flat.reshape(start.shape)
        raw, dense = features.outputs(at)
        losses, by_raw = loss(raw, known)
        by_raw *= each_row
        by_dense = -of_outputs * dense
        shrunk = of_coordinates * at
        value = (losses * each_row).sum() + 0.5 * (np.vdot(dense, by_dense) + np.vdot(at, shrunk))
        return float(value), (features.gradient(by_raw, by_dense) + shrunk).ravel()

    limit = tolerance * np.sqrt(weight.sum(axis=1).max())
    options = {"maxiter": MAX_ITERATIONS, "maxfun": 2 * MAX_ITERATIONS, "maxcor": MEMORY, "ftol": 0.0, "gtol": limit}
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    # Where rounding leaves no step downhill, the line search fails; that close it has converged.
    converged = result.success or np.abs(result.jac).max() < ROUNDED * limit
    return result.x.reshape(start.shape), bool(converged)
