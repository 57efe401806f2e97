"""Compare the default with single members, all strategies, and the ten lines that one would write by hand.

    make evidence [EVIDENCE_ARGS="--data openmoji --models default 'ten lines'"]

Five folds of each data set, stratified ones, and where rows come in related groups also such that hold out whole
groups; every model sees the same folds. The rows to fit come in random order, as `train_test_split` leaves them;
``--in-order`` keeps the order in which the data set has them, topic by topic in the case of the tweets. Networks are
frozen, and what is made of the rows is kept in a cache for all models. The default and the ten lines are fitted once
more without it, on the first fold, to count their processor time. Prints a table per data set and writes
``evidence.json``, where it keeps the models that are not run again. Nothing is tuned on the rows that are tested.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import csr_array, hstack
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import Normalizer, StandardScaler

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, where `tests` is no installed package

from mmensemble import (
    EnsembleSelection,
    HardVoting,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    OnnxPredictor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    expected_calibration_error,
    export_onnx,
)
from mmensemble.cache import Store
from mmensemble.datasets import (
    load_animated_emoji,
    load_fortunes,
    load_openmoji,
    load_tuxpaint_stamps,
    load_tweets,
    minilm_folder,
)
from mmensemble_estimators import (
    AttentionFusion,
    BilinearFusion,
    ConcatFusion,
    GatedFusion,
    ImageClassifier,
    TextClassifier,
)
from mmensemble_estimators.packaged import efficientnet_lite0

N_FOLDS = 5
SIZE = 96
N_TWEETS = N_FORTUNES = 2_500
DEFAULT, TEN_LINES, TEN_LINES_WORDS = "the default", "ten lines", "ten lines with TF-IDF"
PENALTIES = {"C": [0.1, 1, 10, 100]}


@dataclass(frozen=True)
class Data:
    """A data set: what its rows hold, what they are, and which are related.

    Its columns are those of `text`, `picture` and `numbers` that it has.
    """

    frame: pd.DataFrame
    y: np.ndarray
    groups: np.ndarray | None
    about: str

    @property
    def numbers(self) -> list[str]:
        return [column for column in self.frame.columns if column not in ("text", "picture")]


def openmoji() -> Data:
    """Emoji, related by subcategory."""
    emoji = load_openmoji(size=SIZE)
    frame = emoji.frame.rename(columns={"name": "text"})
    about = "names in three languages and drawings of emoji, nine categories; groups are subcategories"
    return Data(frame[["text", "picture"]], emoji.target, frame["subcategory"].to_numpy(), about)


def tuxpaint() -> Data:
    """Stamps, related by the folder they lie in."""
    stamps = load_tuxpaint_stamps(size=SIZE)
    groups = stamps.frame["id"].str.rpartition("/")[0].to_numpy()
    about = "an English sentence and the picture of stamps of Tux Paint, twelve classes; groups are folders"
    return Data(stamps.frame[["text", "picture"]], stamps.target, groups, about)


def animated() -> Data:
    """Animated emoji, related by subcategory."""
    emoji = load_animated_emoji(size=SIZE)
    frame = emoji.frame.rename(columns={"name": "text"})
    about = "names in three languages and the first frame of animated emoji, five categories; groups are subcategories"
    return Data(frame[["text", "picture"]], emoji.target, frame["subcategory"].to_numpy(), about)


def digits() -> Data:
    """Written digits, beside words that say nothing."""
    images, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("ba", "ko", "li", "mu", "ne") for b in ("ra", "so", "ti", "vu", "xe")]
    frame = pd.DataFrame(
        {
            "text": [" ".join(rng.choice(words, 6)) for _ in y],
            "picture": [_png(image.reshape(8, 8) * 255 / 16) for image in images],
        }
    )
    return Data(frame, y.astype(str), None, "written digits of 8 × 8 pixels, and six made-up words drawn at random")


def tweets() -> Data:
    """Tweets, and numbers that count what is in them."""
    found = load_tweets()
    rows = _some(found.target, N_TWEETS)
    text = found.frame["text"].iloc[rows].reset_index(drop=True)
    frame = pd.DataFrame(
        {
            "text": text,
            "n_characters": text.str.len().astype(float),
            "n_exclamations": text.str.count("!").astype(float),
            "n_mentions": text.str.count("@").astype(float),
            "share_of_capitals": text.str.count("[A-Z]") / text.str.len().clip(lower=1),
        }
    )
    return Data(frame, found.target[rows], None, "tweets, with four counts of their characters; three sentiments")


def fortunes() -> Data:
    """English sayings by topic."""
    found = load_fortunes().frame
    english = found[found["language"] == "en"]
    often = english["topic"].value_counts()
    english = english[english["topic"].isin(often[often >= 400].index)]
    y = english["topic"].to_numpy(dtype=object).astype(str)
    rows = _some(y, N_FORTUNES)
    frame = pd.DataFrame({"text": english["text"].iloc[rows].to_numpy()})
    return Data(frame, y[rows], None, f"English sayings of fortune, {len(np.unique(y))} topics")


DATA: dict[str, Callable[[], Data]] = {
    "openmoji": openmoji,
    "tuxpaint": tuxpaint,
    "animated": animated,
    "digits": digits,
    "tweets": tweets,
    "fortunes": fortunes,
}


def _some(y: np.ndarray, n: int) -> np.ndarray:
    """Return the numbers of n rows, drawn at random, in order."""
    return np.sort(np.random.default_rng(0).choice(len(y), n, replace=False))


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()


def text() -> TextClassifier:
    """MiniLM, frozen."""
    return TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=128, random_state=0)


def image() -> ImageClassifier:
    """EfficientNet-Lite0, frozen."""
    return ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=SIZE, random_state=0)


def tfidf() -> Any:
    """Words and characters."""
    return make_union(
        TfidfVectorizer(sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    )


def members(data: Data) -> list[tuple[str, Any, Any]]:
    """A strong and a weaker member for a text, one for a picture, and one for the numbers."""
    found: list[tuple[str, Any, Any]] = []
    if "text" in data.frame:
        words = make_pipeline(tfidf(), LogisticRegression(C=10, max_iter=1000))
        found += [("text", text(), "text"), ("words", words, "text")]
    if "picture" in data.frame:
        found += [("image", image(), "picture")]
    if data.numbers:
        found += [("numbers", make_pipeline(StandardScaler(), LogisticRegression()), data.numbers)]
    return found


class TenLines(ClassifierMixin, BaseEstimator):
    """What one would write by hand: embeddings, numbers and perhaps words, side by side before one linear model.

    Its penalty is chosen by the log loss of five folds, which keep groups together where there are some.
    """

    def __init__(self, numbers: Sequence[str] = (), cache: str | None = None, words: bool = False) -> None:
        self.numbers = numbers
        self.cache = cache
        self.words = words

    def _features(self, X: pd.DataFrame) -> csr_array | np.ndarray:
        parts = [Normalizer().fit_transform(network.transform(X[column])) for column, network in self.networks_.items()]
        if self.numbers:
            parts.append(self.scaler_.transform(X[self.numbers]))
        if not self.words:
            return np.hstack(parts)
        return csr_array(hstack([*map(csr_array, parts), self.tfidf_.transform(X["text"])]))

    def fit(self, X: pd.DataFrame, y: np.ndarray, groups: np.ndarray | None = None) -> TenLines:
        with Store.of(self.cache).active():
            columns = {"text": text(), "picture": image()}
            self.networks_ = {c: network.fit_embedding(X[c]) for c, network in columns.items() if c in X}
            if self.numbers:
                self.scaler_ = StandardScaler().fit(X[self.numbers])
            if self.words:
                self.tfidf_ = tfidf().fit(X["text"])
            features = self._features(X)
        cv = StratifiedKFold(N_FOLDS) if groups is None else GroupKFold(N_FOLDS)
        search = GridSearchCV(LogisticRegression(max_iter=1000), PENALTIES, cv=cv, scoring=_log_loss)
        self.model_ = search.fit(features, y, groups=groups)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray:
        with Store.of(self.cache).active():
            return np.asarray(self.model_.predict_proba(self._features(X)))


def _log_loss(model: Any, X: Any, y: np.ndarray) -> float:
    """Score by the log loss, of folds that do not hold all classes too."""
    known = np.isin(y, model.classes_)
    return -float(log_loss(y[known], model.predict_proba(X[known]), labels=model.classes_))


def models(data: Data, cache: str | None) -> dict[str, tuple[str, Any]]:
    """Name → group and model."""
    everyone = members(data)
    networks = [member for member in everyone if member[0] in ("text", "image")]

    def fused(fusion: Any, some: list[tuple[str, Any, Any]] = everyone) -> MultimodalClassifier:
        return MultimodalClassifier(some, fusion=fusion, cache=cache)

    late = [SoftVoting(), HardVoting(), ProductOfExperts(), LogOpinionPool(), EnsembleSelection(), Stacking()]
    joint = [f(random_state=0) for f in (ConcatFusion, AttentionFusion, GatedFusion, BilinearFusion)]
    found = {DEFAULT: ("default", fused(None)), TEN_LINES: ("by hand", TenLines(data.numbers, cache))}
    if "text" in data.frame:
        found[TEN_LINES_WORDS] = ("by hand", TenLines(data.numbers, cache, words=True))
    found |= {name: ("one member", fused(None, [(name, e, c)])) for name, e, c in everyone}
    found |= {type(one).__name__: ("late", fused(one)) for one in late}
    found["LinearFusion"] = ("linear", fused(LinearFusion()))
    if len(networks) > 1:
        found |= {type(one).__name__: ("joint, of text and image", fused(one, networks)) for one in joint}
    return found


def compare(
    name: str,
    data: Data,
    groups: np.ndarray | None,
    cache: str,
    rows: dict[str, Any],
    wanted: list[str] | None,
    in_order: bool = False,
) -> None:
    """Cross-validate models on one data set, and add what is found to `rows`."""
    X, y = data.frame.reset_index(drop=True), data.y
    if groups is None:
        folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y))
    else:
        folds = list(GroupKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y, groups))
    if not in_order:
        rng = np.random.default_rng(0)
        folds = [(rng.permutation(fitting), testing) for fitting, testing in folds]
    for label, (kind, model) in models(data, cache).items():
        if wanted is not None and label not in wanted:
            continue
        row: dict[str, Any] = {"kind": kind, "accuracy": [], "log_loss": [], "calibration_error": []}
        for fitting, testing in folds:
            related = {} if groups is None else {"groups": groups[fitting]}
            fitted = clone(model).fit(X.iloc[fitting], y[fitting], **related)
            proba = _all_classes(fitted.predict_proba(X.iloc[testing]), fitted.classes_, np.unique(y))
            row["accuracy"].append(accuracy_score(y[testing], np.unique(y)[proba.argmax(axis=1)]))
            row["log_loss"].append(log_loss(y[testing], proba, labels=np.unique(y)))
            row["calibration_error"].append(expected_calibration_error(y[testing], proba, classes=np.unique(y)))
        if kind in ("default", "by hand"):
            row |= measured(models(data, None)[label][1], X, y, folds[0], groups)
        if label == DEFAULT:
            row["chosen"] = str(getattr(fitted.fusion_, "chosen_", type(fitted.fusion_).__name__))
        rows[label] = row
        means = [f"{np.mean(row[score]):.3f}" for score in ("accuracy", "log_loss")]
        print(f"{name}: {label} {' / '.join(means)}", file=sys.stderr, flush=True)


def _all_classes(proba: np.ndarray, known: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Give a class that the fitted rows did not hold a probability of 0."""
    full = np.zeros((len(proba), len(classes)))
    full[:, np.searchsorted(classes, known)] = proba
    return full / full.sum(axis=1, keepdims=True)


