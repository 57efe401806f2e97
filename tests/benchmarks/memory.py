"""Peak memory beside the training benchmarks: each side does its work once, in a process of its own.

``python -m tests.benchmarks.memory fit-text-ours --rows 1000`` is one side; it prints by how many MB the peak of its
resident set rose through the work. It reads ``/proc``, so it needs Linux.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmensemble_estimators import ImageClassifier, TextClassifier
from tests.benchmarks.training import (
    SETTINGS,
    bare_fit,
    bare_predict,
    emoji,
    hugging_face,
    minilm,
    skorch_fit,
    skorch_predict,
    tweets,
)

ROOT = Path(__file__).parents[2]
REFERENCES = {"bare": "bare PyTorch loop", "skorch": "plain skorch", "pipeline": "Hugging Face pipeline"}
NETWORKS = {"text": "text, small GPT, tweets", "image": "image, small ResNet, emoji", "minilm": "MiniLM, tweets"}


@dataclass(frozen=True)
class Memory:
    """By how much the peak of the resident set rose, in MB, through the same work of ours and of the reference."""

    name: str
    n_rows: int
    reference: str
    ours_megabytes: float
    reference_megabytes: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(*, n_rows: int) -> list[Memory]:
    """Compare peaks of memory."""
    results = []
    for task, kind, reference in (
        ("fit", "text", "bare"),
        ("fit", "text", "skorch"),
        ("fit", "image", "bare"),
        ("predict", "text", "bare"),
        ("predict", "text", "skorch"),
        ("predict", "image", "bare"),
        ("predict", "minilm", "pipeline"),
    ):
        ours, other = (_measured(f"{task}-{kind}-{who}", n_rows) for who in ("ours", reference))
        results.append(Memory(f"{task}, {NETWORKS[kind]}", n_rows, REFERENCES[reference], ours, other))
    return results


def as_memory_table(results: list[Memory]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| benchmark | reference | ours, MB | reference, MB |", "| --- | --- | ---: | ---: |"]
    lines += [f"| {r.name} | {r.reference} | {r.ours_megabytes:,.0f} | {r.reference_megabytes:,.0f} |" for r in results]
    return "\n".join(lines)


def _measured(side: str, n_rows: int) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.memory", side, "--rows", str(n_rows)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "estimators")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def _work(side: str, n_rows: int) -> Callable[[], object]:
    """Return the work of one side, prepared as far as its memory is not to be measured."""
    task, kind, who = side.split("-")
    X, y = emoji("picture", n_rows) if kind == "image" else tweets(n_rows)
    if kind == "minilm":
        if who == "pipeline":
            return partial(hugging_face(len(np.unique(y))), list(X))
        return partial(minilm(X, y).predict_proba, X)
    model: Any = ImageClassifier(**SETTINGS) if kind == "image" else TextClassifier(**SETTINGS)
    if task == "fit":
        return {
            "ours": partial(model.fit, X, y),
            "bare": partial(bare_fit, model, X, y),
            "skorch": partial(skorch_fit, model, X, y),
        }[who]
    fitted = model.fit(X[:100], y[:100])
    return {
        "ours": partial(fitted.predict_proba, X),
        "bare": partial(bare_predict, fitted, X),
        "skorch": partial(skorch_predict, fitted, X),
    }[who]


def _resident(field: str) -> float:
    """Return the resident set of this process in MB, as Linux says it: VmRSS now, VmHWM at its peak."""
    # getrusage would not do: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))) / 1024


def main() -> None:
    """Measure one side's memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", help="task-kind-who, as fit-text-ours")
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    work = _work(arguments.side, arguments.rows)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before = _resident("VmRSS")
    work()
    print(_resident("VmHWM") - before)


if __name__ == "__main__":
    main()
