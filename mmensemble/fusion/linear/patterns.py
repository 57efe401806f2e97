"""The models of rows that have some of the modalities. Imports numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmensemble.fusion.linear.blocks import Block, solve
from mmensemble.fusion.strategy import Member
from mmensemble.learning.columns import as_list
from mmensemble.tasks import Task

__all__ = ["Pattern", "solve_pattern", "ways"]


@dataclass(frozen=True)
class Pattern:
    """The model of rows that have some of the modalities.

    Parameters
    ----------
    members : tuple of int
        Those that such a row has.
    coef : dict of int to ndarray of float, shape (n_features, width)
        Of those of them that are not off.
    intercept : ndarray of float, shape (width,)
    missing : dict of int to ndarray of float, shape (width,)
        What is added where one of the other members is missing.
    """

    members: tuple[int, ...]
    coef: dict[int, np.ndarray]
    intercept: np.ndarray
    missing: dict[int, np.ndarray]


def ways(members: Sequence[Member]) -> list[tuple[int, ...]]:
    """Return which members rows may have together: each modality alone, all but each, all; the fewest first."""
    modalities: dict[tuple[str, ...], list[int]] = {}
    for number, member in enumerate(members):
        modalities.setdefault(tuple(sorted(as_list(member.columns))), []).append(number)
    everything = range(len(members))
    found = [tuple(alone) for alone in modalities.values()]
    found += [tuple(m for m in everything if m not in alone) for alone in modalities.values()]
    return sorted({way for way in [*found, tuple(everything)] if way}, key=lambda way: (len(way), way))


def solve_pattern(
    pattern: tuple[int, ...],
    read: tuple[int, ...],
    blocks: Sequence[Block],
    variances: np.ndarray,
    task: Task,
    y: np.ndarray,
    weight: np.ndarray,
) -> Pattern:
    """Solve the model of a pattern for all rows that have any of its members.

    Parameters
    ----------
    pattern : tuple of int
    read : tuple of int
        The members of the pattern that are not off.
    blocks : sequence of Block
        Of all members.
    variances : ndarray of float, shape (n_members,)
        The inverse of each one's penalty, for rows with a mean square of 1; 0 is off.
    task : Task
    y : ndarray
        As `for_members` gives it.
    weight : ndarray of float, shape (n,)
    """
    rows = np.flatnonzero(np.any([blocks[m].present for m in pattern], axis=0) & (weight > 0))
    features = [blocks[m].among(rows) for m in read]
    scales = [np.full(blocks[m].features.shape[1], blocks[m].size / variances[m]) for m in read]
    missing = [m for m, block in enumerate(blocks) if variances[m] and not block.present[rows].all()]
    if missing:
        features.append(np.column_stack([~blocks[m].present[rows] for m in missing]).astype(np.float64))
        scales.append(1 / variances[missing])
    if not features:
        features, scales = [np.zeros((len(rows), 1))], [np.ones(1)]
    coef, intercept = solve(features, scales, task, y[rows], weight[rows])
    parts = np.split(coef, np.cumsum([len(scale) for scale in scales]))
    of_members = dict(zip(read, parts, strict=False))
    for m, part in of_members.items():
        if isinstance(blocks[m].features, np.ndarray):
            intercept = intercept - blocks[m].mean @ part
    # The constant of a modality that the model reads counts in fitting only: its rows go to another model.
    others = {m: parts[len(read)][place] for place, m in enumerate(missing) if m not in pattern}
    return Pattern(pattern, of_members, intercept, others)
