"""A fitted composition → one ONNX file, checked and compared before it takes its name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from mmensemble.exceptions import ConfigurationError, ExportError
from mmensemble.export.check import check_exportable
from mmensemble.export.generators import GeneratorCheck, check_made_prompts, generator_of
from mmensemble.export.left_in_float import write_int8
from mmensemble.export.parity import ParityCheck, check_scores_rows
from mmensemble.export.precision import PRECISIONS, Precision, convert
from mmensemble.export.profile import profile_of
from mmensemble.export.provenance import provenance_of
from mmensemble.export.rows import check_made_rows
from mmensemble.files.seal import seal
from mmensemble.graph import (
    GENERATION_OPSET,
    Frame,
    Graph,
    Outputs,
    any_present,
    graph_votes,
    refused_answers,
    to_generator_graph,
    to_graph,
)
from mmensemble.preprocessing import TensorSpec
from mmensemble.progress import Step, Work
from mmensemble.scoring.manifest import METADATA_KEY, Manifest
from mmensemble.tasks import Classification, Decided, Generation, Regression, Task, Votes

__all__ = ["export_onnx"]

# protobuf cannot serialise a message of 2 GiB; above this the weights lie beside the file.
EXTERNAL_DATA_BYTES = 1_800_000_000


def export_onnx(
    estimator: Any,
    path: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    verify: Any = None,
    verify_y: Any = None,
    calibrate: Any = None,
    tolerance: float | None = None,
    profile: Any = None,
    verbose: int = False,
) -> Manifest:
    """Write a fitted estimator or composition as one ONNX file.

    The file holds the graph of every member, of the fusion or meta-learner, the labels and the description of the
    host-side preprocessing: `OnnxPredictor` needs nothing else, neither torch nor scikit-learn.

    Parameters
    ----------
    estimator : estimator
        Fitted: a `MultimodalClassifier` or `MultimodalRegressor`, a leaf such as ``TextClassifier``, a scikit-learn
        ``Pipeline``, ``VotingClassifier`` or ``StackingClassifier`` over `on_column` members, a calibrated classifier,
        or a finished search over one of them.
    path : str or path
        Where to write. Weights above 1.8 GB lie beside it as ``<path>.data``.
    precision : {"fp32", "fp16", "int8"}, default="fp32"
        Of the encoders' weights and arithmetic; all else stays in float32. ``"fp16"`` is for GPUs. ``"int8"`` is for
        CPUs: matrix products with 8-bit weights, and convolutions too where there are rows to `calibrate` on.
    verify : X, False or None, default=None
        Rows to score with both; the largest difference is stored in the file. None compares on rows that the export
        makes itself from what the estimator has learned: numbers across and beyond their range, at thresholds and
        beside them, known and unknown categories, texts, small pictures and the like, each modality missing. They
        need some seconds; with ``"fp16"`` and ``"int8"`` they check the graph before it is converted. False compares
        nothing, which is written into the file. With ``"int8"`` the layers that cost too much are left in float32, as
        far as given rows show it.
    verify_y : array-like, default=None
        The labels, or targets, of `verify`: the score of both is stored in the file as well, and decides about int8.
    calibrate : X, default=None
        Rows on which the ranges of activations around convolutions are measured, for ``"int8"``: some hundred, like
        those to come.
    tolerance : float, default=None
        What `verify` accepts. None is 1e-4 for ``"fp32"`` and 1e-2 for ``"fp16"``: the largest difference of a
        probability, or of a number relative to the largest one. For ``"int8"`` it is the loss of score (accuracy, R²)
        with `verify_y`, 0.01, and without it the share of rows whose label changes, 0.05, or of numbers the mean
        difference relative to their standard deviation. Of texts it is the largest difference of a next token's
        log-probability, 1e-3, for ``"fp16"`` 0.5, and for ``"int8"`` the share of tokens that change, 0.1.
    profile : X or False, default=None
        Rows, best those of the fit, whose distribution is stored in the file, and with which a report on rows that are
        scored later compares them (`score_file`): of each column the edges of some ten bins, quantiles, or the most
        frequent categories, each of five rows at least, and the shares of missing cells; of texts lengths, of pictures
        sizes, of sounds and films durations; and of at most 2,048 rows what the file predicts. None takes the rows of
        `verify` where there are some, as an estimator does not remember what it was fitted on. False stores nothing.
    verbose : bool or int, default=False
        False shows on stderr how far an export is that takes more than 3 seconds, True shows it at once, 0 not at all.

    Returns
    -------
    Manifest
        What the file says of itself; ``parity`` holds what `verify` measured: ``n_rows``, ``max_abs_difference``,
        ``equal_labels`` (share of rows), ``tolerance``, with `verify_y` ``score`` and ``reference_score``, and with
        ``"int8"`` ``float_layers``, what was left in float32.

    Raises
    ------
    ConfigurationError
        If `path` is in no folder or is one, or the other arguments do not go together.
    DataError
        If the estimator cannot score the rows of `verify`.
    ExportError
        If a part has no ONNX form, or not at this precision.
    ParityError
        If the file's scores differ from the estimator's by more than `tolerance`. Nothing is left at `path`.
    """
    if precision not in PRECISIONS:
        raise ConfigurationError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, not {precision!r}")
    if verify is True:
        raise ConfigurationError("verify must be rows, None for rows that the export makes, or False, not True")
    if verify_y is not None and (verify is None or verify is False):
        raise ConfigurationError("verify_y holds the labels of verify, which is not given")
    if profile is True:
        raise ConfigurationError("profile must be rows, None for those of verify, or False, not True")
    check_is_fitted(estimator)
    if verify_y is not None and generator_of(estimator) is not None:
        raise ConfigurationError("a model that writes texts is compared token by token: leave out verify_y")
    path = Path(path)
    if not path.parent.is_dir():
        raise ConfigurationError(f"the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; give the name of a file in it")

    with Work("export", "export_onnx", verbose):
        return _export(estimator, path, precision, verify, verify_y, calibrate, tolerance, profile)


def _export(
    estimator: Any,
    path: Path,
    precision: Precision,
    verify: Any,
    verify_y: Any,
    calibrate: Any,
    tolerance: float | None,
    profile: Any,
) -> Manifest:
    """Do what `export_onnx` does, its arguments checked."""
    check_exportable(estimator)
    generator = generator_of(estimator)
    given = verify is not None and verify is not False
    profiled = (verify if given else None) if profile is None else profile
    profiled = None if profile is False or generator is not None else profiled
    for name, rows in (
        ("verify", verify if given else None),
        ("calibrate", calibrate),
        ("profile", None if profile is False else profile),
    ):
        if rows is not None:
            check_scores_rows(estimator if generator is None else generator, rows, name)
    if verify_y is not None:
        check_consistent_length(verify, verify_y)
    source = Frame() if generator is None else Frame(Graph(GENERATION_OPSET))
    task: Task
    with Step("exporting"):
        if generator is not None:
            step = to_generator_graph(generator, source)
            task, model = step.task, source.graph.to_model(step.outputs)
        else:
            task, values = _answers(estimator, to_graph(estimator, source))
            values[task.output] = _refusing(source.graph, *values[task.output])
            model = source.graph.to_model(values)
    used = {value.name for value in model.graph.inputs}
    manifest = Manifest(
        task=task,
        feeds=[feed for feed in source.graph.feeds if any(str(name).startswith(f"{feed.name}.") for name in used)],
        provenance={**provenance_of(estimator), "precision": precision},
    )
    check: _AnyCheck | None = None
    if given:
        with Step("asking the estimator"):
            if isinstance(task, Generation):
                check = GeneratorCheck(generator, task, precision, verify, tolerance)
            else:
                check = ParityCheck(estimator, task, precision, verify, verify_y, tolerance)
    names = set()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mmensemble-") as folder:
        draft = Path(folder) / path.name
        with Step("checking"):
            _write(model, manifest, draft)
            onnx.checker.check_model(draft, full_check=True)
        if verify is False:
            manifest.parity = {"rows": "none"}
        elif not given and isinstance(task, Generation):
            with Step("comparing"):
                manifest.parity = check_made_prompts(generator, task, draft)
        elif not given:
            with Step("comparing"):
                manifest.parity = check_made_rows(
                    estimator,
                    task,
                    manifest.feeds,
                    draft,
                    tolerance if precision == "fp32" else None,
                    may_tie=source.graph.may_tie,
                )
        if profiled is not None:
            with Step("profiling"):
                manifest.profile = profile_of(
                    profiled, "verify" if profile is None else "profile", manifest.feeds, draft
                )
        if precision != "fp32":
            with Step("quantising" if precision == "int8" else "converting"):
                model = _converted(model, draft, precision, manifest, check, calibrate)
        elif check is not None:
            with Step("comparing"):
                manifest.parity = check.accept(check.measure(draft))
        with Step("writing"):
            _write(model, manifest, draft, sealed=True)
            if precision != "fp32":
                onnx.checker.check_model(draft, full_check=True)
        for written in sorted(Path(folder).iterdir(), reverse=True):  # the weights before the file that names them
            os.replace(written, path.parent / written.name)
            names.add(written.name)
    if f"{path.name}.data" not in names:
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    return manifest


def _answers(estimator: Any, outputs: Outputs) -> tuple[Task, dict[str, tuple[ir.Value, int | TensorSpec]]]:
    """Return what a file says: its task, and each of the graph's outputs with its width, or dtype and shape."""
    graph, task = outputs.graph, outputs.task
    if outputs.predictions is not None and outputs.probabilities is None:
        if task is None:
            task = Regression(1, one_dimensional=True)
        return task, {task.output: (outputs.predictions, task.width)}
    classes = getattr(estimator, "classes_", None)
    value = outputs.probabilities
    if value is None and outputs.labels is not None:
        task = task if isinstance(task, Votes) else Votes(np.asarray(classes))
        value = graph_votes(graph, outputs.labels, task.width)
        graph.refusals += refused_answers(outputs)
    elif value is None:
        raise ExportError(f"{type(estimator).__name__} gives neither probabilities nor labels nor numbers")
    if task is None:
        task = Classification(np.asarray(classes))
    if type(task) is Classification and outputs.labels is not None:
        task = Decided(task.classes)
    answers: dict[str, tuple[ir.Value, int | TensorSpec]] = {task.output: (value, task.width)}
    if task.n_decided and outputs.labels is not None:
        answers["labels"] = (outputs.labels, TensorSpec("int64", ("batch", task.n_decided)))
    return task, answers


