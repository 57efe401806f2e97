"""
A translator from 1,600 pairs of names
======================================

What an emoji is called in English becomes what it is called in German: "man kneeling", "kniender Mann". A transformer
and an LSTM with attention learn it from 1,613 pairs and nothing else. That is a toy, and the numbers say so: 186 of the
285 held-out names hold a word that is in no fitting pair and cannot be known. The figure tells them apart.

The baselines are the English name as it stands, since some words are the same in both languages, and the German name of
the fitting pair whose English name is nearest. By BLEU the transformer is best: 27.1, the LSTM 22.2, the nearest pair
17.2. By chrF the nearest pair is, with 40.5 to 35.9: its German is always German.

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
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from mmensemble.datasets import load_openmoji
from mmensemble.metrics import bleu_score, chrf_score
from mmensemble_estimators import Seq2SeqGenerator


def nearest(X_train: pd.Series, y_train: pd.Series, X_test: pd.Series) -> np.ndarray:
    """Return the target of the fitting source that shares most character sequences with each test source."""
    terms = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(X_train)
    similarity = terms.transform(X_test) @ terms.transform(X_train).T
    return y_train.to_numpy()[similarity.toarray().argmax(axis=1)]


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
    # OpenMoji's text column holds the Unicode name, then the names in English, German and French.
    emoji = load_openmoji(size=16)
    names = emoji.frame["name"].str.split(" | ", regex=False, expand=True)
    english, german, category = names[1], names[2], emoji.target
    if arguments.fast:
        english, _, german, _, category, _ = train_test_split(
            english, german, category, train_size=150, stratify=category, random_state=0
        )
    X_train, X_test, y_train, y_test = train_test_split(
        english, german, test_size=0.15, stratify=category, random_state=0
    )
    words = set(" ".join(X_train).split())
    known = np.array([set(name.split()) <= words for name in X_test])
    print(
        f"{len(X_train)} pairs to fit and {len(X_test)} held-out ones; "
        f"of {known.sum()} all English words are in the fitting pairs"
    )

    # %%
    # The models
    # ----------
    # One small vocabulary of byte pairs serves both languages. `predict` takes the most probable token at each step, or
    # searches with beams.
    models = {
        "LSTM with attention": Seq2SeqGenerator(
            backbone="lstm", vocab_size=1000, max_length=48, max_epochs=30, learning_rate=4e-3, random_state=0
        ),
        "transformer": Seq2SeqGenerator(vocab_size=1000, max_length=48, max_epochs=30, random_state=0),
    }
    written = {"English as it stands": X_test.to_numpy(), "nearest pair": nearest(X_train, y_train, X_test)}
    seconds = dict.fromkeys(written, 0.0)
    for name, model in models.items():
        if arguments.fast:
            model.set_params(max_epochs=1)
        start = time.perf_counter()
        model.fit(X_train, y_train)
        seconds[name] = time.perf_counter() - start
        written[name] = model.predict(X_test)
        print(f"{name}: fitted in {seconds[name]:.0f} s", flush=True)
    name = "transformer, 4 beams"
    written[name] = models["transformer"].set_params(num_beams=4).predict(X_test)
    seconds[name] = seconds["transformer"]

    # %%
    # Scores
    # ------
    rows = {
        name: {
            "BLEU": bleu_score(y_test, texts),
            "chrF": chrf_score(y_test, texts),
            "exact": float(np.mean(texts == y_test.to_numpy())),
            "chrF, known words": chrf_score(y_test[known], texts[known]),
            "chrF, others": chrf_score(y_test[~known], texts[~known]),
            "fit, s": seconds[name],
        }
        for name, texts in written.items()
    }
    table = pd.DataFrame(rows).T
    print(f"\nOn the {len(X_test)} held-out names:\n{table.to_string(float_format='{:.2f}'.format)}\n")
    pairs = pd.DataFrame({"English": X_test, "transformer": written["transformer"], "German": y_test})
    for kind, chosen in (("of known words", known), ("with an unknown word", ~known)):
        print(f"The first names {kind}:\n{pairs[chosen].head(8).to_string(index=False)}\n")

    figure = _plot(table, pairs, known)
    figure.savefig(arguments.output / "translation.png", dpi=110)
    (arguments.output / "translation.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'translation.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _plot(table: pd.DataFrame, pairs: pd.DataFrame, known: np.ndarray) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 6), width_ratios=[1, 1.5], layout="constrained")
    places = np.arange(len(table))
    for offset, column, colour in ((-0.2, "chrF, known words", "tab:green"), (0.2, "chrF, others", "tab:gray")):
        bars = left.barh(places + offset, table[column], height=0.38, color=colour, label=column.removeprefix("chrF, "))
        left.bar_label(bars, [f"{value:.0f}" for value in table[column]], padding=3)
    left.set_yticks(places, table.index)
    left.invert_yaxis()
    left.set(xlim=(0, 100), xlabel="chrF", title=f"{len(pairs)} held-out names, {known.sum()} of known words")
    left.legend(loc="lower right", frameon=False)
    left.spines[["top", "right"]].set_visible(False)

    right.axis("off")
    shown = pd.concat([pairs[known].head(10), pairs[~known].head(8)])
    cells = right.table(shown.values.tolist(), colLabels=["English", "the transformer wrote", "German"], loc="center")
    cells.auto_set_font_size(False)
    cells.set_fontsize(8)
    cells.scale(1, 1.35)
    for (row, _), cell in cells.get_celld().items():
        cell.set_edgecolor("lightgray")
        if row == 0:
            cell.set_text_props(weight="bold")
        elif shown["transformer"].iloc[row - 1] == shown["German"].iloc[row - 1]:
            cell.set_facecolor("honeydew")
    return figure


if __name__ == "__main__":
    main()
