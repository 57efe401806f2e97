"""
One file that reads names and looks at pictures
===============================================

The main job of mmensemble, end to end, on real items that have a text and a picture: the 1,898 emoji of OpenMoji, to be
sorted into nine categories.

1. A text GPT and an image CNN are trained from scratch, as scikit-learn estimators.
2. They are voted, stacked and fused; a small grid search over the training rows picks the strategy.
3. The winner is exported to one ONNX file and compared with the estimator.
4. The file scores a Parquet file by the command line, without torch or scikit-learn.

Run it by ``make demo``. What it writes lies in ``quickstart_output/``. ``--fast`` does the same on a sliver of the data
in seconds, to show that everything works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, train_test_split

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, Stacking, export_onnx
from mmensemble.datasets import load_openmoji
from mmensemble_estimators import ConcatFusion, ImageClassifier, TextClassifier

STRATEGIES = {
    "soft voting": SoftVoting(),
    "stacking": Stacking(cv=3),
    "concat fusion": ConcatFusion(random_state=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a sliver of the data and 1 epoch, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("quickstart_output"), help="folder for what it writes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    # %%
    # The data
    # --------
    # A frame with a column of texts and a column of pictures (PNG bytes), and the category of each row.
    emoji = load_openmoji()
    items, category = emoji.frame, emoji.target
    if arguments.fast:
        items, _, category, _ = train_test_split(items, category, train_size=300, stratify=category, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(
        items, category, test_size=0.25, stratify=category, random_state=0
    )
    print(f"{len(X_train)} items to fit and {len(X_test)} to test, {len(emoji.target_names)} categories, for example:")
    for name, label in zip(X_test["name"][:3], y_test[:3], strict=True):
        print(f"  {name!r} is {label}")

    # %%
    # Voted, stacked, fused
    # ---------------------
    # One composition, three strategies. With a cache, the members that soft voting fitted are stacking's as well.
    with tempfile.TemporaryDirectory() as cache:
        model = MultimodalClassifier(
            [
                ("text", TextClassifier(random_state=0), "name"),
                ("image", ImageClassifier(random_state=0), "picture"),
            ],
            cache=cache,
            n_jobs=2,
        )
        if arguments.fast:
            model.set_params(text__max_epochs=1, image__max_epochs=1, image__image_size=32)
        fitted = {}
        for name, fusion in STRATEGIES.items():
            print(f"{name}: ", end="", flush=True)
            start = time.perf_counter()
            fitted[name] = clone(model).set_params(fusion=fusion).fit(X_train, y_train)
            print(f"fitted in {time.perf_counter() - start:.0f} s", flush=True)

        # The members of the vote are the single modalities.
        members, classes = fitted["soft voting"].named_estimators_, fitted["soft voting"].classes_
        table = pd.DataFrame(
            {
                "text alone": _scores(members.text.predict_proba(X_test["name"]), classes, y_test),
                "image alone": _scores(members.image.predict_proba(X_test["picture"]), classes, y_test),
                **{
                    name: _scores(composition.predict_proba(X_test), classes, y_test)
                    for name, composition in fitted.items()
                },
            }
        ).T
        print(f"\nOn the {len(X_test)} held-out items:\n{table.to_string(float_format='{:.3f}'.format)}\n", flush=True)

        # %%
        # Which strategy? A search decides
        # --------------------------------
        # The strategy is a parameter like any other. The search sees the training rows only, in two folds and with
        # fewer epochs; the cache fits each member once per fold for all strategies.
        start = time.perf_counter()
        epochs = 1 if arguments.fast else 8
        search = GridSearchCV(
            clone(model).set_params(text__max_epochs=epochs, image__max_epochs=epochs),
            {"fusion": list(STRATEGIES.values())},
            scoring="accuracy",
            cv=2,
            refit=False,
        ).fit(X_train, y_train)
        print(f"grid search, 2 folds, {epochs} epochs ({time.perf_counter() - start:.0f} s):")
        for name, mean, spread in zip(
            STRATEGIES, search.cv_results_["mean_test_score"], search.cv_results_["std_test_score"], strict=True
        ):
            print(f"  {name:14s} accuracy {mean:.3f} ± {spread:.3f}")
    winner_name = list(STRATEGIES)[search.best_index_]
    winner = fitted[winner_name]
    print(f"  picked: {winner_name}\n")

    # %%
    # One file
    # --------
    # Tokenizer, both networks, what joins them, labels: all of it. ``verify`` scores rows with both and compares.
    path = arguments.output / "model.onnx"
    start = time.perf_counter()
    manifest = export_onnx(winner, path, verify=X_test)
    print(
        f"exported to {path} ({path.stat().st_size / 1e6:.1f} MB) in {time.perf_counter() - start:.0f} s: on "
        f"{manifest.parity['n_rows']} rows the probabilities differ by at most "
        f"{manifest.parity['max_abs_difference']:.1e}, and {manifest.parity['equal_labels']:.1%} of the labels agree"
    )

    # %%
    # Score a file by the command line
    # --------------------------------
    # The process that scores loads neither torch nor scikit-learn, and the file may lie on a machine without them.
    items_path, scores_path = arguments.output / "items.parquet", arguments.output / "scores.parquet"
    X_test.drop(columns="subcategory").assign(category=y_test).to_parquet(items_path, index=False)
    command = ["score", str(path), str(items_path), "--output", str(scores_path), "--keep", "id", "--overwrite"]
    print(f"$ mmensemble {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "mmensemble.cli", *command, "--quiet"], check=True)
    scores = pd.read_parquet(scores_path)
    agree = (scores["prediction"].to_numpy() == winner.predict(X_test)).mean()
    print(scores.head(3).to_string(float_format="{:.3f}".format, max_colwidth=20))
    accuracy = accuracy_score(y_test, scores["prediction"])
    print(f"accuracy {accuracy:.3f}; {agree:.1%} of the labels are the estimator's\n")

    # %%
    # How fast?
    # ---------
    # The same rows through torch and through the exported file, in turn, in this one process; the best of three.
    predictor = OnnxPredictor(path, device="cpu")
    seconds = {"torch": [], "ONNX": []}
    for _ in range(3):
        for name, scorer in (("torch", winner), ("ONNX", predictor)):
            start = time.perf_counter()
            scorer.predict_proba(X_test)
            seconds[name].append(time.perf_counter() - start)
    speed = {name: len(X_test) / min(times) for name, times in seconds.items()}
    print(
        f"rows per second on {os.cpu_count()} cores: torch {speed['torch']:.0f}, exported model {speed['ONNX']:.0f} "
        f"({speed['ONNX'] / speed['torch']:.1f} times as many)"
    )

    # %%
    # The picture
    # -----------
    figure = _plot(table, scores["prediction"].to_numpy(), y_test, winner_name)
    figure.savefig(arguments.output / "quickstart.png", dpi=110)
    results = {
        "table": table.to_dict(orient="index"),
        "picked": winner_name,
        "parity": manifest.parity,
        "rows_per_second": speed,
    }
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'quickstart.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _scores(probabilities: np.ndarray, classes: np.ndarray, y: np.ndarray) -> dict[str, float]:
    predicted = classes[probabilities.argmax(axis=1)]
    return {
        "accuracy": accuracy_score(y, predicted),
        "macro-F1": f1_score(y, predicted, average="macro"),
        "log loss": log_loss(y, probabilities, labels=classes),
    }


def _plot(table: pd.DataFrame, predicted: np.ndarray, y: np.ndarray, winner_name: str) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained", width_ratios=[1, 1.25])
    colors = ["tab:gray"] * 2 + ["tab:blue"] * (len(table) - 2)
    for column, offset, alpha in (("accuracy", -0.2, 1.0), ("macro-F1", 0.2, 0.45)):
        bars = left.barh(np.arange(len(table)) + offset, table[column], height=0.38, color=colors, alpha=alpha)
        left.bar_label(bars, [f"{value:.3f} {column}" for value in table[column]], padding=4)
    left.set_yticks(range(len(table)), table.index)
    left.invert_yaxis()
    left.set_xlim(0, 1.1)
    left.set_title(f"Two modalities, alone and joined ({len(y)} held-out items)")
    left.spines[["top", "right"]].set_visible(False)
    ConfusionMatrixDisplay.from_predictions(
        y, predicted, normalize="true", values_format=".0%", cmap="Blues", colorbar=False, xticks_rotation=40, ax=right
    )
    plt.setp(right.get_xticklabels(), ha="right", rotation_mode="anchor")
    right.set_title(f"The exported file ({winner_name}): share of each category")
    return figure


if __name__ == "__main__":
    main()
