"""Time limits: who is cut by which, and how jobs share one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator

from mmensemble import time_limits
from mmensemble.cache import Store, store
from mmensemble.learning import jobs
from mmensemble.learning.jobs import Job, can_be_cut, run_jobs
from mmensemble.time_limits import active_limit, portion, time_limit


class Clock:
    """Stands in for the module `time`, and goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    perf_counter = monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (time_limits, store, jobs):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return clock


def work(seconds: float) -> float:
    """Work for some seconds, or as long as there is time."""
    limit = active_limit()
    given = np.inf if limit is None else limit.left
    if given < seconds:
        assert limit is not None
        limit.reached("worker")
    time.sleep(min(seconds, given))
    return float(min(seconds, given))


def test_outside_of_all_blocks_there_is_no_limit() -> None:
    assert active_limit() is None
    with time_limit(None) as limit:
        assert limit.left == np.inf
    assert active_limit() is None


@pytest.mark.usefixtures("clock")
def test_the_limit_that_ends_first_is_the_one_that_cuts() -> None:
    with time_limit(0.01) as outer, time_limit(5.0) as inner:
        assert inner.left <= 0.01
        work(1.0)
    assert (outer.cut, inner.cut) == (["worker"], [])
    with time_limit(5.0) as outer, time_limit(0.01) as inner:
        work(1.0)
    assert (outer.cut, inner.cut) == ([], ["worker"])


@pytest.mark.usefixtures("clock")
def test_who_is_cut_by_a_portion_is_cut_by_the_limit() -> None:
    with time_limit(0.2) as limit:
        with portion(0.1):
            assert work(1.0) == pytest.approx(0.02)
        with portion(1.0, "the rest"):
            work(1.0)
    assert limit.cut == ["worker", "the rest"]


JOBS = [
    Job("long", work, (60.0,), cost=3.0),
    Job("fixed", lambda: time.sleep(0.1), ()),
    Job("short", work, (0.0,), cost=1.0),
    Job("other", work, (60.0,), cost=1.0),
]


@pytest.mark.usefixtures("clock")
def test_jobs_share_what_the_others_leave() -> None:
    with time_limit(1.5) as limit:
        took = run_jobs(JOBS, None)
    assert limit.cut == ["long", "other"]
    # What is fixed comes first, and what is left over goes on.
    assert (took[0], took[2], took[3]) == pytest.approx((1.4 * 3 / 5, 0.0, 1.4 * 2 / 5))


def test_jobs_side_by_side_share_what_the_others_leave() -> None:
    with parallel_config("threading"), time_limit(1.5) as limit:
        took = run_jobs(JOBS, 2)
    assert limit.cut == ["long", "other"]
    assert took[2] == 0.0
    assert min(took[0], took[3]) > 0.0


def test_without_a_limit_jobs_run_in_their_order() -> None:
    seen: list[str] = []
    jobs = [Job("a", seen.append, ("a",), cost=1.0), Job("b", seen.append, ("b",))]
    run_jobs(jobs, None)
    assert seen == ["a", "b"]


class Trained(BaseEstimator):
    """An estimator that is trained for some seconds."""

    can_be_cut = True

    def __init__(self, seconds: float = 0.05, time_limit: float | None = None) -> None:
        self.seconds = seconds
        self.time_limit = time_limit


def fit(estimator: Trained, rows: Any) -> float:
    with time_limit(estimator.time_limit):
        return work(estimator.seconds)


def test_which_estimators_can_be_cut() -> None:
    assert can_be_cut(Trained())
    assert not can_be_cut(BaseEstimator())


@pytest.mark.usefixtures("clock")
def test_a_store_keeps_what_was_finished_alone(tmp_path: Path) -> None:
    cache, rows = Store.of(tmp_path), np.arange(3)
    with time_limit(0.03) as limit:
        assert cache.call(fit, Trained(), rows) < 0.05
    assert limit.cut == ["worker"]
    assert cache.call(fit, Trained(), rows) == 0.05
    with time_limit(0.01) as limit:
        assert cache.call(fit, Trained(), rows) == 0.05  # found
    assert limit.cut == []


@pytest.mark.usefixtures("clock")
def test_a_store_keeps_what_an_estimator_cut_itself(tmp_path: Path) -> None:
    """The key holds the estimator's own limit."""
    cache, rows = Store.of(tmp_path), np.arange(3)
    assert cache.call(fit, Trained(time_limit=0.03), rows) == cache.call(fit, Trained(time_limit=0.03), rows) < 0.05
    assert cache.call(fit, Trained(), rows) == 0.05
