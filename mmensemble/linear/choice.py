"""The penalty with the least loss on rows that are held out, along a path of solutions. Imports numpy, scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import GroupKFold

from mmensemble.linear.descent import descend
from mmensemble.linear.features import Features, Preconditioned
from mmensemble.linear.losses import Loss

__all__ = ["STEPS", "Choice", "choose", "default_choice", "fold_numbers", "preferred", "strength"]

N_FOLDS = 5
# The penalty is the features' spread divided by strength(step), in half decades.
STEPS = range(-6, 13)
START = 1
# A loss that is less by no more than this share is a tie, which the stronger penalty wins.
TIE = 1e-3
# From losses so much above the least ones the path goes no further; it also ends after two steps without a gain.
TOO_MUCH = 0.01
# Of the folds' solutions, whose losses alone are wanted: these are within about .001 of exact ones. Single precision is
# far more exact than that.
TOLERANCE = 2e-2
DTYPE = np.float32
# Outputs that are solved for at once: the more, the better use is made of each row that is read.
MOST_OUTPUTS = 512
# After so many steps the features are preconditioned anew.
FAR = 4


def strength(step: int) -> float:
    """Return the prior variance of an output at a step of the path."""
    return float(10 ** (step / 2))


@dataclass(frozen=True)
class Choice:
    """A penalty for each part of a loss.

    Parameters
    ----------
    steps : ndarray of int, shape (n_parts,)
    losses : dict of int to ndarray, shape (n_parts,)
        By step, the mean loss of the rows that were held out.
    coef, intercept : ndarray of float, shape (k, n_features) and (k,)
        The means of the folds' solutions: that of all rows is near.
    """

    steps: np.ndarray
    losses: dict[int, np.ndarray]
    coef: np.ndarray
    intercept: np.ndarray


def fold_numbers(strata: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return which of 5 folds, or as many as there are rows or groups, holds each row out, (n,) int.

    Parameters
    ----------
    strata : ndarray of int, shape (n,)
        Rows of one number are spread over the folds, neighbours together, as ``StratifiedKFold`` spreads them.
    groups : ndarray, shape (n,), or None
        Rows of one group are held out together, whatever their numbers.
    """
    numbers = np.zeros(len(strata), dtype=np.intp)
    if groups is None:
        order = np.argsort(strata, kind="stable")
        dealt = np.arange(len(strata)) % N_FOLDS
        numbers[order] = dealt[np.lexsort((dealt, strata[order]))]
        return numbers
    n_folds = min(N_FOLDS, len(np.unique(groups)))
    if n_folds > 1:
        for number, (_, held_out) in enumerate(GroupKFold(n_folds).split(strata, groups=groups)):
            numbers[held_out] = number
    return numbers


def preferred(losses: dict[int, np.ndarray], tie: float) -> np.ndarray:
    """Return for each part the step of the strongest penalty whose loss is the least one, but for ties."""
    path = sorted(losses)
    table = np.stack([losses[step] for step in path])
    return np.take(path, (table <= _tied(table.min(axis=0), tie)).argmax(axis=0))


def _tied(least: np.ndarray, tie: float) -> np.ndarray:
    return (1 + TIE) * least + tie


def default_choice(loss: Loss, start: tuple[np.ndarray, np.ndarray]) -> Choice:
    """Return what is taken where no row can be held out."""
    return Choice(np.full(loss.n_parts, START), {}, *start)


