"""
What is left when a modality goes missing
=========================================

Emoji and stamps, each with a text and a picture: more and more held-out rows lose one of the two, until all have. A
composition should then still be as good as a model of the other modality alone, or it was a mistake to fuse. Soft
voting and the product of experts are so by construction. A joint fusion has to learn it, by `modality_dropout`.

MiniLM and EfficientNet are frozen and shared by all strategies through a cache, so each item is embedded once. Run it
by ``make examples``. The stamps need ``make data``; without them it is emoji alone. ``--fast`` does the same on a
sliver of the data in seconds; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

from mmensemble import (
    ConfigurationError,
    LogOpinionPool,
    MultimodalClassifier,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    missing_modality_curve,
)
from mmensemble.datasets import load_openmoji, load_tuxpaint_stamps, minilm_folder
from mmensemble_estimators import ConcatFusion, GatedFusion, ImageClassifier, TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0

SHARES = [0.0, 0.25, 0.5, 0.75, 1.0]
OTHER = {"text": "picture", "picture": "text"}
COLORS = {"text": "tab:blue", "picture": "tab:orange"}


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
    emoji = load_openmoji(size=96)
    data = {"emoji": (emoji.frame.rename(columns={"name": "text"})[["text", "picture"]], emoji.target)}
    try:
        stamps = load_tuxpaint_stamps(size=96)
        data["stamps"] = (stamps.frame[["text", "picture"]], stamps.target)
    except ConfigurationError as error:
        print(f"no stamps: {error}")

    # %%
    # Members and strategies
    # ----------------------
    # All fitting rows are complete, so that modality dropout alone can teach a joint fusion to do without.
    text = TextClassifier(pretrained=minilm_folder(), fine_tune="head", random_state=0)
    picture = ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=96, random_state=0)
    if arguments.fast:
        text.set_params(max_epochs=1)
        picture.set_params(max_epochs=1, image_size=32)
    members = [("text", text, "text"), ("picture", picture, "picture")]
    strategies = {
        "SoftVoting": SoftVoting(),
        "ProductOfExperts": ProductOfExperts(),
        "Stacking": Stacking(cv=2 if arguments.fast else 5),
        "LogOpinionPool": LogOpinionPool(cv=2 if arguments.fast else 5),
        "SuperLearner": SuperLearner(cv=2 if arguments.fast else 5),
        "ConcatFusion, dropout 0": ConcatFusion(modality_dropout=0.0, random_state=0),
        "ConcatFusion (0.2)": ConcatFusion(random_state=0),
        "ConcatFusion, dropout 0.5": ConcatFusion(modality_dropout=0.5, random_state=0),
        "GatedFusion, dropout 0": GatedFusion(modality_dropout=0.0, random_state=0),
        "GatedFusion (0.2)": GatedFusion(random_state=0),
    }

    # %%
    # Take cells away, and score
    # --------------------------
    n_splits, test_size, train_size = (1, 60, 120) if arguments.fast else (3, 0.25, 0.75)
    scores: dict[str, dict[str, list[Any]]] = {}
    alone: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as cache:
        for name, (X, y) in data.items():
            scores[name] = {strategy: [] for strategy in strategies}
            alone[name] = {member: [] for member in OTHER}
            splitter = StratifiedShuffleSplit(n_splits, test_size=test_size, train_size=train_size, random_state=0)
            for number, (fitting, testing) in enumerate(splitter.split(X, y)):
                X_train, X_test = X.iloc[fitting], X.iloc[testing]
                for member in members:
                    model = MultimodalClassifier([member], cache=cache).fit(X_train, y[fitting])
                    alone[name][member[0]].append(model.score(X_test, y[testing]))
                for strategy, fusion in strategies.items():
                    model = MultimodalClassifier(members, fusion=fusion, cache=cache).fit(X_train, y[fitting])
                    curve = missing_modality_curve(
                        model, X_test, y[testing], fractions=SHARES, n_repeats=1, random_state=number
                    )
                    scores[name][strategy].append(curve.scores[:, :, 0])
                passed = time.perf_counter() - started
                print(
                    f"{name}, split {number + 1}: {len(fitting)} items to fit, {len(testing)} held-out ones, "
                    f"{len(np.unique(y))} classes; {passed:.0f} s",
                    flush=True,
                )

    # %%
    # The table
    # ---------
    # Accuracy on complete rows, and with all cells of a modality gone; in brackets, how much that is above or below the
    # member that is left, fitted alone. After ± stands the standard deviation over the splits.
    results = {name: _table(scores[name], alone[name]) for name in data}
    for name, table in results.items():
        single = ", ".join(f"{member} alone {np.mean(values):.3f}" for member, values in alone[name].items())
        print(f"\nAccuracy on held-out {name}, mean of {n_splits} splits; {single}:")
        print(_readable(table).to_string())

    # %%
    # The picture
    # -----------
    figure = _plot(scores, alone)
    figure.savefig(arguments.output / "missing_modalities.png", dpi=110)
    numbers = {
        name: {
            "alone": alone[name],
            "shares": SHARES,
            "scores": {strategy: np.stack(curves).tolist() for strategy, curves in scores[name].items()},
            "table": results[name].to_dict(orient="index"),
        }
        for name in data
    }
    (arguments.output / "missing_modalities.json").write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    print(
        f"\nfigure: {arguments.output / 'missing_modalities.png'}; all of it took {time.perf_counter() - started:.0f} s"
    )


def _gaps(curves: list[Any], alone: dict[str, list[float]], number: int, modality: str) -> np.ndarray:
    """Return, for each split, the accuracy without a modality minus that of the other one's member alone."""
    return np.asarray([curve[number, -1] for curve in curves]) - alone[OTHER[modality]]


