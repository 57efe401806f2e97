"""The learning rate over the steps of a training, and its end where the time is up."""

from __future__ import annotations

import math
import time
from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback

from mmensemble.time_limits import TimeLimit

__all__ = ["Schedule"]

# Of the time that is left at the beginning, what goes by before the steps' durations are trusted.
TRUSTED = 0.1
# A training that would take longer than the time by no more than this share runs as if there were enough.
SLACK = 1.1


class Schedule(Callback):
    """A linear rise of the learning rate, then a cosine to 0 over the steps that there is time for.

    As long as there seems to be time for all steps, the rates are those that there would be without a limit. If the
    steps turn out to take too long, what is left of the cosine is run through by the clock, so that a training that is
    cut ends with small steps like one that is not.

    Parameters
    ----------
    n_steps : int
    warmup_fraction : float
        Share of the steps over which the rate rises.
    limit : TimeLimit or None
    first_steps : int, default=0
        Steps that the training has to finish to be worth anything: it ends as soon as it cannot.

    Attributes
    ----------
    cut : bool
        Whether the clock had a say.
    """

    def __init__(self, n_steps: int, warmup_fraction: float, limit: TimeLimit | None, first_steps: int = 0) -> None:
        self.n_steps = n_steps
        self.n_warmup = warmup_fraction * n_steps
        self.limit = limit
        self.first_steps = first_steps
        self.cut = False
        self._n_done = 0
        self._hurried: tuple[int, float, float] | None = None

    def factor(self, step: int) -> float:
        """Return what the highest rate is multiplied by."""
        at = float(step)
        if self._hurried is not None:
            since, began, left = self._hurried
            passed = min(1.0, (time.time() - began) / left)
            at = max(at, since + passed * (self.n_steps - since))
        if at < self.n_warmup:
            return (at + 1) / (self.n_warmup + 1)
        return 0.5 * (1 + math.cos(math.pi * (at - self.n_warmup) / max(1.0, self.n_steps - self.n_warmup)))

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Read the clock."""
        self._began = self._first = time.time()
        self._left = math.inf if self.limit is None else self.limit.left

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """End before the first step where the time is up, and what there is will do."""
        if self._left == 0 and self.first_steps:
            self._end()

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Look whether there is time for the other steps."""
        if not training:
            return
        self._n_done += 1
        if self._n_done == 1:
            self._first = time.time()  # the first step takes longer: memory is asked for
        if self.limit is None or self._left == math.inf or self._n_done == self.n_steps:
            return
        now, left = time.time(), self.limit.left
        if left == 0:
            self._end()
        if self._n_done == 1 or now - self._began < TRUSTED * self._left or self._hurried is not None:
            return
        step = (now - self._first) / (self._n_done - 1)
        if self._n_done < self.first_steps and step * (self.first_steps - self._n_done) > SLACK * left:
            self._end()
        if step * (self.n_steps - self._n_done) > SLACK * left:
            self.cut = True
            self._hurried = self._n_done, now, left

    def _end(self) -> None:
        self.cut = True
        raise KeyboardInterrupt  # how skorch is told to end a training
