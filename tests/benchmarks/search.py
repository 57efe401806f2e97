"""Searches over fusion strategies: with and without a cache, all strategies and one, the second time and the first."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV

from mmensemble import EnsembleSelection, HardVoting, MultimodalClassifier, ProductOfExperts, SoftVoting, Stacking
from mmensemble.datasets import load_openmoji, minilm_folder
from mmensemble_estimators import AttentionFusion, ConcatFusion, GatedFusion, ImageClassifier, TextClassifier
from mmensemble_estimators.packaged import efficientnet_lite0

FOLDS = 3
IMAGE_SIZE = 160
SETTINGS = {"device": "cpu", "random_state": 0}
LATE = [SoftVoting(), HardVoting(), ProductOfExperts(), Stacking(cv=FOLDS), EnsembleSelection(cv=FOLDS)]
JOINT = [ConcatFusion(**SETTINGS), GatedFusion(**SETTINGS), AttentionFusion(**SETTINGS)]


@dataclass(frozen=True)
class Seconds:
    """How long a search took: by the clock, and by the processor, which other work on the machine disturbs less."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Ratio:
    """How long a search took as a multiple of another one, and what it should be at most."""

    name: str
    ours: str
    reference: str
    ours_seconds: Seconds
    reference_seconds: Seconds
    bound: float

    @property
    def ratio(self) -> float:
        return self.ours_seconds.wall / self.reference_seconds.wall

    @property
    def processor_ratio(self) -> float:
        return self.ours_seconds.processor / self.reference_seconds.processor

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio, "processor_ratio": self.processor_ratio}


def emoji(n_rows: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return names and pictures of some emoji in random order, and their categories, the rare ones left out."""
    bunch = load_openmoji(size=IMAGE_SIZE)
    categories, counts = np.unique(bunch.target, return_counts=True)
    common = np.flatnonzero(np.isin(bunch.target, categories[counts >= 200]))
    rows = np.random.default_rng(0).permutation(common)[:n_rows]
    return bunch.frame[["name", "picture"]].iloc[rows], bunch.target[rows].astype(str)


def from_scratch() -> list[tuple[str, Any, str]]:
    """Return a small GPT and a small ResNet."""
    text, image = TextClassifier(max_epochs=3, max_length=48, **SETTINGS), ImageClassifier(max_epochs=3, **SETTINGS)
    return [("text", text, "name"), ("image", image, "picture")]


def frozen() -> list[tuple[str, Any, str]]:
    """Return a head on MiniLM and a head on EfficientNet-Lite0."""
    text = TextClassifier(pretrained=minilm_folder(), fine_tune="head", max_length=48, **SETTINGS)
    image = ImageClassifier(backbone=efficientnet_lite0, fine_tune="head", image_size=IMAGE_SIZE, **SETTINGS)
    return [("text", text, "name"), ("image", image, "picture")]


def search(
    members: list[Any], strategies: list[Any], data: tuple[pd.DataFrame, np.ndarray], cache: str | Path | None
) -> tuple[Seconds, np.ndarray]:
    """Search over strategies; return the seconds it took and the strategies' mean scores."""
    model = MultimodalClassifier(members, cache=cache)
    start, start_processor = time.perf_counter(), time.process_time()
    found = GridSearchCV(model, {"fusion": strategies}, cv=FOLDS, scoring="neg_log_loss").fit(*data)
    seconds = Seconds(time.perf_counter() - start, time.process_time() - start_processor)
    return seconds, found.cv_results_["mean_test_score"]


def compare(
    name: str, members: list[Any], strategies: list[Any], alone: list[Any], bound: float, data: Any
) -> list[Ratio]:
    """Search over all strategies, over those of `alone` one by one, again, and without a cache."""
    with tempfile.TemporaryDirectory() as folder:
        one_by_one = [search(members, [strategy], data, Path(folder, str(i)))[0] for i, strategy in enumerate(alone)]
        first, scores = search(members, strategies, data, Path(folder, "all"))
        second, same = search(members, strategies, data, Path(folder, "all"))
    without, expected = search(members, strategies, data, None)
    np.testing.assert_array_equal(scores, same)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    dearest = int(np.argmax([seconds.processor for seconds in one_by_one]))
    every = f"{len(strategies)} strategies"
    return [
        Ratio(name, f"{every}, cache", f"{every}, no cache", first, without, 1.0),
        Ratio(
            name, f"{every}, cache", f"{type(alone[dearest]).__name__} alone, cache", first, one_by_one[dearest], bound
        ),
        Ratio(name, f"{every}, second search", "first search", second, first, 0.1),
    ]


def run(*, n_rows: int) -> list[Ratio]:
    """Compare searches on real emoji."""
    data = emoji(n_rows)
    # What a process does once is not a search's: the first use of a network reads its weights, torch starts threads.
    search(frozen(), [SoftVoting()], tuple(part[:60] for part in data), None)
    return [
        *compare("late, small GPT and ResNet", from_scratch(), LATE, [Stacking(cv=FOLDS)], 1.3, data),
        *compare("late, heads on MiniLM and EfficientNet", frozen(), LATE, [Stacking(cv=FOLDS)], 1.3, data),
        *compare("joint, frozen MiniLM and EfficientNet", frozen(), JOINT, JOINT, 1.5, data),
    ]


def as_search_table(ratios: list[Ratio]) -> str:
    """Return the ratios as a Markdown table."""
    lines = [
        "| members | search | against | s | against, s | ratio | of processor time | at most |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r.name} | {r.ours} | {r.reference} | {r.ours_seconds.wall:.1f} | {r.reference_seconds.wall:.1f} "
        f"| {r.ratio:.2f} | {r.processor_ratio:.2f} | {r.bound:.1f} |"
        for r in ratios
    ]
    return "\n".join(lines)
