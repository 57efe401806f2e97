"""
Drawings from scratch and with ImageNet weights
===============================================

Which of nine categories is an emoji in, by its drawing? A small ResNet and a small vision transformer learn it from
1,400 drawings and nothing else. EfficientNet-Lite0 brings weights from ImageNet: frozen, with a linear head on what it
gives. The baselines are logistic regressions on the pixels and on histograms of oriented gradients.

The last picture shows what the best one gets wrong, the surest errors first.

Run it by ``make examples``. ``--fast`` does the same on a sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mmensemble.datasets import load_openmoji
from mmensemble_estimators import ImageClassifier
from mmensemble_estimators.packaged import efficientnet_lite0


def pixels(pictures: pd.Series) -> np.ndarray:
    """Return the colours of 16 × 16 places of each PNG, in [0, 1]."""
    small = [Image.open(io.BytesIO(png)).convert("RGB").resize((16, 16)) for png in pictures]
    return np.stack([np.asarray(image) for image in small]).reshape(len(small), -1) / 255.0


def oriented_gradients(pictures: pd.Series) -> np.ndarray:
    """Return 9 orientations in 8 × 8 cells of each PNG, each image's of norm 1 (Dalal and Triggs 2005, simplified)."""
    features = []
    for png in pictures:
        grey = np.asarray(Image.open(io.BytesIO(png)).convert("L").resize((64, 64)), dtype=float)
        dy, dx = np.gradient(grey)
        orientation = (np.arctan2(dy, dx) % np.pi / np.pi * 9).astype(int) % 9
        votes = np.hypot(dx, dy)[..., None] * (orientation[..., None] == np.arange(9))
        cells = votes.reshape(8, 8, 8, 8, 9).sum(axis=(1, 3)).ravel()
        features.append(cells / (np.linalg.norm(cells) + 1e-9))
    return np.stack(features)


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
    pictures, category = emoji.frame["picture"], emoji.target
    if arguments.fast:
        pictures, _, category, _ = train_test_split(
            pictures, category, train_size=150, stratify=category, random_state=0
        )
    X_train, X_test, y_train, y_test = train_test_split(
        pictures, category, test_size=0.25, stratify=category, random_state=0
    )
    print(f"{len(X_train)} drawings to fit and {len(X_test)} to test, {len(emoji.target_names)} categories")

    # %%
    # The models
    # ----------
    # A callable `backbone` returns any `nn.Module`, here EfficientNet with its weights. With ``fine_tune="head"`` it
    # stays as it is and runs once per picture.
    models = {
        "pixels + logistic regression": make_pipeline(
            FunctionTransformer(pixels), StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000)
        ),
        "gradients + logistic regression": make_pipeline(
            FunctionTransformer(oriented_gradients), StandardScaler(), LogisticRegression(C=1e-2, max_iter=1000)
        ),
        "ViT from scratch": ImageClassifier(backbone="vit", learning_rate=1e-3, random_state=0),
        "ResNet from scratch": ImageClassifier(random_state=0),
        "EfficientNet, frozen": ImageClassifier(
            backbone=efficientnet_lite0, fine_tune="head", image_size=128, random_state=0
        ),
    }
    if arguments.fast:
        for model in list(models.values())[2:]:
            model.set_params(max_epochs=1, image_size=32)
    rows, probabilities_of = {}, {}
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X_train, y_train)
        seconds = time.perf_counter() - start
        probabilities_of[name] = probabilities = model.predict_proba(X_test)
        predicted = model.classes_[probabilities.argmax(axis=1)]
        rows[name] = {
            "accuracy": accuracy_score(y_test, predicted),
            "macro-F1": f1_score(y_test, predicted, average="macro"),
            "log loss": log_loss(y_test, probabilities, labels=model.classes_),
            "fit, s": seconds,
        }
        print(f"{name}: accuracy {rows[name]['accuracy']:.3f}, fitted in {seconds:.0f} s", flush=True)
    table = pd.DataFrame(rows).T
    print(f"\nOn the {len(X_test)} held-out drawings:\n{table.to_string(float_format='{:.3f}'.format)}\n")

    # %%
    # What it gets wrong
    # ------------------
    best = table["accuracy"].idxmax()
    figure = _plot(table, best, probabilities_of[best], models[best].classes_, X_test, y_test)
    figure.savefig(arguments.output / "images.png", dpi=110)
    (arguments.output / "images.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'images.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _plot(
    table: pd.DataFrame, best: str, probabilities: np.ndarray, classes: np.ndarray, X: pd.Series, y: np.ndarray
) -> plt.Figure:
    figure = plt.figure(figsize=(14, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.6])
    ax = left.subplots()
    bars = ax.barh(table.index, table["accuracy"], color=["tab:gray"] * 2 + ["tab:blue"] * 2 + ["tab:green"])
    ax.bar_label(bars, [f"{value:.3f}" for value in table["accuracy"]], padding=4)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="accuracy", title=f"Category of {len(y)} held-out drawings")
    ax.spines[["top", "right"]].set_visible(False)

    predicted, sureness = classes[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != y)
    wrong = wrong[np.argsort(-sureness[wrong])][:24]
    right.suptitle(f"The surest errors of {best}: what it said (how sure), and what is right in green")
    axes = right.subplots(4, 6)
    for cell in axes.flat:
        cell.axis("off")
    for cell, row in zip(axes.flat, wrong, strict=False):
        cell.imshow(Image.open(io.BytesIO(X.iloc[row])))
        cell.set_title(f"{predicted[row]} ({sureness[row]:.0%})", fontsize=7.5, color="tab:red")
        cell.text(0.5, -0.02, y[row], transform=cell.transAxes, ha="center", va="top", fontsize=7.5, color="tab:green")
    return figure


if __name__ == "__main__":
    main()
