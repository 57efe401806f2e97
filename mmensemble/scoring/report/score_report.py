"""What a call of `score_file` and its like returns, and logs at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmensemble.scoring.progress import log_event
from mmensemble.scoring.providers import ResolvedDevice

__all__ = ["ScoreReport", "log_end"]


@dataclass(frozen=True)
class ScoreReport:
    """What `score_file` or `generate_file` did.

    Parameters
    ----------
    n_rows : int
        Rows read and written.
    n_errors : int
        Rows among them that could not be scored, or not be written for.
    n_resumed : int
        Rows among them that an earlier, unfinished call had scored.
    seconds : float
        Time taken to read, score and write; the model was open before.
    device : {"cpu", "cuda", "tensorrt"}
        Where the graph ran.
    n_skipped : int, default=0
        Lines of the file that could not be read and were dropped.
    drifted : tuple of str, default=()
        Inputs and predictions whose population stability index is above ``max_drift``.
    summary : dict or None, default=None
        What the report has, as JSON values, where one was asked for.
    """

    __module__ = "mmensemble.scoring"
    n_rows: int
    n_errors: int
    n_resumed: int
    seconds: float
    device: ResolvedDevice
    n_skipped: int = 0
    drifted: tuple[str, ...] = ()
    summary: dict[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def rows_per_second(self) -> float:
        """Rows scored per second, without those that were there already."""
        return (self.n_rows - self.n_resumed) / self.seconds if self.seconds > 0 else 0.0

    def counts(self) -> dict[str, Any]:
        """Return what reports and logs say of it, beside its rows and errors."""
        return {
            "n_resumed": self.n_resumed,
            "n_skipped": self.n_skipped,
            "device": self.device,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
        }


def log_end(done: ScoreReport, facts: Mapping[str, Any]) -> None:
    """Log how a job ended."""
    ended = "end" if facts["finished"] else "given up"
    message = f"{ended}: {done.n_rows:,} rows, {done.n_errors:,} errors, {done.rows_per_second:,.0f} rows/s"
    rows: dict[str, Any] = {"n_rows": done.n_rows, "n_errors": done.n_errors, "drifted": list(done.drifted)}
    log_event("end", message, **{**facts, **rows, **done.counts()})
