"""Greedy ensemble selection."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion.averaging import WeightedAverage
from mmensemble.fusion.held_out import mean_loss
from mmensemble.fusion.strategy import Member
from mmensemble.tasks import Task

__all__ = ["EnsembleSelection"]


class EnsembleSelection(WeightedAverage):
    """Weigh the members by greedy forward selection with replacement (Caruana et al. 2004).

    Starting from nothing, each round adds the member that lowers the loss of the average of all that were added so far
    the most, on out-of-fold outputs; a member may be added again. Of all rounds, the one of the lowest loss is kept,
    the earliest of equals. The loss is the log loss of a classification, averaged over labels or columns of labels, and
    the squared error of a regression, in units of each target's variance.

    Parameters
    ----------
    n_rounds : int, default=50
        Additions at most.
    cv : int, str, splitter or list of splits, default=5
        How the out-of-fold outputs are made; see `Stacking`.

    Attributes
    ----------
    weights_ : ndarray of float, shape (n_members,)
        How often each member was added, as shares of 1.
    losses_ : ndarray of float, shape (n_rounds,)
        The loss after each round.
    members_ : list of Member
    task_ : Task
    prior_ : ndarray of float, shape (width,)
        What a row that misses all modalities gets.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes (2004). Ensemble selection from libraries of models. ICML.
    """

    __module__ = "mmensemble"

    def __init__(self, n_rounds: int = 50, cv: Any = 5) -> None:
        self.n_rounds = n_rounds
        self.cv = cv

    def _learned(self) -> str:
        pairs = zip(getattr(self, "members_", []), getattr(self, "weights_", []), strict=False)
        shares = [f"{member.name} {share:.3g}" for member, share in pairs]
        return f"shares: {', '.join(shares)}" if shares else ""

    def learns(self, task: Task) -> bool:
        return True

    def check_parameters(self, members: Sequence[Member], X: Any) -> None:
        if isinstance(self.n_rounds, bool) or not isinstance(self.n_rounds, Integral) or self.n_rounds < 1:
            raise ConfigurationError(f"n_rounds must be an integer of at least 1, not {self.n_rounds!r}")

    def learn(
        self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: np.ndarray | None
    ) -> None:
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        used = present[:, :, 0].any(axis=0) & (weight > 0)
        outputs, voters, y, weight = outputs[:, used], present[:, used].astype(float), y[used], weight[used]
        total, votes = np.zeros(outputs.shape[1:]), np.zeros((outputs.shape[1], 1))
        counts = np.zeros(len(outputs), dtype=int)
        losses, path = [], []
        for _ in range(self.n_rounds):
            tried = [
                mean_loss(self.task_, self._average(total + voter * output, votes + voter), y, weight)
                for output, voter in zip(outputs, voters, strict=True)
            ]
            best = int(np.argmin(tried))
            total, votes = total + voters[best] * outputs[best], votes + voters[best]
            counts[best] += 1
            losses.append(tried[best])
            path.append(counts / counts.sum())
        self.losses_ = np.asarray(losses)
        self.weights_ = path[int(np.argmin(self.losses_))]

    def _average(self, total: np.ndarray, votes: np.ndarray) -> np.ndarray:
        return np.where(votes > 0, total / np.maximum(votes, 1), self.prior_)

    def member_weights(self) -> np.ndarray:
        return self.weights_
