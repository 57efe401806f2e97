"""Time two things in turn, in one process, and report their ratio: the machine is noisy, so neither alone says much."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One comparison: seconds of ours and of the reference for the same rows, and how many times as fast ours is.

    `target` is what was aimed at, where something was.
    """

    name: str
    n_rows: int
    ours: str
    reference: str
    ours_seconds: float
    reference_seconds: float
    target: float | None = None

    @property
    def speedup(self) -> float:
        return self.reference_seconds / self.ours_seconds

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "speedup": self.speedup}


def compare(
    name: str,
    n_rows: int,
    ours: tuple[str, Callable[[], object]],
    reference: tuple[str, Callable[[], object]],
    *,
    repeats: int = 5,
    target: float | None = None,
) -> Result:
    """Run both in turn, once to warm up and `repeats` times measured; the medians count."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for repeat in range(repeats + 1):
        for key, (_, function) in (("ours", ours), ("reference", reference)):
            start = time.perf_counter()
            function()
            if repeat:
                seconds[key].append(time.perf_counter() - start)
    medians = {key: statistics.median(measured) for key, measured in seconds.items()}
    return Result(name, n_rows, ours[0], reference[0], medians["ours"], medians["reference"], target)


def as_table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| benchmark | ours | reference | ours, rows/s | reference, rows/s | ours is | aimed at |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.name} | {r.ours} | {r.reference} | {r.n_rows / r.ours_seconds:,.0f} "
        f"| {r.n_rows / r.reference_seconds:,.0f} | {r.speedup:.2f}× | {'' if r.target is None else f'{r.target:g}×'} |"
        for r in results
    ]
    return "\n".join(lines)


def plot(results: list[Result], path: Path) -> None:
    """Draw how many times as fast ours is, one bar each, with a mark where it was aimed at."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 0.32 * len(results) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = range(len(results))
    speedups = [result.speedup for result in results]
    met = [result.target is None or result.speedup >= result.target for result in results]
    bars = axes.barh(places, speedups, color=["tab:blue" if good else "tab:orange" for good in met])
    axes.bar_label(bars, [f"{speedup:.2f}×" for speedup in speedups], label_type="center", color="white", fontsize=8)
    aimed = [(place, result.target) for place, result in zip(places, results, strict=True) if result.target]
    axes.scatter([target for _, target in aimed], [place for place, _ in aimed], marker="|", s=160, color="black")
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_yticks(places, [f"{result.name} | {result.reference}" for result in results], fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(left=0.25)
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.set_xlabel("speed / reference; mark: aimed at; orange: missed", fontsize=9)
    figure.savefig(path, dpi=120)
