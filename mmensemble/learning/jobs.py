"""Fits of members and folds as jobs that run side by side, how far they are, and what each may take of a time limit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs

from mmensemble.progress import Step
from mmensemble.progress.display import in_words
from mmensemble.progress.work import LOGGER
from mmensemble.time_limits import active_limit, portion, time_limit

__all__ = ["Job", "can_be_cut", "is_network", "run_jobs"]


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
    steps : sequence of tuple, default=()
        What it is, from the outside in: the arguments of each `Step`, as ``("member", 2, 4, "image")``.
    kind : hashable, default=None
        Jobs of a kind take time by their `size`.
    size : float, default=1.0
    slow : bool, default=False
        Whether it comes after those that are not, in which a mistake shows at once.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cost: float = 0.0
    steps: Sequence[tuple[Any, ...]] = ()
    kind: Hashable = None
    size: float = 1.0
    slow: bool = False


def can_be_cut(estimator: Any) -> bool:
    """Tell whether an estimator, or one inside it, is trained step by step and says so by ``can_be_cut``."""
    return any(getattr(part, "can_be_cut", False) is True for part in (estimator, *estimator.get_params().values()))


def is_network(estimator: Any) -> bool:
    """Tell whether an estimator, or one inside it, is a network, by the parameter ``fine_tune``."""
    return any(name.rpartition("__")[2] == "fine_tune" for name in estimator.get_params())


def run_jobs(jobs: Sequence[Job], n_jobs: int | None) -> list[Any]:
    """Run jobs, and share out among them what is left of the time limit, where there is one.

    Those that take what they take run first, networks after all others. Each of the others gets its share of what is
    left when it begins, so what a job leaves goes to those behind it.

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
        order = sorted(range(len(jobs)), key=lambda number: jobs[number].slow)
        return _run([(number, jobs[number], _plain, ()) for number in order], n_jobs)
    order = sorted(range(len(jobs)), key=lambda number: (jobs[number].cost > 0, jobs[number].slow))
    costs = [jobs[number].cost for number in order]
    workers = effective_n_jobs(n_jobs)
    ends = limit.nearest.ends
    calls: list[_Call] = []
    for place, number in enumerate(order):
        # The jobs before it that may still be running take their part of the time as well.
        rest = sum(costs[max(0, place - workers + 1) :])
        share = min(1.0, workers * costs[place] / rest) if costs[place] else 1.0
        calls.append((number, jobs[number], _limited, (ends, share)))
    results: list[Any] = []
    for job, (result, was_cut) in zip(jobs, _run(calls, n_jobs), strict=True):
        results.append(result)
        if was_cut:
            limit.reached(job.name)
    return results


# The number of a job, the job, and how it is run, with what that takes.
_Call = tuple[int, Job, Callable[..., Any], tuple[Any, ...]]


def _run(calls: Sequence[_Call], n_jobs: int | None) -> list[Any]:
    """Run jobs, and return their results by number; one that runs elsewhere is told of when it ends."""
    results: list[Any] = [None] * len(calls)
    if effective_n_jobs(n_jobs) == 1:
        with Step("jobs", plan=[(job.kind, job.size) for _, job, _, _ in calls], shown=False, last=True):
            made = Parallel(n_jobs=n_jobs)(delayed(_here)(job, run, more) for _, job, run, more in calls)
        for (number, *_), result in zip(calls, made, strict=True):
            results[number] = result
        return results
    try:
        parallel = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    except ValueError:  # a backend that gives all at once
        parallel = Parallel(n_jobs=n_jobs)
    with Step("jobs", size=len(calls), last=True) as step:
        for place, result, seconds in parallel(delayed(_elsewhere)(n, *call[1:]) for n, call in enumerate(calls)):
            number, job, _, _ = calls[place]
            results[number] = result
            with _steps(job):
                pass
            _log(job, seconds)
            step.advance()
    return results


def _steps(job: Job) -> ExitStack:
    with ExitStack() as stack:
        for place, arguments in enumerate(job.steps):
            stack.enter_context(Step(*arguments, last=place > 0))
        return stack.pop_all()


def _here(job: Job, run: Callable[..., Any], more: tuple[Any, ...]) -> Any:
    with _steps(job):
        _, result, seconds = _elsewhere(0, job, run, more)
    _log(job, seconds)
    return result


def _elsewhere(place: int, job: Job, run: Callable[..., Any], more: tuple[Any, ...]) -> tuple[int, Any, float]:
    started = time.perf_counter()
    result = run(job, *more)
    return place, result, time.perf_counter() - started


def _log(job: Job, seconds: float) -> None:
    if job.steps:
        LOGGER.info("%s took %s", ", ".join(Step(*each).text for each in job.steps), in_words(seconds))


def _plain(job: Job) -> Any:
    return job.function(*job.arguments)


def _limited(job: Job, ends: float, share: float) -> tuple[Any, bool]:
    """Run a job, maybe in another process, in its share of the time that is left; tell whether it was cut."""
    with time_limit(ends - time.time()), portion(share, job.name) as own:
        result = job.function(*job.arguments)
    return result, bool(own.cut)
