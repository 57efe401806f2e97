"""The training profile: how the cells of some rows, and the predictions for them, are distributed. Imports numpy.

It lies in the manifest of a model file: of each measure the edges of some ten bins, or the most frequent categories,
with counts. Rows that are scored later are counted in the same bins, so what a job remembers of a hundred million rows
is as much as of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np

__all__ = [
    "CONFIDENCE",
    "Distribution",
    "Measure",
    "Profile",
    "categories_of",
    "chance_index",
    "numbers_of",
    "stability_index",
]

_CONFIDENCE_EDGES = tuple(round(0.1 * edge, 1) for edge in range(1, 10))
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

# Bins of equal counts, of so many rows at least.
_MOST_BINS = 10
_ROWS_PER_BIN = 10
# Categories that a profile names, each of so many rows: what is rarer may be a name, or something else that is private.
_MOST_CATEGORIES = 32
_ROWS_PER_CATEGORY = 5
# What a damaged file may have at most.
_MOST_COUNTS = 256
# In place of a bin without rows, whose share would have no logarithm (Jeffreys' prior).
_PRIOR = 0.5
# A float64 that was a float32 once is not beyond the range.
_ROUNDING = 1e-6
# The quantile of the standard normal distribution at 0.95.
_Z_95 = 1.6448536269514722


class Measure(NamedTuple):
    """What of a column is compared.

    Attributes
    ----------
    column : str
        Of the rows, or of the scores.
    what : str
        ``"number"``, ``"category"``, ``"length"`` (characters of a text), ``"width"`` and ``"height"`` (pixels),
        ``"seconds"``; ``"missing"`` where nothing else is known; of scores ``"confidence"``.
    """

    column: str
    what: str


@dataclass(frozen=True)
class Distribution:
    """How the values of one measure are distributed.

    Parameters
    ----------
    edges : tuple of float or None
        Of numbers: bin ``i`` holds what is below ``edges[i]`` and not below the edge before it.
    categories : tuple of str or None
        Of categories, the most frequent first.
    counts : tuple of int
        Of each bin, or of each category and all others; at last, of what is missing.
    quantiles : tuple of float
        Of finite numbers, at 0, 5, 25, 50, 75, 95 and 100 %; none where there are none.

    Raises
    ------
    ValueError
        If they do not belong together.
    """

    edges: tuple[float, ...] | None
    categories: tuple[str, ...] | None
    counts: tuple[int, ...]
    quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.edges is None) == (self.categories is None):
            raise ValueError("a distribution has either edges or categories")
        parts = self.categories if self.edges is None else self.edges
        if len(self.counts) != len(parts or ()) + 2 or len(self.counts) > _MOST_COUNTS:
            raise ValueError(f"{len(self.counts)} counts for {len(parts or ())} edges or categories")
        if not all(type(count) is int and 0 <= count < 2**53 for count in self.counts):
            raise ValueError("counts must be integers of at least 0")
        if self.categories is not None and not all(isinstance(name, str) for name in self.categories):
            raise ValueError("categories must be texts")
        edges = np.asarray(self.edges or (), dtype=np.float64)
        if not np.isfinite(edges).all() or (np.diff(edges) <= 0).any():
            raise ValueError("edges must be finite numbers that rise")

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        parts = {"categories": list(self.categories or ())} if self.edges is None else {"edges": list(self.edges)}
        quantiles = {"quantiles": list(self.quantiles)} if self.quantiles else {}
        return {**parts, "counts": list(self.counts), **quantiles}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Rebuild a distribution from its `to_dict`."""
        edges, categories = state.get("edges"), state.get("categories")
        return cls(
            None if edges is None else tuple(map(float, edges)),
            None if categories is None else tuple(categories),
            tuple(state["counts"]),
            tuple(map(float, state.get("quantiles", ()))),
        )

    def count(self, values: Any, n_missing: int) -> np.ndarray:
        """Count numbers in these bins, or categories, given as a Counter; ndarray of int, as `counts`."""
        counts = np.zeros(len(self.counts), dtype=np.int64)
        counts[-1] = n_missing
        if self.edges is not None:
            bins = np.searchsorted(np.asarray(self.edges, dtype=np.float64), values, side="right")
            counts[:-1] = np.bincount(bins, minlength=len(counts) - 1)
            return counts
        places = {name: place for place, name in enumerate(self.categories or ())}
        for name, n in values.items():
            counts[places.get(name, -2)] += n
        return counts

    def labels(self) -> list[str]:
        """Return what the counts are of, for people."""
        if self.edges is None:
            return [*(self.categories or ()), "(others)", "(missing)"]
        edges = [f"{edge:.6g}" for edge in self.edges]
        if not edges:
            return ["(present)", "(missing)"]
        between = [f"{low} to {high}" for low, high in pairwise(edges)]
        return [f"below {edges[0]}", *between, f"from {edges[-1]}", "(missing)"]


# Bins of the probability of the most probable class, where no profile has others.
CONFIDENCE = Distribution(_CONFIDENCE_EDGES, None, (0,) * (len(_CONFIDENCE_EDGES) + 2))


