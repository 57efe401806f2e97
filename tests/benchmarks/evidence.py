"""Compare all fusion strategies with single modalities and with what else people do, on real data.

    python tests/benchmarks/evidence.py [--data openmoji tuxpaint animated] [--models ConcatFusion …]

Five stratified folds of each data set; every model sees the same folds. Prints a table per data set, writes
``evidence.json``, where it keeps the models that are not run again, and takes a while: networks are frozen and their
embeddings are kept, so it is the fusion layers and heads that are fitted over and over.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, where `tests` is no installed package

from mmensemble import (
    EnsembleSelection,
    HardVoting,
    LogOpinionPool,
    MultimodalClassifier,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    expected_calibration_error,
    on_column,
)
from mmensemble.datasets import load_animated_emoji, load_openmoji, load_tuxpaint_stamps, minilm_folder
from mmensemble_estimators import (
    AttentionFusion,
    BilinearFusion,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    ImageClassifier,
    TextClassifier,
)
from mmensemble_estimators.packaged import efficientnet_lite0

N_FOLDS = 5
SIZE = 96


def openmoji() -> tuple[pd.DataFrame, np.ndarray]:
    """Emoji: names in three languages, drawings; nine categories."""
    emoji = load_openmoji(size=SIZE)
    return emoji.frame.rename(columns={"name": "text"})[["text", "picture"]], emoji.target


def subcategories() -> tuple[pd.DataFrame, np.ndarray]:
    """The same emoji, in subcategories."""
    emoji = load_openmoji(size=SIZE, subcategories=True)
    return emoji.frame.rename(columns={"name": "text"})[["text", "picture"]], emoji.target


def tuxpaint() -> tuple[pd.DataFrame, np.ndarray]:
    """Stamps: an English sentence, a picture; twelve classes."""
    stamps = load_tuxpaint_stamps(size=SIZE)
    return stamps.frame[["text", "picture"]], stamps.target


def animated() -> tuple[pd.DataFrame, np.ndarray]:
    """Animated emoji: names in three languages, the first frame; five categories."""
    emoji = load_animated_emoji(size=SIZE)
    return emoji.frame.rename(columns={"name": "text"})[["text", "picture"]], emoji.target


DATA = {"openmoji": openmoji, "subcategories": subcategories, "tuxpaint": tuxpaint, "animated": animated}


def text() -> TextClassifier:
    """MiniLM, frozen, with a linear head."""
    return TextClassifier(pretrained=minilm_folder(), fine_tune="head", random_state=0)


def image() -> ImageClassifier:
    """EfficientNet-Lite0, frozen, with a linear head."""
    return ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=SIZE, random_state=0)


def tfidf() -> Any:
    """Words and characters."""
    return make_union(
        TfidfVectorizer(sublinear_tf=True), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)
    )


def words() -> Any:
    return make_pipeline(tfidf(), LogisticRegression(C=10, max_iter=1000))


def pixels(pictures: Any) -> np.ndarray:
    """Grey and coloured pixels at 16 × 16."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB").resize((16, 16)) for picture in pictures]
    return np.stack([np.asarray(one, dtype=np.float32).ravel() / 255 for one in images])


def pixel_model() -> Any:
    return make_pipeline(FunctionTransformer(pixels), StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))


def members(*, sparse: bool = False) -> list[tuple[str, Any, str]]:
    pretrained = [("text", text(), "text"), ("image", image(), "picture")]
    return [*pretrained, ("words", words(), "text"), ("pixels", pixel_model(), "picture")] if sparse else pretrained


