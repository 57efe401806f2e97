"""A Spark cluster of two workers, run as a process of its own: what Spark leaves in a process stays out of the tests.

Arguments: model, folder of rows, folder to write into, folder for marks. Prints JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from mmensemble import BatchScorer, score_dataset
from mmensemble.scoring.engines import spark as engine

model, rows, out, marks = map(Path, sys.argv[1:])
on_worker = engine._on_worker
path = os.pathsep.join(sys.path)


def exits_once(function: Any, fragments: list[Any]) -> Any:
    """End the Python worker hard in the middle of the job, at its first attempt."""

    def score(fragment: Any) -> Any:
        mark = marks / "exited"
        if fragment.number == 2 and not mark.exists():
            mark.touch()
            os._exit(1)
        (marks / f"{fragment.number}-{os.getpid()}").touch()
        return function(fragment)

    return on_worker(score, fragments)


def iterates_once(scorer: BatchScorer) -> Any:
    """Do the same in a user's own pipeline."""

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(scorer.iterate(batches)):
            mark = marks / "pipeline exited"
            if number == 1 and not mark.exists():
                mark.touch()
                os._exit(1)
            yield batch

    return score


spark = (
    SparkSession.builder.master("local-cluster[2,1,800]")
    .config("spark.ui.enabled", "false")
    .config("spark.executor.memory", "800m")
    .config("spark.executorEnv.PYTHONPATH", path)
    .config("spark.executorEnv.OMP_NUM_THREADS", "1")
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", "150")
    .config("spark.sql.warehouse.dir", str(out / "warehouse"))
    .getOrCreate()
)
try:
    engine._on_worker = exits_once
    options = {"keep": ["id"], "device": "cpu", "fragment_rows": 200, "report": marks / "report.json"}
    report = score_dataset(model, rows, out / "job", engine="spark", **options)
    workers = {path.name.partition("-")[2] for path in marks.iterdir() if "-" in path.name}

    frame = spark.read.option("recursiveFileLookup", "true").parquet(str(rows))
    scorer = BatchScorer(model, keep=["id"], device="cpu")
    scored = frame.mapInArrow(iterates_once(scorer), scorer.spark_schema(frame.schema))
    scored.write.parquet(str(out / "pipeline"))
    print(json.dumps({"n_rows": report.n_rows, "n_errors": report.n_errors, "n_workers": len(workers)}))
finally:
    spark.stop()
