"""Time limits: who is cut by which, and how jobs share one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator

from mmensemble.cache import Store
from mmensemble.learning.jobs import Job, can_be_cut, run_jobs
from mmensemble.time_limits import active_limit, portion, time_limit


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


def test_the_limit_that_ends_first_is_the_one_that_cuts() -> None:
    with time_limit(0.01) as outer, time_limit(5.0) as inner:
        assert inner.left <= 0.01
        work(1.0)
    assert (outer.cut, inner.cut) == (["worker"], [])
    with time_limit(5.0) as outer, time_limit(0.01) as inner:
        work(1.0)
    assert (outer.cut, inner.cut) == ([], ["worker"])


def test_who_is_cut_by_a_portion_is_cut_by_the_limit() -> None:
    with time_limit(0.2) as limit:
        with portion(0.1):
            assert work(1.0) == pytest.approx(0.02, abs=0.01)
        with portion(1.0, "the rest"):
            work(1.0)
    assert limit.cut == ["worker", "the rest"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_jobs_share_what_the_others_leave(n_jobs: int | None) -> None:
    jobs = [
        Job("long", work, (60.0,), cost=3.0),
        Job("fixed", time.sleep, (0.1,)),
        Job("short", work, (0.0,), cost=1.0),
        Job("other", work, (60.0,), cost=1.0),
    ]
    start = time.perf_counter()
    with parallel_config("threading"), time_limit(1.5) as limit:
        took = run_jobs(jobs, n_jobs)
    assert limit.cut == ["long", "other"]
    assert took[2] == 0.0
    assert time.perf_counter() - start < 3.0
    if n_jobs is None:
        assert took[0] == pytest.approx(1.4 * 3 / 5, abs=0.2)  # what is fixed comes first
        assert took[3] == pytest.approx(1.4 * 2 / 5, abs=0.2)  # and what is left over goes on
    else:
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


def test_a_store_keeps_what_was_finished_alone(tmp_path: Path) -> None:
    store, rows = Store.of(tmp_path), np.arange(3)
    with time_limit(0.03) as limit:
        assert store.call(fit, Trained(), rows) < 0.05
    assert limit.cut == ["worker"]
    assert store.call(fit, Trained(), rows) == 0.05
    with time_limit(0.01) as limit:
        assert store.call(fit, Trained(), rows) == 0.05  # found
    assert limit.cut == []


def test_a_store_keeps_what_an_estimator_cut_itself(tmp_path: Path) -> None:
    """The key holds the estimator's own limit."""
    store, rows = Store.of(tmp_path), np.arange(3)
    assert store.call(fit, Trained(time_limit=0.03), rows) == store.call(fit, Trained(time_limit=0.03), rows) < 0.05
    assert store.call(fit, Trained(), rows) == 0.05
