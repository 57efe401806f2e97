"""Time two things in turn, in one process, and report their ratio: the machine is noisy, so neither alone says much."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """One comparison: seconds of ours and of the reference for the same rows, and how many times as fast ours is."""

    name: str
    n_rows: int
    ours: str
    reference: str
    ours_seconds: float
    reference_seconds: float

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
) -> Result:
    """Run both in turn, once to warm up and `repeats` times measured; the medians count."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for repeat in range(repeats + 1):
        for key, (_, function) in (("ours", ours), ("reference", reference)):
            start = time.perf_counter()
            function()
            if repeat:
                seconds[key].append(time.perf_counter() - start)
    return Result(
        name, n_rows, ours[0], reference[0], statistics.median(seconds["ours"]), statistics.median(seconds["reference"])
    )


def as_table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| benchmark | ours | reference | ours, rows/s | reference, rows/s | ours is |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.name} | {r.ours} | {r.reference} | {r.n_rows / r.ours_seconds:,.0f} "
        f"| {r.n_rows / r.reference_seconds:,.0f} | {r.speedup:.2f}× |"
        for r in results
    ]
    return "\n".join(lines)
