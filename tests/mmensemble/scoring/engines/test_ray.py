"""Scoring on a real Ray cluster: a head and two nodes, on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.mmensemble.scoring.engines.equal import assert_equal_scores, read_folder

pytest.importorskip("ray.data")

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
def test_a_worker_is_killed_in_the_middle(
    model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    script = Path(__file__).with_name("ray_cluster.py")
    # Ray's sockets need a short path, and what it leaves there goes.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, script, model_path, rows_folder, tmp_path / "out", marks]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["n_rows"], report["n_errors"]) == (1500, 3)
    # What each worker counted is added up, of a fragment that was begun twice once.
    counted = json.loads((marks / "report.json").read_text())
    assert (counted["n_rows"], counted["n_scored"], counted["n_unobserved"]) == (1500, 1497, 0)
    assert report["n_workers"] > 1
    assert (marks / "killed").exists()
    assert_equal_scores(read_folder(tmp_path / "out" / "job"), scored)
    assert (marks / "actor killed").exists()
    pipeline = ds.dataset(tmp_path / "out" / "pipeline").to_table().sort_by("id")
    assert_equal_scores(pipeline.combine_chunks(), scored)
