"""Rows per second of a processor, and peak memory, of `score_dataset` here, on Ray and on Spark.

``python -m tests.benchmarks.engines FOLDER KIND ENGINE`` is one side, in a process of its own: it starts the cluster
and scores a small source, which is the start-up, and then the rows, some times, by one worker on one thread. It prints
JSON. Processors are counted by the seconds that all processes of the side ran on them, so that other work on the
machine disturbs little. It reads ``/proc``, so it needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmensemble import export_onnx, on_column, score_dataset
from mmensemble_estimators import ImageClassifier, TextClassifier
from tests.benchmarks.training import SETTINGS, emoji, tweets

ROOT = Path(__file__).parents[2]
ENGINES = ("local", "ray", "spark")
# Rows of each kind, which a processor scores in some five or ten seconds.
ROWS = {"numbers": 10_000_000, "texts": 40_000, "pictures": 20_000}
_FRAGMENTS = 4
_REPEATS = 3
_FITTED = 300
_N_NUMBERS = 8


@dataclass(frozen=True)
class EngineCost:
    """What an engine took to score rows of one kind, by one worker on one thread.

    Parameters
    ----------
    kind, engine : str
    n_rows : int
    startup_seconds : float
        Until a first, small job was done.
    rows_per_second : float
        By the clock, of the jobs after it; the median.
    rows_per_processor_second : float
        By the time that all processes ran on a processor; the median.
    ratio : float
        The latter as a multiple of that of the engine ``local``.
    worker_megabytes : float
        Peak of the resident set of the process that ran the model.
    all_megabytes : float
        Peaks of all processes, added up; what they share counts more than once.
    """

    kind: str
    engine: str
    n_rows: int
    startup_seconds: float
    rows_per_second: float
    rows_per_processor_second: float
    ratio: float
    worker_megabytes: float
    all_megabytes: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run() -> list[EngineCost]:
    """Measure every engine on every kind of rows."""
    costs: list[EngineCost] = []
    with tempfile.TemporaryDirectory(prefix="mmensemble-bench-") as name:
        for kind in ROWS:
            folder = Path(name) / kind
            folder.mkdir()
            _prepare(kind, folder)
            sides = {engine: _measured(folder, kind, engine) for engine in ENGINES}
            for engine, side in sides.items():
                ratio = side["rows_per_processor_second"] / sides["local"]["rows_per_processor_second"]
                costs.append(EngineCost(kind, engine, ROWS[kind], ratio=ratio, **side))
            shutil.rmtree(folder)
    return costs


def as_engine_table(costs: list[EngineCost]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| rows | engine | start-up, s | rows/s, clock | rows/s of a processor | of local | worker, MB | all, MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {c.n_rows:,} {c.kind} | {c.engine} | {c.startup_seconds:.1f} | {c.rows_per_second:,.0f} "
        f"| {c.rows_per_processor_second:,.0f} | {c.ratio:.2f}× | {c.worker_megabytes:,.0f} | {c.all_megabytes:,.0f} |"
        for c in costs
    ]
    return "\n".join(lines)


def _prepare(kind: str, folder: Path) -> None:
    """Write a model and rows for it: one file for the start, and four to measure."""
    n_rows = ROWS[kind]
    rng = np.random.default_rng(0)
    if kind == "numbers":
        names = [f"x{number}" for number in range(_N_NUMBERS)]
        X = pd.DataFrame(rng.normal(size=(1000, _N_NUMBERS)), columns=names)
        model: Any = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, X["x0"] > 0)
        rows: dict[str, Any] = {name: rng.normal(size=n_rows) for name in names}
    else:
        cells, y = tweets(_FITTED) if kind == "texts" else emoji("picture", _FITTED)
        column = "text" if kind == "texts" else "picture"
        leaf: Any = TextClassifier(**SETTINGS) if kind == "texts" else ImageClassifier(**SETTINGS)
        model = on_column(column, leaf).fit(pd.DataFrame({column: list(cells)}), y)
        rows = {column: [cells[number] for number in rng.integers(0, len(cells), n_rows)]}
    export_onnx(model, folder / "model.onnx", verify=False)
    table = pa.table(rows)
    (folder / "rows").mkdir()
    size = -(-n_rows // _FRAGMENTS)
    for number in range(_FRAGMENTS):
        pq.write_table(table.slice(number * size, size), folder / "rows" / f"{number}.parquet", row_group_size=size)
    pq.write_table(table.slice(0, 64), folder / "few.parquet")


def _measured(folder: Path, kind: str, engine: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.engines", str(folder), kind, engine]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "estimators")]),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYSPARK_PYTHON": sys.executable,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Ray's workers stand behind all other processes of a machine, 15, and would wait for whatever runs beside them.
        "RAY_worker_niceness": "0",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    side: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return side


def _side(folder: Path, kind: str, engine: str) -> dict[str, float]:
    options: dict[str, Any] = {"engine": engine, "device": "cpu", "n_threads": 1, "fragment_rows": ROWS[kind]}
    started = time.perf_counter()
    _start(engine)
    score_dataset(folder / "model.onnx", folder / "few.parquet", folder / f"first-{engine}", **options)
    startup = time.perf_counter() - started
    by_clock, by_processor = [], []
    for repeat in range(_REPEATS):
        target = folder / f"scores-{engine}-{repeat}"
        before, started = _processor_seconds(), time.perf_counter()
        score_dataset(folder / "model.onnx", folder / "rows", target, workers=1, **options)
        by_clock.append(ROWS[kind] / (time.perf_counter() - started))
        by_processor.append(ROWS[kind] / (_processor_seconds() - before))
        shutil.rmtree(target)
    peaks = {process: _peak(process) for process in _processes()}
    running = [peak for process, peak in peaks.items() if _runs_models(process)]
    # The process that is asked has ONNX Runtime too, to read the model's manifest.
    workers = running if engine == "local" else [peaks[p] for p in peaks if _runs_models(p) and p != os.getpid()]
    return {
        "startup_seconds": startup,
        "rows_per_second": median(by_clock),
        "rows_per_processor_second": median(by_processor),
        "worker_megabytes": max(workers),
        "all_megabytes": sum(peaks.values()),
    }


def _start(engine: str) -> None:
    if engine == "ray":
        import ray

        ray.init(num_cpus=1, log_to_driver=False, include_dashboard=False, object_store_memory=100 * 2**20)
    if engine == "spark":
        from pyspark.sql import SparkSession

        SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()


def _processes() -> Iterator[int]:
    """Yield this process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and (fields := _stat(int(path.name))) is not None:
            parents.setdefault(int(fields[1]), []).append(int(path.name))
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        yield process
        waiting += parents.get(process, [])


def _stat(process: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` behind the name."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _processor_seconds() -> float:
    """Return how long these processes, and those of them that have ended, ran on a processor."""
    ticks = 0
    for process in _processes():
        fields = _stat(process)
        if fields is not None:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _peak(process: int) -> float:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0) / 1024


def _runs_models(process: int) -> bool:
    try:
        return "onnxruntime" in Path(f"/proc/{process}/maps").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def main() -> None:
    """Measure one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=list(ROWS))
    parser.add_argument("engine", choices=list(ENGINES))
    arguments = parser.parse_args()
    print(json.dumps(_side(arguments.folder, arguments.kind, arguments.engine)))


if __name__ == "__main__":
    main()
