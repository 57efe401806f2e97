"""Features as a solver of linear models reads them: centred, scaled, preconditioned. Imports numpy and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import qr, solve_triangular
from scipy.sparse import csr_array, hstack, issparse

from mmensemble.exceptions import DataError

__all__ = ["Features", "Preconditioned", "as_blocks", "pareto_scale"]

# A dense feature that deviates by less than this share of its size is a constant that was rounded.
ROUNDED = 1e-6


def as_blocks(X: Any) -> list[Any]:
    """Return features as a list of blocks, each an ndarray or a sparse array of n rows."""
    blocks = list(X) if isinstance(X, (list, tuple)) else [X]
    blocks = [csr_array(b) if issparse(b) else np.asarray(b) for b in blocks]
    if len({b.shape[0] for b in blocks}) != 1:
        raise DataError(f"blocks of features must have the same number of rows, not {[b.shape[0] for b in blocks]}")
    for block in blocks:
        if not np.isfinite(block.data if issparse(block) else block).all():
            rows = block.sum(axis=1) if issparse(block) else block.sum(axis=1, dtype=np.float64)
            raise DataError("a feature is NaN or infinite", row=int(np.isfinite(rows).argmin()))
    return blocks


def pareto_scale(X: Any, sample_weight: np.ndarray | None = None) -> np.ndarray:
    """Return multiples of the penalty that divide each feature by the root of its standard deviation.

    It is halfway between features as they are, of which the large ones win, and standardised ones, of which the small
    ones win that may be noise (van den Berg et al. 2006, Pareto scaling).

    Parameters
    ----------
    X : ndarray or sparse array of shape (n, n_features), or list of such blocks
    sample_weight : ndarray of float, shape (n,), default=None

    Returns
    -------
    ndarray of float, shape (n_features,)
        For `penalty_scale`; infinity of a feature that is the same in all rows.

    References
    ----------
    van den Berg, Hoefsloot, Westerhuis, Smilde, van der Werf (2006). Centering, scaling, and transformations: improving
    the biological information content of metabolomics data. BMC Genomics.
    """
    deviations = []
    for block in as_blocks(X):
        weight = np.ones(block.shape[0]) if sample_weight is None else sample_weight
        mean = weight @ block / weight.sum()
        if issparse(block):
            variance = np.maximum(weight @ block.multiply(block) / weight.sum() - mean**2, 0.0)
        else:
            variance = np.average((block - mean) ** 2, axis=0, weights=weight)
        deviations.append(np.where(np.sqrt(variance) > ROUNDED * np.abs(mean), np.sqrt(variance), np.inf))
    return np.concatenate(deviations)


class Features:
    """Rows of features, with a multiple of the penalty for each feature.

    A feature's multiple is a scale: it counts as divided by the root of it. Dense features are centred, which changes
    nothing but how fast a solver is, for an intercept is not penalised. If they are many more than the rows, they are
    rotated into a space with as many dimensions as there are rows (Hastie and Tibshirani 2004).

    Parameters
    ----------
    blocks : sequence of ndarray or sparse array, each (n, n_features of the block)
    weight : ndarray of float, shape (n,)
        Of mean 1.
    penalty_scale : ndarray of float, shape (n_features,), default=None
        Above 0; infinity leaves a feature out. None is 1 for all.

    Attributes
    ----------
    dense : ndarray of float64, shape (n, n_dense)
    sparse : csr_array of float64, shape (n, n_sparse), or None
    spread : float
        Sum of the features' variances, the natural unit of the penalty: with it the outputs' prior variance is 1.
    """

    def __init__(self, blocks: Sequence[Any], weight: np.ndarray, penalty_scale: np.ndarray | None = None) -> None:
        ends = np.cumsum([block.shape[1] for block in blocks])
        columns = np.split(np.arange(ends[-1]), ends[:-1])
        order = sorted(range(len(blocks)), key=lambda number: issparse(blocks[number]))
        self._order = np.concatenate([columns[number] for number in order])
        scale = np.ones(ends[-1]) if penalty_scale is None else 1 / np.sqrt(np.asarray(penalty_scale, dtype=np.float64))
        self._scale = scale[self._order]
        n = blocks[0].shape[0]
        dense = [block for block in blocks if not issparse(block)]
        table = np.hstack([np.asarray(block, dtype=np.float64) for block in dense]) if dense else np.zeros((n, 0))
        self.n_dense = table.shape[1]
        self._mean = np.average(table, axis=0, weights=weight)
        self.dense = (table - self._mean) * self._scale[: self.n_dense]
        self.weight = weight
        self.spread = float(weight @ np.einsum("ij,ij->i", self.dense, self.dense)) / n
        self.sparse: csr_array | None = None
        self.squares = np.zeros(0)
        sparse = [block for block in blocks if issparse(block)]
        if sparse:
            self.sparse = csr_array(hstack(sparse, format="csr"), dtype=np.float64)
            self.sparse.data *= self._scale[self.n_dense :][self.sparse.indices]
            self.squares = weight @ self.sparse.multiply(self.sparse)
            self.spread += float((self.squares / n - (weight @ self.sparse / n) ** 2).sum())
        self._rotation: np.ndarray | None = None
        if 2 * n <= self.n_dense:
            self._rotation, triangle = qr(self.dense.T, mode="economic", check_finite=False)
            self.dense = np.ascontiguousarray(triangle.T)
        self._gram: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def penalty(self, strength: float) -> float:
        """Return the penalty with which an output's prior variance is `strength`."""
        return (self.spread if self.spread > 0 else 1.0) / strength

    def gram(self) -> np.ndarray:
        """Return the weighted products of the dense features, (n_dense, n_dense)."""
        if self._gram is None:
            rows = self.dense * np.sqrt(self.weight)[:, None]
            self._gram = rows.T @ rows
        return self._gram

    def outer(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, n_inner) and intercepts (k,) as those of the features that were given."""
        dense, sparse = np.split(coef, [self.dense.shape[1]], axis=1)
        if self._rotation is not None:
            dense = dense @ self._rotation.T
        ordered = np.hstack([dense, sparse]) * self._scale
        outer = np.empty_like(ordered)
        outer[:, self._order] = ordered
        return outer, intercept - ordered[:, : self.n_dense] @ self._mean

    def inner(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what `outer` makes these coefficients (k, n_features) and intercepts (k,) of."""
        ordered = coef[:, self._order]
        intercept = intercept + ordered[:, : self.n_dense] @ self._mean
        used = self._scale > 0
        scaled = np.divide(ordered, self._scale, out=np.zeros_like(ordered), where=used)
        dense, sparse = np.split(scaled, [self.n_dense], axis=1)
        if self._rotation is not None:
            dense = dense @ self._rotation
        return np.hstack([dense, sparse]), intercept


