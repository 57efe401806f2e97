"""Scoring on a real Spark cluster: two workers, on one machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.mmensemble.scoring.engines.equal import assert_equal_scores, read_folder

pyspark = pytest.importorskip("pyspark")

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java")
def test_a_python_worker_exits_in_the_middle(
    model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path
) -> None:
    for name in ("marks", "spark", "home"):
        (tmp_path / name).mkdir()
    # Its workers write below its home, which is not to be the installed package.
    for entry in Path(pyspark.__file__).parent.iterdir():
        (tmp_path / "home" / entry.name).symlink_to(entry)
    marks = tmp_path / "marks"
    script = Path(__file__).with_name("spark_cluster.py")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_DIRS": str(tmp_path / "spark"),
        "SPARK_HOME": str(tmp_path / "home"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, script, model_path, rows_folder, tmp_path / "out", marks]
    done = subprocess.run(command, env=environment, cwd=tmp_path / "spark", capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["n_rows"], report["n_errors"]) == (1500, 3)
    # What each worker counted is added up, of a fragment that was begun twice once.
    counted = json.loads((marks / "report.json").read_text())
    assert (counted["n_rows"], counted["n_scored"], counted["n_unobserved"]) == (1500, 1497, 0)
    assert report["n_workers"] > 1
    assert (marks / "exited").exists()
    assert_equal_scores(read_folder(tmp_path / "out" / "job"), scored)
    assert (marks / "pipeline exited").exists()
    files = sorted((tmp_path / "out" / "pipeline").glob("*.parquet"))
    pipeline = ds.dataset(files).to_table().sort_by("id")
    assert_equal_scores(pipeline.combine_chunks(), scored)
