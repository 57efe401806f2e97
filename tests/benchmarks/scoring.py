"""Scoring benchmarks: exported models against torch, Hugging Face's pipeline, and the limits that there are.

The limits are the bare ONNX Runtime session on arrays prepared beforehand, and the rate at which this machine
multiplies float matrices.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime as ort
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig

from mmensemble import MultimodalClassifier, OnnxPredictor, Stacking, export_onnx
from mmensemble.datasets import load_openmoji
from mmensemble.preprocessing.frames import n_rows as count_rows
from mmensemble.scoring.batching import score_windows
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators._training import as_tensors
from tests.benchmarks.side_by_side import Result, compare
from tests.benchmarks.training import SETTINGS, hugging_face, minilm, tweets

REPEATS = 3
LATENCY_ROWS = 30

_START = """
import sys
from mmensemble import OnnxPredictor
OnnxPredictor(sys.argv[1], device="cpu").predict_proba(["a first row"])
"""
_START_WITH_TORCH = """
import sys, joblib
joblib.load(sys.argv[1]).predict_proba(["a first row"])
"""


@dataclass(frozen=True)
class Case:
    """A fitted model, rows to score, and rows with labels to verify int8 on."""

    name: str
    model: Any
    X: Any
    verify: Any
    labels: np.ndarray
    calibrate: Any = None


def cases(n_rows: int) -> list[Case]:
    """Fit the models, which takes no longer than their speed needs: how good they are does not matter here."""
    texts, sentiments = tweets(n_rows + 400)
    emoji = load_openmoji(size=64)
    rows = np.random.default_rng(0).permutation(len(emoji.target))
    frame, categories = emoji.frame.iloc[rows].reset_index(drop=True), emoji.target[rows].astype(str)
    frame["length"] = frame["name"].str.len().astype(float)
    names, pictures = frame["name"].tolist(), frame["picture"].tolist()
    resnet18 = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    text = TextClassifier(**SETTINGS)
    image = ImageClassifier(**SETTINGS)
    stacked = MultimodalClassifier(
        [
            ("text", text, "name"),
            ("image", image, "picture"),
            ("facts", make_pipeline(StandardScaler(), LogisticRegression()), ["length"]),
        ],
        fusion=Stacking(cv=2),
    )
    held, n = slice(-400, None), n_rows
    large = ImageClassifier(backbone=resnet18, image_size=64, **SETTINGS).fit(pictures[:200], categories[:200])
    return [
        Case("MiniLM, tweets", minilm(texts[n:], sentiments[n:]), texts[:n], texts[n:], sentiments[n:]),
        Case("small GPT, emoji names", text.fit(names, categories), names[:n], names[held], categories[held]),
        Case("ResNet-18, 64 × 64", large, pictures[:n], pictures[held], categories[held], pictures[:128]),
        Case(
            "stacking of GPT, ResNet, numbers",
            stacked.fit(frame[:500], categories[:500]),
            frame[:n],
            frame[held],
            categories[held],
            frame[:128],
        ),
    ]


def run(*, n_rows: int) -> list[Result]:
    """Compare on real tweets and emoji."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(min(n_rows, 1000)):
            results += _compare(case, Path(folder))
    return results


