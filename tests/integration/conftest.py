"""Examples, run on a sliver of the data; one run of the quickstart for all integration tests."""

from __future__ import annotations

import io
import os
import runpy
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
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
def run_example(environment: dict[str, str]) -> Callable[[str, Path], str]:
    """Run ``examples/<name>.py --fast`` as a program that writes to a folder's ``output``; return what it printed.

    It runs in this process, for one of its own would import torch and transformers again, which takes longer than most
    of the examples.
    """

    def run(name: str, folder: Path) -> str:
        path = str(ROOT / "examples" / f"{name}.py")
        with (
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()) as printed,
        ):
            warnings.simplefilter("default")
            for variable, value in environment.items():
                patch.setenv(variable, value)
            patch.chdir(folder)
            patch.setattr(sys, "argv", [path, "--fast", "--output", str(folder / "output")])
            runpy.run_path(path, run_name="__main__")
        plt.close("all")
        return printed.getvalue()

    return run


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory, run_example: Callable[[str, Path], str]) -> Quickstart:
    folder = tmp_path_factory.mktemp("quickstart")
    printed = run_example("quickstart", folder)
    return Quickstart(folder / "output", printed)
