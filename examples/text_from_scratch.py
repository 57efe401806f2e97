"""
Networks from scratch against TF-IDF on tweets
==============================================

A small GPT, a small BERT and an LSTM learn the sentiment of tweets from nothing: tokenizer and network are trained on
the 6,000 tweets that they are fitted on. The baseline is what one should always try first, TF-IDF over words and
characters with a logistic regression.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from mmensemble import TrainingCurveDisplay
from mmensemble.datasets import load_tweets
from mmensemble_estimators import TextClassifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a sliver of the data and 2 epochs, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("examples_output"), help="folder for what it writes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    # %%
    # The data
    # --------
    tweets = load_tweets()
    n_train, n_test = (200, 100) if arguments.fast else (6000, 3000)
    X_train, X_test, y_train, y_test = train_test_split(
        tweets.frame["text"],
        tweets.target,
        train_size=n_train,
        test_size=n_test,
        stratify=tweets.target,
        random_state=0,
    )
    print(f"{len(X_train)} tweets to fit and {len(X_test)} to test, for example:")
    for text, label in zip(X_test[:3], y_test[:3], strict=True):
        print(f"  {text!r} is {label}")

    # %%
    # The models
    # ----------
    # With early stopping, a tenth of the fitting tweets is set aside and the weights of the best epoch are kept.
    settings = {"early_stopping": True, "max_epochs": 2 if arguments.fast else 4, "random_state": 0}
    models = {
        "most frequent": DummyClassifier(),
        "TF-IDF + logistic regression": make_pipeline(
            make_union(
                TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
                TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
            ),
            LogisticRegression(C=3.0, max_iter=1000),
        ),
        "LSTM": TextClassifier(backbone="lstm", **settings),
        "BERT": TextClassifier(backbone="bert", **settings),
        "GPT": TextClassifier(backbone="gpt", **settings),
    }
    rows = {}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X_train, y_train)
        seconds = time.perf_counter() - start
        probabilities = model.predict_proba(X_test)
        predicted = model.classes_[probabilities.argmax(axis=1)]
        rows[name] = {
            "accuracy": accuracy_score(y_test, predicted),
            "macro-F1": f1_score(y_test, predicted, average="macro"),
            "log loss": log_loss(y_test, probabilities, labels=model.classes_),
            "fit, s": seconds,
        }
        print(f"{name}: accuracy {rows[name]['accuracy']:.3f}, fitted in {seconds:.0f} s", flush=True)
    table = pd.DataFrame(rows).T
    print(f"\nOn the {len(X_test)} held-out tweets:\n{table.to_string(float_format='{:.3f}'.format)}\n")

    # %%
    # How they learned
    # ----------------
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    for name, color in (("LSTM", "tab:green"), ("BERT", "tab:orange"), ("GPT", "tab:blue")):
        TrainingCurveDisplay.from_estimator(models[name], left, name=name, color=color)
    left.set_title("Training from scratch; the dotted line is the epoch that is kept")
    left.spines[["top", "right"]].set_visible(False)
    colors = ["lightgray", "tab:gray", "tab:green", "tab:orange", "tab:blue"]
    bars = right.barh(table.index, table["accuracy"], color=colors)
    right.bar_label(bars, [f"{value:.3f}" for value in table["accuracy"]], padding=4)
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="accuracy", title=f"Sentiment of {len(X_test):,} held-out tweets")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(arguments.output / "text_from_scratch.png", dpi=110)
    (arguments.output / "text_from_scratch.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'text_from_scratch.png'}; all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
