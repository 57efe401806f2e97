"""
One file that reads names and looks at pictures
===============================================

The main job of mmensemble, end to end, on real items that have a text and a picture: the 1,898 emoji of OpenMoji, to be
sorted into nine categories.

1. Three members are composed: a pretrained text network and a pretrained image network, both frozen, and TF-IDF. What
   joins them is chosen on held-out rows.
2. Beside it stand its members, other strategies, and the ten lines that one would write by hand.
3. The composition is exported to one ONNX file and compared with the estimator.
4. The file scores a Parquet file by the command line, without torch or scikit-learn.

Run it by ``make demo``. What it writes lies in ``quickstart_output/``. ``--fast`` does the same on a part of the
data, to show that everything works; its numbers mean little.
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
from scipy.sparse import csr_array, hstack
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score, log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import normalize

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, Stacking, SuperLearner, export_onnx
from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0

STRATEGIES = {"soft voting": SoftVoting(), "stacking": Stacking(), "super learner": SuperLearner()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a part of the data, to see that it works")
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
        items, _, category, _ = train_test_split(items, category, train_size=600, stratify=category, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(
        items, category, test_size=0.25, stratify=category, random_state=0
    )
    print(f"{len(X_train)} items to fit and {len(X_test)} to test, {len(emoji.target_names)} categories, for example:")
    for name, label in zip(X_test["name"][:3], y_test[:3], strict=True):
        print(f"  {name!r} is {label}")

    # %%
    # The composition
    # ---------------
    # Members are named as in scikit-learn's ensembles, and each has a column. The networks are frozen: their heads are
    # solved, not trained, and what they make of a row is kept in the cache for all that follows.
    words = make_union(
        TfidfVectorizer(sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    )
    text = TextClassifier(pretrained=minilm_folder(), fine_tune="head")
    image = ImageClassifier(backbone=efficientnet_lite0, fine_tune="head")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        model = MultimodalClassifier(
            [
                ("text", text, "name"),
                ("words", make_pipeline(words, LogisticRegression(C=10, max_iter=1000)), "name"),
                ("image", image, "picture"),
            ],
            cache=cache,
        ).fit(X_train, y_train)
        print(f"\nfitted in {time.perf_counter() - start:.0f} s: {model.fusion_}\n", flush=True)

        # %%
        # Does it pay?
        # ------------
        # The members alone, the usual strategies, and what one would write by hand: the same embeddings and TF-IDF side
        # by side before one logistic regression, whose penalty is chosen by cross-validation.
        start = time.perf_counter()
        by_hand = _ten_lines(text, image, words, X_train, y_train, X_test)
        print(f"the ten lines by hand took {time.perf_counter() - start:.0f} s")
        members, classes = model.named_estimators_, model.classes_
        table = {
            "text alone": members.text.predict_proba(X_test["name"]),
            "words alone": members.words.predict_proba(X_test["name"]),
            "image alone": members.image.predict_proba(X_test["picture"]),
            "ten lines by hand": by_hand,
        }
        for name in ("soft voting", "stacking"):
            fitted = MultimodalClassifier(model.estimators, fusion=STRATEGIES[name], cache=cache)
            table[name] = fitted.fit(X_train, y_train).predict_proba(X_test)
        table["the default"] = model.predict_proba(X_test)
        table = pd.DataFrame({name: _scores(proba, classes, y_test) for name, proba in table.items()}).T
        print(f"\nOn the {len(X_test)} held-out items:\n{table.to_string(float_format='{:.3f}'.format)}\n", flush=True)

        # %%
        # A search over strategies
        # ------------------------
        # The strategy is a parameter like any other. The search sees the training rows only; the cache fits each member
        # once per fold for all strategies.
        start = time.perf_counter()
        search = GridSearchCV(model, {"fusion": list(STRATEGIES.values())}, scoring="neg_log_loss", cv=2, refit=False)
        search.fit(X_train, y_train)
        print(f"grid search, 2 folds ({time.perf_counter() - start:.0f} s):")
        for name, mean, spread in zip(
            STRATEGIES, search.cv_results_["mean_test_score"], search.cv_results_["std_test_score"], strict=True
        ):
            print(f"  {name:14s} log loss {-mean:.3f} ± {spread:.3f}")
    winner_name = list(STRATEGIES)[search.best_index_]
    print(f"  picked: {winner_name}\n")

    # %%
    # One file
    # --------
    # Tokenizer, both networks, the words of TF-IDF, what joins them, labels: all of it. ``verify`` scores rows by
    # both and compares.
    path = arguments.output / "model.onnx"
    start = time.perf_counter()
    manifest = export_onnx(model, path, verify=X_test)
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
    agree = (scores["prediction"].to_numpy() == model.predict(X_test)).mean()
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
        for name, scorer in (("torch", model), ("ONNX", predictor)):
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
    figure = _plot(table, scores["prediction"].to_numpy(), y_test)
    figure.savefig(arguments.output / "quickstart.png", dpi=110)
    results = {
        "table": table.to_dict(orient="index"),
        "picked": winner_name,
        "parity": manifest.parity,
        "rows_per_second": speed,
    }
    (arguments.output / "results.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'quickstart.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _ten_lines(
    text: TextClassifier,
    image: ImageClassifier,
    words: FeatureUnion,
    X: pd.DataFrame,
    y: np.ndarray,
    X_test: pd.DataFrame,
) -> np.ndarray:
    text, image, words = clone(text), clone(image), clone(words)
    text.fit_embedding(X["name"])
    image.fit_embedding(X["picture"])
    words.fit(X["name"])

    def features(rows: pd.DataFrame) -> csr_array:
        embeddings = [normalize(text.transform(rows["name"])), normalize(image.transform(rows["picture"]))]
        return csr_array(hstack([*map(csr_array, embeddings), words.transform(rows["name"])]))

    search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1, 10, 100]}, scoring="neg_log_loss")
    return search.fit(features(X), y).predict_proba(features(X_test))


def _scores(probabilities: np.ndarray, classes: np.ndarray, y: np.ndarray) -> dict[str, float]:
    predicted = classes[probabilities.argmax(axis=1)]
    return {
        "accuracy": accuracy_score(y, predicted),
        "macro-F1": f1_score(y, predicted, average="macro"),
        "log loss": log_loss(y, probabilities, labels=classes),
    }


def _plot(table: pd.DataFrame, predicted: np.ndarray, y: np.ndarray) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.6), layout="constrained", width_ratios=[1, 1.25])
    colors = ["tab:gray"] * 3 + ["tab:green"] + ["tab:blue"] * (len(table) - 4)
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
    right.set_title("The exported file: share of each category")
    return figure


if __name__ == "__main__":
    main()