def models(cache: str) -> dict[str, dict[str, Any]]:
    """Group → name → model."""

    def fused(fusion: Any, *, sparse: bool = False) -> MultimodalClassifier:
        return MultimodalClassifier(members(sparse=sparse), fusion=fusion, cache=cache)

    def alone(member: tuple[str, Any, str]) -> MultimodalClassifier:
        return MultimodalClassifier([member], cache=cache)

    concatenated = make_pipeline(
        make_union(
            on_column("text", tfidf()),
            on_column("picture", make_pipeline(FunctionTransformer(pixels), StandardScaler())),
        ),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    joint = {"random_state": 0}
    late = {
        "SoftVoting": SoftVoting(),
        "HardVoting": HardVoting(),
        "ProductOfExperts": ProductOfExperts(),
        "LogOpinionPool": LogOpinionPool(),
        "EnsembleSelection": EnsembleSelection(),
        "Stacking": Stacking(),
        "SuperLearner": SuperLearner(),
    }
    return {
        "one member": {name: alone((name, estimator, column)) for name, estimator, column in members(sparse=True)},
        "elsewhere": {
            "TF-IDF + pixels, logistic regression": concatenated,
            "4 members, stacking with trees": fused(Stacking(ExtraTreesClassifier(300, random_state=0)), sparse=True),
        },
        "2 members, late": {name: fused(strategy) for name, strategy in late.items()},
        "2 members, joint": {
            "ConcatFusion": fused(ConcatFusion(**joint)),
            "AttentionFusion": fused(AttentionFusion(**joint)),
            "GatedFusion": fused(GatedFusion(**joint)),
            "BilinearFusion": fused(BilinearFusion(**joint)),
            "CrossAttentionFusion": fused(CrossAttentionFusion(**joint)),
        },
        "4 members, late": {f"{name}, 4": fused(strategy, sparse=True) for name, strategy in late.items()},
    }


def corrected_t_test(differences: np.ndarray, test_share: float) -> float:
    """Return the p-value of the resampled t-test with the corrected variance of Nadeau and Bengio (2003)."""
    n, variance = len(differences), differences.var(ddof=1)
    if variance == 0:
        return 1.0
    t = differences.mean() / np.sqrt(variance * (1 / n + test_share / (1 - test_share)))
    return float(2 * stats.t.sf(abs(t), n - 1))


def compare(
    name: str,
    load: Callable[[], tuple[pd.DataFrame, np.ndarray]],
    cache: str,
    rows: dict[str, dict[str, Any]],
    wanted: list[str] | None,
) -> dict[str, Any]:
    """Cross-validate models on one data set."""
    X, y = load()
    X = X.reset_index(drop=True)
    folds = list(StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y))
    for group, candidates in models(cache).items():
        for label, model in candidates.items():
            if wanted is not None and label not in wanted:
                continue
            started = time.perf_counter()
            scores: dict[str, list[float]] = {"accuracy": [], "log_loss": [], "calibration_error": []}
            for fitting, testing in folds:
                fitted = clone(model).fit(X.iloc[fitting], y[fitting])
                proba = fitted.predict_proba(X.iloc[testing])
                scores["accuracy"].append(accuracy_score(y[testing], fitted.classes_[proba.argmax(axis=1)]))
                scores["log_loss"].append(log_loss(y[testing], proba, labels=fitted.classes_))
                scores["calibration_error"].append(
                    expected_calibration_error(y[testing], proba, classes=fitted.classes_)
                )
            rows[label] = {"group": group, "seconds": time.perf_counter() - started, **scores}
            print(f"{name}: {label} {np.mean(scores['accuracy']):.3f}", file=sys.stderr, flush=True)
    singles = [label for label, row in rows.items() if row["group"] == "one member"]
    best_single = max(singles, key=lambda label: float(np.mean(rows[label]["accuracy"])))
    reference = np.asarray(rows[best_single]["accuracy"])
    for row in rows.values():
        row["p_value"] = corrected_t_test(np.asarray(row["accuracy"]) - reference, 1 / N_FOLDS)
    return {"n_rows": len(X), "n_classes": len(np.unique(y)), "best_single": best_single, "models": rows}


def as_table(result: dict[str, Any]) -> str:
    """Return one data set's results as a Markdown table."""
    best = float(np.mean(result["models"][result["best_single"]]["accuracy"]))
    lines = [
        "| | model | accuracy | against the best member | log loss | calibration error |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    group = ""
    for label, row in result["models"].items():
        accuracy = np.asarray(row["accuracy"])
        gain = "" if label == result["best_single"] else f"{accuracy.mean() - best:+.3f} (p {row['p_value']:.3f})"
        lines.append(
            f"| {row['group'] if row['group'] != group else ''} | {label} "
            f"| {accuracy.mean():.3f} ± {accuracy.std(ddof=1):.3f} | {gain} "
            f"| {np.mean(row['log_loss']):.3f} | {np.mean(row['calibration_error']):.3f} |"
        )
        group = row["group"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["openmoji", "tuxpaint", "animated"])
    parser.add_argument("--models", nargs="+", help="by their names in the table; all of them by default")
    parser.add_argument("--output", type=Path, default=Path("benchmark_output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    path = arguments.output / "evidence.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with tempfile.TemporaryDirectory() as cache:
        for name in arguments.data:
            known = results.get(name, {}).get("models", {})
            results[name] = compare(name, DATA[name], cache, known, arguments.models)
            path.write_text(json.dumps(results, indent=2), encoding="utf-8")
            print(f"\n{name}: {results[name]['n_rows']} rows, {results[name]['n_classes']} classes\n")
            print(as_table(results[name]), flush=True)


if __name__ == "__main__":
    main()
