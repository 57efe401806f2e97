"""A cluster of two nodes, run as a process of its own: what Ray leaves in a process stays out of the tests.

Arguments: model, folder of rows, folder to write into, folder for marks. Prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from mmensemble import BatchScorer, score_dataset
from mmensemble.scoring.engines import ray as engine

model, rows, out, marks = map(Path, sys.argv[1:])


def kills_itself(function: Any, fragment: Any) -> Any:
    """End the worker's process in the middle of the job, once."""
    mark = marks / "killed"
    if fragment.number == 2 and not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    (marks / f"{fragment.number}-{os.getpid()}").touch()
    return function(fragment)


class DiesOnce(BatchScorer):
    """The actor of the pipeline below, whose process is killed at its second table."""

    def __call__(self, table: Any) -> Any:
        mark = marks / "actor killed"
        if table["id"][0].as_py() >= 400 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(table)


cluster = Cluster()
for cpus in (0, 3, 3):
    cluster.add_node(num_cpus=cpus, object_store_memory=100 * 2**20)
try:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": environment})
    engine._call = kills_itself
    options = {"keep": ["id"], "device": "cpu", "fragment_rows": 200, "report": marks / "report.json"}
    report = score_dataset(model, rows, out / "job", engine="ray", **options)
    workers = {path.name.partition("-")[2] for path in marks.iterdir() if "-" in path.name}

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    scored = ray.data.read_parquet(str(rows), override_num_blocks=4).map_batches(
        DiesOnce,
        fn_constructor_args=(str(model),),
        fn_constructor_kwargs={"keep": ["id"], "device": "cpu"},
        batch_format="pyarrow",
        batch_size=200,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=1,
    )
    scored.write_parquet(str(out / "pipeline"))
    print(json.dumps({"n_rows": report.n_rows, "n_errors": report.n_errors, "n_workers": len(workers)}))
finally:
    ray.shutdown()
    cluster.shutdown()
