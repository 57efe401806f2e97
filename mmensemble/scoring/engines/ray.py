"""The engine of Ray: a task for each fragment. Imports ray at use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from mmensemble.exceptions import MissingDependencyError
from mmensemble.scoring.engines.engine import Engine

__all__ = ["RayEngine"]

# Tasks that wait at Ray for a worker, so that none is idle; more would only be more to forget after an error.
_AHEAD = 2
# What a fragment may cost of workers, and nodes, that die under it.
_RETRIES = 5


class RayEngine(Engine):
    """Ray's tasks; a worker's process keeps the model open for the next one.

    The cluster is the one that this process is connected to, else that of ``RAY_ADDRESS`` or of this machine, else one
    that is started here and ends with the job. A task whose worker dies is given to another one.
    """

    name: ClassVar[str] = "ray"

    def map(
        self, function: Callable[[Any], Any], fragments: Sequence[Any], *, workers: int | None, cpus: int, gpus: int
    ) -> Iterator[Any]:
        try:
            import ray
        except ImportError as error:
            raise MissingDependencyError("ray", "ray") from error
        with _cluster(ray):
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(_call)
            shared = ray.put(function)
            left = iter(fragments)
            running: dict[Any, None] = {}
            try:
                while True:
                    # Nodes may come while the job runs.
                    most = workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1) // cpus))
                    while len(running) < most and (fragment := next(left, None)) is not None:
                        running[task.remote(shared, fragment)] = None
                    if not running:
                        return
                    (finished, *_), _ = ray.wait(list(running))
                    running.pop(finished)
                    yield ray.get(finished)
            finally:
                for unfinished in running:
                    ray.cancel(unfinished, force=True)


def _call(function: Callable[[Any], Any], fragment: Any) -> Any:
    return function(fragment)


@contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()
