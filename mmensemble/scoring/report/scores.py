"""What is compared of a model's scores: predictions, and how sure they are. Imports pyarrow on first use only."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.scoring.report.measures import category_name
from mmensemble.scoring.report.profile import Measure
from mmensemble.tasks import Multilabel, Multioutput, Task

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["measured_scores"]


def measured_scores(task: Task, table: pa.Table) -> dict[Measure, Any]:
    """Return the predictions and confidences of the rows of a table of scores that have some.

    Parameters
    ----------
    task : Task
    table : pyarrow.Table
        With the columns of `score_file`, of `top_k` classes too.

    Returns
    -------
    dict of Measure to ndarray of float64, or Counter
        Of each column of predictions its numbers, or how often each class is there. The confidence is the largest
        probability, or share of votes, of the classes of a column.
    """
    import pyarrow.compute as pc

    scored = table.filter(table[task.prediction_columns()[0]].is_valid())
    measured: dict[Measure, Any] = {}
    for name in task.prediction_columns():
        cells = scored[name]
        if task.classes is None:
            measured[Measure(name, "number")] = cells.to_numpy().astype(np.float64)
        else:
            counted = pc.value_counts(cells).to_pylist()
            measured[Measure(name, "category")] = Counter(
                {category_name(each["values"]): each["counts"] for each in counted}
            )
        probabilities = [scored[column].to_numpy() for column in _probabilities(task, name, table.column_names)]
        if probabilities:
            best = np.max(probabilities, axis=0)
            independent = isinstance(task, Multilabel)
            measured[Measure(name, "confidence")] = np.maximum(best, 1 - best) if independent else best
    return measured


def _probabilities(task: Task, prediction: str, names: list[str]) -> list[str]:
    """Return the columns that hold the probabilities behind a column of predictions, or the largest of them."""
    if task.classes is None:
        return []
    if "top_1_probability" in names:
        return ["top_1_probability"]
    columns = task.probability_columns()
    if isinstance(task, Multioutput):
        number = task.prediction_columns().index(prediction)
        return columns[task.bounds[number] : task.bounds[number + 1]]
    if isinstance(task, Multilabel):
        return columns and [columns[task.prediction_columns().index(prediction)]]
    return columns
