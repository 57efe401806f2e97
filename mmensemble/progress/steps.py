"""A part of the work, and who hears of it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["Listener", "Step", "current_step", "listening"]

# Seconds that are not much, whatever they are a bound of.
QUICK = 1.0


class Listener(Protocol):
    """What hears of steps. An error that it raises ends the work."""

    def begin(self, step: Step) -> None:
        """Hear that a step begins; its `parent` has begun before."""

    def update(self, step: Step) -> None:
        """Hear that a step has come further (`done` of `size`), or that there are new `facts` of it."""

    def end(self, step: Step) -> None:
        """Hear that a step is over, by an error where it is `failed`."""


class Step:
    """A part of the work, and a block of code: what is opened inside belongs to it.

    Parameters
    ----------
    name : str
        What it is one of: ``"member"``, ``"fold"``, ``"epoch"``.
    number, of : int, default=None
        Which one of how many, from 1 on.
    label : str, default=""
        What this one is called.
    size : int, default=None
        Of how many units it consists, where `advance` counts them.
    plan : sequence of (hashable, float), default=()
        Of each step that will follow inside, its kind and cost; those of a kind take time by their cost. A kind may be
        a pair: what only its first is known of takes at most as long as that, which counts where it is quick.
    shown : bool, default=True
        Whether a line says its name.
    told : bool, default=True
        Whether scikit-learn's callbacks hear of it.
    last : bool, default=False
        Whether nothing that takes long follows in the step around it, so that this one's time is all that is left.

    Attributes
    ----------
    parent : Step or None
    title : str
        Who works: what a line begins with.
    estimator : estimator or None
        Whose fit this is a part of.
    done : int
        Of `size`.
    facts : dict of str to value
        What is known of it: of an epoch its ``train_loss``, ``valid_loss`` and ``dur``.
    seconds : float
        What it took, once it is over.
    failed : bool
    stopped : bool
        Whether a callback wants no further step of this kind, once it is over.
    """

    title = ""
    verbose: int = False
    estimator: Any = None
    context: Any = None
    child: Step | None = None
    parent: Step | None = None
    listeners: tuple[Listener, ...] = ()
    failed = False
    stopped = False
    seconds = 0.0
    started = 0.0

    def __init__(
        self,
        name: str,
        number: int | None = None,
        of: int | None = None,
        label: str = "",
        *,
        size: int | None = None,
        plan: Sequence[tuple[Hashable, float]] = (),
        shown: bool = True,
        told: bool = True,
        last: bool = False,
    ) -> None:
        self.name, self.number, self.of, self.label = name, number, of, label
        self.size, self.plan, self.shown, self.told, self.last = size, plan, shown, told, last
        self.done = self.done_before = 0
        self.facts: dict[str, Any] = {}
        self._n_ended = 0
        self._rates: dict[Hashable, float] = {}
        self.given: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    @property
    def text(self) -> str:
        """The step in words, as ``member 2 of 4 (image)``."""
        text = self.name
        if self.number is not None:
            text += f" {self.number:,}" + ("" if self.of is None else f" of {self.of:,}")
        elif self.size is not None or self.done:
            text += f" {self.done:,}" + ("" if self.size is None else f" of {self.size:,}")
        return f"{text} ({self.label})" if self.label else text

    @property
    def path(self) -> list[Step]:
        """The steps around it, the outermost first, and itself."""
        return [*([] if self.parent is None else self.parent.path), self]

    def __enter__(self) -> Self:
        self.parent = parent = _current.get()
        self.started = time.monotonic()
        if parent is not None:
            if self.estimator is None:
                self.estimator = parent.estimator
            if self.context is None:
                self.context = self._context_in(parent.context)
            parent.child = self
        self.listeners = self.heard_by(_listening.get() if parent is None else parent.listeners)
        for listener in self.listeners:
            listener.begin(self)
        if self.told and self.context is not None:
            self.context.call_on_fit_task_begin(estimator=self.estimator, **self.given)
        self._token = _current.set(self)
        return self

    def heard_by(self, listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
        """Return who hears of the step and of what is inside, given who hears of what is around it."""
        return listeners

    def _context_in(self, context: Any) -> Any:
        """Return scikit-learn's name of this step; of one that callbacks do not hear of, that of the one around it."""
        if context is None or not self.told:
            return context
        most = len(self.plan) or None
        return context.subcontext(task_name=f"{self.name} {self.label}".strip(), max_subtasks=most)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        self.seconds = time.monotonic() - self.started
        self.failed = error is not None
        if self.parent is not None:
            self.parent.close(self)
        for listener in self.listeners:
            listener.end(self)
        if self.failed:
            return
        if self.told and self.context is not None:
            given = self.given or {"metadata": self.facts or None}
            self.stopped = self.context.call_on_fit_task_end(estimator=self.estimator, **given)

    def close(self, child: Step) -> None:
        """Hear that a step inside is over."""
        if self._n_ended < len(self.plan):
            kind, cost = self.plan[self._n_ended]
            self._rates[kind] = child.seconds / max(cost, 1e-9)
        self._n_ended += 1
        self.child = None

    def advance(self, n: int = 1, **facts: Any) -> None:
        """Say that so many further units are done, and what is known now."""
        self.done += n
        self.facts.update(facts)
        for listener in self.listeners:
            listener.update(self)

    @property
    def rate(self) -> float:
        """The units that were done in a second."""
        return (self.done - self.done_before) / max(1e-9, time.monotonic() - self.started)

    def left(self) -> float | None:
        """Return the seconds that the step will still take, None where that cannot be estimated."""
        if self.plan:
            return self._left_of_plan()
        if self.size is not None:
            return (self.size - self.done) / self.rate if self.done > self.done_before else None
        return self.child.left() if self.child is not None and self.child.last else None

    def _left_of_plan(self) -> float | None:
        total, rates = 0.0, dict(self._rates)
        for place in range(self._n_ended, len(self.plan)):
            kind, cost = self.plan[place]
            spent, own = 0.0, None
            if place == self._n_ended and self.child is not None:
                spent, own = time.monotonic() - self.child.started, self.child.left()
                if own is not None:
                    rates.setdefault(kind, (spent + own) / max(cost, 1e-9))
            if own is None:
                expected = _expected(rates, kind, cost)
                if expected is None:
                    return None
                own = max(0.0, expected - spent)
            total += own
        return total


