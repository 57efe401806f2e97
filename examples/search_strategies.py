"""
Four searches over the fusion strategy, one cache
=================================================

How members are joined is a parameter, so scikit-learn's searches and Optuna's run over it. MiniLM reads the names of
emoji and EfficientNet looks at their drawings, both frozen, and four searches look for the strategy that joins them
best. They share a folder: what one of them fitted or embedded, the next one finds there.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.logging import WARNING, set_verbosity
from optuna_integration import OptunaSearchCV
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, train_test_split

from mmensemble import EnsembleSelection, HardVoting, MultimodalClassifier, ProductOfExperts, SoftVoting, Stacking
from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import AttentionFusion, ConcatFusion, GatedFusion, ImageClassifier, TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a sliver of the data and 1 epoch, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("examples_output"), help="folder for what it writes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    # %%
    # The data
    # --------
    # As many emoji of every category: the rare ones would be missing from the first round of successive halving.
    size, n_categories, n_each = (32, 3, 70) if arguments.fast else (128, 8, 220)
    emoji = load_openmoji(size=size)
    items = emoji.frame[["name", "picture"]].assign(category=emoji.target.astype(str))
    common = items["category"].value_counts().index[:n_categories]
    items = items[items["category"].isin(common)].groupby("category").sample(n_each, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(
        items[["name", "picture"]],
        items["category"].to_numpy(dtype=str),
        test_size=0.33,
        stratify=items["category"],
        random_state=0,
    )
    print(f"{len(X_train)} emoji to search on and {len(X_test)} held out, {len(np.unique(y_train))} categories")

    # %%
    # What is searched over
    # ---------------------
    # Eight strategies. Stacking's meta-learner has a strength of its own, which the searches that draw at random or
    # learn from earlier trials look for at the same time: another strength needs no other out-of-fold outputs.
    settings = {"max_epochs": 1} if arguments.fast else {}
    joint = [fusion(random_state=0, **settings) for fusion in (ConcatFusion, AttentionFusion, GatedFusion)]
    strategies = [SoftVoting(), HardVoting(), ProductOfExperts(), Stacking(cv=3), EnsembleSelection(cv=3), *joint]
    stacking = Stacking(LogisticRegression(max_iter=1000), cv=3)
    text = TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=48, random_state=0, **settings)
    image = ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=size, random_state=0, **settings)
    with tempfile.TemporaryDirectory() as cache:
        model = MultimodalClassifier([("text", text, "name"), ("image", image, "picture")], cache=cache)
        asked: dict[str, Any] = {"cv": 3, "error_score": "raise"}
        n_trials = 4 if arguments.fast else 16
        with warnings.catch_warnings():
            # OptunaSearchCV calls itself experimental; that strategies are objects matters to stored studies alone.
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "Choices for a categorical distribution", UserWarning)
            warnings.filterwarnings("ignore", ".*optuna.terminator", FutureWarning)
            set_verbosity(WARNING)
            searches = {
                "GridSearchCV": GridSearchCV(model, {"fusion": strategies}, **asked),
                "HalvingGridSearchCV": HalvingGridSearchCV(
                    model, {"fusion": strategies}, factor=2, min_resources=len(y_train) // 4, random_state=0, **asked
                ),
                "RandomizedSearchCV": RandomizedSearchCV(
                    model,
                    [
                        {"fusion": strategies},
                        {"fusion": [stacking], "fusion__final_estimator__C": loguniform(1e-2, 1e2)},
                    ],
                    n_iter=n_trials,
                    random_state=0,
                    **asked,
                ),
                "OptunaSearchCV": OptunaSearchCV(
                    clone(model).set_params(fusion=stacking),
                    {
                        "fusion": CategoricalDistribution([stacking, *joint]),
                        "image__weight_decay": FloatDistribution(1e-3, 1e-1, log=True),
                    },
                    n_trials=n_trials,
                    random_state=0,
                    **asked,
                ),
            }

            # %%
            # The searches
            # ------------
            # The grid comes first and pays for the embeddings and the members.
            table = {}
            for name, search in searches.items():
                start = time.perf_counter()
                search.fit(X_train, y_train)
                table[name] = {
                    "seconds": time.perf_counter() - start,
                    "candidates": _n_candidates(search),
                    "accuracy": search.best_score_,
                    "best": _named(search.best_params_),
                    "held-out accuracy": accuracy_score(y_test, search.predict(X_test)),
                }
                print(f"{name}: {table[name]['seconds']:.0f} s", flush=True)
    found = pd.DataFrame(table).T
    print(f"\n{found.to_string(float_format='{:.3f}'.format, formatters={'seconds': '{:.0f}'.format})}\n")

    # %%
    # The picture
    # -----------
    figure = _plot(searches["GridSearchCV"], searches["HalvingGridSearchCV"], found)
    figure.savefig(arguments.output / "search_strategies.png", dpi=110)
    (arguments.output / "search_strategies.json").write_text(json.dumps(table, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'search_strategies.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _n_candidates(search: Any) -> int:
    return len(search.trials_) if isinstance(search, OptunaSearchCV) else len(search.cv_results_["params"])


def _named(params: dict[str, Any]) -> str:
    """Return the strategy of a candidate, and what else was chosen."""
    more = [f"{key.split('__')[-1]}={value:.2g}" for key, value in params.items() if key != "fusion"]
    return ", ".join([type(params["fusion"]).__name__, *more])


def _plot(grid: Any, halving: Any, found: pd.DataFrame) -> plt.Figure:
    """Show the strategies' accuracies, which of them halving kept on how many rows, and what each search took."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    names = [type(params["fusion"]).__name__ for params in grid.cv_results_["params"]]
    scores = pd.Series(grid.cv_results_["mean_test_score"], index=names).sort_values()
    left.barh(scores.index, scores, color="tab:blue")
    left.bar_label(left.containers[0], [f"{score:.3f}" for score in scores], padding=4)
    left.set(xlabel="accuracy, 3 folds", title="GridSearchCV: every strategy", xlim=(0, 1.15))

    results = pd.DataFrame(halving.cv_results_)
    results["name"] = [type(params["fusion"]).__name__ for params in results["params"]]
    for name, rounds in results.groupby("name"):
        middle.plot(rounds["n_resources"], rounds["mean_test_score"], "o-", label=name)
    middle.set_xscale("log", base=2)
    middle.set_xticks(sorted(set(results["n_resources"])), [str(n) for n in sorted(set(results["n_resources"]))])
    middle.minorticks_off()
    middle.set(xlabel="rows", ylabel="accuracy, 3 folds", title="HalvingGridSearchCV: the better half goes on")
    middle.legend(fontsize=8)

    seconds = found["seconds"].astype(float)[::-1]
    right.barh(seconds.index, seconds, color="tab:gray")
    right.bar_label(
        right.containers[0],
        [f"{s:.0f} s, {n} candidates" for s, n in zip(seconds, found["candidates"][::-1], strict=True)],
        padding=4,
    )
    right.set(xlabel="seconds, one after the other", title="On one cache", xlim=(0, 1.7 * seconds.max()))
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
