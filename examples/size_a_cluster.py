"""
How many workers a job needs: a simulation
==========================================

`score_dataset` gives each worker one fragment after the other. How long a job takes then follows from a few numbers:
how many rows a processor scores in a second (``mmensemble score`` prints it, ``--threads 1``), how long a worker takes
until its model is open, how many rows a fragment has, and what goes wrong: some machines are slow, and some processes
die, whose fragment is begun again by another one.

Run it with your own numbers, for instance ``python examples/size_a_cluster.py --rows 1e9 --rate 2000``.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

WORKERS = (1, 3, 10, 30, 100, 300, 1000)

# Fragments of one size do not take equally long: the standard deviation of the logarithm of their seconds.
SPREAD = 0.1


def seconds_of_job(
    n_workers: int,
    n_fragments: int,
    seconds_per_fragment: float,
    *,
    opening: float,
    slow_share: float,
    slow_factor: float,
    deaths_per_hour: float,
    restart: float,
    rng: np.random.Generator,
) -> float:
    """Return how long a job takes, in seconds.

    Parameters
    ----------
    n_workers, n_fragments : int
    seconds_per_fragment : float
        Of a worker that is not slow; its logarithm varies by 0.1.
    opening : float
        Seconds until a process that was started has its model open.
    slow_share, slow_factor : float
        Share of the workers that take so many times as long.
    deaths_per_hour : float
        How often a worker's process dies; what it was scoring is lost.
    restart : float
        Seconds until there is another process in its place.
    rng : Generator

    Returns
    -------
    float
    """
    slowness = np.where(rng.random(n_workers) < slow_share, slow_factor, 1.0)

    def next_death(start: float) -> float:
        return start + rng.exponential(3600 / deaths_per_hour) if deaths_per_hour else math.inf

    # Workers by the time at which they are free. The first one takes the next fragment.
    free = [(opening, worker) for worker in range(n_workers)]
    deaths = [next_death(0.0) for _ in range(n_workers)]
    left, end = n_fragments, 0.0
    while left:
        now, worker = heapq.heappop(free)
        done = now + seconds_per_fragment * slowness[worker] * rng.lognormal(0.0, SPREAD)
        if done > deaths[worker]:
            again = max(now, deaths[worker]) + restart + opening
            deaths[worker] = next_death(again)
            heapq.heappush(free, (again, worker))
            continue
        left, end = left - 1, max(end, done)
        heapq.heappush(free, (done, worker))
    return float(end)


def main() -> None:
    """Print how long a job takes by how many workers, and what share of their time is work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1e8, help="of the job")
    parser.add_argument("--rate", type=float, default=1000.0, help="rows that a worker scores in a second")
    parser.add_argument("--fragment-rows", type=float, default=262_144, help="of score_dataset")
    parser.add_argument("--opening", type=float, default=10.0, help="seconds until a worker has opened the model")
    parser.add_argument("--slow-share", type=float, default=0.05, help="share of the workers that are slow")
    parser.add_argument("--slow-factor", type=float, default=2.0, help="how many times as long they take")
    parser.add_argument("--deaths-per-hour", type=float, default=0.05, help="of each worker's process")
    parser.add_argument("--restart", type=float, default=30.0, help="seconds until there is another process")
    parser.add_argument("--output", type=Path, default=Path("examples_output"), help="folder for what it writes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="accepted for make examples; it takes seconds anyway")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started, hours = time.perf_counter(), []

    n_fragments = math.ceil(arguments.rows / arguments.fragment_rows)
    seconds = arguments.rows / n_fragments / arguments.rate
    print(f"{arguments.rows:,.0f} rows in {n_fragments:,} fragments of {seconds:,.0f} s each\n")
    print("| workers | hours | if nothing went wrong | share of the time that is work |")
    print("| ---: | ---: | ---: | ---: |")
    for n_workers in WORKERS:
        rng = np.random.default_rng(arguments.seed)
        wrong = {
            "slow_share": arguments.slow_share,
            "slow_factor": arguments.slow_factor,
            "deaths_per_hour": arguments.deaths_per_hour,
        }
        job = (n_workers, n_fragments, seconds)
        fixed = {"opening": arguments.opening, "restart": arguments.restart, "rng": rng}
        took = seconds_of_job(*job, **fixed, **wrong)
        at_best = seconds_of_job(*job, **fixed, **{**dict.fromkeys(wrong, 0.0), "slow_factor": 1.0})
        work = n_fragments * seconds / n_workers / took
        hours.append({"workers": n_workers, "hours": took / 3600, "hours_at_best": at_best / 3600, "work": work})
        print(f"| {n_workers:,} | {took / 3600:,.2f} | {at_best / 3600:,.2f} | {work:.0%} |")

    figure, ax = plt.subplots(figsize=(9.0, 5.0), layout="constrained")
    for key, label in (("hours", "with slow workers and deaths"), ("hours_at_best", "if nothing went wrong")):
        ax.loglog(WORKERS, [each[key] for each in hours], marker="o", label=label)
    ax.set(xlabel="workers", ylabel="hours", title=f"{arguments.rows:,.0f} rows in {n_fragments:,} fragments")
    ax.legend(frameon=False)
    figure.savefig(arguments.output / "size_a_cluster.png", dpi=110)
    (arguments.output / "size_a_cluster.json").write_text(json.dumps(hours, indent=2), encoding="utf-8")
    seconds = time.perf_counter() - started
    print(f"\nfigure: {arguments.output / 'size_a_cluster.png'}; all of it took {seconds:.0f} s")


if __name__ == "__main__":
    main()