def _table(scores: dict[str, list[Any]], alone: dict[str, list[float]]) -> pd.DataFrame:
    rows = {}
    for strategy, curves in scores.items():
        complete = [curve[0, 0] for curve in curves]
        rows[strategy] = {"complete": np.mean(complete), "complete_std": np.std(complete)}
        for number, modality in enumerate(OTHER):
            gaps = _gaps(curves, alone, number, modality)
            rows[strategy] |= {
                f"without {modality}": np.mean([curve[number, -1] for curve in curves]),
                f"without {modality}, gap": gaps.mean(),
                f"without {modality}, gap_std": gaps.std(),
            }
    return pd.DataFrame(rows).T


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    shown = {"complete": [f"{a:.3f} ± {s:.3f}" for a, s in zip(table["complete"], table["complete_std"], strict=True)]}
    for modality in OTHER:
        columns = [table[f"without {modality}{end}"] for end in ("", ", gap", ", gap_std")]
        shown[f"without {modality}"] = [f"{a:.3f} ({g:+.3f} ± {s:.3f})" for a, g, s in zip(*columns, strict=True)]
    return pd.DataFrame(shown, index=table.index)


def _plot(scores: dict[str, dict[str, list[Any]]], alone: dict[str, dict[str, list[float]]]) -> plt.Figure:
    """Draw a row per data set and a column per strategy."""
    strategies = list(next(iter(scores.values())))
    figure, grid = plt.subplots(
        len(scores), len(strategies), figsize=(2.1 * len(strategies), 0.9 + 2.7 * len(scores)),
        sharex=True, sharey="row", squeeze=False, layout="constrained",
    )  # fmt: skip
    for axes, (name, by_strategy) in zip(grid, scores.items(), strict=True):
        for ax, curves in zip(axes, by_strategy.values(), strict=True):
            _draw(ax, curves, alone[name])
            ax.spines[["top", "right"]].set_visible(False)
            ax.set(xlim=(0, 1.34), xticks=[0, 0.5, 1], xticklabels=["0", "50", "100 %"])
            ax.spines["bottom"].set_bounds(0, 1)
            ax.grid(axis="y", color="0.92")
            ax.set_axisbelow(True)
        axes[0].set_ylabel(f"accuracy on {name}")
    for ax, strategy in zip(grid[0], strategies, strict=True):
        ax.set_title(strategy.replace(", ", "\n").replace("dropout", "modality dropout"), fontsize=9, loc="left")
    figure.supxlabel("rows that miss the modality", fontsize=10)
    handles = [
        plt.Line2D([], [], color=color, linestyle=style, marker=marker, label=label)
        for modality, color in COLORS.items()
        for style, marker, label in (
            ("-", "o", f"the {modality} goes missing"),
            (":", "", f"what should be left: the {OTHER[modality]}, fitted alone"),
        )
    ]
    figure.legend(handles=handles, ncols=4, frameon=False, loc="outside upper left", fontsize=9)
    return figure


def _draw(ax: Any, curves: list[Any], alone: dict[str, list[float]]) -> None:
    """Draw each modality's line, its floor, and by how much the line's end lies above or below the floor."""
    ends = np.mean([curve[:, -1] for curve in curves], axis=0)
    for number, modality in enumerate(OTHER):
        color, values = COLORS[modality], np.stack(curves)[:, number]
        floor, gaps = float(np.mean(alone[OTHER[modality]])), _gaps(curves, alone, number, modality)
        ax.axhline(floor, xmax=1 / 1.34, color=color, linestyle=":", linewidth=1.4)
        ax.fill_between(SHARES, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, linewidth=0)
        ax.plot(SHARES, values.mean(axis=0), color=color, marker="o", markersize=4)
        below = bool(gaps.mean() < -0.01 and (gaps < 0).all())
        if below:
            place = 1 + 0.04 * number
            ax.plot([place] * 2, [ends[number], floor], color="tab:red", linewidth=4, alpha=0.5, solid_capstyle="butt")
        gap = f"{gaps.mean():+.2f}".replace("-", "−")
        ax.annotate(
            "±0" if gap[1:] == "0.00" else gap, (1, ends[number]), va="center", fontsize=8.5,
            textcoords="offset points", xytext=(9, 5 if ends[number] > ends[1 - number] else -5),  # not on each other
            color="tab:red" if below else "0.35", fontweight="bold" if below else "normal",
        )  # fmt: skip


if __name__ == "__main__":
    main()
