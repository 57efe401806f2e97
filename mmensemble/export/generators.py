"""Which estimators write texts, and how the file of one is compared with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator

from mmensemble._sklearn import BaseSearchCV
from mmensemble.exceptions import ConfigurationError, ParityError
from mmensemble.frames import leaf_cells, n_rows
from mmensemble.graph import is_registered, to_generator_graph
from mmensemble.preprocessing import PRESENT, PromptPreprocessor
from mmensemble.scoring.generation import Decoder, log_softmax
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.tasks import Generation

__all__ = ["GeneratorCheck", "check_made_prompts", "generator_of"]

# Tokens that are written for each row of `verify`, and rows that are run at a time.
STEPS = 16
_MADE_PROMPTS = 4
BATCH = 32

_TOLERANCES = {"fp32": 1e-3, "fp16": 0.5, "int8": 0.1}


def generator_of(estimator: Any) -> Any:
    """Return the estimator that writes texts, searches over it and frozen ones unwrapped; None if it writes none."""
    while isinstance(estimator, (BaseSearchCV, FrozenEstimator)):
        estimator = getattr(estimator, "best_estimator_", None) or getattr(estimator, "estimator", None)
    return estimator if is_registered(to_generator_graph, estimator) else None


class GeneratorCheck:
    """The comparison of a file's scores of next tokens with the estimator's.

    The estimator continues each row greedily; both then run the row and these tokens, one by one, each with its own
    state.

    Parameters
    ----------
    estimator : estimator
        With ``token_decoder()`` and ``preprocessor_``.
    task : Generation
    precision : {"fp32", "fp16", "int8"}
    X : X
        The rows to continue.
    tolerance : float or None
    """

    def __init__(self, estimator: Any, task: Generation, precision: str, X: Any, tolerance: float | None) -> None:
        if n_rows(X) == 0:
            raise ConfigurationError("verify has 0 rows; give it some to compare on")
        self.estimator, self.task, self.precision, self.X = estimator, task, precision, X
        self.tolerance = _TOLERANCES[precision] if tolerance is None else tolerance
        self.steps = STEPS if task.max_length is None else max(1, min(STEPS, task.max_length // 2))
        preprocessor = estimator.preprocessor_
        encoded = preprocessor.encode(leaf_cells(X))
        encoded.raise_for_errors()
        if isinstance(preprocessor, PromptPreprocessor) and task.max_length is not None:
            encoded = preprocessor.shortened(encoded, task.max_length - self.steps)
        present = np.flatnonzero(encoded.present)
        if not len(present):
            raise ConfigurationError("every row of verify is missing; give it some to compare on")
        self.batches = []
        for start in range(0, len(present), BATCH):
            inputs = preprocessor.collate(encoded, present[start : start + BATCH])
            del inputs[PRESENT]
            self.batches.append(inputs)
        self.n_rows = len(present)
        decoder = estimator.token_decoder()
        self.expected = [_follow(decoder, inputs, self.steps) for inputs in self.batches]

    def measure(self, path: Path) -> dict[str, Any]:
        """Run the rows with the file and compare."""
        predictor = OnnxPredictor(path, device="cpu")
        decoder = predictor.token_decoder()
        worst, equal, total = 0.0, 0, 0
        for inputs, (tokens, expected) in zip(self.batches, self.expected, strict=True):
            _, scored = _follow(decoder, inputs, self.steps, tokens)
            worst = max(worst, float(np.abs(scored - expected).max()))
            equal += int((scored.argmax(axis=-1) == tokens).sum())
            total += tokens.size
        measured = {
            "rows": "given",
            "n_rows": self.n_rows,
            "n_tokens": total,
            "max_abs_difference": worst,
            "equal_tokens": equal / total,
            "tolerance": self.tolerance,
        }
        if self.precision == "int8":
            return {
                **measured,
                "error": 1 - equal / total,
                "reason": "int8 changes the most probable token, in a share",
            }
        return {**measured, "error": worst, "reason": "the log-probabilities of next tokens differ"}

    def accept(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Return what is stored in the manifest, or raise `ParityError`."""
        error, reason = measured.pop("error"), measured.pop("reason")
        if not error <= self.tolerance:
            raise ParityError(f"{reason} by {error:.2g}, more than tolerance={self.tolerance:g}; nothing was written")
        return measured


def check_made_prompts(estimator: Any, task: Generation, path: Path) -> dict[str, Any]:
    """Compare a float32 file with its estimator on prompts that the export makes itself.

    Returns
    -------
    dict
        What is stored in the manifest.

    Raises
    ------
    ParityError
        If a next token's log-probability differs.
    """
    (cells,) = estimator.preprocessor_.example_cells(_MADE_PROMPTS, np.random.default_rng(0))
    check = GeneratorCheck(estimator, task, "fp32", cells, None)
    return {**check.accept(check.measure(path)), "rows": "made"}


def _follow(
    decoder: Decoder, inputs: dict[str, np.ndarray], steps: int, tokens: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Run rows and then given tokens, (n, steps), or else the most probable ones; return them and what was scored.

    Returns
    -------
    tokens : ndarray of int64, shape (n, steps)
    log_probabilities : ndarray of float64, shape (n, steps, vocab_size)
        Before each of them.
    """
    logits, state = decoder.prefill(inputs)
    chosen, scored = [], []
    for step in range(steps):
        scored.append(log_softmax(logits))
        chosen.append(logits.argmax(axis=1) if tokens is None else tokens[:, step])
        if step + 1 < steps:
            logits, state = decoder.step(chosen[-1], state)
    return np.stack(chosen, axis=1), np.stack(scored, axis=1)
