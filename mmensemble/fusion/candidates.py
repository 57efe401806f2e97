"""The candidates among which the super learner chooses, and what each says of rows that it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.averaging import weighted_average
from mmensemble.fusion.held_out import HeldOut
from mmensemble.fusion.late import LateFusion
from mmensemble.fusion.linear import LinearFusion
from mmensemble.fusion.meta_learner import can_learn, quiet
from mmensemble.fusion.pool import LogOpinionPool
from mmensemble.fusion.product import ProductOfExperts
from mmensemble.fusion.rows import FrameRows, Rows
from mmensemble.fusion.selection import EnsembleSelection
from mmensemble.fusion.stacking import Stacking
from mmensemble.fusion.strategy import Fusion, Member
from mmensemble.fusion.voting import SoftVoting
from mmensemble.learning.representations import makes_features
from mmensemble.operations import NUMPY, Operations, Value

__all__ = ["PreferredMember", "cross_fitted", "default_candidates", "joined", "named_candidates"]


class PreferredMember(LateFusion):
    """Believe one member, and the mean of the others where its modality is missing.

    Parameters
    ----------
    number : int
        The member's.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    @property
    def hides_nan(self) -> bool:
        return True

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        others = [m for m in range(len(outputs)) if m != self.number]
        preferred = outputs[self.number]
        if not others:
            return preferred
        mean = weighted_average(xp, [outputs[m] for m in others], [present[m] for m in others], np.ones(len(others)))
        return xp.where(present[self.number], preferred, mean)


def default_candidates(members: Sequence[Member]) -> list[Fusion]:
    """Return the strategies that are compared where none are named."""
    late = [SoftVoting(), ProductOfExperts(), LogOpinionPool(), EnsembleSelection(), Stacking()]
    return [*late, LinearFusion()] if all(makes_features(member.estimator) for member in members) else [*late]


def named_candidates(candidates: Any, members: Sequence[Member] = ()) -> list[tuple[str, Fusion]]:
    """Return clones of strategies, each with the name of its class, and a number where several have the same.

    Raises
    ------
    ConfigurationError
        If they are not a list of strategies.
    """
    if candidates is None:
        candidates = default_candidates(members)
    if not isinstance(candidates, (list, tuple)) or not all(isinstance(each, Fusion) for each in candidates):
        raise ConfigurationError(
            f"candidates must be a list of strategies such as [SoftVoting(), Stacking()], not {candidates!r}"
        )
    classes = [type(each).__name__ for each in candidates]
    named = []
    for number, (name, each) in enumerate(zip(classes, candidates, strict=True)):
        place = f" {classes[: number + 1].count(name)}" if classes.count(name) > 1 else ""
        named.append((name + place, clone(each)))
    return named


def joined(strategy: LateFusion, held_out: HeldOut) -> np.ndarray:
    """Join the outputs of members by a rule that was learned, ndarray of float, shape (n, width)."""
    rows = FrameRows(held_out.X, strategy.task_)
    return np.asarray(strategy.join(NUMPY, list(held_out.outputs), list(held_out.present), rows))


def cross_fitted(strategy: LateFusion, held_out: HeldOut) -> np.ndarray:
    """Join the outputs of members, of the rows that a fold holds out by a rule that was learned from the others.

    Parameters
    ----------
    strategy : LateFusion
        Learned from all rows.
    held_out : HeldOut

    Returns
    -------
    ndarray of float, shape (n, width)
    """
    task = strategy.task_
    if not strategy.learns(task):
        return joined(strategy, held_out)
    made = np.tile(strategy.prior_, (len(held_out.y), 1)).astype(np.float64)
    for fitting, rest in held_out.folds:
        if can_learn(task, held_out, fitting):
            learned = strategy.for_fold()
            with quiet():
                learned.learn_from(held_out.rows(fitting))
            rest = np.sort(rest)
            made[rest] = joined(learned, held_out.rows(rest))
    return made
