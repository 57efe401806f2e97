"""How far a job is: the line of `mmensemble.progress`, and records of the logger ``mmensemble.scoring``.

Each record has a message for people, and the same as JSON values in its attribute ``event``. Nobody sees them unless
the level INFO is asked for, as the command does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmensemble.progress import Step, Work
from mmensemble.progress.display import clock

__all__ = ["LOGGER", "Progress", "following", "log_event"]

LOGGER = logging.getLogger("mmensemble.scoring")

# Seconds from one record of the progress to the next.
_EVERY = 10.0


def log_event(event: str, message: str, level: int = logging.INFO, **facts: Any) -> None:
    """Write a record with these facts."""
    LOGGER.log(level, message, extra={"event": {"event": event, **facts}})


class Progress:
    """What is done of a job.

    Parameters
    ----------
    step : Step
        With rows as its units.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._logged = time.monotonic()
        self.n_errors = 0

    @property
    def n_rows(self) -> int:
        """The rows that are done, in earlier runs too."""
        return self._step.done

    def advance(self, n_rows: int, n_errors: int) -> None:
        """Say that so many further rows are done, and how many of all are bad or were dropped."""
        self.n_errors = n_errors
        self._step.advance(n_rows, **({"errors": n_errors} if n_errors else {}))
        if LOGGER.isEnabledFor(logging.INFO) and time.monotonic() - self._logged >= _EVERY:
            self._logged = time.monotonic()
            self._log()

    def _log(self) -> None:
        rate, total, left = self._step.rate, self._step.size, self._step.left()
        facts: dict[str, Any] = {"n_rows": self.n_rows, "n_errors": self.n_errors, "rows_per_second": rate}
        message = f"{self.n_rows:,} rows"
        if total:
            facts |= {"total": total, "share": self.n_rows / total, "seconds_left": left}
            message += f" of {total:,} ({self.n_rows / total:.0%})"
        errors = f"{self.n_errors:,} error{'' if self.n_errors == 1 else 's'}"
        ends = f", {clock(left)} left" if total and left is not None else ""
        log_event("progress", f"{message}, {rate:,.0f} rows/s, {errors}{ends}", **facts)


@contextmanager
def following(show: bool, total: int | None, resumed: int, facts: Mapping[str, Any]) -> Iterator[Progress]:
    """Follow a job: say that it starts, show it on stderr where that is asked for, and log how far it is.

    Parameters
    ----------
    show : bool
    total : int or None
    resumed : int
    facts : dict
        What else is said at the start, as JSON values: ``model``, ``source``, ``target``, ``engine``.
    """
    more = "" if total is None else f", {total:,} rows"
    done = f", {resumed:,} of them done before" if resumed else ""
    message = f"scoring {facts['source']} to {facts['target']}{more}{done}"
    log_event("start", message, **facts, total=total, n_resumed=resumed)
    step = Work("rows", f"scoring {facts['source']}", int(show), shown=True, size=total)
    step.done = step.done_before = resumed
    with step:
        yield Progress(step)
