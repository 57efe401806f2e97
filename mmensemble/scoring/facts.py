"""What `mmensemble inspect` says of a model file. Imports onnxruntime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnxruntime

from mmensemble.scoring.manifest import model_bytes
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import DEVICES, why_not

__all__ = ["facts_of"]


def facts_of(path: Path) -> dict[str, Any]:
    """Describe a model file, and what can run it here, by JSON values.

    Raises
    ------
    ModelFileError
        If it is damaged, foreign or newer.
    """
    manifest = OnnxPredictor(path, device="cpu", n_threads=1).manifest
    return {
        "file": str(path),
        "bytes": model_bytes(path),
        "task": manifest.task.name,
        "classes": _labels(manifest.task.classes),
        "inputs": [
            {
                "name": feed.name,
                "modality": feed.preprocessor.kind,
                "columns": list(feed.columns),
                "tensors": {
                    f"{feed.name}.{name}": dataclasses.asdict(spec) for name, spec in feed.preprocessor.tensors.items()
                },
            }
            for feed in manifest.feeds
        ],
        "generation": _generation(manifest.task),
        "provenance": manifest.provenance,
        "parity": manifest.parity,
        "devices": [device for device in DEVICES if why_not(device) is None],
        "onnxruntime": onnxruntime.__version__,
    }


def _generation(task: Any) -> dict[str, Any] | None:
    """Return what describes a model that writes texts, without its tokenizer, which is long."""
    if task.name != "generation":
        return None
    state = {f"state.{name}": dataclasses.asdict(spec) for name, spec in {**task.encoded, **task.state}.items()}
    return {
        "vocab_size": task.width,
        "max_length": task.max_length,
        "start_ids": task.start_ids,
        "end_ids": task.end_ids,
        "state": state,
    }


def _labels(classes: Any) -> Any:
    """Return the labels, or those of each column, as JSON values."""
    if isinstance(classes, list):
        return [column.tolist() for column in classes]
    return None if classes is None else classes.tolist()
