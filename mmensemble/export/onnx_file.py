"""A fitted composition → one ONNX file, checked and compared before it takes its name."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from sklearn.utils.validation import check_is_fitted

from mmensemble.exceptions import ConfigurationError, DataError, ExportError, MmensembleError, ParityError
from mmensemble.export.graph import Frame, to_graph
from mmensemble.preprocessing.frames import n_rows
from mmensemble.scoring.manifest import METADATA_KEY, Manifest
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.tasks import Classification, Task

__all__ = ["export_onnx"]

# protobuf cannot serialise a message of 2 GiB; above this the weights lie beside the file.
EXTERNAL_DATA_BYTES = 1_800_000_000

_VERSIONS_OF = ("mmensemble", "scikit-learn", "torch", "transformers", "skl2onnx", "onnx", "onnxscript")


def export_onnx(
    estimator: Any,
    path: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    verify: Any = None,
    tolerance: float = 1e-4,
) -> Manifest:
    """Write a fitted estimator or composition as one ONNX file.

    The file holds the graph of every member, of the fusion or meta-learner, the labels and the description of the
    host-side preprocessing: `OnnxPredictor` needs nothing else, neither torch nor scikit-learn.

    Parameters
    ----------
    estimator : estimator
        Fitted: a `MultimodalClassifier`, a leaf such as ``TextClassifier``, a scikit-learn ``Pipeline``,
        ``VotingClassifier`` or ``StackingClassifier`` over `on_column` members, or a finished search over one of them.
    path : str or path
        Where to write. Weights above 1.8 GB lie beside it as ``<path>.data``.
    precision : {"fp32"}, default="fp32"
        Of weights and arithmetic.
    verify : X, default=None
        Rows to score with both; the largest difference is stored in the file.
    tolerance : float, default=1e-4
        Largest difference of a probability that `verify` accepts; of a number, relative to the largest one.

    Returns
    -------
    Manifest
        What the file says of itself; ``parity`` holds what `verify` measured: ``n_rows``, ``max_abs_difference``,
        ``equal_labels`` (share of rows) and ``tolerance``.

    Raises
    ------
    ExportError
        If a part has no ONNX form.
    ParityError
        If the file's probabilities differ from the estimator's by more than `tolerance`. Nothing is left at `path`.
    """
    if precision != "fp32":
        raise ConfigurationError(f"precision must be 'fp32', not {precision!r}; fp16 and int8 are not there yet")
    check_is_fitted(estimator)
    path = Path(path)
    if not path.parent.is_dir():
        raise ConfigurationError(f"the folder {path.parent} does not exist; create it first")

    source = Frame()
    outputs = to_graph(estimator, source)
    value = outputs.probabilities if outputs.probabilities is not None else outputs.predictions
    if value is None:
        raise ExportError(f"{type(estimator).__name__} gives neither probabilities nor predictions")
    task = Classification(np.asarray(estimator.classes_)) if outputs.task is None else outputs.task
    model = source.graph.to_model({task.output: (value, task.width)})
    used = {value.name for value in model.graph.inputs}
    manifest = Manifest(
        task=task,
        feeds=[feed for feed in source.graph.feeds if any(str(name).startswith(f"{feed.name}.") for name in used)],
        provenance=_provenance(estimator),
    )
    names = set()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mmensemble-") as folder:
        draft = Path(folder) / path.name
        _write(model, manifest, draft)
        onnx.checker.check_model(draft, full_check=True)
        if verify is not None:
            manifest.parity = _compare(estimator, draft, verify, tolerance)
            _write(model, manifest, draft)
        for written in sorted(Path(folder).iterdir(), reverse=True):  # the weights before the file that names them
            os.replace(written, path.parent / written.name)
            names.add(written.name)
    if f"{path.name}.data" not in names:
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return manifest


def _write(model: ir.Model, manifest: Manifest, path: Path) -> None:
    model.metadata_props[METADATA_KEY] = manifest.to_json()
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    external = f"{path.name}.data" if size > EXTERNAL_DATA_BYTES else None
    ir.save(model, path, external_data=external)


def _compare(estimator: Any, path: Path, X: Any, tolerance: float) -> dict[str, Any]:
    if n_rows(X) == 0:
        raise ConfigurationError("verify has 0 rows; give it some to compare on")
    predictor = OnnxPredictor(path, device="cpu")
    try:
        expected = _scores(estimator, predictor.manifest.task, X)
    except MmensembleError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"the estimator cannot score the rows of verify: {str(error).splitlines()[0]}") from error
    scored = _scores(predictor, predictor.manifest.task, X)
    difference = np.abs(expected - scored).max(axis=1)
    if predictor.manifest.task.output == "predictions":
        difference /= max(1.0, float(np.abs(expected).max()))
    worst = int(difference.argmax())
    # NaN compares as False both ways, so ask for what is wanted.
    if not difference[worst] <= tolerance:
        raise ParityError(
            f"row {worst}: the exported scores differ from the estimator's by {difference[worst]:.2g}, "
            f"more than tolerance={tolerance:g}; nothing was written"
        )
    return {
        "n_rows": len(expected),
        "max_abs_difference": float(difference[worst]),
        "tolerance": tolerance,
        **_agreement(predictor.manifest.task, expected, scored),
    }


def _scores(model: Any, task: Task, X: Any) -> np.ndarray:
    """Return probabilities side by side, or numbers, (n, width)."""
    if task.output == "probabilities":
        scores = model.predict_proba(X)
        return np.hstack(scores) if isinstance(scores, list) else np.asarray(scores)
    return np.asarray(model.predict(X)).reshape(n_rows(X), -1)


def _agreement(task: Task, expected: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """Return the share of rows whose labels are equal, where there are labels."""
    if task.classes is None:
        return {}
    equal = task.predict(expected) == task.predict(scored)
    return {"equal_labels": float(equal.reshape(len(equal), -1).all(axis=1).mean())}


def _provenance(estimator: Any) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "estimator": repr(estimator),
        "versions": versions,
    }
