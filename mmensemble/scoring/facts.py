"""What a model file says of itself, for people and programs. Imports onnxruntime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import onnxruntime

from mmensemble.scoring.manifest import Manifest, model_bytes
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.providers import DEVICES, why_not

__all__ = ["model_facts"]


def model_facts(path: Path) -> dict[str, Any]:
    """Return, as JSON values, what a model file predicts, reads and comes from, and what can run it here."""
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
                "settings": _settings(feed.preprocessor),
                "tensors": {
                    f"{feed.name}.{name}": dataclasses.asdict(spec) for name, spec in feed.preprocessor.tensors.items()
                },
            }
            for feed in manifest.feeds
        ],
        "generation": _generation(manifest.task),
        "provenance": manifest.provenance,
        "parity": manifest.parity,
        "profile": _profile(manifest),
        "devices": [device for device in DEVICES if why_not(device) is None],
        "onnxruntime": onnxruntime.__version__,
    }


def _profile(manifest: Manifest) -> dict[str, Any] | None:
    """Return of which rows a file has a profile, and what is compared of them."""
    profile = manifest.profile
    if profile is None:
        return None
    compared = [f"{column} ({what})" for column, what in (*profile.inputs, *profile.predictions)]
    return {"rows": profile.source, "n_rows": profile.n_rows, "n_scored": profile.n_scored, "compared": compared}


def _settings(preprocessor: Any) -> dict[str, Any]:
    """Return what a preprocessor does as far as it is said in a word or a number; a tokenizer is long."""
    return {
        name: value
        for name, value in preprocessor.to_dict().items()
        if name != "kind" and (isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 40))
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
