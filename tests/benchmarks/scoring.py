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
import pandas as pd
import torch
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode
from transformers import ResNetConfig

from mmensemble import MultimodalClassifier, OnnxPredictor, Stacking, export_onnx
from mmensemble.datasets import load_openmoji
from mmensemble.frames import n_rows as count_rows
from mmensemble.scoring.batching import score_windows
from mmensemble_estimators import ImageClassifier, TextClassifier
from mmensemble_estimators.training.loop import as_tensors
from tests.benchmarks.side_by_side import Result, compare
from tests.benchmarks.training import SETTINGS, hugging_face, minilm, tweets

REPEATS = 3
LATENCY_ROWS = 30
GEMM_SIZE = 2048

Side = tuple[str, Callable[[], object]]

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
        results += _tabular(Path(folder))
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
    minilm, resnet = case.name.startswith("MiniLM"), case.name.startswith("ResNet")
    ours = ("OnnxPredictor", partial(predictor.predict_proba, case.X))

    def result(
        name: str, mine: Side, other: Side, target: float | None = None, *, n: int = size, repeats: int = REPEATS
    ) -> Result:
        return compare(f"{case.name}: {name}", n, mine, other, repeats=repeats, target=target)

    eager = ("predict_proba, eager torch", partial(case.model.predict_proba, case.X))
    results = [
        result("throughput", ours, eager, 1.3 if minilm else None),
        result("host overhead", ours, ("bare session, arrays prepared", partial(_run_all, session, batches)), 0.95),
        result("int8", ("OnnxPredictor, int8", partial(small.predict_proba, case.X)), ours, 2.0 if minilm else None),
        result(
            "one row at a time",
            ("OnnxPredictor", lambda: [predictor.predict_proba(row) for row in one]),
            ("predict_proba, eager torch", lambda: [case.model.predict_proba(row) for row in one]),
            3.0,
            n=LATENCY_ROWS,
            repeats=3 * REPEATS,
        ),
    ]
    if minilm:
        for batch_size in (1, 32):
            classify = hugging_face(len(case.model.classes_), batch_size)
            there = f"Hugging Face pipeline, batch_size={batch_size}"
            results.append(result("throughput", ours, (there, partial(classify, list(case.X))), 3.0))
        compiled = torch.compile(case.model.module_.encoder, dynamic=True)
        tensors = [{name.partition(".")[2]: array for name, array in batch.items()} for batch in batches]
        ready = [as_tensors({n: a for n, a in batch.items() if n != "present"}) for batch in tensors]
        bare = ("bare session", partial(_run_all, session, batches))
        for there, encoder in (("torch.compile", compiled), ("eager torch", case.model.module_.encoder)):
            results.append(
                result("same batches", bare, (f"{there}, encoder only", partial(_forward_all, encoder, ready)))
            )
        results.append(_cold_start(case, paths["fp32"], folder))
    if minilm or resnet:
        results.append(_against_peak(case, session, batches))
    return results


def _tabular(folder: Path) -> list[Result]:
    """Compare on what scikit-learn's own converter can do too: one matrix of numbers."""
    X, y = make_classification(100_000, 20, n_informative=10, n_classes=4, random_state=0)
    X = X.astype(np.float32)
    forest = RandomForestClassifier(n_estimators=50, max_depth=8, random_state=0)
    members = [("linear", make_pipeline(StandardScaler(), LogisticRegression())), ("forest", forest)]
    voting = VotingClassifier(members, voting="soft", flatten_transform=False).fit(X[:2000], y[:2000])
    converted = convert_sklearn(
        voting,
        initial_types=[("X", FloatTensorType([None, X.shape[1]]))],
        options={id(voting): {"zipmap": False}},
        target_opset={"": 21, "ai.onnx.ml": 3},
    )
    names = [f"x{number}" for number in range(X.shape[1])]
    frame = pd.DataFrame(X, columns=names)
    export_onnx(voting.fit(frame[:2000], y[:2000]), folder / "voting.onnx", verify=frame[-1000:])
    predictor = OnnxPredictor(folder / "voting.onnx", device="cpu", batch_size=2048)
    options = ort.SessionOptions()
    options.intra_op_num_threads = predictor.n_threads
    session = ort.InferenceSession(converted.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batches = [{"X": X[start : start + 2048]} for start in range(0, len(X), 2048)]
    ours = ("OnnxPredictor", partial(predictor.predict_proba, frame))
    return [
        compare(f"voting on 20 numbers: {name}", len(X), ours, other, repeats=REPEATS)
        for name, other in (
            ("throughput", ("scikit-learn's predict_proba", partial(voting.predict_proba, frame))),
            ("host overhead", ("skl2onnx, bare session", partial(_run_all, session, batches))),
        )
    ]


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
    matrix = np.random.default_rng(0).random((GEMM_SIZE, GEMM_SIZE), dtype=np.float32)
    # The product is repeated until it has done as much as the network does on all rows.
    times = max(1, round(sum(_flops(case, batch) for batch in batches) / (2 * GEMM_SIZE**3)))
    return compare(
        f"{case.name}: share of the GEMM peak",
        count_rows(case.X),
        ("bare session", partial(_run_all, session, batches)),
        (f"{times} products of {GEMM_SIZE} × {GEMM_SIZE}, as many multiplications", lambda: _multiply(matrix, times)),
        repeats=REPEATS,
        target=0.6,
    )


def _flops(case: Case, batch: dict[str, np.ndarray]) -> int:
    """Count the additions and multiplications of the network on a batch."""
    arrays = {name.partition(".")[2]: array for name, array in batch.items()}
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        case.model.module_(**as_tensors({name: array for name, array in arrays.items() if name != "present"}))
    return counter.get_total_flops()


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
        target=3.0,
    )


def _start(script: str, path: Path) -> None:
    subprocess.run([sys.executable, "-c", script, path], check=True, stdout=subprocess.DEVNULL)
