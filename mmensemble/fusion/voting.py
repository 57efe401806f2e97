"""Soft and hard voting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import ge, le
from typing import Any

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.averaging import WeightedAverage
from mmensemble.fusion.rows import Rows
from mmensemble.fusion.strategy import Member
from mmensemble.learning.outputs import distributions, flat
from mmensemble.operations import Operations, Value
from mmensemble.tasks import Regression

__all__ = ["HardVoting", "SoftVoting"]

# Weights that add up to half are half whatever their rounding.
_HALF = 0.5 * (1 - 1e-6)


class _Voting(WeightedAverage):
    """What soft and hard voting share: weights that the user sets."""

    weights: Sequence[float] | None

    def leave_out(self, dropped: Sequence[bool]) -> None:
        """Forget the weights of dropped members, as ``VotingClassifier`` does."""
        if self.weights is not None and np.shape(self.weights) == (len(dropped),):
            self.weights = [weight for weight, left_out in zip(self.weights, dropped, strict=True) if not left_out]

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        if self.weights is None:
            return
        try:
            weights = np.asarray(self.weights, dtype=float)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"weights must be numbers, not {self.weights!r}") from error
        if weights.ndim != 1:
            raise ConfigurationError(f"weights must be a sequence, not {self.weights!r}")
        if len(self.weights) != len(members):
            raise ConfigurationError(
                f"{type(self).__name__} has {len(self.weights)} weights for {len(members)} members "
                f"({[member.name for member in members]})"
            )
        if not (weights >= 0).all() or not (weights > 0).any() or not np.isfinite(weights).all():
            raise ConfigurationError(f"weights must be finite, not negative, nor all 0: {list(self.weights)}")

    def member_weights(self) -> np.ndarray:
        return np.ones(len(self.members_)) if self.weights is None else np.asarray(self.weights, dtype=float)


class SoftVoting(_Voting):
    r"""Average the members' probabilities, or a regression's predictions.

    .. math:: p = \sum_m w_m a_m p_m \Big/ \sum_m w_m a_m

    where :math:`a_m` is 1 if the row has modality :math:`m` and 0 if not. On complete rows that is
    ``VotingClassifier(voting="soft")`` and ``VotingRegressor``.

    Parameters
    ----------
    weights : sequence of float, shape (n_members,), default=None
        One weight of at least 0 per member; None weighs all alike.

    Attributes
    ----------
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Kittler, Hatef, Duin, Matas (1998). On combining classifiers. IEEE PAMI 20(3), the sum rule.
    """

    __module__ = "mmensemble"

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights


class HardVoting(_Voting):
    r"""Let each member vote for one class; of a regression, take the weighted median.

    A class's probability is its share of the votes,

    .. math:: p_k = \sum_m w_m a_m [k = \arg\max_j p_{mj}] \Big/ \sum_m w_m a_m

    so ``predict`` agrees with ``VotingClassifier(voting="hard")``: a tie goes to the first class. Independent labels
    and columns of labels are voted on one by one. The median of numbers is the mean of the lower and the upper weighted
    median, the values that at least half of the weight lies at or below, and at or above.

    Parameters
    ----------
    weights : sequence of float, shape (n_members,), default=None
        One weight of at least 0 per member; None weighs all alike.

    Attributes
    ----------
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Kittler, Hatef, Duin, Matas (1998). On combining classifiers. IEEE PAMI 20(3), the majority vote rule.

    Edgeworth (1888). On a new method of reducing observations relating to several quantities. Philosophical Magazine
    25, for the weighted median.
    """

    __module__ = "mmensemble"

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        self.weights = weights

    @property
    def hides_nan(self) -> bool:
        return True

    def combine(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value], rows: Rows) -> Value:
        if isinstance(self.task_, Regression):
            return self._median(xp, outputs, present)
        votes = [self._votes(xp, output) for output in outputs]
        return super().combine(xp, votes, present, rows)

    def _votes(self, xp: Operations, output: Value) -> Value:
        """Return a member's outputs with 1 for the most probable class of each distribution, and 0 for others."""
        sizes = [len(labels) for labels in self.task_.label_sets] or [2]
        parts = zip(distributions(xp, output, self.task_), sizes, strict=True)
        return flat(xp, [xp.one_hot(xp.argmax(part), size) for part, size in parts], self.task_)

    def _median(self, xp: Operations, outputs: Sequence[Value], present: Sequence[Value]) -> Value:
        weights = self.member_weights()
        shares = [xp.where(voter, weight, 0) for voter, weight in zip(present, weights[weights > 0], strict=True)]
        half = _HALF * xp.add(*shares)

        def holds_half(compare: Callable[[Value, Value], Value], value: Value) -> Value:
            votes = (xp.where(compare(other, value), share, 0) for other, share in zip(outputs, shares, strict=True))
            return xp.add(*votes) >= half

        voters, huge = list(zip(outputs, present, strict=True)), xp.finfo.max
        lower = xp.minimum(*(xp.where(voter & holds_half(le, value), value, huge) for value, voter in voters))
        upper = xp.maximum(*(xp.where(voter & holds_half(ge, value), value, -huge) for value, voter in voters))
        return 0.5 * lower + 0.5 * upper
