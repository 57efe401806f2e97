"""One run of the quickstart for all integration tests."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Quickstart:
    """Where a run of ``examples/quickstart.py --fast`` wrote, and what it printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of subprocesses: both packages can be imported, and no window opens."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "estimators")])
    return {**os.environ, "PYTHONPATH": paths, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py"), "--fast", "--output", str(folder / "output")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Quickstart(folder / "output", done.stdout)
