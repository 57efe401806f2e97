"""Zero- and few-shot classification by SmolLM2, as it is, after templates and calibration, on real data.

    python tests/benchmarks/zero_shot.py [--tasks language sentiment category] [--rows 150] [--draws 2]

Needs `packaged.smollm2_folder` and, for the language of fortunes, ``make data``. Every class has as many rows, so the
most frequent one says nothing. TF-IDF (words and sequences of characters) with a logistic regression learns from as
many labels as the prompt has examples, and from more. Prints a table per task and writes ``zero_shot.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, where `tests` is no installed package

from mmensemble.datasets import load_fortunes, load_openmoji, load_tweets
from mmensemble_estimators import CausalLM, ZeroShotTextClassifier
from mmensemble_estimators.packaged import smollm2_folder
from mmensemble_estimators.zero_shot import CONTENT_FREE

EXAMPLES = (1, 2, 4, 8)
LABELS = (1, 2, 4, 8, 32, 100)
UNLABELLED = 60
DRAWS_OF_LABELS = 20


@dataclass(frozen=True)
class Task:
    """Texts with a label. The first template is the one for few-shot too."""

    load: Callable[[], tuple[pd.Series, np.ndarray]]
    templates: tuple[str, ...]
    labels: dict[str, str] | None = None


def fortunes() -> tuple[pd.Series, np.ndarray]:
    """Short ones, in one line."""
    frame = load_fortunes().frame
    frame["text"] = [" ".join(text.split()) for text in frame["text"]]
    frame = frame[frame["text"].str.len().between(20, 140)].drop_duplicates("text")
    return frame["text"], frame["language"].to_numpy(dtype=str)


def tweets() -> tuple[pd.Series, np.ndarray]:
    data = load_tweets()
    return data.frame["text"].map(lambda text: " ".join(text.split())), data.target.astype(str)


def emoji() -> tuple[pd.Series, np.ndarray]:
    """English names and the nine categories."""
    data = load_openmoji(size=8)
    return data.frame["name"].str.split(" | ", regex=False).str[0], data.target.astype(str)


TASKS = {
    "language": Task(
        fortunes,
        ("{text}\nLanguage: {label}", "{text}\n{label}"),
        {"de": "German", "en": "English", "es": "Spanish", "it": "Italian", "ru": "Russian"},
    ),
    "sentiment": Task(tweets, ("{text}\nThe sentiment of this tweet is {label}", "Tweet: {text}\nSentiment: {label}")),
    "category": Task(emoji, ("{text}\nCategory: {label}", 'The emoji "{text}" is of the kind {label}')),
}


def tf_idf() -> Any:
    characters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(1, 4))
    return make_pipeline(make_union(TfidfVectorizer(sublinear_tf=True), characters), LogisticRegression(C=10.0))


def drawn(X: pd.Series, y: np.ndarray, n_each: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return as many rows of each class, in random order."""
    rows = pd.Series(np.arange(len(y))).groupby(y).sample(n_each, random_state=seed).sample(frac=1, random_state=seed)
    return X.iloc[rows].tolist(), y[rows]


def measure(name: str, task: Task, lm: CausalLM, *, n_rows: int, draws: int) -> list[dict[str, Any]]:
    """Return a dict per model, number of labels and draw, with accuracies."""
    X, y = task.load()
    n_classes = len(np.unique(y))
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X.iloc[order], y[order]
    # Disjoint: the rows to test on, those that calibrate, and those whose labels are given.
    half = len(y) // 2
    X_test, y_test = drawn(X.iloc[:half], y[:half], n_rows // n_classes, 0)
    rest, unlabelled, labels = X.iloc[half:-UNLABELLED], X.iloc[-UNLABELLED:].tolist(), y[half:-UNLABELLED]
    found: list[dict[str, Any]] = []

    def score(template: str, n_each: int, draw: int) -> None:
        clf = ZeroShotTextClassifier(
            FrozenEstimator(lm),
            template=template,
            labels=task.labels,
            n_examples=n_each * n_classes,
            calibrate=False,
            batch_size=16,
        )
        start = time.perf_counter()
        clf.fit(*(drawn(rest, labels, n_each, draw) if n_each else (None, np.unique(y))))
        scores = {"none": clf.predict_proba(X_test)}
        seconds = time.perf_counter() - start
        # What `calibrate` does, without running all of it again.
        for calibrated, texts in (("without content", list(CONTENT_FREE)), ("unlabelled texts", unlabelled)):
            scores[calibrated] = scores["none"] / clf.predict_proba(texts).mean(axis=0)
        accuracies = {key: float((clf.classes_[p.argmax(axis=1)] == y_test).mean()) for key, p in scores.items()}
        row = {"task": name, "template": template, "examples": n_each, "draw": draw, "seconds": seconds, **accuracies}
        found.append(row)
        print(row, flush=True)

    for template in task.templates:
        score(template, 0, 0)
    for draw in range(draws):
        for n_each in EXAMPLES:
            score(task.templates[0], n_each, draw)
    smallest = np.unique(labels, return_counts=True)[1].min()
    for n_each in (n for n in LABELS if n <= smallest):
        accuracies = [
            tf_idf().fit(*drawn(rest, labels, n_each, draw)).score(X_test, y_test) for draw in range(DRAWS_OF_LABELS)
        ]
        found.append({"task": name, "tf_idf_labels": n_each, "accuracy": float(np.mean(accuracies))})
    return found


def as_markdown(found: list[dict[str, Any]]) -> str:
    """Return the table of a task, means over draws."""
    frame = pd.DataFrame([row for row in found if "template" in row])
    ours = frame.groupby(["template", "examples"], sort=False)[["none", "without content", "unlabelled texts"]].mean()
    lines = [
        "| template | examples per class | " + " | ".join(ours) + " |",
        "| --- | ---: |" + " ---: |" * ours.shape[1],
    ]
    for (template, examples), row in ours.iterrows():  # type: ignore[misc]
        lines.append(f"| `{template!r}` | {examples} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    theirs = [f"{row['tf_idf_labels']}: {row['accuracy']:.3f}" for row in found if "accuracy" in row]
    return "\n".join([*lines, "", f"TF-IDF + logistic regression by labels per class: {', '.join(theirs)}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--rows", type=int, default=150, help="rows to test on")
    parser.add_argument("--draws", type=int, default=2, help="draws of the examples")
    parser.add_argument("--output", type=Path, default=Path("benchmark_output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    lm = CausalLM.load(smollm2_folder())
    results = {}
    for name in arguments.tasks:
        results[name] = measure(name, TASKS[name], lm, n_rows=arguments.rows, draws=arguments.draws)
        print(f"\n{name}\n{as_markdown(results[name])}\n", flush=True)
        (arguments.output / "zero_shot.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
