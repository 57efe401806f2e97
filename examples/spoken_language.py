"""
Which language is spoken, and what speech adds to text
======================================================

A telephone exchange says the same prompts in five languages. Which language is it, by what is written and by what is
heard? Half of the clips are a word or two, and "no", "a" or "bravo" look alike in several languages. A small GPT reads
the text, a small ResNet hears the speech; both learn from 2,000 clips and nothing else, and their average decides.

One voice speaks each language, so the ResNet may as well learn who speaks. Only English and Spanish share a voice, and
how well these two are told apart is shown apart.

Then with 50 clips, from scratch and by frozen Whisper, which has heard 99 languages. Pretrained weights are no sure
win: Whisper has learned to write down what is said, whoever says it, and the mean of what it makes of a word or two
tells the language less well than a ResNet that starts with nothing.

Run it by ``make examples``; the sounds come by ``make data``. ``--fast`` does the same on a sliver of the data in
seconds; its numbers mean nothing.
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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mmensemble import MultimodalClassifier, SoftVoting
from mmensemble.datasets import load_asterisk_sounds
from mmensemble.preprocessing import AudioPreprocessor
from mmensemble_estimators import AudioClassifier, TextClassifier
from mmensemble_estimators.packaged import whisper_folder

NAMES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
LENGTHS = {"1 word": (1, 1), "2 or 3": (2, 3), "4 to 7": (4, 7), "8 and more": (8, 10**6)}


def band_statistics(paths: pd.Series) -> np.ndarray:
    """Return the mean and standard deviation of 64 mel bands over each clip."""
    spectrograms = AudioPreprocessor(max_seconds=3.0).encode(list(paths)).items
    return np.stack([np.concatenate([s.mean(axis=0), s.std(axis=0)]) for s in spectrograms])


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
    sounds = load_asterisk_sounds()
    frame, language = sounds.frame, sounds.target
    if arguments.fast:
        frame, _, language, _ = train_test_split(frame, language, train_size=120, stratify=language, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(
        frame, language, test_size=0.25, stratify=language, random_state=0
    )
    print(f"{len(X_train)} clips to fit and {len(X_test)} to test, {len(sounds.target_names)} languages")

    # %%
    # Text, speech, both
    # ------------------
    # A cell of speech is the path of a wav file; the spectrogram is made by the estimator. After 3 s a clip is cut.
    probabilities_of: dict[str, np.ndarray] = {}
    text_baseline = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True), LogisticRegression(C=10)
    )
    probabilities_of["text: TF-IDF"] = text_baseline.fit(X_train["text"], y_train).predict_proba(X_test["text"])
    speech_baseline = make_pipeline(
        FunctionTransformer(band_statistics), StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)
    )
    speech_baseline.fit(X_train["speech"], y_train)
    probabilities_of["speech: mel bands"] = speech_baseline.predict_proba(X_test["speech"])

    speech = AudioClassifier(max_seconds=3.0, max_epochs=6, random_state=0)
    model = MultimodalClassifier(
        [
            ("text", TextClassifier(max_epochs=12, vocab_size=2000, random_state=0), "text"),
            ("speech", speech, "speech"),
        ],
        fusion=SoftVoting(),
    )
    if arguments.fast:
        model.set_params(text__max_epochs=1, speech__max_epochs=1, speech__max_seconds=0.5)
    model.fit(X_train, y_train)
    members = model.named_estimators_
    probabilities_of["text: GPT"] = members["text"].predict_proba(X_test["text"])
    probabilities_of["speech: ResNet"] = members["speech"].predict_proba(X_test["speech"])
    probabilities_of["GPT + ResNet"] = model.predict_proba(X_test)
    rows = {name: _scores(y_test, p, model.classes_) for name, p in probabilities_of.items()}
    table = pd.DataFrame(rows).T
    print(f"\nOn the {len(X_test)} held-out clips:\n{table.to_string(float_format='{:.3f}'.format)}\n", flush=True)

    # %%
    # Few clips
    # ---------
    # With ``fine_tune="head"`` Whisper's encoder stays as it is. It runs on each clip alone, not on 30 s of silence
    # around it.
    few: dict[str, dict[str, float]] = {}
    pretrained = AudioClassifier(pretrained=whisper_folder(), fine_tune="head", max_seconds=2.0)
    scratch = AudioClassifier(max_seconds=2.0, max_epochs=60, random_state=0)
    if arguments.fast:
        for estimator in (pretrained, scratch):
            estimator.set_params(max_epochs=1, max_seconds=0.5)
    few_X, _, few_y, _ = train_test_split(
        X_train["speech"], y_train, train_size=20 if arguments.fast else 50, stratify=y_train, random_state=0
    )
    some = slice(None, 30 if arguments.fast else 300)
    for name, estimator in {"ResNet from scratch": scratch, "Whisper, frozen": pretrained}.items():
        start = time.perf_counter()
        estimator.fit(few_X, few_y)
        few[name] = _scores(y_test[some], estimator.predict_proba(X_test["speech"][some]), estimator.classes_)
        few[name]["seconds"] = time.perf_counter() - start
        print(
            f"{len(few_X)} clips, {name}: {few[name]['accuracy']:.3f} of {len(y_test[some])} held-out ones", flush=True
        )

    # %%
    # When speech helps
    # -----------------
    figure = _plot(table, few, len(few_X), probabilities_of, model, X_test, y_test)
    figure.savefig(arguments.output / "spoken_language.png", dpi=110)
    results = {"all clips": rows, f"{len(few_X)} clips": few}
    (arguments.output / "spoken_language.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
    print(f"figure: {arguments.output / 'spoken_language.png'}; all of it took {time.perf_counter() - started:.0f} s")


def _scores(y: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    predicted = classes[probabilities.argmax(axis=1)]
    one_voice = np.isin(y, ["en", "es"])
    return {
        "accuracy": accuracy_score(y, predicted),
        "English or Spanish": accuracy_score(y[one_voice], predicted[one_voice]),
        "log loss": log_loss(y, probabilities, labels=classes),
    }


def _plot(
    table: pd.DataFrame,
    few: dict[str, dict[str, float]],
    n_few: int,
    probabilities_of: dict[str, np.ndarray],
    model: MultimodalClassifier,
    X: pd.DataFrame,
    y: np.ndarray,
) -> plt.Figure:
    figure = plt.figure(figsize=(15, 7.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.3])
    bars, lines = left.subplots(2, 1, height_ratios=[1.25, 1])
    accuracies = [*table["accuracy"], *(scores["accuracy"] for scores in few.values())]
    names = [*table.index, *(f"{name}, {n_few} clips" for name in few)]
    colours = ["tab:gray", "tab:gray", "tab:blue", "tab:orange", "tab:green", "wheat", "tab:red"]
    drawn = bars.barh(names, accuracies, color=colours)
    bars.bar_label(drawn, [f"{value:.3f}" for value in accuracies], padding=4)
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.12), xlabel="accuracy", title=f"Language of {len(y)} held-out clips")

    n_words = X["text"].str.split().str.len().to_numpy()
    spans = {name: (n_words >= low) & (n_words <= high) for name, (low, high) in LENGTHS.items()}
    for name, colour in {"text: GPT": "tab:blue", "speech: ResNet": "tab:orange", "GPT + ResNet": "tab:green"}.items():
        right_ones = model.classes_[probabilities_of[name].argmax(axis=1)] == y
        lines.plot(list(spans), [right_ones[span].mean() for span in spans.values()], "o-", color=colour, label=name)
    lines.set(xlabel="words in the clip", ylabel="accuracy", title="Few words say little when read")
    lines.legend(frameon=False)
    for ax in (bars, lines):
        ax.spines[["top", "right"]].set_visible(False)

    # Of each language the clip that text is least sure of, with what speech makes of it.
    right.suptitle("Of each language what text misjudges most: as it is read, and as it is heard")
    audio = AudioPreprocessor(max_seconds=1.5)
    for ax, code in zip(right.subplots(len(NAMES), 1), NAMES, strict=True):
        column = list(model.classes_).index(code)
        of_it = np.flatnonzero(y == code)
        row = of_it[probabilities_of["text: GPT"][of_it, column].argmin()]
        ax.imshow(audio.encode([X["speech"].iloc[row]]).items[0].T, origin="lower", aspect="auto", cmap="magma")
        said = [_guess(probabilities_of[name][row], model.classes_) for name in ("text: GPT", "speech: ResNet")]
        words = X["text"].iloc[row]
        words = words if len(words) < 50 else f"{words[:47]}..."
        ax.set_title(f"“{words}” is {NAMES[code]}. Read: {said[0]}; heard: {said[1]}", fontsize=9, loc="left")
        ax.set(xticks=[], yticks=[0, 63], yticklabels=["0", "8 kHz"])
    ax.set(xticks=[0, 50, 100, 150], xticklabels=["0", "0.5", "1", "1.5 s"], xlim=(0, 150))
    return figure


def _guess(probabilities: np.ndarray, classes: np.ndarray) -> str:
    best = probabilities.argmax()
    return f"{NAMES[classes[best]]} ({probabilities[best]:.0%})"


if __name__ == "__main__":
    main()
