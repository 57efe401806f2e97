"""Which layers int8 leaves in float32: how many of the worst have to stay, and the rows that tell."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError
from mmensemble.export.branches import laid_open
from mmensemble.export.eight_bits import activation_ranges, embeddings, float_convolutions, int8_layers
from mmensemble.export.generators import GeneratorCheck
from mmensemble.export.parity import ParityCheck
from mmensemble.export.precision import convert
from mmensemble.export.sensitivity import sensitivities
from mmensemble.frames import frame_with, leaf_cells, n_rows
from mmensemble.progress import Step
from mmensemble.scoring.batching import input_batches
from mmensemble.scoring.generation.onnx_decoder import OnnxDecoder
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.tasks import Classification, Generation

__all__ = ["by_class", "fewest", "write_int8"]

# The search begins with this share of the layers, and finds how many have to stay to within it.
_FINEST = 16
_MOST_NAMED = 4
# Rows on which int8 measures ranges and ranks layers, and of how many times as many it asks the class.
_MOST_CALIBRATED = 512
_MOST_RANKED = 64
_MOST_PREDICTED = 8


def write_int8(
    whole: Path,
    draft: Path,
    manifest: Manifest,
    check: ParityCheck | GeneratorCheck | None,
    calibrate: Any,
    *,
    external: bool = False,
) -> tuple[list[str], dict[str, Any]]:
    """Convert a float32 model to int8, and leave as few layers in float32 as a check shows to be enough.

    Parameters
    ----------
    whole, draft : Path
        The model, and the file to write, in one folder.
    manifest : Manifest
        Of the model.
    check : ParityCheck, GeneratorCheck or None
        Decides; None leaves no layer in float32.
    calibrate : X or None
        Rows on which the ranges around convolutions are measured; None leaves these in float32.
    external : bool, default=False
        Write weights beside the file.

    Returns
    -------
    float_layers : list of str
        What has stayed in float32: for the check, and for want of rows.
    measured : dict
        By the check.
    """
    with laid_open(whole) as (opened, _):
        graph = onnx.load(opened, load_external_data=False)
    convolutions, products, tables = list(float_convolutions(graph)), list(int8_layers(graph)), list(embeddings(graph))
    left = convolutions if calibrate is None else []
    if not products and not tables and (left or not convolutions):
        need = f"; its {len(left)} convolutions need rows to calibrate on: give calibrate (--calibrate of the command)"
        rows = need if left else ""
        raise ConfigurationError(
            f"int8 finds no matrix product and no table of embeddings in an encoder of a neural network{rows}"
        )
    ranges = None
    if calibrate is not None:
        if n_rows(calibrate) == 0:
            raise ConfigurationError("calibrate has 0 rows; give it some hundred")
        calibrate = _chosen(whole, manifest, calibrate, most=_MOST_CALIBRATED)
        if convolutions:
            ranges = activation_ranges(whole, _batches(whole, manifest, calibrate))
    tried: dict[int, dict[str, Any]] = {}
    last = -1

    def is_enough(kept: list[str]) -> bool:
        nonlocal last
        last = len(kept)
        with Step("trial", len(tried) + 1):
            convert(whole, draft, "int8", kept=kept, ranges=ranges, external=external)
            tried[last] = check.measure(draft) if check is not None else {}
        return check is None or tried[last]["error"] <= check.tolerance

    kept: list[str] = []
    if not is_enough(kept) and check is not None:
        batches = _batches_to_rank(whole, manifest, check, calibrate)
        # Tables come last: with a scale for each row they lose next to nothing.
        ranked = [*sensitivities(whole, batches, convolutions=ranges is not None), *tables]
        kept = fewest(ranked, is_enough)
        if last != len(kept):
            is_enough(kept)
        layers = len(products) + len(tables) + len(convolutions) - len(left)
        if tried[len(kept)]["error"] <= check.tolerance:
            _warn_of_float(kept, convolutions, layers, check, calibrated=ranges is not None)
        else:
            reason = tried[len(kept)]["reason"]
            tried[len(kept)]["reason"] = (
                f"with all {layers} layers that 8 bits could move in float32 ({_named(kept)}), {reason} all the same; "
                "export with precision='fp32' to see where from, or allow a larger tolerance: it differs"
            )
    return [*kept, *left], tried[len(kept)]


def _batches_to_rank(
    whole: Path, manifest: Manifest, check: ParityCheck | GeneratorCheck, calibrate: Any
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs for rows on which layers are ranked: of `calibrate`, or else those that are verified."""
    if isinstance(check, GeneratorCheck):
        return iter([_first_run(OnnxPredictor(whole, device="cpu").token_decoder(), check.batches[0])])
    rows = _chosen(whole, manifest, check.X if calibrate is None else calibrate, most=_MOST_RANKED)
    return _batches(whole, manifest, rows)


