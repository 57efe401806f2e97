"""What a scikit-learn estimator answers to rows of numbers, and which outputs of a converted model say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from scipy.sparse import csr_array, issparse
from sklearn.base import is_classifier, is_outlier_detector, is_regressor
from sklearn.utils import get_tags

from mmensemble.converters.fallback.numbers import numbers_for
from mmensemble.exceptions import ExportError
from mmensemble.tasks import Classification, Multilabel, MultilabelVotes, Multioutput, Regression, Task

__all__ = ["Wanted", "gives_sparse"]

_N_ROWS = 48
# A transformer of more is not asked for each of them whether it multiplies by a matrix.
_MOST_FEATURES = 2000
# Of numbers, relative to the largest of a column.
_TOLERANCE = {"float64": 1e-5, "float32": 1e-4}


@dataclass(frozen=True)
class Wanted:
    """What an estimator answers.

    Parameters
    ----------
    task : Task or None
        Of a classifier or regressor, where it is not one of the estimator's ``classes_``.
    answers : dict of str to ndarray
        ``probabilities``, ``labels`` (where there are no probabilities), ``predictions`` and ``transformed``, float64
        (n, width) or labels (n,).
    rows : ndarray of float64, shape (n, n_features)
    """

    task: Task | None
    answers: dict[str, np.ndarray]
    rows: np.ndarray

    @classmethod
    def of(cls, estimator: Any) -> Wanted:
        """Ask an estimator, on rows that it does not refuse.

        Raises
        ------
        ExportError
            If it refuses all that are tried.
        """
        reason = ""
        for rows in _rows(estimator):
            try:
                return cls(*_answers(estimator, rows), rows)
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                reason = reason or str(error).splitlines()[0]
        raise ExportError(f"it refuses the rows on which its conversion is tried out ({reason})")

    def width(self, what: str) -> int | None:
        """Return the columns of an answer; None for labels."""
        return self.answers[what].shape[1] if self.answers[what].ndim == 2 else 1 if what == "labels" else None

    def affine(self, estimator: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the matrix and the offset of a transformer that multiplies and adds, None of another one.

        They are read off what it makes of zeros and of unit vectors, and hold on all rows that are tried.
        """
        if list(self.answers) != ["transformed"] or self.rows is None or get_tags(estimator).input_tags.allow_nan:
            return None
        n_features = self.rows.shape[1]
        if n_features > _MOST_FEATURES:
            return None
        try:
            made = _answers(estimator, np.vstack([np.zeros((1, n_features)), np.eye(n_features)]))[1]["transformed"]
        except (ValueError, TypeError, LookupError, ArithmeticError):
            return None
        if not np.isfinite(made).all():
            return None
        weight, bias = made[1:] - made[0], made[0]
        answer, value = self.answers["transformed"], self.rows @ weight + bias
        size = np.abs(self.rows) @ np.abs(weight) + np.abs(bias) + 1.0
        return (weight, bias) if (np.abs(value - answer) <= 1e-9 * size).all() else None

    def found_in(self, proto: onnx.ModelProto, dtype: str) -> dict[str, str]:
        """Return which output of a converted model gives which answer.

        Raises
        ------
        ExportError
            If the model cannot be run, or gives something else.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
            names = [output.name for output in session.get_outputs()]
            given = dict(zip(names, session.run(None, {"X": self.rows.astype(dtype)}), strict=True))
        except Exception as error:  # ONNX Runtime's errors have no other base class in common
            raise ExportError(f"ONNX Runtime cannot run what it gives ({str(error).splitlines()[0][:200]})") from error
        found: dict[str, str] = {}
        for what, answer in self.answers.items():
            for name, value in given.items():
                if name not in found.values() and _same(answer, value, _TOLERANCE[dtype]):
                    found[what] = name
                    break
            else:
                raise ExportError(f"what it gives are other {what} than the estimator's")
        return found


def gives_sparse(estimator: Any, rows: np.ndarray, *, sparse: bool) -> bool:
    """Tell whether a transformer gives a sparse matrix, of rows that come as one or as an array."""
    return issparse(_quietly(estimator.transform, csr_array(np.abs(rows)) if sparse else rows))


def _rows(estimator: Any) -> list[np.ndarray]:
    """Return rows to try: any numbers with NaN among them where that is allowed, positive ones, and small counts."""
    rng = np.random.default_rng(0)
    names = [f"feature_{number}" for number in range(estimator.n_features_in_)]
    numbers = numbers_for(_named(estimator, names), names, rng)
    rows = rng.normal(size=(_N_ROWS, len(names))) * 10.0 ** rng.integers(-1, 2, size=(_N_ROWS, 1))
    for column, name in enumerate(names):
        if name in numbers:
            chosen = rng.random(_N_ROWS) < 0.8
            rows[:, column] = np.where(chosen, rng.choice(numbers[name], size=_N_ROWS), rows[:, column])
    # Of float32 too, so that both precisions are tried on the same.
    rows = np.clip(rows, -1e30, 1e30).astype(np.float32).astype(np.float64)
    tried = [rows, np.abs(rows), rng.integers(0, 2, size=rows.shape).astype(np.float64)]
    known = getattr(estimator, "categories_", None)
    if known is not None and all(np.asarray(values).dtype.kind in "fiub" for values in known):
        tried.insert(0, np.column_stack([rng.choice(values, size=_N_ROWS) for values in known]).astype(np.float64))
    if get_tags(estimator).input_tags.allow_nan:
        holed = rows.copy()
        holed[rng.random(rows.shape) < 0.1] = np.nan
        tried.insert(0, holed)
    return tried


def _named(estimator: Any, names: list[str]) -> Any:
    """Return what `numbers_for` reads the names of features from, for an estimator behind a step that has none."""
    return estimator if not hasattr(estimator, "feature_names_in_") else _Unnamed(estimator, names)


class _Unnamed:
    """An estimator under names of its features that are sure to be different."""

    def __init__(self, estimator: Any, names: list[str]) -> None:
        self.steps = [("estimator", estimator)]
        self.feature_names_in_ = names


def _answers(estimator: Any, rows: np.ndarray) -> tuple[Task | None, dict[str, np.ndarray]]:
    if is_classifier(estimator):
        return _of_classifier(estimator, rows)
    if is_regressor(estimator) or (is_outlier_detector(estimator) and not hasattr(estimator, "transform")):
        predicted = np.asarray(_quietly(estimator.predict, rows), dtype=np.float64)
        width = predicted.reshape(len(rows), -1).shape[1]
        task = Regression(width, one_dimensional=predicted.ndim == 1)
        return task, {"predictions": predicted.reshape(len(rows), width)}
    if not hasattr(estimator, "transform"):
        raise ExportError(f"{type(estimator).__name__} neither predicts classes or numbers nor transforms")
    transformed = _quietly(estimator.transform, rows)
    dense = transformed.toarray() if hasattr(transformed, "toarray") else transformed
    return None, {"transformed": np.asarray(dense, dtype=np.float64)}


def _of_classifier(estimator: Any, rows: np.ndarray) -> tuple[Task | None, dict[str, np.ndarray]]:
    predicted = np.asarray(_quietly(estimator.predict, rows))
    name = type(estimator).__name__
    if not hasattr(estimator, "predict_proba"):
        if predicted.ndim > 1:
            votes: Task = MultilabelVotes(predicted.shape[1])
            return votes, {"probabilities": predicted.astype(np.float64)}
        return None, {"labels": predicted}
    proba = _quietly(estimator.predict_proba, rows)
    if isinstance(proba, list):
        columns = [Classification(np.asarray(labels)) for labels in estimator.classes_]
        if [part.shape[1] for part in proba] != [column.width for column in columns]:
            raise ExportError(f"{name} gives other probabilities than its classes")
        return Multioutput(columns), {"probabilities": np.hstack(proba)}
    proba = np.asarray(proba, dtype=np.float64)
    return (Multilabel(proba.shape[1]) if predicted.ndim > 1 else None), {"probabilities": proba}


def _quietly(function: Any, rows: np.ndarray) -> Any:
    import warnings

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of rows without the names that were fitted
        return function(rows)


def _same(answer: np.ndarray, value: Any, tolerance: float) -> bool:
    if not isinstance(value, np.ndarray) or value.size != answer.size:
        return False
    if answer.ndim == 1:
        return bool((value.ravel().astype(str) == answer.astype(str)).all())
    if value.dtype.kind not in "fiub":
        return False
    value = value.reshape(answer.shape).astype(np.float64)
    unknown = np.isnan(answer)
    if (np.isnan(value) != unknown).any():
        return False
    scale = np.maximum(1.0, np.max(np.abs(np.where(unknown, 0, answer)), axis=0, initial=0.0))
    return bool((np.abs(value - answer)[~unknown] <= np.broadcast_to(scale * tolerance, answer.shape)[~unknown]).all())