def choose(
    features: Features, loss: Loss, weight: np.ndarray, folds: np.ndarray, start: tuple[np.ndarray, np.ndarray]
) -> Choice:
    """Walk from one penalty to the next as long as the loss of the rows that are held out falls.

    A row counts if the rows that its model was fitted to know its class, or its label's two values.

    Parameters
    ----------
    features : Features
    loss : Loss
    weight : ndarray of float, shape (n,)
        Above 0, of mean 1.
    folds : ndarray of int, shape (n,)
        Which fold holds each row out.
    start : tuple of ndarray
        Coefficients (k, n_features) and intercepts (k,).
    """
    walk = _Walk(features, loss, weight, folds)
    if not walk.counted.any():
        return default_choice(loss, start)
    coef, intercept = (np.stack([part] * (folds.max() + 1)) for part in start)
    middle = walk.solve(START, walk.place(START, coef, intercept))
    for direction in (1, -1):
        step, place, without_gain = START, middle, 0
        while step + direction in STEPS and without_gain < 2:
            step += direction
            least = np.min(list(walk.losses.values()), axis=0)
            place = walk.solve(step, place)
            found = walk.losses[step]
            if (found > (1 + TOO_MUCH) * least + loss.tie).all():
                break
            without_gain = 0 if (_tied(found, loss.tie) < least).any() else without_gain + 1
        if (preferred(walk.losses, loss.tie) > START).all():
            break  # weaker is better, so stronger is not
    return walk.choice()


@dataclass(frozen=True)
class _Place:
    """Solutions of the folds, (n_folds, k, width), in coordinates that suit the penalty of a step."""

    step: int
    features: Preconditioned
    coordinates: np.ndarray


class _Walk:
    """What was found on the way from penalty to penalty."""

    def __init__(self, features: Features, loss: Loss, weight: np.ndarray, folds: np.ndarray) -> None:
        self.features, self.loss, self.folds = features, loss, folds
        self.curvature = loss.curvature(weight)
        self.weight = weight * (folds != np.arange(folds.max() + 1)[:, None])
        told = loss.can_tell(loss.known(self.weight))
        self.counted = told[folds, :, np.arange(len(folds))] * weight[:, None]
        self.losses: dict[int, np.ndarray] = {}
        self.means: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def place(self, step: int, coef: np.ndarray, intercept: np.ndarray) -> _Place:
        """Return where coefficients (n_folds, k, n_features) and intercepts (n_folds, k) lie."""
        features = Preconditioned(self.features, self.features.penalty(strength(step)), self.curvature, DTYPE)
        coordinates = features.coordinates(coef.reshape(-1, coef.shape[2]), intercept.ravel())
        return _Place(step, features, coordinates.reshape(*coef.shape[:2], -1))

    def solve(self, step: int, start: _Place) -> _Place:
        """Solve for the penalty of a step, and keep the loss of the rows that are held out."""
        features, here = start.features, start.coordinates
        if abs(step - start.step) > FAR:
            coef, intercept = features.coefficients(here.reshape(-1, here.shape[2]))
            start = self.place(step, coef.reshape(*here.shape[:2], -1), intercept.reshape(here.shape[:2]))
            features, here = start.features, start.coordinates
        penalty = np.full(self.loss.k, self.features.penalty(strength(step)))
        at_once = max(1, MOST_OUTPUTS // self.loss.k)
        losses = np.empty((len(self.folds), self.loss.n_parts))
        found = np.empty_like(here)
        for first in range(0, len(here), at_once):
            sets = slice(first, first + at_once)
            weight = self.weight[sets]
            found[sets], _ = descend(features, self.loss, weight, penalty, here[sets], TOLERANCE)
            of_sets, *_ = self.loss(features.outputs(found[sets])[0], self.loss.known(weight))
            for number, of_set in enumerate(of_sets, first):
                losses[self.folds == number] = of_set[:, self.folds == number].T
        total = self.counted.sum(axis=0)
        self.losses[step] = (losses * self.counted).sum(axis=0) / np.where(total > 0, total, 1.0)
        self.means[step] = features.coefficients(found.mean(axis=0))
        return _Place(start.step, features, found)

    def choice(self) -> Choice:
        """Return the penalty that each part prefers; of a part of which no row could be held out, the first one."""
        steps = np.where(self.counted.any(axis=0), preferred(self.losses, self.loss.tie), START)
        of_outputs = list(enumerate(np.broadcast_to(steps, self.loss.k).tolist()))
        coef = np.stack([self.means[step][0][number] for number, step in of_outputs])
        intercept = np.array([self.means[step][1][number] for number, step in of_outputs])
        return Choice(steps, self.losses, coef, intercept)