def _chosen(path: Path, manifest: Manifest, X: Any, *, most: int) -> dict[str, Any]:
    """Return some rows at random, of each class that the model predicts as many as there are."""
    X = {column: leaf_cells(cells) for column, cells in frame_with(X, manifest.columns).items()}
    rows = np.arange(n_rows(X))
    if len(rows) <= most:
        return X
    rows = by_class(None, len(rows), _MOST_PREDICTED * most)
    X = {column: safe_indexing(cells, rows) for column, cells in X.items()}
    classes = None
    if isinstance(manifest.task, Classification):
        predictor = OnnxPredictor(path, device="cpu")
        scores = np.concatenate([window.outputs for window in predictor.score_batches(predictor.windows(X))])
        classes = np.nan_to_num(scores[:, : manifest.task.width], nan=-1).argmax(axis=1)  # NaN: a row in error
    chosen = by_class(classes, len(rows), most)
    return {column: safe_indexing(cells, chosen) for column, cells in X.items()}


def _batches(path: Path, manifest: Manifest, X: Any) -> Iterator[dict[str, np.ndarray]]:
    """Yield the graph's inputs for some rows, 32 at a time."""
    predictor = OnnxPredictor(path, device="cpu")
    batches = (
        batch for window in predictor.windows(X) for batch in input_batches(manifest.feeds, window, batch_size=32)
    )
    for arrays in batches:
        if isinstance(manifest.task, Generation):
            (feed,) = manifest.feeds
            inputs = {name: arrays[f"{feed.name}.{name}"] for name in feed.preprocessor.tensors}
            yield _first_run(predictor.token_decoder(), inputs)
        else:
            yield {name: arrays[name] for name in predictor.input_names}


def _first_run(decoder: OnnxDecoder, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a generator's inputs for a run that encodes some rows, and begins their texts as well."""
    rows = {f"{decoder.feed}.{name}": array for name, array in inputs.items()} if decoder.task.start_ids else {}
    return {name: array for name, array in {**decoder.prefill_arrays(inputs), **rows}.items() if name in decoder.inputs}


def fewest(ranked: list[str], is_enough: Callable[[list[str]], bool]) -> list[str]:
    """Find how many of the worst layers have to stay in float32: twice as many each time, then what is between.

    Parameters
    ----------
    ranked : list of str
        The worst first.
    is_enough : callable
        Tells whether it is enough to keep some. Asked for those that are returned, though not always last.

    Returns
    -------
    list of str
        The first of `ranked`; all of them where nothing less is enough.
    """
    step = max(1, len(ranked) // _FINEST)
    too_few, enough = 0, step
    while not is_enough(ranked[:enough]) and enough < len(ranked):
        too_few, enough = enough, min(2 * enough, len(ranked))
    while enough - too_few > step:
        between = (too_few + enough) // 2
        if is_enough(ranked[:between]):
            enough = between
        else:
            too_few = between
    return ranked[:enough]


def by_class(classes: np.ndarray | None, n_rows: int, most: int) -> np.ndarray:
    """Choose rows at random, as many of each class as there are, whatever order they come in.

    Returns
    -------
    ndarray of int, shape (min(n_rows, most),)
        In an order whose beginning is such a choice as well.
    """
    shuffled = np.random.default_rng(0).permutation(n_rows)
    if classes is None:
        return shuffled[:most]
    seen: dict[Any, int] = {}
    turn = np.empty(n_rows, dtype=np.int64)
    for position, label in enumerate(classes[shuffled].tolist()):
        label = tuple(label) if isinstance(label, list) else label  # of several labels
        turn[position] = seen[label] = seen.get(label, -1) + 1
    return shuffled[np.argsort(turn, kind="stable")][:most]


def _warn_of_float(kept: list[str], convolutions: list[str], n_layers: int, check: Any, *, calibrated: bool) -> None:
    """Warn where the tolerance is met only with all layers in float32, or with all convolutions that could be other."""
    if len(kept) == n_layers:
        which, loss = f"all {n_layers} layers", "the file is as large and as slow as with precision='fp32'"
    elif calibrated and convolutions and set(convolutions) <= set(kept):
        which, loss = f"all {len(convolutions)} convolutions", "they gain nothing from calibrate"
    else:
        return
    rows = f"more rows to verify than {check.n_rows}" + (", or more to calibrate" if calibrated else "")
    warnings.warn(
        f"int8 stays within tolerance={check.tolerance:g} only with {which} in float32 ({_named(kept)}): {loss}. "
        f"Allow a larger tolerance, or give {rows}: of few rows, a single one decides",
        stacklevel=6,
    )


def _named(layers: list[str]) -> str:
    """Name some layers: the first ones, and how many more there are."""
    more = len(layers) - _MOST_NAMED
    return ", ".join(layers[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
