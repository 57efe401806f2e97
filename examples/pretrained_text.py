"""
What pretrained weights save: accuracy against the number of labels
===================================================================

How many labelled examples does a text classifier need? MiniLM, a pretrained sentence encoder, sorts the English names
of emoji into nine categories after 45 to 1,400 examples, used in three ways:

- frozen: it runs once per text, and a linear head is solved for on what it gives;
- LoRA: small adapters are trained on top of the frozen weights, and merged into them afterwards;
- fine-tuned: all weights are trained.

TF-IDF with a logistic regression and a GPT from scratch stand beside it. MiniLM has seen English text by the gigabyte,
they have seen nothing but the examples: that is the point.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import TextClassifier


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
    # MiniLM knows English, so the English name alone is taken.
    emoji = load_openmoji(size=8)
    names = emoji.frame["name"].str.split(" | ", regex=False).str[0]
    X_train, X_test, y_train, y_test = train_test_split(
        names, emoji.target, test_size=0.25, stratify=emoji.target, random_state=0
    )
    sizes = [45, 180, 360, len(X_train)]
    if arguments.fast:
        sizes, X_test, y_test = [45], X_test[:60], y_test[:60]
    print(f"up to {sizes[-1]} names to fit and {len(X_test)} to test, for example:")
    for name, label in zip(X_test[:3], y_test[:3], strict=True):
        print(f"  {name!r} is {label}")

    # %%
    # The models
    # ----------
    # All of them scikit-learn estimators, with the same `fit` and `predict`.
    tf_idf = make_pipeline(
        make_union(
            TfidfVectorizer(sublinear_tf=True),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
        ),
        LogisticRegression(C=10.0, max_iter=1000),
    )
    minilm = TextClassifier(pretrained=minilm_folder(), max_length=32, random_state=0)
    models = {
        "TF-IDF + logistic regression": tf_idf,
        "GPT from scratch": TextClassifier(random_state=0),
        "MiniLM, frozen": clone(minilm).set_params(fine_tune="head"),
        "MiniLM, LoRA": clone(minilm).set_params(fine_tune="lora", max_epochs=8, learning_rate=2e-3),
        "MiniLM, fine-tuned": clone(minilm).set_params(max_epochs=8, learning_rate=2e-4),
    }
    if arguments.fast:
        for model in list(models.values())[1:]:
            model.set_params(max_epochs=1)

    # %%
    # Accuracy against labels
    # -----------------------
    # Each size is a stratified part of the fitting names, the same for all models.
    accuracy = pd.DataFrame(index=sizes, columns=list(models), dtype=float)
    seconds = accuracy.copy()
    for size in sizes:
        X, y = X_train, y_train
        if size < len(X_train):
            X, _, y, _ = train_test_split(X_train, y_train, train_size=size, stratify=y_train, random_state=1)
        for name, model in models.items():
            start = time.perf_counter()
            accuracy.loc[size, name] = clone(model).fit(X, y).score(X_test, y_test)
            seconds.loc[size, name] = time.perf_counter() - start
        print(f"{size} labels: " + ", ".join(f"{n} {v:.3f}" for n, v in accuracy.loc[size].items()), flush=True)
    print(f"\nAccuracy on the {len(X_test)} held-out names, by number of labels:")
    print(f"{accuracy.T.to_string(float_format='{:.3f}'.format)}\n")
    print(f"seconds to fit and predict:\n{seconds.T.to_string(float_format='{:.1f}'.format)}\n")

    # %%
    # The picture
    # -----------
    figure, ax = plt.subplots(figsize=(9, 5.5), layout="constrained")
    colors = ["tab:gray", "tab:olive", "tab:blue", "tab:orange", "tab:red"]
    for name, color in zip(models, colors, strict=True):
        style = "--" if name.startswith(("TF-IDF", "GPT")) else "-"
        ax.plot(sizes, accuracy[name], style, marker="o", color=color, label=name)
    share = pd.Series(y_test).value_counts(normalize=True).max()
    ax.axhline(share, color="lightgray", linestyle=":", label="most frequent category")
    ax.set_xscale("log")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()
    ax.set(
        xlabel="labelled names to fit on",
        ylabel=f"accuracy on {len(X_test)} others",
        title="Which of nine categories is an emoji in, by its English name?",
    )
    ax.legend(frameon=False, loc="upper left")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.output / "pretrained_text.png", dpi=110)
    results = {"accuracy": accuracy.to_dict(), "seconds": seconds.to_dict()}
    (arguments.output / "pretrained_text.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'pretrained_text.png'}; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