def _expected(rates: Mapping[Hashable, float], kind: Hashable, cost: float) -> float | None:
    """Return what a step will take, given the rates of those that are over."""
    if kind in rates:
        return rates[kind] * cost
    related = [
        rate
        for other, rate in rates.items()
        if isinstance(other, tuple) and isinstance(kind, tuple) and other[0] == kind[0]
    ]
    return max(related) * cost if related and max(related) * cost < QUICK else None


_current: ContextVar[Step | None] = ContextVar("step", default=None)
_listening: ContextVar[tuple[Listener, ...]] = ContextVar("listening", default=())


def current_step() -> Step | None:
    """Return the innermost step that is going on, None outside of all."""
    return _current.get()


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Let listeners hear of all work that begins in this block: fits, exports, curves, jobs of scoring.

    Parameters
    ----------
    *listeners : Listener

    Examples
    --------
    >>> from mmensemble.progress import Step, listening
    >>> class Names:
    ...     def begin(self, step):
    ...         print("begin", step.text)
    ...
    ...     def update(self, step):
    ...         pass
    ...
    ...     def end(self, step):
    ...         print("end", step.text)
    >>> with listening(Names()), Step("member", 1, 2, "text"), Step("fold", 1, 5):
    ...     pass
    begin member 1 of 2 (text)
    begin fold 1 of 5
    end fold 1 of 5
    end member 1 of 2 (text)
    """
    token = _listening.set((*_listening.get(), *listeners))
    try:
        yield
    finally:
        _listening.reset(token)
