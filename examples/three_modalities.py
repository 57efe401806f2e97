"""
Three modalities, and what is left when one goes missing
========================================================

Two data sets whose items have three modalities each. A stamp of Tux Paint has an English name, a picture and the name
in French, read aloud. An emoji has a name, a picture and an animation. What is each modality worth alone,
what two of them, what all three? And what is left when more and more held-out rows lose one?

All encoders are pretrained and frozen: MiniLM reads, EfficientNet looks, Whisper listens, and the animation is
EfficientNet over 6 frames: what they have in common, and how they differ. Each item is embedded once, into a cache.

Run it by ``make examples``; the data come by ``make data``. ``--fast`` does the same on a sliver of the data in
seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import PercentFormatter
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from mmensemble import MultimodalClassifier, ProductOfExperts, SoftVoting, Stacking, missing_modality_curve
from mmensemble.datasets import load_animated_emoji, load_tuxpaint_stamps, minilm_folder
from mmensemble.preprocessing import AudioPreprocessor, VideoPreprocessor
from mmensemble_estimators import AudioClassifier, ConcatFusion, ImageClassifier, TextClassifier, VideoClassifier
from mmensemble_estimators.packaged import efficientnet_lite0, whisper_folder

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
COLORS = {"text": "tab:blue", "picture": "tab:orange", "speech": "tab:green", "animation": "tab:red"}
CURVES = {"Stacking": "-", "ConcatFusion": "--"}


class FrameFeatures(nn.Module):
    """EfficientNet over each frame; the mean and the standard deviation of its features over the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.network = efficientnet_lite0()

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.network(pixel_values=pixel_values.flatten(0, 1)).unflatten(0, pixel_values.shape[:2])
        mean = features.mean(dim=1)
        deviation = (features - mean.unsqueeze(1)).square().mean(dim=1).add(1e-6).sqrt()
        return torch.cat([mean, deviation], dim=1)


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
    # Some stamps share their name, so a name is either fitted or tested. Cells of speech and animations are paths of
    # files. All fits and predictions below share a cache, so each of them is decoded once: of an animation 72 frames of
    # 256 × 256 pixels.
    stamps = load_tuxpaint_stamps(size=96, speech_language="fr")
    emoji = load_animated_emoji(size=96)
    sizes = {"image_size": 32, "n_frames": 2} if arguments.fast else {"image_size": 96, "n_frames": 6}
    data = {
        "stamps": (stamps.frame[["text", "picture", "speech"]], stamps.target),
        "emoji": (emoji.frame.rename(columns={"name": "text"})[["text", "picture", "animation"]], emoji.target),
    }
    if arguments.fast:
        data = {name: _head(X, y) for name, (X, y) in data.items()}

    # %%
    # One member per modality
    # -----------------------
    estimators = {
        "text": TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=48, random_state=0),
        "picture": ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=96, random_state=0),
        "speech": AudioClassifier(pretrained=whisper_folder(), fine_tune="head", max_seconds=4.0, random_state=0),
        "animation": VideoClassifier(backbone=FrameFeatures, fine_tune="head", **sizes, random_state=0),
    }
    if arguments.fast:
        for estimator in estimators.values():
            estimator.set_params(max_epochs=1)
        estimators["picture"].set_params(image_size=32)
        estimators["speech"].set_params(max_seconds=0.5)
    strategies = {
        "SoftVoting": SoftVoting(),
        "ProductOfExperts": ProductOfExperts(),
        "Stacking": Stacking(cv=2 if arguments.fast else 3),
        "ConcatFusion": ConcatFusion(random_state=0),
    }

    # %%
    # One, two and three of them
    # --------------------------
    # Every combination is fitted by stacking, all three by every strategy; then cells are taken away.
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, (X, y) in data.items():
            fitting, testing = next(StratifiedGroupKFold(4, shuffle=True, random_state=0).split(X, y, X["text"]))
            X_train, X_test, y_train, y_test = X.iloc[fitting], X.iloc[testing], y[fitting], y[testing]
            print(
                f"{name}: {len(X_train)} items to fit, {len(X_test)} held-out ones, {len(np.unique(y))} classes",
                flush=True,
            )
            accuracy: dict[str, float] = {}
            for size in (1, 2):
                for some in combinations(X.columns, size):
                    model = _composition(some, estimators, strategies["Stacking"] if size > 1 else None, cache)
                    accuracy[" + ".join(some)] = model.fit(X_train, y_train).score(X_test, y_test)
            curves = {}
            for strategy, fusion in strategies.items():
                model = _composition(X.columns, estimators, fusion, cache).fit(X_train, y_train)
                accuracy[f"all, {strategy}"] = model.score(X_test, y_test)
                if strategy in CURVES:
                    curve = missing_modality_curve(
                        model, X_test, y_test, fractions=SHARES, n_repeats=1 if arguments.fast else 2, random_state=0
                    )
                    curves[strategy] = dict(zip(curve.names, curve.scores.mean(axis=2).tolist(), strict=True))
            results[name] = {"n_test": len(y_test), "accuracy": accuracy, "curves": curves}
            print(pd.Series(accuracy).to_string(float_format="{:.3f}".format))
            left = pd.DataFrame({s: {m: scores[-1] for m, scores in c.items()} for s, c in curves.items()})
            print(f"without any cells of one modality:\n{left.to_string(float_format='{:.3f}'.format)}", flush=True)
            print(f"after {time.perf_counter() - started:.0f} s\n", flush=True)

    # %%
    # The picture
    # -----------
    figure = _plot(results, data)
    figure.savefig(arguments.output / "three_modalities.png", dpi=110)
    (arguments.output / "three_modalities.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'three_modalities.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _head(X: pd.DataFrame, y: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the first 10 items of each class."""
    rows = pd.Series(y).groupby(y).head(10).index
    return X.iloc[rows], y[rows]


def _composition(columns: Any, estimators: dict[str, Any], fusion: Any, cache: str) -> MultimodalClassifier:
    return MultimodalClassifier([(c, estimators[c], c) for c in columns], fusion=fusion, cache=cache)


def _plot(results: dict[str, Any], data: dict[str, tuple[pd.DataFrame, np.ndarray]]) -> plt.Figure:
    figure = plt.figure(figsize=(15, 9), layout="constrained")
    for part, (name, result) in zip(figure.subfigures(2, 1), results.items(), strict=True):
        example, rest = part.subfigures(1, 2, width_ratios=[1, 3.4])
        X, y = data[name]
        row = int(np.flatnonzero(X.notna().all(axis=1))[3])
        _draw_item(example, X.iloc[row], f"One of {len(X)} {name}: {y[row]}")
        bars, curves = rest.subplots(1, 2)

        accuracy = result["accuracy"]
        colors = ["0.75" if label.startswith("all") else COLORS.get(label, "0.55") for label in accuracy]
        drawn = bars.barh(list(accuracy), list(accuracy.values()), color=colors)
        bars.bar_label(drawn, [f"{value:.3f}" for value in accuracy.values()], padding=3)
        bars.invert_yaxis()
        bars.set(
            xlim=(0, 1.12), xlabel="accuracy", title=f"One, two and three modalities ({result['n_test']} held out)"
        )

        for strategy, lines in result["curves"].items():
            for modality, scores in lines.items():
                curves.plot(
                    SHARES, scores, CURVES[strategy], color=COLORS[modality], marker="o", markersize=4,
                    label=f"without {modality}, {strategy}",
                )  # fmt: skip
        curves.set(xlabel="rows that miss the modality", ylabel="accuracy", title="What is left when one goes missing")
        curves.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        curves.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
        for ax in (bars, curves):
            ax.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_item(figure: Any, item: pd.Series, title: str) -> None:
    """Show an item's picture and name, and its sound as a spectrogram or its animation as frames."""
    figure.suptitle(title, fontsize=11)
    above, below = figure.subplots(2, 1, height_ratios=[1, 0.7])
    above.imshow(Image.open(io.BytesIO(item["picture"])))
    above.set_title(item["text"].split(" | ")[0], fontsize=9)
    if "speech" in item:
        (spectrogram,) = AudioPreprocessor(max_seconds=4.0).encode([item["speech"]]).items
        below.imshow(spectrogram.T, origin="lower", aspect="auto", cmap="magma")
        below.set_title("the name in French, as a spectrogram", fontsize=9)
    else:
        (frames,) = VideoPreprocessor(n_frames=6, size=96).encode([item["animation"]]).items
        below.imshow(np.concatenate(np.concatenate(frames.reshape(2, -1, *frames.shape[1:]), axis=1), axis=1))
        below.set_title(f"{len(frames)} frames of the animation", fontsize=9)
    for ax in (above, below):
        ax.axis("off")


if __name__ == "__main__":
    main()