def _compare(case: Case, folder: Path) -> list[Result]:
    paths = {precision: folder / f"{precision}.onnx" for precision in ("fp32", "int8")}
    export_onnx(case.model, paths["fp32"], verify=case.verify)
    manifest = export_onnx(
        case.model, paths["int8"], precision="int8", verify=case.verify, verify_y=case.labels, calibrate=case.calibrate
    )
    print(f"{case.name}: int8 {manifest.parity}", file=sys.stderr, flush=True)
    predictor, small = (OnnxPredictor(path, device="cpu") for path in paths.values())
    session, batches = prepared(predictor, case.X)
    print(f"{case.name}: {padding(batches):.1%} of the tokens are padding", file=sys.stderr, flush=True)
    size, one = count_rows(case.X), [case.X[row : row + 1] for row in range(LATENCY_ROWS)]
    ours = ("OnnxPredictor", partial(predictor.predict_proba, case.X))
    against: list[tuple[str, int, tuple[str, Callable[[], object]], tuple[str, Callable[[], object]]]] = [
        ("throughput", size, ours, ("predict_proba, eager torch", partial(case.model.predict_proba, case.X))),
        ("host overhead", size, ours, ("bare session, arrays prepared", partial(_run_all, session, batches))),
        ("int8", size, ("OnnxPredictor, int8", partial(small.predict_proba, case.X)), ours),
        (
            "one row at a time",
            LATENCY_ROWS,
            ("OnnxPredictor", lambda: [predictor.predict_proba(row) for row in one]),
            ("predict_proba, eager torch", lambda: [case.model.predict_proba(row) for row in one]),
        ),
    ]
    if case.name.startswith("MiniLM"):
        classify = hugging_face(len(case.model.classes_))
        against.append(("throughput", size, ours, ("Hugging Face pipeline", lambda: classify(list(case.X)))))
        compiled = torch.compile(case.model.module_.encoder, dynamic=True)
        tensors = [{name.partition(".")[2]: array for name, array in batch.items()} for batch in batches]
        ready = [as_tensors({n: a for n, a in batch.items() if n != "present"}) for batch in tensors]
        against.append(
            (
                "same batches",
                size,
                ("bare session", partial(_run_all, session, batches)),
                ("torch.compile, encoder only", partial(_forward_all, compiled, ready)),
            )
        )
    results = [compare(f"{case.name}: {name}", n, mine, other, repeats=REPEATS) for name, n, mine, other in against]
    if case.name.startswith("ResNet"):
        results.append(_against_peak(case, session, batches))
    if case.name.startswith("MiniLM"):
        results.append(_cold_start(case, paths["fp32"], folder))
    return results


def prepared(predictor: OnnxPredictor, X: Any) -> tuple[ort.InferenceSession, list[dict[str, np.ndarray]]]:
    """Return a session of its own and the very batches that the predictor makes of the rows."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.n_threads
    session = ort.InferenceSession(predictor.path, options, providers=["CPUExecutionProvider"])
    wanted, batches = [node.name for node in session.get_inputs()], []
    width = predictor.manifest.task.width

    def keep(arrays: dict[str, np.ndarray]) -> np.ndarray:
        batches.append({name: arrays[name] for name in wanted})
        return np.zeros((len(arrays[wanted[0]]), width), dtype=np.float32)

    windows = score_windows(
        predictor.manifest.feeds, predictor.windows(X), keep, width=width, batch_size=predictor.batch_size
    )
    for _ in windows:
        pass
    return session, batches


def padding(batches: list[dict[str, np.ndarray]]) -> float:
    """Return the share of tokens that are padding."""
    masks = [array for batch in batches for name, array in batch.items() if name.endswith("attention_mask")]
    return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) if masks else 0.0


def _run_all(session: ort.InferenceSession, batches: list[dict[str, np.ndarray]]) -> None:
    for batch in batches:
        session.run(None, batch)


def _forward_all(module: Any, batches: list[dict[str, torch.Tensor]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            module(**batch)


def _against_peak(case: Case, session: ort.InferenceSession, batches: list[dict[str, np.ndarray]]) -> Result:
    """Compare the multiplications per second of the network with those of one large product of matrices."""
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        case.model.module_(pixels=torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    per_row, size = counter.get_total_flops(), 2048
    matrix = np.random.default_rng(0).random((size, size), dtype=np.float32)
    rows = count_rows(case.X)
    # The product is repeated until it has done as much as the network does on all rows.
    times = max(1, round(per_row * rows / (2 * size**3)))
    return compare(
        f"{case.name}: share of the GEMM peak",
        rows,
        ("bare session", partial(_run_all, session, batches)),
        (f"{times} products of {size} × {size}, as many multiplications", lambda: _multiply(matrix, times)),
        repeats=REPEATS,
    )


def _multiply(matrix: np.ndarray, times: int) -> None:
    for _ in range(times):
        matrix @ matrix


def _cold_start(case: Case, path: Path, folder: Path) -> Result:
    """Compare the time from the start of a process to the first scores."""
    pickled = folder / "model.joblib"
    joblib.dump(case.model, pickled)
    return compare(
        f"{case.name}: from process start to the first row",
        1,
        ("OnnxPredictor", partial(_start, _START, path)),
        ("joblib and torch", partial(_start, _START_WITH_TORCH, pickled)),
        repeats=REPEATS,
    )


def _start(script: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", script, path], check=True, stdout=subprocess.DEVNULL)
