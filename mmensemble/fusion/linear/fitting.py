"""What a linear fusion learns of its rows: the members' features, their penalties, and the models of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import DataError
from mmensemble.fusion.linear.blocks import Block, losses_of
from mmensemble.fusion.linear.patterns import Pattern, solve_pattern, ways
from mmensemble.fusion.strategy import Member
from mmensemble.learning.folds import Fold, member_fold, numbered
from mmensemble.learning.members import member_target
from mmensemble.learning.representations import feature_steps, features_of, fit_features
from mmensemble.linear.bands import BandChoice, choose_bands, prior_variance
from mmensemble.progress import Step
from mmensemble.tasks import Task

__all__ = ["Fitting", "MemberFeatures"]

# Of more rows, the penalties are chosen by so many, at least half as many.
MOST_ROWS = 2_000


@dataclass(frozen=True)
class MemberFeatures:
    """What a member makes of the rows.

    Parameters
    ----------
    steps : Pipeline
        Fitted on all rows.
    block : Block
    views : list of Block, or None
        What each fold makes of all rows, where the steps are learned from `y`.
    """

    steps: Any
    block: Block
    views: list[Block] | None

    def of_fold(self, fold: int) -> Block:
        """Return the features that are made without looking at the rows that a fold holds out."""
        return self.block if self.views is None else self.views[fold]


class Fitting:
    """The features of the rows, the penalties that the folds prefer, and models of some of the rows.

    Parameters
    ----------
    task : Task
    members : sequence of Member
        Unfitted.
    X : DataFrame, n rows
    y : ndarray
        As `for_members` gives it.
    weight : ndarray of float, shape (n,)
    folds : sequence of Fold

    Attributes
    ----------
    features : list of MemberFeatures
    variances : ndarray of float, shape (n_members,)
        The inverse of each one's penalty, for rows with a mean square of 1; 0 is off.
    loss : float
        Of the rows that are held out; NaN where there are none.
    """

    def __init__(
        self, task: Task, members: Sequence[Member], X: Any, y: np.ndarray, weight: np.ndarray, folds: Sequence[Fold]
    ) -> None:
        self.task, self.y, self.folds = task, y, folds
        self.features = []
        for number, member in enumerate(members, 1):
            with Step("member", number, len(members), member.name):
                self.features.append(self._features(member, X, weight))
        self.present = np.stack([member.block.present for member in self.features])
        rows = np.flatnonzero(self.present.any(axis=0) & (weight > 0))
        self.weight = weight / weight[rows].mean()
        choice = self._choice(range(len(members)), rows)
        self.loss = choice.loss
        self.variances = _variances(choice)
        self._of_pattern: dict[tuple[int, ...], np.ndarray] = {}
        for pattern in ways(members):
            chosen = self.variances
            if len(pattern) < len(members) and not chosen[list(pattern)].all():
                # What says nothing beside the others may say something without them.
                some = rows[self.present[list(pattern)][:, rows].any(axis=0)]
                chosen = chosen.copy()
                chosen[list(pattern)] = _variances(self._choice(pattern, some))
            self._of_pattern[pattern] = chosen

    def _features(self, member: Member, X: Any, weight: np.ndarray) -> MemberFeatures:
        present, rows = member.rows(X)
        if not present.any() or not weight[present].any():
            what = "misses" if not present.any() else "has the weight 0 or misses"
            raise DataError(f"every row {what} member {member.name!r}; leave it out")
        made = member.call(present, rows, fit_features, member.estimator, rows)
        views = None
        if made is None:
            known, _ = member_target(feature_steps(member.estimator), self.y[present], self.task.label_sets)
            made = member.call(present, rows, fit_features, member.estimator, rows, known)
            views = []
            for fold in self.folds:
                fitting, _ = member_fold(fold, present)
                some = safe_indexing(rows, fitting)
                with numbered(np.flatnonzero(present)[fitting]):
                    steps, features = fit_features(member.estimator, some, known[fitting])  # type: ignore[misc]
                there = np.zeros_like(present)
                there[np.flatnonzero(present)[fitting]] = True
                both = member.call(present, rows, steps.transform, rows)
                both = features_of(member.name, both, present)
                both[fitting] = features_of(member.name, features, there)
                views.append(Block.of(both, present, weight))
        return MemberFeatures(made[0], Block.of(features_of(member.name, made[1], present), present, weight), views)

    def _choice(self, members: Sequence[int], rows: np.ndarray) -> BandChoice:
        """Choose penalties for some members by some rows."""
        features = [self.features[m] for m in members]
        number = np.empty(len(self.y), dtype=np.intp)
        for fold, (_, held_out) in enumerate(self.folds):
            number[held_out] = fold
        n_times = -(-len(rows) // MOST_ROWS)
        if n_times > 1:
            strata = self.y if self.task.label_sets and self.y.ndim == 1 else np.zeros(len(self.y))
            rows = np.sort(rows[np.lexsort((strata[rows], number[rows]))[::n_times]])
        shared = [None if member.views is not None else member.block.kernel(rows) for member in features]
        held_out = np.unique(number[rows])
        if all(member.views is None for member in features):
            held_out = held_out[:1]
        kernels = [
            [
                member.of_fold(fold).kernel(rows) if kernel is None else kernel
                for member, kernel in zip(features, shared, strict=True)
            ]
            for fold in held_out
        ]
        share = self.weight[rows] / self.weight[rows].mean()
        return choose_bands(kernels, losses_of(self.task, self.y[rows], share), share, number[rows])

    def models(self) -> list[Pattern]:
        """Return the models of all rows, for rows of each pattern."""
        blocks = [member.block for member in self.features]
        return [self._model(pattern, blocks, self.weight) for pattern in self._of_pattern]

    def models_of_fold(self, fold: int) -> list[Pattern]:
        """Return the models of the rows that a fold fits, for the rows that it holds out."""
        fitting, held_out = self.folds[fold]
        weight = np.zeros(len(self.y))
        weight[fitting] = self.weight[fitting]
        blocks = [member.of_fold(fold) for member in self.features]
        decides = np.full(len(held_out), -1)
        for place, pattern in enumerate(self._of_pattern):
            decides[self.present[list(pattern)][:, held_out].all(axis=0)] = place
        return [
            self._model(pattern, blocks, weight)
            for place, pattern in enumerate(self._of_pattern)
            if (decides == place).any() and (self.present[list(pattern)].any(axis=0) & (weight > 0)).any()
        ]

    def _model(self, pattern: tuple[int, ...], blocks: Sequence[Block], weight: np.ndarray) -> Pattern:
        variances = self._of_pattern[pattern]
        read = tuple(m for m in pattern if variances[m])
        return solve_pattern(pattern, read, blocks, variances, self.task, self.y, weight)


def _variances(choice: BandChoice) -> np.ndarray:
    return np.array([prior_variance(step) for step in choice.steps])
