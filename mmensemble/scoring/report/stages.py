"""Where the time of a job goes. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock
from typing import Any

__all__ = ["Stages"]


class Stages:
    """Seconds of each stage, added up over all threads that do it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose calls count."""

        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(stage, time.perf_counter() - started)

        return call

    def each(self, stage: str, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items; the time until each is there counts."""
        following = self.timed(stage, iter(items).__next__)
        while True:
            try:
                item = following()
            except StopIteration:
                return
            yield item
