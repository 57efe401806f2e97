"""Settings for all tests, which must come before any import that reads them; real items, and estimators fitted once."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
# Networks this small are slower on several threads, and tests share their machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import wave
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from joblib.externals.loky import reusable_executor
from PIL import Image
from sklearn.utils import Bunch

import mmensemble
from mmensemble import export_onnx
from mmensemble.datasets import load_openmoji
from tests.instances import BY_ID

# pytest finds the examples in a class's docstring in the module that the class names as its own, and there only once it
# has been loaded.
for _name in mmensemble.__all__:
    getattr(mmensemble, _name)

CATEGORIES = ["Animals & Nature", "Flags", "People & Body", "Symbols"]
ROWS_PER_CATEGORY = 22

# Rows of `items` that lack a modality; the last one lacks them all.
WITHOUT_NAME = [1, 20, 41, 5]
WITHOUT_PICTURE = [2, 20, 60, 5]
WITHOUT_FACTS = [3, 41, 61, 5]
WITHOUT_SOUND = [4, 41, 62, 5]
WITHOUT_CLIP = [6, 60, 63, 5]
ALL_MISSING = 5


@pytest.fixture(autouse=True)
def _no_worker_outlives_a_test() -> Iterator[None]:
    """Stop joblib's workers, which another test would take over with all that this one has loaded.

    joblib restarts a worker that has grown by 300 MB, and that can block for ever (joblib 1.6).
    """
    yield
    if reusable_executor._executor is not None:
        reusable_executor._executor.shutdown(wait=True, kill_workers=True)


@pytest.fixture(scope="session")
def emoji() -> Bunch:
    """All of OpenMoji, small."""
    return load_openmoji(size=32)


def tone(pitch: float, seconds: float) -> bytes:
    """Return a wav file of a tone in noise, at a rate that has to be changed."""
    rate = 8000
    times = np.arange(int(rate * seconds)) / rate
    noise = np.random.default_rng(int(pitch)).standard_normal(len(times))
    samples = 0.5 * np.sin(2 * np.pi * pitch * times) + 0.05 * noise
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def scrolling(picture: bytes, steps: tuple[int, int]) -> bytes:
    """Return an animated GIF of 6 frames, in which a picture scrolls by so many pixels down and to the right."""
    array = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    frames = [Image.fromarray(np.roll(array, (i * steps[0], i * steps[1]), axis=(0, 1))) for i in range(6)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[40, 80, 40, 80, 40, 80])
    return file.getvalue()


@pytest.fixture(scope="session")
def _items_and_labels(emoji: Bunch) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.choice(np.flatnonzero(emoji.target == c), ROWS_PER_CATEGORY, replace=False) for c in CATEGORIES]
    )
    rng.shuffle(rows)
    chosen = emoji.frame.iloc[rows].set_index("id")
    frame = pd.DataFrame(
        {
            "name": chosen["name"].astype(object),
            "picture": chosen["picture"],
            "length": chosen["name"].str.len().astype(float),
            "brightness": [np.asarray(Image.open(io.BytesIO(p))).mean() for p in chosen["picture"]],
            "initial": chosen["name"].str[0].astype(object),
            # The category by its pitch, the name by its length.
            "sound": [
                tone(300.0 * 2 ** CATEGORIES.index(c) + 3 * i, 0.1 + 0.02 * len(name))
                for i, (c, name) in enumerate(zip(emoji.target[rows], chosen["name"], strict=True))
            ],
            # The category by where it moves.
            "clip": [
                scrolling(picture, [(0, 3), (0, -3), (3, 0), (-3, 0)][CATEGORIES.index(c)])
                for c, picture in zip(emoji.target[rows], chosen["picture"], strict=True)
            ],
        },
        index=chosen.index,
    )
    columns = list(frame.columns)
    frame.iloc[WITHOUT_NAME, columns.index("name")] = None
    frame.iloc[WITHOUT_PICTURE, columns.index("picture")] = None
    frame.iloc[WITHOUT_FACTS, [columns.index(c) for c in ("length", "brightness")]] = np.nan
    frame.iloc[WITHOUT_FACTS, columns.index("initial")] = None
    frame.iloc[WITHOUT_SOUND, columns.index("sound")] = None
    frame.iloc[WITHOUT_CLIP, columns.index("clip")] = None
    return frame, emoji.target[rows].astype(str)


@pytest.fixture
def items(_items_and_labels: tuple[pd.DataFrame, np.ndarray]) -> pd.DataFrame:
    """88 emoji of 4 categories: name, picture, numbers, string, sound, clip; some missing; indexed by code point."""
    return _items_and_labels[0].copy()


@pytest.fixture
def labels(_items_and_labels: tuple[pd.DataFrame, np.ndarray]) -> np.ndarray:
    """The categories of `items`."""
    return _items_and_labels[1].copy()


@pytest.fixture(scope="session")
def fitted(_items_and_labels: tuple[pd.DataFrame, np.ndarray]) -> Callable[[str], Any]:
    """Instance id → the estimator fitted on `items`. It is shared: do not change it."""
    frame, target = _items_and_labels

    @cache
    def fit(instance_id: str) -> Any:
        instance = BY_ID[instance_id]
        return instance.make().fit(instance.of(frame.copy()), instance.y(target.copy()))

    return fit


@pytest.fixture(scope="session")
def scored(
    fitted: Callable[[str], Any], _items_and_labels: tuple[pd.DataFrame, np.ndarray]
) -> Callable[[str], np.ndarray]:
    """Instance id → what the fitted estimator predicts for `items`, as (n, width) numbers that cannot be written."""
    frame, _ = _items_and_labels

    @cache
    def score(instance_id: str) -> np.ndarray:
        instance = BY_ID[instance_id]
        scores = instance.scores(fitted(instance_id), instance.of(frame.copy()))
        scores.flags.writeable = False
        return scores

    return score


@pytest.fixture(scope="session")
def exported(fitted: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Instance id, precision → the fitted estimator's model file, by the first of pytest's workers to need it."""
    ours = tmp_path_factory.mktemp("exporting")
    shared = ours.parents["PYTEST_XDIST_WORKER" in os.environ] / "exported"
    shared.mkdir(exist_ok=True)

    @cache
    def export(instance_id: str, precision: Literal["fp32", "fp16", "int8"] = "fp32") -> Path:
        path = shared / f"{instance_id}.{precision}.onnx"
        if not path.exists():
            export_onnx(fitted(instance_id), ours / path.name, precision=precision)
            os.replace(ours / path.name, path)
        return path

    return export
