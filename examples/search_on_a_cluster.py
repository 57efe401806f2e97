"""
One search on several backends: processes, Dask, Ray
====================================================

A search fits its candidates independently of each other, so joblib can hand them to processes, to a Dask cluster or to
a Ray cluster. Nothing in the model changes; the workers of a host share one cache. Here the clusters are local ones of
two workers, and all three must find the same.

Dask and Ray are extras: ``pip install 'mmensemble[dask]' 'mmensemble[ray]'``. What is not installed is left out.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, train_test_split

from mmensemble import EnsembleSelection, HardVoting, MultimodalClassifier, ProductOfExperts, SoftVoting, Stacking
from mmensemble.datasets import load_openmoji
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0

N_WORKERS = 2
MODULE_OF = {"processes": "joblib", "dask": "distributed", "ray": "ray"}


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Let joblib work on a backend: processes of this host, or a local cluster, which is started and stopped."""
    if name == "dask":
        from distributed import Client, LocalCluster

        # Workers that compute with torch need no threads of Dask's beside torch's own.
        cluster = LocalCluster(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR")
        with cluster, Client(cluster), joblib.parallel_config("dask"):
            yield
    elif name == "ray":
        import ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        register_ray()
        try:
            with joblib.parallel_config("ray", n_jobs=N_WORKERS):
                yield
        finally:
            ray.shutdown()
    else:
        with joblib.parallel_config("loky", n_jobs=N_WORKERS):
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a sliver of the data and 1 epoch, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("examples_output"), help="folder for what it writes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    # %%
    # The data and the search
    # -----------------------
    # A small GPT reads the names of emoji and is trained from scratch in every fold; EfficientNet is frozen.
    size = 32 if arguments.fast else 96
    emoji = load_openmoji(size=size)
    items, category = emoji.frame[["name", "picture"]], emoji.target.astype(str)
    X_train, X_test, y_train, y_test = train_test_split(
        items,
        category,
        train_size=150 if arguments.fast else 600,
        test_size=150 if arguments.fast else 600,
        stratify=category,
        random_state=0,
    )
    print(f"{len(X_train)} emoji to search on and {len(X_test)} held out, {len(emoji.target_names)} categories")
    settings = {"max_epochs": 1 if arguments.fast else 5, "device": "cpu", "random_state": 0}
    model = MultimodalClassifier(
        [
            ("text", TextClassifier(max_length=48, **settings), "name"),
            (
                "image",
                ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=size, **settings),
                "picture",
            ),
        ]
    )
    grid = {"fusion": [SoftVoting(), HardVoting(), ProductOfExperts(), Stacking(cv=2), EnsembleSelection(cv=2)]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise")

    # %%
    # The backends
    # ------------
    # Each starts with an empty cache, and then searches again. Two workers that need the same member at the same time
    # both fit it; afterwards each finds it. Of a cluster of several hosts, each host needs a folder on a disk of its
    # own, under the same name: the embeddings lie in a database that must not be on a network file system.
    table, scores = {}, {}
    for name, module in MODULE_OF.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name}: left out, for {module} is not installed; pip install 'mmensemble[{name}]'")
            continue
        with tempfile.TemporaryDirectory() as cache, backend(name):
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                found = clone(search).set_params(estimator__cache=cache).fit(X_train, y_train)
                seconds.append(time.perf_counter() - start)
        scores[name] = found.cv_results_["mean_test_score"]
        table[name] = {
            "first search, s": seconds[0],
            "second search, s": seconds[1],
            "best strategy": type(found.best_params_["fusion"]).__name__,
            "held-out accuracy": accuracy_score(y_test, found.predict(X_test)),
            "scores differ by": float(np.abs(scores[name] - scores["processes"]).max()),
        }
        print(f"{name}: {seconds[0]:.0f} s, again {seconds[1]:.0f} s", flush=True)
    print(f"\n{pd.DataFrame(table).T.to_string(float_format='{:.3f}'.format)}\n")

    # %%
    # The picture
    # -----------
    figure = _plot(table)
    figure.savefig(arguments.output / "search_on_a_cluster.png", dpi=110)
    (arguments.output / "search_on_a_cluster.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
    took = time.perf_counter() - started
    print(f"figure: {arguments.output / 'search_on_a_cluster.png'}; all of it took {took:.0f} s")


def _plot(table: dict[str, dict[str, float]]) -> plt.Figure:
    figure, ax = plt.subplots(figsize=(10, 1.5 + 1.2 * len(table)), layout="constrained")
    for offset, key, color in ((-0.2, "first search, s", "tab:blue"), (0.2, "second search, s", "tab:cyan")):
        bars = ax.barh(
            np.arange(len(table)) + offset, [row[key] for row in table.values()], 0.38, color=color, label=key
        )
        ax.bar_label(bars, [f"{row[key]:.1f} s" for row in table.values()], padding=4)
    ax.set_yticks(np.arange(len(table)), list(table))
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set(xlabel="seconds, the start of the cluster left out", title=f"The same search by {N_WORKERS} workers")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