def _refusing(graph: Graph, value: ir.Value, width: Any) -> tuple[ir.Value, Any]:
    """Give NaN, which scoring reports as an error of the row, where a part of the estimator refuses a row."""
    if not graph.refusals:
        return value, width
    nothing = graph.constant(np.float32(np.nan))
    return graph.op("Where", any_present(graph, graph.refusals), nothing, value), width


def _write(model: ir.Model, manifest: Manifest, path: Path, *, sealed: bool = False) -> None:
    model.metadata_props[METADATA_KEY] = manifest.to_json(sealed=sealed)
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    external = f"{path.name}.data" if size > EXTERNAL_DATA_BYTES else None
    ir.save(model, path, external_data=external)
    if sealed:
        seal(path, None if external is None else path.with_name(external))


def _converted(
    model: ir.Model, draft: Path, precision: Precision, manifest: Manifest, check: _AnyCheck | None, calibrate: Any
) -> ir.Model:
    """Convert a float32 model; of int8, leave as few layers in float32 as `check` shows to be enough."""
    whole = draft.with_name("float32")
    _write(model, manifest, whole)
    external = draft.with_name("float32.data").exists()
    float_layers: list[str] = []
    if precision == "int8":
        float_layers, measured = write_int8(whole, draft, manifest, check, calibrate, external=external)
    else:
        convert(whole, draft, precision, external=external, state=_state_names(manifest.task))
        measured = check.measure(draft) if check is not None else {}
    model = ir.load(draft)
    for value in model.graph.initializers.values():  # read now, as the file will be replaced
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    for file in draft.parent.iterdir():
        file.unlink()
    if isinstance(manifest.task, Generation):
        manifest.task.take_types({str(value.name): value.dtype.numpy() for value in model.graph.inputs if value.dtype})
    if check is not None:
        manifest.parity = check.accept(measured)
    if precision == "int8":
        manifest.parity = {**manifest.parity, "float_layers": float_layers}
    return model


def _state_names(task: Task) -> set[str]:
    """Return the inputs and outputs of the graph that a generator gives from one run to the next."""
    if not isinstance(task, Generation):
        return set()
    again = {f"state.{name}" for name in (*task.encoded, *task.state)}
    return again | {f"next.{name}" for name in task.state} | {f"encoded.{name}" for name in task.encoded}


_AnyCheck = ParityCheck | GeneratorCheck