class Preconditioned:
    """Features in coordinates in which losses of about the given curvature are round.

    With the Cholesky factor L of curvature · XᵀX + penalty · 1 of the dense features, coefficients w become u = Lᵀw. No
    solver needs L again: penalty · |w|² is |u|² - curvature · |Xw|². Sparse features are scaled each for itself.

    Parameters
    ----------
    features : Features
    penalty : float
    curvature : float
        Second derivative of a row's loss, on average.
    dtype : type, default=np.float64
        Of the rows, and so of what is solved with them.

    Attributes
    ----------
    rows : ndarray of dtype, shape (n, n_dense + 1)
        The dense features, and a constant one for the intercept.
    sparse : csr_array of dtype, shape (n, n_sparse), or None
    sparse_penalty : ndarray of float, shape (n_sparse,)
        What a squared coefficient of a sparse feature costs.
    width : int
        Coordinates of an output.
    """

    def __init__(self, features: Features, penalty: float, curvature: float, dtype: type = np.float64) -> None:
        self.features, self.penalty, self.curvature = features, penalty, curvature
        hessian = curvature * features.gram()
        hessian.flat[:: len(hessian) + 1] += penalty
        self._factor = np.linalg.cholesky(hessian)
        self._constant = 1 / np.sqrt(curvature * features.weight.sum())
        n, n_dense = features.dense.shape
        self.rows = np.full((n, n_dense + 1), self._constant, dtype=dtype)
        self.rows[:, :-1] = solve_triangular(self._factor, features.dense.T, lower=True, check_finite=False).T
        self._sparse_scale = 1 / np.sqrt(curvature * features.squares + penalty)
        self.sparse_penalty = penalty * self._sparse_scale**2
        self.sparse: csr_array | None = None
        if features.sparse is not None:
            self.sparse = features.sparse.astype(dtype)
            self.sparse.data *= self._sparse_scale[self.sparse.indices].astype(dtype)
        self.width = self.rows.shape[1] + len(self.sparse_penalty)

    def coordinates(self, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
        """Return where coefficients (k, n_features) and intercepts (k,) of the given features lie, (k, width)."""
        inner, constant = self.features.inner(coef, intercept)
        dense, sparse = np.split(inner, [len(self._factor)], axis=1)
        return np.column_stack([dense @ self._factor, constant / self._constant, sparse / self._sparse_scale])

    def coefficients(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, n_features) and intercepts (k,) of the given features from coordinates (k, width)."""
        n_dense = len(self._factor)
        dense, sparse = coordinates[:, :n_dense], coordinates[:, n_dense + 1 :]
        dense = solve_triangular(self._factor, dense.T, lower=True, trans="T", check_finite=False).T
        inner = np.hstack([dense, sparse * self._sparse_scale])
        return self.features.outer(inner, coordinates[:, n_dense] * self._constant)

    def outputs(self, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the raw outputs (..., n) of coordinates (..., width), and what of them the dense features make."""
        flat = coordinates.reshape(-1, self.width)
        n_dense = self.rows.shape[1]
        raw = dense = flat[:, :n_dense] @ self.rows.T
        if self.sparse is not None:
            raw = dense + (self.sparse @ flat[:, n_dense:].T).T
        shape = (*coordinates.shape[:-1], -1)
        return raw.reshape(shape), dense.reshape(shape)

    def gradient(self, by_raw: np.ndarray, by_dense: np.ndarray) -> np.ndarray:
        """Return the gradient (..., width) from the derivatives by what `outputs` returns, (..., n) each."""
        n_dense = self.rows.shape[1]
        flat = (by_raw + by_dense).reshape(-1, len(self.rows))
        gradient = np.empty((len(flat), self.width), dtype=flat.dtype)
        np.matmul(flat, self.rows, out=gradient[:, :n_dense])
        if self.sparse is not None:
            gradient[:, n_dense:] = (self.sparse.T @ by_raw.reshape(flat.shape).T).T
        return gradient.reshape(*by_raw.shape[:-1], -1)