def measured(model: Any, X: pd.DataFrame, y: np.ndarray, fold: Any, groups: np.ndarray | None) -> dict[str, Any]:
    """Return the processor seconds of a fit without a cache, and rows per second of the exported file."""
    fitting, testing = fold
    related = {} if groups is None else {"groups": groups[fitting]}
    started = _processor_seconds()
    fitted = model.fit(X.iloc[fitting], y[fitting], **related)
    found: dict[str, Any] = {"fit_seconds": _processor_seconds() - started}
    if not isinstance(fitted, MultimodalClassifier):
        return found
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_onnx(fitted, path, verify=X.iloc[testing[:32]])
        predictor = OnnxPredictor(path, device="cpu")
        predictor.predict_proba(X.iloc[testing[:32]])
        start = time.perf_counter()
        predictor.predict_proba(X.iloc[testing])
        return found | {"rows_per_second": len(testing) / (time.perf_counter() - start)}


def _processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def as_table(rows: dict[str, Any]) -> str:
    """Return one data set's results as a Markdown table."""
    lines = [
        "| | model | accuracy | log loss | calibration error | fit, processor s | file, rows/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    kind = ""
    for label, row in rows.items():
        scores = [np.asarray(row[score]) for score in ("accuracy", "log_loss")]
        cells = [f"{s.mean():.3f} ± {s.std(ddof=1) / np.sqrt(len(s)):.3f}" for s in scores]
        cells.append(f"{np.mean(row['calibration_error']):.3f}")
        cells += [f"{row[key]:.0f}" if key in row else "" for key in ("fit_seconds", "rows_per_second")]
        shown = f"{label}: {row['chosen']}" if "chosen" in row else label
        lines.append(f"| {row['kind'] if row['kind'] != kind else ''} | {shown} | {' | '.join(cells)} |")
        kind = row["kind"]
    return "\n".join(lines)


def verdict(rows: dict[str, Any]) -> str:
    """Say how the default does beside the best member and the ten lines, by their differences fold by fold."""
    if DEFAULT not in rows:
        return ""
    said = []
    singles = [label for label, row in rows.items() if row["kind"] == "one member"]
    for score, sign in (("accuracy", 1), ("log_loss", -1)):
        for what, labels in (("best member", singles), ("best ten lines", [TEN_LINES, TEN_LINES_WORDS])):
            there = [label for label in labels if label in rows]
            if there:
                best = max(there, key=lambda label: sign * float(np.mean(rows[label][score])))
                ahead = sign * (np.asarray(rows[DEFAULT][score]) - np.asarray(rows[best][score]))
                error = ahead.std(ddof=1) / np.sqrt(len(ahead))
                said.append(f"{score.replace('_', ' ')}: {ahead.mean():+.3f} ± {error:.3f} beside the {what}, {best}")
    return "\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--models", nargs="+", help="by their names in the table; all of them by default")
    parser.add_argument("--splits", nargs="+", choices=["random", "grouped"], default=["random", "grouped"])
    parser.add_argument("--in-order", action="store_true", help="keep the order of the rows to fit")
    parser.add_argument("--output", type=Path, default=Path("benchmark_output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    path = arguments.output / "evidence.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        for name in arguments.data:
            data = DATA[name]()
            for split in arguments.splits:
                groups = data.groups if split == "grouped" else None
                if split == "grouped" and groups is None:
                    continue
                title = f"{name}, {split}, in order" if arguments.in_order else f"{name}, {split}"
                result = results.setdefault(title, {"about": data.about, "models": {}})
                result |= {"n_rows": len(data.y), "n_classes": len(np.unique(data.y))}
                compare(title, data, groups, cache, result["models"], arguments.models, arguments.in_order)
                path.write_text(json.dumps(results, indent=2), encoding="utf-8")
                print(f"\n{title}: {len(data.y)} rows, {data.about}\n\n{as_table(result['models'])}\n")
                print(verdict(result["models"]), flush=True)


if __name__ == "__main__":
    main()
