"""A penalty for each block of features, by the loss on rows that are held out. Imports numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmensemble.linear.choice import START, STEPS, TIE
from mmensemble.linear.kernels import Folds, Solved
from mmensemble.linear.losses import Loss

__all__ = ["BandChoice", "choose_bands", "prior_variance"]

Place = tuple[int | None, ...]

# Of log losses, a mean that is less by no more than this is a tie as well: on rows that are told apart so well, ever
# weaker penalties would follow.
TIE_OF_CLASSES = 1e-3
# All folds are solved at most so often.
MOST_SOLUTIONS = 40
# From coarse to fine, in half decades.
STRIDES = (2, 1)


def prior_variance(step: int | None) -> float:
    """Return what a kernel is multiplied by at a step; None is off."""
    return 0.0 if step is None else float(10 ** (step / 2))


@dataclass(frozen=True)
class BandChoice:
    """A step of the penalty for each block.

    Parameters
    ----------
    steps : tuple of int or None
        None is off.
    loss : float
        The mean loss of the rows that were held out, over all parts of the losses; NaN where there were none.
    tried : dict of tuple to float
        The losses of all that was tried.
    """

    steps: Place
    loss: float
    tried: dict[Place, float]


def choose_bands(
    kernels: Sequence[Sequence[np.ndarray]], losses: Sequence[Loss], weight: np.ndarray, folds: np.ndarray
) -> BandChoice:
    """Find penalties for blocks of features (banded ridge regression, and logistic regression alike).

    First one for all blocks, then block by block, in turns, as long as the loss of the rows that are held out falls.
    A block that does no good is turned off.

    Parameters
    ----------
    kernels : sequence of sequences of ndarray of float, each (n, n)
        The products of the rows of each block, whose rows have a mean square of 1: once for all folds, or, where what
        makes the features is learned from `y`, as each fold makes them.
    losses : sequence of Loss
        Which are added up.
    weight : ndarray of float, shape (n,)
        Above 0, of mean 1.
    folds : ndarray of int, shape (n,)
        Which fold holds each row out.

    References
    ----------
    Nunez-Elizalde, Huth, Gallant (2019). Voxelwise encoding models with non-spherical multivariate normal priors.
    NeuroImage. Dupré la Tour, Eickenberg, Nunez-Elizalde, Gallant (2022). Feature-space selection with banded ridge
    regression. NeuroImage.
    """
    search = _Search(kernels, losses, weight, folds)
    n_blocks = len(kernels[0])
    search.look((START,) * n_blocks)
    if not search.walk(lambda place: tuple(step + 1 for step in place if step is not None)):
        search.walk(lambda place: tuple(step - 1 for step in place if step is not None))
    if n_blocks > 1:
        for stride in STRIDES:
            while sum(search.improve(block, stride) for block in range(n_blocks)):  # each of them
                pass
    return BandChoice(search.best, search.tried[search.best], search.tried)


class _Search:
    """The best place so far, and the losses of all that were looked at."""

    best: Place

    def __init__(
        self, kernels: Sequence[Sequence[np.ndarray]], losses: Sequence[Loss], weight: np.ndarray, folds: np.ndarray
    ) -> None:
        self.kernels = kernels
        numbers = np.unique(folds)
        sets = [numbers] if len(kernels) == 1 else [numbers[[number]] for number in range(len(numbers))]
        self.folds = [[Folds(loss, weight, folds, some) for loss in losses] for some in sets]
        # The losses that are counted: of the rows that are held out, of each part.
        self.scale = float(sum(part.counted.sum() for of_view in self.folds for part in of_view))
        self.tie = TIE_OF_CLASSES if any(loss.tie for loss in losses) else 0.0
        self.tried: dict[Place, float] = {}
        self.solved: list[list[Solved | None]] = [[None] * len(losses) for _ in sets]

    def look(self, place: Place, *, at_ties: bool = False) -> bool:
        """Solve at a place, and move there if the loss is less by more than a tie, or at ties too."""
        inside = all(step is None or step in STEPS for step in place) and any(step is not None for step in place)
        if place in self.tried or not inside or len(self.tried) >= MOST_SOLUTIONS or not self.scale:
            if not self.tried:
                self.best, self.tried[place] = place, np.nan  # no row could be held out
            return False
        found: list[list[Solved | None]] = []
        total = 0.0
        for blocks, parts, starts in zip(self.kernels, self.folds, self.solved, strict=True):
            pairs = zip(blocks, place, strict=True)
            kernel = np.sum([prior_variance(step) * block for block, step in pairs if step is not None], axis=0)
            solved = [part.solve(kernel, start) for part, start in zip(parts, starts, strict=True)]
            total += sum(one.loss for one in solved)
            found.append(list(solved))
        loss = self.tried[place] = total / self.scale
        if len(self.tried) > 1:
            least = self.tried[self.best]
            margin = TIE * least + self.tie
            if not (loss <= least + margin if at_ties else loss < least - margin):
                return False
        self.best, self.solved = place, found
        return True

    def walk(self, onward: Callable[[Place], Place]) -> bool:
        """Move on as long as that helps; tell whether it did at all."""
        moved = False
        while self.look(onward(self.best)):
            moved = True
        return moved

    def improve(self, block: int, stride: int) -> bool:
        """Move one block's penalty as long as that helps; tell whether it did at all."""

        def shifted(by: int) -> Place:
            return tuple(
                step + by if number == block and step is not None else step for number, step in enumerate(self.best)
            )

        if self.best[block] is None:
            return False
        moved = self.walk(lambda place: shifted(-stride))
        lower = self.tried.get(shifted(-stride), np.inf)
        if moved or lower <= (1 + TIE) * self.tried[self.best] + self.tie:
            off = tuple(None if number == block else step for number, step in enumerate(self.best))
            return self.look(off, at_ties=True) or moved
        return self.walk(lambda place: shifted(stride))
