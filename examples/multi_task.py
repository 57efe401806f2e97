"""
Two tasks over one network
==========================

An emoji has a category ("Food & Drink") and a subcategory ("food-fruit"). With two columns of labels, one
`TextClassifier` learns both over one shared network: half the weights and half the scoring time of two networks, one
file to export, and predictions that fit together more often. Does it cost accuracy? Two separate networks and TF-IDF
stand beside it.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from mmensemble import export_onnx
from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import TextClassifier

TASKS = ["category", "subcategory"]


class SeparateModels:
    """One clone of an estimator per column of labels."""

    def __init__(self, estimator: object) -> None:
        self.estimator = estimator

    def fit(self, X: pd.Series, y: np.ndarray) -> SeparateModels:
        self.estimators_ = [clone(self.estimator).fit(X, column) for column in y.T]
        return self

    def predict(self, X: pd.Series) -> np.ndarray:
        return np.column_stack([estimator.predict(X) for estimator in self.estimators_])


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
    # The subcategories of at least ten emoji.
    emoji = load_openmoji(size=8)
    items = emoji.frame.assign(category=emoji.target)
    items = items[items.groupby("subcategory")["id"].transform("size") >= 10]
    if arguments.fast:
        items = items.groupby("subcategory").head(4)
    X_train, X_test, y_train, y_test = train_test_split(
        items["name"],
        items[TASKS].to_numpy(dtype=object),
        test_size=0.25,
        stratify=items["subcategory"],
        random_state=0,
    )
    category_of = dict(zip(items["subcategory"], items["category"], strict=True))
    print(
        f"{len(X_train)} names to fit and {len(X_test)} to test, {items['category'].nunique()} categories and "
        f"{len(category_of)} subcategories, for example:"
    )
    for name, (category, subcategory) in zip(X_test[:3], y_test[:3], strict=True):
        print(f"  {name!r} is {category} / {subcategory}")

    # %%
    # The models
    # ----------
    # A `y` of two columns is all that multi-task learning takes.
    tf_idf = make_pipeline(
        make_union(
            TfidfVectorizer(sublinear_tf=True),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
        ),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    gpt = TextClassifier(random_state=0)
    minilm = TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=48, random_state=0)
    if arguments.fast:
        gpt.set_params(max_epochs=1)
        minilm.set_params(max_epochs=1)
    models = {
        "TF-IDF, 2 models": SeparateModels(tf_idf),
        "GPT, 2 networks": SeparateModels(gpt),
        "GPT, multi-task": gpt,
        "MiniLM frozen, multi-task": minilm,
    }
    rows = {}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X_train, y_train)
        fitted = time.perf_counter()
        predicted = model.predict(X_test)
        right = predicted == y_test
        rows[name] = {
            "category": right[:, 0].mean(),
            "subcategory": right[:, 1].mean(),
            "both right": right.all(axis=1).mean(),
            "fit together": np.mean([category_of[fine] == coarse for coarse, fine in predicted]),
            "fit, s": fitted - start,
            "predict, s": time.perf_counter() - fitted,
        }
        print(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in rows[name].items()), flush=True)
    table = pd.DataFrame(rows).T
    print(f"\nAccuracy on the {len(X_test)} held-out names:\n{table.to_string(float_format='{:.3f}'.format)}\n")

    # %%
    # One file for both tasks
    # -----------------------
    path = arguments.output / "multi_task.onnx"
    parity = export_onnx(gpt, path, verify=X_test).parity
    print(f"exported to {path}; the probabilities differ by at most {parity['max_abs_difference']:.1e}")

    # %%
    # The picture
    # -----------
    figure, ax = plt.subplots(figsize=(10, 5.5), layout="constrained")
    shown = table[["category", "subcategory", "both right", "fit together"]]
    width = 0.8 / len(table)
    for position, (name, color) in enumerate(
        zip(table.index, ["tab:gray", "tab:cyan", "tab:blue", "tab:green"], strict=True)
    ):
        places = np.arange(shown.shape[1]) + (position - (len(table) - 1) / 2) * width
        bars = ax.bar(places, shown.loc[name], width, label=name, color=color)
        ax.bar_label(bars, [f"{value:.2f}" for value in shown.loc[name]], fontsize=8, padding=2)
    ax.set_xticks(
        range(shown.shape[1]),
        ["category\nright", "subcategory\nright", "both\nright", "category fits the\nsubcategory (right or not)"],
    )
    ax.set(
        ylim=(0, 1.15), ylabel=f"share of {len(X_test)} held-out names", title="Two label columns, one network or two"
    )
    ax.legend(frameon=False, ncols=len(table), loc="upper center")
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.output / "multi_task.png", dpi=110)
    (arguments.output / "multi_task.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'multi_task.png'}; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
