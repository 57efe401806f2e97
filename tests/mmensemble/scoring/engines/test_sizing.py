"""The simulation of `examples/size_a_cluster.py`, where the answer is known."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[4] / "examples" / "size_a_cluster.py"


@pytest.fixture(scope="module")
def seconds_of_job() -> Callable[..., float]:
    simulation = runpy.run_path(str(SCRIPT))
    function = simulation["seconds_of_job"]
    function.__globals__["SPREAD"] = 0.0

    def seconds(*job: float, **wrong: Any) -> float:
        none = {"opening": 0.0, "slow_share": 0.0, "slow_factor": 1.0, "deaths_per_hour": 0.0, "restart": 0.0}
        return float(function(*job, **{**none, **wrong}, rng=np.random.default_rng(0)))

    return seconds


def test_without_trouble_it_is_a_division(seconds_of_job: Callable[..., float]) -> None:
    assert seconds_of_job(4, 40, 10.0) == pytest.approx(100)
    assert seconds_of_job(4, 40, 10.0, opening=7.0) == pytest.approx(107)
    assert seconds_of_job(4, 41, 10.0) == pytest.approx(110)  # one worker has one more
    assert seconds_of_job(1000, 40, 10.0) == pytest.approx(10)  # no worker scores half a fragment


def test_trouble_takes_time(seconds_of_job: Callable[..., float]) -> None:
    assert seconds_of_job(4, 40, 10.0, slow_share=1.0, slow_factor=3.0) == pytest.approx(300)
    calm = seconds_of_job(10, 400, 60.0)
    # A death an hour costs 60 s of restart and on average half a fragment: 1.5 minutes in 60.
    deadly = seconds_of_job(10, 400, 60.0, deaths_per_hour=1.0, restart=60.0)
    assert 1.0 < deadly / calm < 1.15
