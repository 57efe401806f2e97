"""Fits of members and folds as jobs that run side by side, and what each may take of a time limit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs

from mmensemble.time_limits import active_limit, portion, time_limit

__all__ = ["Job", "can_be_cut", "run_jobs", "telling"]

_log = logging.getLogger(__name__)
_tell: ContextVar[Callable[[str], None] | None] = ContextVar("tell", default=None)


@dataclass(frozen=True)
class Job:
    """A call that fits something.

    Parameters
    ----------
    name : str
        Whose fit it is.
    function : callable
    arguments : tuple
    cost : float, default=0.0
        How much of the time the job gets, as against others, where it can be cut; 0 of one that takes what it takes.
    part : str, default=""
        Which of the fits of that name it is.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cost: float = 0.0
    part: str = ""


def can_be_cut(estimator: Any) -> bool:
    """Tell whether an estimator, or one inside it, is trained step by step and says so by ``can_be_cut``."""
    return any(getattr(part, "can_be_cut", False) is True for part in (estimator, *estimator.get_params().values()))


def run_jobs(jobs: Sequence[Job], n_jobs: int | None) -> list[Any]:
    """Run jobs, and share out among them what is left of the time limit, where there is one.

    Those that take what they take run first. Each of the others gets its share of what is left when it begins, so what
    a job leaves goes to those behind it.

    Parameters
    ----------
    jobs : sequence of Job
    n_jobs : int or None
        As in scikit-learn.

    Returns
    -------
    list
        The results, in the order of the jobs.
    """
    limit = active_limit()
    if limit is None or limit.left == math.inf:
        return _run([(job, delayed(job.function)(*job.arguments)) for job in jobs], n_jobs)
    order = sorted(range(len(jobs)), key=lambda number: jobs[number].cost > 0)
    costs = [jobs[number].cost for number in order]
    workers = effective_n_jobs(n_jobs)
    ends = limit.nearest.ends
    calls = []
    for place, number in enumerate(order):
        # The jobs before it that may still be running take their part of the time as well.
        rest = sum(costs[max(0, place - workers + 1) :])
        share = min(1.0, workers * costs[place] / rest) if costs[place] else 1.0
        calls.append((jobs[number], delayed(_limited)(jobs[number], ends, share)))
    done = _run(calls, n_jobs)
    results: list[Any] = [None] * len(jobs)
    for number, (result, was_cut) in zip(order, done, strict=True):
        results[number] = result
        if was_cut:
            limit.reached(jobs[number].name)
    return results


@contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """Tell of each job that is run in this block when it is done, beside the log, which has it at the level INFO."""
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


def _run(calls: Sequence[tuple[Job, Any]], n_jobs: int | None) -> list[Any]:
    """Run jobs and return their results, and tell whoever wants to know of each, in order, that it is done."""
    tell = _tell.get()
    if tell is None and not _log.isEnabledFor(logging.INFO):
        return list(Parallel(n_jobs=n_jobs)(call for _, call in calls))
    started, results = time.perf_counter(), []
    done = Parallel(n_jobs=n_jobs, return_as="generator")(call for _, call in calls)
    for (job, _), result in zip(calls, done, strict=True):
        results.append(result)
        seconds = time.perf_counter() - started
        what = f"{job.name}, {job.part}" if job.part else job.name
        text = f"{what} ({len(results)} of {len(calls)} fits, {seconds:.1f} s)"
        _log.info("%s", text)
        if tell is not None:
            tell(text)
    return results


def _limited(job: Job, ends: float, share: float) -> tuple[Any, bool]:
    """Run a job, maybe in another process, in its share of the time that is left; tell whether it was cut."""
    with time_limit(ends - time.time()), portion(share, job.name) as own:
        result = job.function(*job.arguments)
    return result, bool(own.cut)