@dataclass(frozen=True)
class Profile:
    """How the rows are distributed that a model is to be compared with.

    Parameters
    ----------
    source : str
        Which rows these are: ``"verify"`` or ``"profile"``, the argument of ``export_onnx``.
    n_rows : int
    n_scored : int
        Rows among them whose predictions were counted.
    inputs, predictions : dict of Measure to Distribution
    """

    source: str
    n_rows: int
    n_scored: int
    inputs: dict[Measure, Distribution]
    predictions: dict[Measure, Distribution]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "source": self.source,
            "n_rows": self.n_rows,
            "n_scored": self.n_scored,
            "inputs": _listed(self.inputs),
            "predictions": _listed(self.predictions),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        """Rebuild a profile from its `to_dict`."""
        return cls(
            str(state["source"]),
            int(state["n_rows"]),
            int(state["n_scored"]),
            _by_measure(state["inputs"]),
            _by_measure(state["predictions"]),
        )


def _listed(distributions: dict[Measure, Distribution]) -> list[dict[str, Any]]:
    return [
        {"column": measure.column, "what": measure.what, **distribution.to_dict()}
        for measure, distribution in distributions.items()
    ]


def _by_measure(states: list[dict[str, Any]]) -> dict[Measure, Distribution]:
    distributions = {Measure(str(each["column"]), str(each["what"])): Distribution.from_dict(each) for each in states}
    for measure, distribution in distributions.items():
        if (measure.what == "category") != (distribution.edges is None):
            raise ValueError(f"the {measure.what} of {measure.column!r} has bins of another kind")
    return distributions


def numbers_of(values: np.ndarray, n_missing: int, edges: Sequence[float] | None = None) -> Distribution:
    """Describe numbers: bins of about equal counts within their range, and one below and one above it.

    A number that makes up a bin by itself, as 0 often does, gets one.

    Parameters
    ----------
    values : ndarray of float64
    n_missing : int
    edges : sequence of float, default=None
        Those to take.
    """
    finite = values[np.isfinite(values)]
    edges = _edges(finite) if edges is None else edges
    quantiles = np.quantile(finite, QUANTILES).tolist() if len(finite) else ()
    empty = Distribution(tuple(edges), None, (0,) * (len(edges) + 2), tuple(quantiles))
    return Distribution(empty.edges, None, tuple(empty.count(values, n_missing).tolist()), empty.quantiles)


def _edges(values: np.ndarray) -> list[float]:
    if not len(values):
        return []
    distinct, counts = np.unique(values, return_counts=True)
    size = len(values) / max(1, min(_MOST_BINS, len(values) // _ROWS_PER_BIN))
    margin = _ROUNDING * max(abs(distinct[0]), abs(distinct[-1]), np.finfo(np.float64).tiny)
    edges, held = [distinct[0] - margin], 0
    for number, count in enumerate(counts.tolist()):
        if held and (held >= size or count >= size):
            edges.append((distinct[number - 1] + distinct[number]) / 2)
            held = 0
        held += count
    edges.append(distinct[-1] + margin)
    return np.unique(np.asarray(edges, dtype=np.float64)).tolist()


def categories_of(values: Counter[str], n_missing: int, *, rows_per_category: int = _ROWS_PER_CATEGORY) -> Distribution:
    """Describe categories: the most frequent ones, and all others together."""
    order = sorted(values.items(), key=lambda each: (-each[1], each[0]))[:_MOST_CATEGORIES]
    named = [(name, count) for name, count in order if count >= rows_per_category]
    known = sum(count for _, count in named)
    return Distribution(
        None,
        tuple(name for name, _ in named),
        (*(count for _, count in named), values.total() - known, n_missing),
    )


def stability_index(expected: Sequence[int] | np.ndarray, observed: Sequence[int] | np.ndarray) -> float:
    """Return the population stability index of two samples, counted in the same bins.

    The sum of (q − p) ln(q / p) over the bins, p and q being the bins' shares of either: Kullback and Leibler's
    divergence from each to the other. 0.1 is called a small shift and 0.25 a large one (Siddiqi 2006). To each count
    0.5 is added, for an empty bin would make it infinite.

    Parameters
    ----------
    expected, observed : sequence of int
        Counts.

    Returns
    -------
    float
        0 where one of them has no rows.

    References
    ----------
    N. Siddiqi (2006). Credit Risk Scorecards. Wiley.

    Examples
    --------
    >>> stability_index([50, 50], [50, 50])
    0.0
    >>> round(stability_index([500, 500], [250, 750]), 2)
    0.27
    """
    p, q = _kept(expected, observed)
    if not len(p):
        return 0.0
    p, q = p + _PRIOR, q + _PRIOR
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def chance_index(expected: Sequence[int] | np.ndarray, observed: Sequence[int] | np.ndarray) -> float:
    """Return the index that two samples of one distribution, as large as these, exceed in one case of twenty.

    For n and m rows in B bins it is distributed as (1/n + 1/m) χ² of B − 1 degrees of freedom (Yurdakul and Naranjo
    2020). The quantile is Wilson and Hilferty's.

    Parameters
    ----------
    expected, observed : sequence of int
        Counts.

    Returns
    -------
    float

    References
    ----------
    B. Yurdakul, J. Naranjo (2020). Statistical properties of the population stability index. Journal of Risk Model
    Validation 14 (4).
    """
    p, q = _kept(expected, observed)
    if not len(p):
        return 0.0
    k = max(1, len(p) - 1)
    quantile = k * (1 - 2 / (9 * k) + _Z_95 * (2 / (9 * k)) ** 0.5) ** 3
    return float((1 / p.sum() + 1 / q.sum()) * quantile)


def _kept(expected: Any, observed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Leave out bins that are empty in both, and all bins where one of them has no rows."""
    p, q = np.asarray(expected, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    there = ((p + q) > 0) & p.any() & q.any()
    return p[there], q[there]
