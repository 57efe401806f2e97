"""Scoring benchmarks: the exported model against the estimator, and against the bare ONNX Runtime session."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from sklearn.model_selection import train_test_split

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, export_onnx
from mmensemble.datasets import load_openmoji
from mmensemble.preprocessing.frames import column_cells
from mmensemble_estimators import ImageClassifier, TextClassifier
from tests.benchmarks.side_by_side import Result, compare


def run(*, n_rows: int) -> list[Result]:
    """Compare on real emoji. Networks have their default size; how long they were trained does not matter here."""
    emoji = load_openmoji()
    X_train, X, y_train, _ = train_test_split(
        emoji.frame, emoji.target, test_size=min(n_rows, 1600), stratify=emoji.target, random_state=0
    )
    text = TextClassifier(max_epochs=1, random_state=0)
    image = ImageClassifier(max_epochs=1, random_state=0)
    cases = {
        "text (small GPT)": [("text", text, "name")],
        "image (small ResNet)": [("image", image, "picture")],
        "text + image, soft voting": [("text", text, "name"), ("image", image, "picture")],
    }
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name, members in cases.items():
            model = MultimodalClassifier(members, fusion=SoftVoting()).fit(X_train, y_train)
            path = Path(folder) / "model.onnx"
            export_onnx(model, path, verify=X[:32])
            predictor = OnnxPredictor(path, device="cpu")
            session, batches = _prepared(path, predictor, X)
            results += [
                compare(
                    name,
                    len(X),
                    ("OnnxPredictor", lambda p=predictor: p.predict_proba(X)),
                    ("predict_proba, torch", lambda m=model: m.predict_proba(X)),
                ),
                compare(
                    name,
                    len(X),
                    ("OnnxPredictor, preprocessing included", lambda p=predictor: p.predict_proba(X)),
                    ("bare session, arrays prepared", lambda s=session, b=batches: [s.run(None, feed) for feed in b]),
                ),
            ]
    return results


def _prepared(path: Path, predictor: OnnxPredictor, X: object) -> tuple[ort.InferenceSession, list[dict]]:
    """Return a session of its own and the batches, rows sorted by length as the predictor sorts them."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = predictor.manifest.feeds
    encoded = {f.name: f.preprocessor.encode(*(column_cells(X, c) for c in f.columns)) for f in feeds}
    order = np.argsort(np.max([e.lengths for e in encoded.values()], axis=0), kind="stable")
    wanted = {i.name for i in session.get_inputs()}
    batches = []
    for start in range(0, len(order), predictor.batch_size):
        rows = order[start : start + predictor.batch_size]
        arrays = {
            f"{f.name}.{tensor}": array
            for f in feeds
            for tensor, array in f.preprocessor.collate(encoded[f.name], rows).items()
        }
        batches.append({name: array for name, array in arrays.items() if name in wanted})
    return session, batches
