"""What an engine is, and which ones are known by which name. Standard library only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from mmensemble.exceptions import ConfigurationError

__all__ = ["Engine", "LocalEngine", "engine_named", "known_engines", "register_engine"]


class Engine(ABC):
    """Who calls a function on the fragments of a source; see `register_engine`.

    The function scores a fragment and writes its scores, and says nothing but what it did. It may be called twice on a
    fragment, at the same time too: so an engine may repeat what a worker that died has not answered.

    Attributes
    ----------
    name : str
        What `score_dataset` calls it.
    """

    __module__ = "mmensemble.scoring"
    name: ClassVar[str]

    @abstractmethod
    def map(
        self, function: Callable[[Any], Any], fragments: Sequence[Any], *, workers: int | None, cpus: int, gpus: int
    ) -> Iterator[Any]:
        """Call a function on each fragment.

        Parameters
        ----------
        function : callable
            It and the fragments can be pickled, and so can what it returns. It does not raise what is wrong with the
            data.
        fragments : sequence
        workers : int or None
            Most calls at the same time; None takes what there is.
        cpus, gpus : int
            What a call is to have for itself.

        Yields
        ------
        object
            What the function returned, of each fragment once, in any order.
        """


class LocalEngine(Engine):
    """The calling process, one fragment after the other, on all threads."""

    name: ClassVar[str] = "local"

    def map(
        self, function: Callable[[Any], Any], fragments: Sequence[Any], *, workers: int | None, cpus: int, gpus: int
    ) -> Iterator[Any]:
        if workers not in (None, 1):
            raise ConfigurationError(
                f"workers={workers} needs an engine of several processes; engine='local' has threads (n_threads)"
            )
        return (function(fragment) for fragment in fragments)


# The engines by name.
_ENGINES: dict[str, Engine] = {}


def register_engine(engine: Engine) -> None:
    """Let `mmensemble.scoring.score_dataset` run jobs on an engine.

    Parameters
    ----------
    engine : Engine
        It takes the place of one of the same name.

    Examples
    --------
    >>> from concurrent.futures import ProcessPoolExecutor
    >>> from mmensemble.scoring import Engine, register_engine
    >>> class ProcessesEngine(Engine):
    ...     name = "processes"
    ...
    ...     def map(self, function, fragments, *, workers, cpus, gpus):
    ...         with ProcessPoolExecutor(workers) as pool:
    ...             yield from pool.map(function, fragments)
    >>> register_engine(ProcessesEngine())  # doctest: +SKIP
    """
    _ENGINES[engine.name] = engine


def known_engines() -> list[str]:
    """Return the names of the engines, in the order in which they were registered."""
    return list(_ENGINES)


def engine_named(name: str) -> Engine:
    """Return an engine.

    Raises
    ------
    ConfigurationError
        If there is none of this name.
    """
    if name not in _ENGINES:
        raise ConfigurationError(f"engine must be one of {', '.join(map(repr, _ENGINES))}, not {name!r}")
    return _ENGINES[name]
