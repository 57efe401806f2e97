"""Linear models that are solved, not trained, with the penalty that cross-validation prefers. Imports scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mmensemble.linear.choice import Choice, choose, default_choice, fold_numbers, strength
from mmensemble.linear.descent import descend
from mmensemble.linear.features import Features, Preconditioned, as_blocks
from mmensemble.linear.losses import LabelLoss, Loss, NumberLoss, SoftmaxLoss
from mmensemble.linear.ridge import MOST_FEATURES, Ridge

__all__ = ["LinearSolution", "solve_classes", "solve_labels", "solve_numbers"]

# Of the gradient; see `descend`. The rows' mean loss is then within 1e-10 of the least one.
TOLERANCE = 1e-5
# Of more rows, the penalty is chosen by so many, at least half as many.
MOST_ROWS = 20_000
# Of the targets, by which rows are spread over folds.
N_QUANTILES = 10


@dataclass(frozen=True)
class LinearSolution:
    """A linear model: raw outputs are ``X @ coef.T + intercept``.

    Parameters
    ----------
    coef : ndarray of float64, shape (n_outputs, n_features)
    intercept : ndarray of float64, shape (n_outputs,)
    penalty : ndarray of float, shape (n_parts,)
        What half the squared coefficients were multiplied by: of all classes one number, of labels and numbers one for
        each. Of classes and labels it is one by scikit-learn's ``C``, of numbers its ``alpha``.
    path : list of tuple of (float, ndarray of shape (n_parts,))
        Penalties that were tried, from the strongest on, and the mean loss of the rows that were held out: log loss, or
        the squared error as a share of the targets' variance. Empty where the penalty was given, or no row could be
        held out.
    """

    coef: np.ndarray
    intercept: np.ndarray
    penalty: np.ndarray
    path: list[tuple[float, np.ndarray]]

    def outputs(self, X: Any) -> np.ndarray:
        """Return the raw outputs of rows, (n, n_outputs).

        Parameters
        ----------
        X : ndarray or sparse array of shape (n, n_features), or list of such blocks
        """
        blocks = as_blocks(X)
        parts = np.split(self.coef, np.cumsum([block.shape[1] for block in blocks])[:-1], axis=1)
        raw = sum(block @ part.T for block, part in zip(blocks, parts, strict=True)) + self.intercept
        return np.asarray(raw)


def solve_classes(
    X: Any,
    y: np.ndarray,
    n_classes: int,
    sample_weight: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    penalty: float | None = None,
    penalty_scale: np.ndarray | None = None,
    start: LinearSolution | None = None,
    name: str = "a linear model",
) -> LinearSolution:
    """Solve a multinomial logistic regression, or of two classes a binomial one.

    Minimised is the weighted sum of the rows' log losses plus half the penalty times the squared coefficients; the
    intercepts cost nothing. Nothing is drawn at random. The penalty is that with the least log loss on rows held out by
    5 folds, in half decades, walking from solution to solution as long as the loss falls; of equal ones the strongest.
    Of more than 20,000 rows, some 10,000 to 20,000 choose it.

    Parameters
    ----------
    X : ndarray or sparse array of shape (n, n_features), or list of such blocks
        Dense ones of at most some thousands of features together. How large features are matters: the same penalty is
        on all.
    y : ndarray of int, shape (n,)
        Numbers of classes, from 0 on. A class without rows gets no more than the share of half a row.
    n_classes : int
    sample_weight : ndarray of float, shape (n,), default=None
        A weight of 2 counts as the row given twice. Rows of weight 0 are left out.
    groups : ndarray, shape (n,), default=None
        Rows of a group are held out together.
    folds : ndarray of int, shape (n,), default=None
        Which fold holds each row out, from 0 on, in place of `groups` and the number of 5.
    penalty : float, default=None
        None chooses one. Without rows to hold out it is the features' variance divided by 3.
    penalty_scale : ndarray of float, shape (n_features,), default=None
        What the penalty of each feature is multiplied by, above 0; infinity leaves a feature out.
    start : LinearSolution, default=None
        Of a like problem, which may save time.
    name : str, default="a linear model"
        Who is to be named if the solution does not converge.

    Returns
    -------
    LinearSolution
        With two classes, the outputs are one margin's halves with both signs: softmax gives the probabilities.

    Raises
    ------
    DataError
        For a row with features that are NaN or infinite.

    Warns
    -----
    ConvergenceWarning

    References
    ----------
    Dembo, Steihaug (1983). Truncated-Newton algorithms for large-scale unconstrained optimization. Mathematical
    Programming.

    Examples
    --------
    >>> import numpy as np
    >>> from mmensemble.linear import solve_classes
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> solution = solve_classes(X, np.array([0, 0, 1, 1]), 2, penalty=1.0)
    >>> solution.outputs(X).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    y = np.asarray(y)
    problem = _Problem.of_rows(X, SoftmaxLoss(y, n_classes), y, sample_weight, groups, folds)
    if n_classes != 2:
        return _solution(problem, penalty, penalty_scale, start, name)
    problem = replace(problem, loss=LabelLoss(problem.strata[None].astype(np.float64), 1))
    if start is not None:
        start = replace(start, coef=np.diff(start.coef, axis=0), intercept=np.diff(start.intercept))
    one = _solution(problem, penalty, penalty_scale, start, name)
    halves = np.array([[-0.5], [0.5]])
    return replace(one, coef=halves * one.coef, intercept=halves[:, 0] * one.intercept)


