"""How far a job is: a bar on a terminal, and records of the logger ``mmensemble.scoring``. Imports tqdm at use.

Each record has a message for people, and the same as JSON values in its attribute ``event``. Nobody sees them unless
the level INFO is asked for, as the command does.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
    bar : tqdm or None
    total : int or None
        Rows of the job, where it is known.
    resumed : int
        Rows that were done before.
    """

    def __init__(self, bar: Any, total: int | None, resumed: int) -> None:
        self._bar = bar
        self._total = total
        self._resumed = resumed
        self._started = self._logged = time.monotonic()
        self.n_rows = resumed
        self.n_errors = 0

    def advance(self, n_rows: int, n_errors: int) -> None:
        """Say that so many further rows are done, and how many of all are bad or were dropped."""
        self.n_rows += n_rows
        self.n_errors = n_errors
        if self._bar is not None:
            self._bar.update(n_rows)
        if LOGGER.isEnabledFor(logging.INFO) and time.monotonic() - self._logged >= _EVERY:
            self._logged = time.monotonic()
            self._log()

    def _log(self) -> None:
        rate = (self.n_rows - self._resumed) / max(1e-9, time.monotonic() - self._started)
        facts: dict[str, Any] = {"n_rows": self.n_rows, "n_errors": self.n_errors, "rows_per_second": rate}
        message = f"{self.n_rows:,} rows"
        if self._total:
            seconds = (self._total - self.n_rows) / rate if rate > 0 else None
            facts |= {"total": self._total, "share": self.n_rows / self._total, "seconds_left": seconds}
            message += f" of {self._total:,} ({self.n_rows / self._total:.0%})"
            left = "" if seconds is None else f", {_duration(seconds)} left"
        else:
            left = ""
        errors = f"{self.n_errors:,} error{'' if self.n_errors == 1 else 's'}"
        log_event("progress", f"{message}, {rate:,.0f} rows/s, {errors}{left}", **facts)


@contextmanager
def following(show: bool, total: int | None, resumed: int, facts: Mapping[str, Any]) -> Iterator[Progress]:
    """Follow a job: say that it starts, draw a bar on stderr where that is asked for, and log how far it is.

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
    if not show:
        yield Progress(None, total, resumed)
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=resumed, unit=" rows", file=sys.stderr) as bar:
        yield Progress(bar, total, resumed)


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
