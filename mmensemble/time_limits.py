"""How long a fit may take: seconds of wall clock, how they are shared out, and who ran out of them.

A limit counts for all that is fitted inside its block, whatever stands between: a pipeline, a search, another
composition. Only what is trained step by step looks at it; the rest costs what it costs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mmensemble.exceptions import ConfigurationError

__all__ = ["TimeLimit", "active_limit", "check_time_limit", "portion", "time_limit", "warn_of_cut"]


REAL = (int, float, np.number)


class TimeLimit:
    """A time at which fits end, and who was cut by it.

    Parameters
    ----------
    ends : float
        In seconds, as ``time.time()`` has it, so that other processes can read it; infinity is never.
    outer : TimeLimit, default=None
        Another one that counts too.

    Attributes
    ----------
    cut : list of str
        Who did not finish because of this limit.
    """

    def __init__(self, ends: float, outer: TimeLimit | None = None) -> None:
        self.ends = ends
        self.outer = outer
        self.cut: list[str] = []

    @property
    def nearest(self) -> TimeLimit:
        """The one that ends first: this, or one around it."""
        if self.outer is None:
            return self
        outer = self.outer.nearest
        return outer if outer.ends < self.ends else self

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0; infinity where there is no limit."""
        return max(0.0, self.nearest.ends - time.time())

    def reached(self, *names: str) -> None:
        """Note who was cut, with the limit that cut them."""
        cut = self.nearest.cut
        cut += [name for name in names if name not in cut]


_active: ContextVar[TimeLimit | None] = ContextVar("time_limit", default=None)


def active_limit() -> TimeLimit | None:
    """Return the limit of the innermost block, None outside of all."""
    return _active.get()


@contextmanager
def time_limit(seconds: float | None) -> Iterator[TimeLimit]:
    """Limit what is fitted in this block to some seconds; None adds no limit to those around it."""
    with _block(TimeLimit(math.inf if seconds is None else time.time() + seconds, _active.get())) as limit:
        yield limit


@contextmanager
def portion(share: float, name: str | None = None) -> Iterator[TimeLimit]:
    """Give what is fitted in this block a share of what is left.

    Who is cut by it was cut by the limit around it.

    Parameters
    ----------
    share : float
        Of the seconds that are left.
    name : str, default=None
        What the limit around is told in place of the names of who was cut.
    """
    outer = _active.get()
    # Not a moment later than the limit around it, so that it is this one that is reached.
    ends = math.inf if outer is None else min(time.time() + share * outer.left, outer.nearest.ends)
    with _block(TimeLimit(ends, outer)) as limit:
        yield limit
    if outer is not None and limit.cut:
        outer.reached(*(limit.cut if name is None else [name]))


@contextmanager
def _block(limit: TimeLimit) -> Iterator[TimeLimit]:
    token = _active.set(limit)
    try:
        yield limit
    finally:
        _active.reset(token)


def warn_of_cut(seconds: float | None, who: str, what_to_do: str, *, stacklevel: int) -> None:
    """Warn that a time limit of some seconds ended a training.

    Parameters
    ----------
    seconds : float or None
        The limit.
    who : str
        Whose training it was.
    what_to_do : str
        Or what there is for it.
    stacklevel : int
        Of the caller's caller, as ``warnings.warn`` counts.
    """
    warnings.warn(
        f"time_limit={seconds} ended the training of {who} early; {what_to_do}",
        ConvergenceWarning,
        stacklevel=stacklevel + 1,
    )


def check_time_limit(value: Any) -> None:
    """Raise `ConfigurationError` for a time limit that is neither None nor a number above 0."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, REAL) or not value > 0 or not math.isfinite(value):
        raise ConfigurationError(f"time_limit must be a number of seconds above 0, or None, not {value!r}")