def solve_labels(
    X: Any,
    Y: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    penalty: float | np.ndarray | None = None,
    penalty_scale: np.ndarray | None = None,
    start: LinearSolution | None = None,
    name: str = "a linear model",
) -> LinearSolution:
    """Solve a binomial logistic regression for each label of a 0/1 matrix, each with its own penalty.

    Parameters
    ----------
    X, sample_weight, groups, folds, penalty_scale, start, name
        As of `solve_classes`.
    Y : ndarray of 0 and 1, shape (n, n_labels)
        A label that all rows have, or none, gets that probability, but for half a row.
    penalty : float or ndarray of shape (n_labels,), default=None
        None chooses them.

    Returns
    -------
    LinearSolution
        The outputs are log-odds.
    """
    Y = np.asarray(Y, dtype=np.float64)
    strata = np.unique(Y, axis=0, return_inverse=True)[1].reshape(-1)
    problem = _Problem.of_rows(X, LabelLoss(Y.T, Y.shape[1]), strata, sample_weight, groups, folds)
    return _solution(problem, penalty, penalty_scale, start, name)


def solve_numbers(
    X: Any,
    Y: np.ndarray,
    sample_weight: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    folds: np.ndarray | None = None,
    penalty: float | np.ndarray | None = None,
    penalty_scale: np.ndarray | None = None,
    start: LinearSolution | None = None,
    name: str = "a linear model",
) -> LinearSolution:
    """Solve a ridge regression for each column of numbers, each with its own penalty.

    The penalty is that with the least squared error of exact leave-one-out cross-validation (Golub, Heath and Wahba
    1979). With `groups`, `folds`, sparse features or more than 4,096 of them and of rows, it is that of 5 folds.

    Parameters
    ----------
    X, sample_weight, groups, folds, penalty_scale, start, name
        As of `solve_classes`.
    Y : ndarray of float, shape (n, n_targets)
    penalty : float or ndarray of shape (n_targets,), default=None
        None chooses them.

    Returns
    -------
    LinearSolution
        The outputs are the numbers.

    References
    ----------
    Golub, Heath, Wahba (1979). Generalized cross-validation as a method for choosing a good ridge parameter.
    Technometrics.
    """
    Y = np.asarray(Y, dtype=np.float64)
    weight = np.ones(len(Y)) if sample_weight is None else sample_weight
    mean = np.average(Y, axis=0, weights=weight)
    scale = np.sqrt(np.average((Y - mean) ** 2, axis=0, weights=weight))
    scale = np.where(scale > 0, scale, 1.0)
    standard = (Y - mean) / scale
    # Rows of alike numbers are spread over the folds.
    strata = standard.mean(axis=1).argsort(kind="stable").argsort() * N_QUANTILES // len(Y)
    problem = _Problem.of_rows(X, NumberLoss(standard.T, Y.shape[1]), strata, sample_weight, groups, folds)
    if start is not None:
        start = replace(start, coef=start.coef / scale[:, None], intercept=(start.intercept - mean) / scale)
    found = _solution(problem, penalty, penalty_scale, start, name)
    path = [(tried, 2 * losses) for tried, losses in found.path]
    return LinearSolution(found.coef * scale[:, None], found.intercept * scale + mean, found.penalty, path)


