"""Python started beside a checkout that is called as the package."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest


@pytest.mark.skipif(
    '"editable": true' not in (distribution("mmensemble").read_text("direct_url.json") or ""),
    reason="only an editable install is asked after folders",
)
def test_a_folder_that_hides_the_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "mmensemble" / "docs").mkdir(parents=True)
    run = subprocess.run(
        [sys.executable, "-c", "import mmensemble_estimators"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert f"ImportError: the folder {tmp_path / 'mmensemble'} hides the package mmensemble" in run.stderr
