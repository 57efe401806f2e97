"""How many cores a process may use: its affinity, its container's quota, and what a cluster gave its task."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

__all__ = ["cgroup_cores", "granted_cores", "usable_cores"]


def usable_cores() -> int:
    """Count the cores that this process may use, of those that a container's quota pays for at most as many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cgroup_cores())))


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
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf  # no Linux
    quota = math.inf
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, read = root / "sys/fs/cgroup", _quota_of_version_2
        elif "cpu" in controllers.split(","):
            top, read = root / "sys/fs/cgroup" / controllers, _quota_of_version_1
        else:
            continue
        # Within a container the group's own folder may be the top, whatever the process believes its path to be.
        folder = top / group.lstrip("/")
        for place in (folder, *folder.parents):
            quota = min(quota, read(place))
            if place == top:
                break
    return quota


def _quota_of_version_2(folder: Path) -> float:
    try:
        most, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if most == "max" else int(most) / int(period)


def _quota_of_version_1(folder: Path) -> float:
    try:
        most, period = (
            int((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
    except (OSError, ValueError):
        return math.inf
    return math.inf if most <= 0 else most / period


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
