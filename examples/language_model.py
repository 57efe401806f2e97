"""
A small GPT that writes fortunes in five languages
==================================================

A language model learns from raw texts, without any label. Here it reads 12,000 fortunes (proverbs, quotations and jokes
in English, German, Spanish, Italian and Russian), writes some of its own, and leaves as one ONNX file that writes the
same. What it has learned of the languages then helps a classifier that sees few labels: fine-tuned from the language
model, it is compared with the same network from scratch and with a logistic regression on n-grams of characters.

A model of 0.9 million weights that has read for some minutes knows words, endings and how a proverb is built; it does
not know what is true.

Run it by ``make examples``, after ``make data``. ``--fast`` does the same on a sliver of the data in seconds; its
numbers and its texts mean nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from mmensemble import OnnxPredictor, export_onnx
from mmensemble.datasets import load_fortunes
from mmensemble_estimators import CausalLM, TextClassifier

PROMPTS = ["Love is", "Die Liebe ist", "El amor es", "L'amore è", "Любовь - это"]
LABELS_PER_LANGUAGE = [3, 6, 12]
SPLITS = 3


def bits_per_character(lm: CausalLM, frame: pd.DataFrame) -> pd.Series:
    """Return what a text of each language costs, in bits per character."""
    log_likelihood, _ = lm.log_likelihood(frame["text"])
    sums = pd.DataFrame({"bits": -log_likelihood / np.log(2), "characters": frame["text"].str.len().to_numpy()})
    by_language = sums.groupby(frame["language"].to_numpy()).sum()
    return by_language["bits"] / by_language["characters"]


def entropy_of_characters(train: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    """Return the same by a model that knows each language's characters and how frequent they are."""
    costs = {}
    for language, texts in test.groupby("language")["text"]:
        counts = pd.Series(list("".join(train.loc[train["language"] == language, "text"]))).value_counts()
        characters = pd.Series(list("".join(texts)))
        probabilities = (characters.map(counts).fillna(0) + 1) / (counts.sum() + len(counts) + 1)
        costs[language] = -np.log2(probabilities).mean()
    return pd.Series(costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="a sliver of the data and 1 epoch, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("examples_output"), help="folder for what it writes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()

    # %%
    # The texts
    # ---------
    # Short ones, each in one line; as many of each language.
    fortunes = load_fortunes().frame
    fortunes["text"] = [" ".join(text.split()) for text in fortunes["text"]]
    fortunes = fortunes[fortunes["text"].str.len().between(20, 140)].drop_duplicates("text")
    n_each = 100 if arguments.fast else 2500
    fortunes = fortunes.groupby("language").sample(n_each, random_state=0)
    train, test = train_test_split(fortunes, test_size=0.04, stratify=fortunes["language"], random_state=0)
    characters = train["text"].str.len().sum()
    print(f"{len(train):,} texts to learn from, {characters:,} characters, and {len(test):,} held-out ones", flush=True)

    # %%
    # The language model
    # ------------------
    lm = CausalLM(
        vocab_size=600 if arguments.fast else 4000,
        max_length=96,
        max_epochs=1 if arguments.fast else 3,
        learning_rate=4e-3,
        random_state=0,
    )
    start = time.perf_counter()
    lm.fit(train["text"])
    costs = pd.DataFrame(
        {"frequency of characters": entropy_of_characters(train, test), "GPT": bits_per_character(lm, test)}
    )
    perplexity = lm.perplexity(test["text"])
    print(f"fitted in {time.perf_counter() - start:.0f} s; held-out perplexity per token {perplexity:.1f}")
    print(f"\nBits per character of held-out texts:\n{costs.to_string(float_format='{:.2f}'.format)}\n", flush=True)

    # %%
    # What it writes
    # --------------
    # A temperature below 1 and `top_p` keep it among what it is sure of. The exported model writes the same.
    how = {"max_new_tokens": 40, "temperature": 0.7, "top_p": 0.9, "num_return_sequences": 3, "random_state": 4}
    texts = lm.generate(PROMPTS, **how)
    for prompt, row in zip(PROMPTS, texts, strict=True):
        for text in row:
            print(f"{prompt}|{text}")
    manifest = export_onnx(lm, arguments.output / "language_model.onnx", verify=test["text"][:32])
    same = OnnxPredictor(arguments.output / "language_model.onnx").generate(PROMPTS, **how) == texts
    print(
        f"\nlanguage_model.onnx differs by {manifest.parity['max_abs_difference']:.1e} at most in log-probabilities; "
        f"{same.mean():.0%} of the texts that it writes are the same",
        flush=True,
    )

    # %%
    # Few labels
    # ----------
    # Which language is a text in, after few examples of each? `save` writes a folder that ``pretrained`` takes.
    settings = {"max_length": 64, "max_epochs": 2 if arguments.fast else 20, "batch_size": 16, "learning_rate": 1e-3}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        lm.save(folder)
        models = {
            "n-grams + logistic regression": lambda seed: make_pipeline(
                TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 3), sublinear_tf=True), LogisticRegression(C=10)
            ),
            "GPT from scratch": lambda seed: TextClassifier(random_state=seed, **settings),
            "GPT from the language model": lambda seed: TextClassifier(
                pretrained=folder, random_state=seed, **settings
            ),
        }
        for per_language in LABELS_PER_LANGUAGE[:1] if arguments.fast else LABELS_PER_LANGUAGE:
            for seed in range(1 if arguments.fast else SPLITS):
                few = train.groupby("language").sample(per_language, random_state=seed)
                for name, make in models.items():
                    model = make(seed).fit(few["text"], few["language"])
                    accuracy = model.score(test["text"], test["language"])
                    rows.append({"model": name, "labels": 5 * per_language, "split": seed, "accuracy": accuracy})
    accuracies = pd.DataFrame(rows)
    table = accuracies.pivot_table("accuracy", "model", "labels", sort=False)
    print(f"\nAccuracy on {len(test):,} held-out texts by the number of labels, the mean of {SPLITS} splits:")
    print(f"{table.to_string(float_format='{:.3f}'.format)}\n")

    figure = _plot(costs, accuracies, texts)
    figure.savefig(arguments.output / "language_model.png", dpi=110)
    results = {
        "perplexity": perplexity,
        "bits_per_character": costs.to_dict(),
        "accuracy": rows,
        "texts": {prompt: row.tolist() for prompt, row in zip(PROMPTS, texts, strict=True)},
        "history": lm.history_.to_dict("list"),
    }
    (arguments.output / "language_model.json").write_text(
        json.dumps(results, indent=2, ensure_ascii=False), encoding="utf-8"
    )
    print(f"figure: {arguments.output / 'language_model.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _plot(costs: pd.DataFrame, accuracies: pd.DataFrame, texts: np.ndarray) -> plt.Figure:
    figure = plt.figure(figsize=(15, 5.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.7])
    costs.plot.bar(ax=left, color=["tab:gray", "tab:blue"], rot=0, width=0.75)
    left.set_ylim(top=1.25 * costs.to_numpy().max())  # room for the legend
    left.set(ylabel="bits per character", title="What a held-out text costs")
    colours = {"n": "tab:gray", "s": "tab:orange", "l": "tab:blue"}
    for name, group in accuracies.groupby("model", sort=False):
        mean = group.groupby("labels")["accuracy"].mean()
        colour = colours["n" if name.startswith("n") else "s" if name.endswith("scratch") else "l"]
        middle.plot(mean.index, mean, marker="o", color=colour, label=name)
        middle.scatter(group["labels"], group["accuracy"], s=12, alpha=0.5, color=colour)
    middle.set(xlabel="labels", ylabel="accuracy", ylim=(0, 1.02), title="Language of a text, learned from few labels")
    middle.set_xticks(sorted(accuracies["labels"].unique()))
    middle.legend(loc="lower right", fontsize=8)
    for ax in (left, middle):
        ax.spines[["top", "right"]].set_visible(False)
    right.axis("off")
    right.set_title("What it writes behind a prompt")
    lines = []
    for prompt, row in zip(PROMPTS, texts, strict=True):
        for text in row[:2]:
            lines += textwrap.wrap(f"▸ {prompt}{text}", 78, subsequent_indent="   ") or [prompt]
        lines.append("")
    right.text(0, 0.98, "\n".join(lines), va="top", fontsize=8.5, transform=right.transAxes, linespacing=1.35)
    return figure


if __name__ == "__main__":
    main()