@dataclass(frozen=True)
class _Problem:
    """Rows of weight above 0, and what is to be learned of them."""

    blocks: list[Any]
    loss: Loss
    strata: np.ndarray
    weight: np.ndarray
    groups: np.ndarray | None
    folds: np.ndarray | None

    @classmethod
    def of_rows(
        cls,
        X: Any,
        loss: Loss,
        strata: np.ndarray,
        sample_weight: np.ndarray | None,
        groups: np.ndarray | None,
        folds: np.ndarray | None,
    ) -> _Problem:
        blocks = as_blocks(X)
        weight = np.ones(len(strata)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        groups, folds = (None if part is None else np.asarray(part) for part in (groups, folds))
        problem = cls(blocks, loss, strata, weight, groups, folds)
        return problem if (weight > 0).all() else problem.some(np.flatnonzero(weight > 0))

    def some(self, rows: np.ndarray) -> _Problem:
        groups, folds = (None if part is None else part[rows] for part in (self.groups, self.folds))
        blocks = [block[rows] for block in self.blocks]
        return _Problem(blocks, self.loss.of(rows), self.strata[rows], self.weight[rows], groups, folds)

    def features(self, penalty_scale: np.ndarray | None) -> Features:
        return Features(self.blocks, self.weight / self.weight.mean(), penalty_scale)

    def fewer(self) -> _Problem:
        """Return the problem with at most `MOST_ROWS` rows, evenly drawn from strata, or from whole groups."""
        n_times = -(-len(self.strata) // MOST_ROWS)
        if n_times == 1:
            return self
        if self.groups is None:
            return self.some(np.sort(np.argsort(self.strata, kind="stable")[::n_times]))
        numbers = np.unique(self.groups, return_inverse=True)[1]
        return self.some(np.flatnonzero(numbers % n_times == 0))


def _solution(
    problem: _Problem,
    penalty: float | np.ndarray | None,
    penalty_scale: np.ndarray | None,
    start: LinearSolution | None,
    name: str,
) -> LinearSolution:
    loss = problem.loss
    # Weights that are all twice as large are twice as many rows, and want the penalty twice as large.
    unit = float(problem.weight.mean())
    features = problem.features(penalty_scale)
    weight = features.weight
    exact = isinstance(loss, NumberLoss) and features.sparse is None and features.dense.shape[1] <= MOST_FEATURES
    ridge = Ridge(features, loss.target) if exact else None
    path: dict[int, np.ndarray] = {}
    place = _start(problem, weight, start)
    if penalty is not None:
        chosen = np.broadcast_to(np.asarray(penalty, dtype=np.float64) / unit, loss.n_parts)
    else:
        if ridge is not None and problem.groups is None and problem.folds is None and len(weight) > 1:
            steps, path = ridge.choose()
        else:
            fewer = problem.fewer()
            fewer_features = features if fewer is problem else fewer.features(penalty_scale)
            choice = _chosen(fewer, fewer_features, place)
            steps, path, place = choice.steps, choice.losses, (choice.coef, choice.intercept)
        chosen = np.array([features.penalty(strength(step)) for step in steps.tolist()])
    if ridge is not None:
        coef, intercept = ridge.solve(chosen)
    else:
        coef, intercept = _descended(features, loss, weight, chosen, place, name)
    tried = [(unit * features.penalty(strength(step)), path[step]) for step in sorted(path)]
    return LinearSolution(coef, intercept, unit * chosen, tried)


def _start(problem: _Problem, weight: np.ndarray, start: LinearSolution | None) -> tuple[np.ndarray, np.ndarray]:
    if start is not None:
        return start.coef, start.intercept
    n_features = sum(block.shape[1] for block in problem.blocks)
    return np.zeros((problem.loss.k, n_features)), problem.loss.constant(weight)


def _chosen(problem: _Problem, features: Features, start: tuple[np.ndarray, np.ndarray]) -> Choice:
    folds = fold_numbers(problem.strata, problem.groups) if problem.folds is None else problem.folds
    if not folds.any():
        return default_choice(problem.loss, start)
    return choose(features, problem.loss, features.weight, folds, start)


def _descended(
    features: Features,
    loss: Loss,
    weight: np.ndarray,
    penalty: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    view = Preconditioned(features, float(np.exp(np.log(penalty).mean())), loss.curvature(weight))
    here = view.coordinates(*start)[None]
    there, converged = descend(view, loss, weight[None], np.broadcast_to(penalty, loss.k), here, TOLERANCE)
    if not converged:
        warnings.warn(f"the solution of {name} has not converged", ConvergenceWarning, stacklevel=4)
    return view.coefficients(there[0])
