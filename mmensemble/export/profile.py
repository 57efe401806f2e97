"""The profile that an export puts into its file: how the rows are distributed that it was given."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from mmensemble.frames import column_cells, frame_with, n_rows
from mmensemble.scoring.columns import ScoreColumns
from mmensemble.scoring.file_job import output_schema, output_table
from mmensemble.scoring.manifest import Feed
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.report.measures import measured_columns
from mmensemble.scoring.report.profile import (
    CONFIDENCE,
    Distribution,
    Measure,
    Profile,
    categories_of,
    numbers_of,
)
from mmensemble.scoring.report.scores import measured_scores

__all__ = ["profile_of"]

# Rows that are scored, and pictures that are looked into, at most, and seconds of scoring: an export is not to take as
# long as a night's job.
_SCORED_ROWS = 2048
_SCORED_SECONDS = 10.0


def profile_of(X: Any, source: str, feeds: Sequence[Feed], path: Path) -> Profile:
    """Describe some rows, and what a model file says of them.

    Parameters
    ----------
    X : frame, dict of columns, or sequence of cells
    source : {"verify", "profile"}
        The argument that they came by.
    feeds : sequence of Feed
        What the file reads.
    path : Path
        The file, in float32.

    Returns
    -------
    Profile
        Rows that the file cannot score do not count among the predictions.
    """
    rows = frame_with(X, list(dict.fromkeys(column for feed in feeds for column in feed.columns)))
    inputs: dict[Measure, Distribution] = {}
    for measure, measured in measured_columns(feeds, most_files=_SCORED_ROWS).items():
        found = measured(column_cells(rows, measure.column))
        inputs[measure] = (
            categories_of(found.values, found.n_missing)
            if measure.what == "category"
            else numbers_of(found.values, found.n_missing)
        )
    predictions, n_scored = _predictions(rows, path)
    return Profile(source, n_rows(rows), n_scored, inputs, predictions)


def _predictions(rows: dict[str, Any], path: Path) -> tuple[dict[Measure, Distribution], int]:
    import pyarrow as pa

    # In random order, so that those for which there is time are like the others.
    chosen = np.random.default_rng(0).permutation(n_rows(rows))[:_SCORED_ROWS].tolist()
    cells = {column: column_cells(rows, column) for column in rows}
    added = ScoreColumns(OnnxPredictor(path, device="cpu"))
    windows = added.model.score_batches(
        added.model.windows({c: [of[row] for row in chosen] for c, of in cells.items()})
    )
    schema = output_schema(pa.schema([]), (), added)
    tables, started = [schema.empty_table()], time.perf_counter()
    with closing(windows):
        for window in windows:
            tables.append(output_table([], window, added, schema))
            if time.perf_counter() - started > _SCORED_SECONDS:
                break
    scores = pa.concat_tables(tables)
    predictions, n_scored = {}, 0
    for measure, values in measured_scores(added.model.manifest.task, scores).items():
        n_scored = values.total() if isinstance(values, Counter) else len(values)
        if measure.what == "category":
            predictions[measure] = categories_of(values, 0, rows_per_category=1)
        else:
            edges = CONFIDENCE.edges if measure.what == "confidence" else None
            predictions[measure] = numbers_of(np.asarray(values, dtype=np.float64), 0, edges)
    return predictions, n_scored
