"""What a model's outputs mean: classes, labels, numbers, texts. Imports numpy only."""

from __future__ import annotations

from mmensemble.tasks.base import Task, names_or_numbers
from mmensemble.tasks.classes import (
    Classification,
    Decided,
    Multilabel,
    MultilabelVotes,
    Multioutput,
    Thresholded,
    Votes,
    placement,
)
from mmensemble.tasks.numbers import Regression
from mmensemble.tasks.reading import task_from_dict
from mmensemble.tasks.texts import Generation

__all__ = [
    "Classification",
    "Decided",
    "Generation",
    "Multilabel",
    "MultilabelVotes",
    "Multioutput",
    "Regression",
    "Task",
    "Thresholded",
    "Votes",
    "names_or_numbers",
    "placement",
    "task_from_dict",
]
