from __future__ import annotations

import math
from pathlib import Path

import pytest

from mmensemble import cores
from mmensemble.cores import cgroup_cores, granted_cores, usable_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_usable_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert granted_cores() == usable_cores() >= 1  # outside of a cluster
    for quota, n in ((0.5, 1), (1.9, 1), (math.inf, usable_cores())):
        monkeypatch.setattr(cores, "cgroup_cores", lambda quota=quota: quota)
        assert usable_cores() == n


def test_quota_of_a_control_group(tmp_path: Path) -> None:
    group = {"proc/self/cgroup": "0::/pods/one\n", "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n"}
    assert cgroup_cores(write(tmp_path / "none", group)) == math.inf
    assert cgroup_cores(tmp_path / "no linux") == math.inf
    group["sys/fs/cgroup/pods/cpu.max"] = "250000 100000\n"
    assert cgroup_cores(write(tmp_path / "around", group)) == 2.5
    group["sys/fs/cgroup/pods/one/cpu.max"] = "50000 100000\n"
    assert cgroup_cores(write(tmp_path / "own", group)) == 0.5
    # A container's own group is the top, whatever the process takes it for.
    inside = {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}
    assert cgroup_cores(write(tmp_path / "container", inside)) == 2


def test_quota_of_the_first_version(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/cpu,cpuacct/one"
    group = {
        "proc/self/cgroup": "4:memory:/one\n3:cpu,cpuacct:/one\n",
        f"{folder}/cpu.cfs_quota_us": "300000\n",
        f"{folder}/cpu.cfs_period_us": "100000\n",
    }
    assert cgroup_cores(write(tmp_path / "three", group)) == 3
    assert cgroup_cores(write(tmp_path / "none", group | {f"{folder}/cpu.cfs_quota_us": "-1\n"})) == math.inf
    apart = {name.replace("cgroup/cpu,cpuacct", "cgroup/cpu"): text for name, text in group.items()}
    assert cgroup_cores(write(tmp_path / "apart", apart)) == 3
