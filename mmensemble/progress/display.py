"""The line that shows how far work is."""

from __future__ import annotations

import datetime
import shutil
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from mmensemble.progress.steps import Step

__all__ = ["Display", "clock", "context_around", "in_words"]

# Seconds that work takes before it is shown, between lines of a log, and between two pictures of a terminal's line.
DELAY = 3.0
EVERY = 30.0
STAGE_EVERY, STAGES = 1.0, 20
REDRAWN_EVERY = 0.1

# What a line says beside the names of steps.
FACTS = {"train_loss": "loss", "valid_loss": "validation loss", "errors": "errors"}

# What scikit-learn calls a task, and what a line does.
SHORTER = {"candidate-split-evaluation": "fit"}


class Display:
    """The line that says how far work is: on a terminal it is written anew each time, in a file it is one of a log.

    Parameters
    ----------
    stream : text stream, default=None
        None is stderr.
    delay : float, default=None
        Seconds before anything is shown; None is 3.
    started : float, default=None
        When the work began, by `time.monotonic`; None is with the first step.
    """

    def __init__(self, stream: TextIO | None = None, *, delay: float | None = None, started: float | None = None):
        self.stream = stream
        self.delay = DELAY if delay is None else delay
        self.started = started
        self.root: Step | None = None
        self._lines = 0
        self._last = -float("inf")
        self._stage = ""
        self._width = 0

    @property
    def _terminal(self) -> bool:
        stream = sys.stderr if self.stream is None else self.stream
        with suppress(AttributeError, ValueError):  # there is no stderr, or it is closed
            return stream.isatty()
        return False

    def begin(self, step: Step) -> None:
        if self.root is None:
            self.root = step
            self.started = time.monotonic() if self.started is None else self.started
        self._show(step, begins=True)

    def update(self, step: Step) -> None:
        self._show(step, begins=False)

    def end(self, step: Step) -> None:
        if step is not self.root:
            return
        self._erase()
        self.root = None
        shown = self._lines > 0 and not self._terminal and not _around(step)
        if not step.failed and (step.verbose or shown):
            self.write(f"{step.title or step.text}: {step.name} took {in_words(step.seconds)}")

    def _show(self, step: Step, *, begins: bool) -> None:
        if self.root is None or self.started is None or time.monotonic() - self.started < self.delay:
            return
        since = time.monotonic() - self._last
        if self._terminal:
            if begins or since >= REDRAWN_EVERY:
                self._last = time.monotonic()
                width = max(20, shutil.get_terminal_size().columns - 1)
                line = self.line(step)
                line = line if len(line) <= width else f"{line[: width - 3]}..."
                self._put("\r" + line.ljust(self._width))
                self._width = len(line)
            return
        stage = next((f"{each.name} {each.label}" for each in step.path if each.shown), "")
        # Stages of long work are many.
        least = min(EVERY, max(STAGE_EVERY, (time.monotonic() - self.started) / STAGES))
        if stage and (since >= EVERY or (stage != self._stage and since >= least)):
            self._last, self._stage = time.monotonic(), stage
            self._lines += 1
            self.write(self.line(step))

    def line(self, step: Step) -> str:
        """Return the line for a step that is going on."""
        path = step.path
        root = path[0] if self.root is None else self.root
        inside = path[path.index(root) :] if root in path else path
        parts = [each.text for each in inside if each.shown]
        facts = next((each.facts for each in reversed(path) if each.facts), {})
        for name, words in FACTS.items():
            if name in facts:
                value = facts[name]
                parts.append(f"{words} {value:,}" if isinstance(value, int) else f"{words} {value:.3g}")
        left = root.left()
        if left is not None:
            parts.append(f"{clock(left)} left")
        around = "".join(f"{each}: " for each in _around(root))
        return f"{around}{root.title or root.text}: {', '.join(parts) or root.name}"

    def write(self, text: str) -> None:
        """Write lines that stay; in a log with the time before them."""
        self._erase()
        if not self._terminal:
            text = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {text}"
        self._put(f"{text}\n")

    def _erase(self) -> None:
        if self._width:
            self._put("\r" + " " * self._width + "\r")
            self._width = 0

    def _put(self, text: str) -> None:
        stream = sys.stderr if self.stream is None else self.stream
        with suppress(AttributeError, OSError, ValueError):  # who has closed it does not want to see it
            stream.write(text)
            stream.flush()


def context_around(step: Step) -> Any:
    """Return what scikit-learn calls the task around the outermost step, where there is one."""
    if step.parent is not None or step.estimator is None:
        return None
    from mmensemble._sklearn import callback_context_around

    return callback_context_around(step.estimator)


def _around(step: Step) -> list[str]:
    """Return what scikit-learn's estimators around the outermost step are doing, in words."""
    context = context_around(step)
    words: list[str] = []
    while context is not None and context.parent is not None:
        most = context.parent.max_subtasks
        if most is not None and most > 1 and not words:
            words = [f"{SHORTER.get(context.task_name, context.task_name)} {context.task_id + 1} of {most}"]
        context = context.parent
    return words if context is None else [context.estimator_name, *words]


def in_words(seconds: float) -> str:
    """Return a time in words: ``0.4 s``, ``41 s``, ``2:05``."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 100 else clock(seconds)


def clock(seconds: float) -> str:
    """Return a time as a clock has it: ``0:41``, ``1:02:05``."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
