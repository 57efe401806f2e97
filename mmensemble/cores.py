"""How many cores a process may use: its affinity, its container's quota, and what a cluster gave its task."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["affinity", "cgroup_cores", "cgroup_files", "granted_cores", "usable_cores"]


def affinity() -> int:
    """Count the cores that the system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cores() -> int:
    """Count the cores that this process may use, of those that a container's quota pays for at most as many."""
    return max(1, math.floor(min(affinity(), cgroup_cores())))


def granted_cores() -> int:
    """Count the cores that a task may use: what Ray or Spark gave it, and else `usable_cores`."""
    return _of_ray() or _of_spark() or usable_cores()


def cgroup_cores(root: Path = Path("/")) -> float:
    """Return the cores that the process's control group, and those around it, may use; infinity without a quota.

    Parameters
    ----------
    root : Path, default=/
        Where ``proc`` and ``sys`` are, for tests.
    """
    quotas = [text.split() for (text,) in cgroup_files("cpu", ("cpu.max",), root)]
    quotas += cgroup_files("cpu", ("cpu.cfs_quota_us", "cpu.cfs_period_us"), root)
    known = [(int(most), int(period)) for most, period in quotas if most != "max"]
    return min((most / period for most, period in known if most > 0), default=math.inf)


def cgroup_files(controller: str, names: Sequence[str], root: Path = Path("/")) -> Iterator[list[str]]:
    """Yield the texts of some files of the process's control group, of version 1 or 2, and of those around it.

    Parameters
    ----------
    controller : str
        As ``"cpu"`` or ``"memory"``.
    names : sequence of str
        Of the files; a group without one of them yields nothing.
    root : Path, default=/
        Where ``proc`` and ``sys`` are, for tests.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # no Linux
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Controllers that are mounted together have a folder by all their names, and mostly one by each name too.
        mounts = [root / "sys/fs/cgroup" / name for name in (controllers, controller)]
        top = next((mount for mount in mounts if mount.is_dir()), mounts[0])
        # Within a container the group's own folder may be the top, whatever the process believes its path to be.
        folder = top / group.lstrip("/")
        for place in (folder, *folder.parents):
            with suppress(OSError):
                yield [(place / name).read_text(encoding="utf-8").strip() for name in names]
            if place == top:
                break


def _of_ray() -> int | None:
    """Return the CPUs of the Ray task or actor that this is; only Ray's own workers have Ray loaded and a task."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))


def _of_spark() -> int | None:
    """Return ``spark.task.cpus`` of the Spark task that this is."""
    pyspark = sys.modules.get("pyspark")
    context = None if pyspark is None else pyspark.TaskContext.get()
    return None if context is None else int(context.cpus())
