"""Work that somebody has called for, whether it is shown, and the fits of estimators."""

from __future__ import annotations

import datetime
import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from mmensemble.progress.display import Display, context_around, in_words
from mmensemble.progress.steps import Listener, Step, current_step

__all__ = ["LOGGER", "Work", "fitting", "handing_down", "is_silent", "report"]

LOGGER = logging.getLogger("mmensemble")

# A search by scikit-learn has fits one after the other, and is one work to who waits for it.
_displays: WeakKeyDictionary[Any, Display] = WeakKeyDictionary()


def is_silent(verbose: int) -> bool:
    """Tell whether ``verbose`` asks for nothing to be shown: 0 does, and False leaves it to how long it takes."""
    return verbose is not False and verbose <= 0


class Work(Step):
    """Work that somebody has called for, which is shown.

    Parameters
    ----------
    name : str
        What is done: ``"fit"``.
    title : str
        Who does it: what a line begins with.
    verbose : bool or int, default=False
        False shows it after some seconds, or as the work around it is shown; True shows it at once; the number 0, which
        is not False here, shows nothing of it.
    **more
        As of `Step`.
    """

    def __init__(self, name: str, title: str, verbose: int = False, *, shown: bool = False, **more: Any) -> None:
        super().__init__(name, shown=shown, last=True, **more)
        self.title, self.verbose = title, verbose

    def heard_by(self, listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
        displays = [listener for listener in listeners if isinstance(listener, Display)]
        if is_silent(self.verbose):
            return tuple(listener for listener in listeners if listener not in displays)
        if displays:
            for display in displays if self.verbose else []:
                display.delay = 0.0
            return listeners
        if self.verbose or (self.parent is None and _is_in_front()):
            return (*listeners, self._display())
        return listeners

    def _display(self) -> Display:
        delay = 0.0 if self.verbose else None
        around = context_around(self)
        if around is None:
            return Display(delay=delay)
        while around.parent is not None:
            around = around.parent
        if around not in _displays:
            ago = datetime.datetime.now(datetime.UTC) - around.init_time
            _displays[around] = Display(delay=delay, started=time.monotonic() - ago.total_seconds())
        return _displays[around]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if error is None:
            event = {"event": "done", "title": self.title, "name": self.name, "seconds": self.seconds}
            LOGGER.info("%s: %s took %s", self.title, self.name, in_words(self.seconds), extra={"event": event})


def _is_in_front() -> bool:
    """Tell whether this is where somebody waits: no worker of joblib, no thread of a server."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and multiprocessing.current_process().name == "MainProcess"


@contextmanager
def fitting(
    estimator: Any, X: Any = None, y: Any = None, sample_weight: Any = None, *, name: str = "fit"
) -> Iterator[Work]:
    """Open the work of an estimator's fit, which its callbacks hear of, and which is shown as its ``verbose`` says.

    Parameters
    ----------
    estimator : estimator
    X, y, sample_weight : array-like, default=None
        What it is fitted on, for the callbacks.
    name : str, default="fit"
    """
    from mmensemble._sklearn import callback_context, callback_management_context

    work = Work(name, type(estimator).__name__, estimator.verbose)
    work.estimator = estimator
    with handing_down(estimator), callback_management_context(estimator):
        if hasattr(estimator, "set_callbacks"):
            work.context = callback_context(estimator, name)
            metadata = None if sample_weight is None else {"sample_weight": sample_weight}
            work.given = {"X": X, "y": y, "metadata": metadata, "reconstruction_attributes": dict}
        with work:
            yield work


@contextmanager
def handing_down(estimator: Any) -> Iterator[None]:
    """Let the callbacks of what is being fitted hear of the fit of an estimator inside, where that can have any.

    Parameters
    ----------
    estimator : estimator
        About to be fitted.
    """
    from mmensemble._sklearn import callback_context_around, handed_down

    step = current_step()
    if (
        step is None
        or step.context is None
        or not hasattr(estimator, "set_callbacks")
        or callback_context_around(estimator) is not None  # scikit-learn has done so
    ):
        yield
        return
    context = step.context.subcontext(task_name=f"fit {type(estimator).__name__}")
    with handed_down(context, estimator):
        context.call_on_fit_task_begin(estimator=step.estimator)
        yield
        context.call_on_fit_task_end(estimator=step.estimator)


def report(text: object) -> None:
    """Log what came out of the work that is going on, and show it where that was called for with ``verbose=1``."""
    step = current_step()
    LOGGER.info("%s", text)
    if step is not None and step.verbose:
        for listener in step.listeners:
            if isinstance(listener, Display):
                listener.write(str(text))
