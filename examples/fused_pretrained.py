"""
A pretrained text and a pretrained image encoder, fused into one file
=====================================================================

MiniLM reads the names of emoji and EfficientNet looks at their drawings. Both stay frozen: only a linear head on each
of them is trained, and what joins them. That takes minutes without a GPU, and the whole composition, 27 million
weights, tokenizer and all, leaves as one ONNX file.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline, make_union

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, Stacking, export_onnx
from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import ImageClassifier, TextClassifier
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
    emoji = load_openmoji(size=128)
    items, category = emoji.frame[["name", "picture"]], emoji.target
    if arguments.fast:
        items, _, category, _ = train_test_split(items, category, train_size=150, stratify=category, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(
        items, category, test_size=0.25, stratify=category, random_state=0
    )
    print(f"{len(X_train)} emoji to fit and {len(X_test)} to test, {len(emoji.target_names)} categories")

    # %%
    # One composition, two strategies
    # -------------------------------
    # With a cache, the members that soft voting fitted are stacking's as well.
    with tempfile.TemporaryDirectory() as cache:
        model = MultimodalClassifier(
            [
                (
                    "text",
                    TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=48, random_state=0),
                    "name",
                ),
                (
                    "image",
                    ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=128, random_state=0),
                    "picture",
                ),
            ],
            cache=cache,
        )
        if arguments.fast:
            model.set_params(text__max_epochs=1, image__max_epochs=1, image__image_size=32)
        fitted = {}
        for name, fusion in {"soft voting": SoftVoting(), "stacking": Stacking(cv=2 if arguments.fast else 3)}.items():
            start = time.perf_counter()
            fitted[name] = clone(model).set_params(fusion=fusion).fit(X_train, y_train)
            print(f"{name}: fitted in {time.perf_counter() - start:.0f} s", flush=True)
    tf_idf = make_pipeline(
        make_union(
            TfidfVectorizer(sublinear_tf=True),
            TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5)),
        ),
        LogisticRegression(C=10.0, max_iter=1000),
    ).fit(X_train["name"], y_train)
    members = fitted["soft voting"].named_estimators_
    probabilities = {
        "TF-IDF of the name": tf_idf.predict_proba(X_test["name"]),
        "MiniLM on the name": members.text.predict_proba(X_test["name"]),
        "EfficientNet on the drawing": members.image.predict_proba(X_test["picture"]),
        **{name: composition.predict_proba(X_test) for name, composition in fitted.items()},
    }
    classes = fitted["stacking"].classes_
    table = pd.DataFrame(
        {
            name: {
                "accuracy": accuracy_score(y_test, classes[p.argmax(axis=1)]),
                "macro-F1": f1_score(y_test, classes[p.argmax(axis=1)], average="macro"),
                "log loss": log_loss(y_test, p, labels=classes),
            }
            for name, p in probabilities.items()
        }
    ).T
    print(f"\nOn the {len(X_test)} held-out emoji:\n{table.to_string(float_format='{:.3f}'.format)}\n")

    # %%
    # One file
    # --------
    # ``verify`` scores held-out rows with the estimator and with the file, and compares. The file also scores a row
    # that has a drawing and no name.
    path = arguments.output / "fused_pretrained.onnx"
    parity = export_onnx(fitted["stacking"], path, verify=X_test[:100]).parity
    print(
        f"exported to {path} ({path.stat().st_size / 1e6:.0f} MB): on {parity['n_rows']} rows the probabilities "
        f"differ by at most {parity['max_abs_difference']:.1e}, and {parity['equal_labels']:.1%} of the labels agree"
    )
    predictor = OnnxPredictor(path, device="cpu")
    nameless = X_test[:100].assign(name=None)
    print(f"accuracy of the file without names: {accuracy_score(y_test[:100], predictor.predict(nameless)):.3f}\n")

    # %%
    # The picture
    # -----------
    figure = _plot(table, probabilities, classes, X_test, y_test)
    figure.savefig(arguments.output / "fused_pretrained.png", dpi=110)
    results = {"table": table.to_dict(orient="index"), "parity": parity}
    (arguments.output / "fused_pretrained.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'fused_pretrained.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _plot(
    table: pd.DataFrame, probabilities: dict[str, np.ndarray], classes: np.ndarray, X: pd.DataFrame, y: np.ndarray
) -> plt.Figure:
    """Show the accuracies, and emoji that one member alone gets wrong and the fusion right."""
    figure = plt.figure(figsize=(14, 6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.5])
    ax = left.subplots()
    colors = ["tab:gray", "tab:cyan", "tab:cyan", "tab:blue", "tab:blue"]
    bars = ax.barh(table.index, table["accuracy"], color=colors)
    ax.bar_label(bars, [f"{value:.3f}" for value in table["accuracy"]], padding=4)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.1), xlabel="accuracy", title=f"Category of {len(y)} held-out emoji")
    ax.spines[["top", "right"]].set_visible(False)

    said = {name: classes[p.argmax(axis=1)] for name, p in probabilities.items()}
    text, image, fused = said["MiniLM on the name"], said["EfficientNet on the drawing"], said["stacking"]
    sureness = probabilities["stacking"].max(axis=1)
    right.suptitle("Where one member errs and the stack is right")
    axes = right.subplots(3, 5, gridspec_kw={"hspace": 0.25})
    for cell in axes.flat:
        cell.axis("off")
    saved = np.concatenate(
        [
            rows[np.argsort(-sureness[rows])][:8]
            for rows in (
                np.flatnonzero((fused == y) & (text != y) & (image == y)),
                np.flatnonzero((fused == y) & (text == y) & (image != y)),
            )
        ]
    )
    for cell, row in zip(axes.flat, saved, strict=False):
        cell.imshow(Image.open(io.BytesIO(X["picture"].iloc[row])))
        wrong, guess = ("name", text[row]) if text[row] != y[row] else ("drawing", image[row])
        cell.set_title(X["name"].iloc[row].split(" | ")[0][:26], fontsize=8)
        cell.text(0.5, -0.02, f"{wrong}: {guess}", transform=cell.transAxes, ha="center", va="top", fontsize=7.5,
                  color="tab:red")  # fmt: skip
        cell.text(0.5, -0.14, y[row], transform=cell.transAxes, ha="center", va="top", fontsize=7.5, color="tab:green")
    return figure


if __name__ == "__main__":
    main()
