"""What a model's outputs mean: classes, labels, numbers, texts. Imports numpy only."""

from __future__ import annotations

from mmensemble.tasks.base import Task, names_or_numbers
from mmensemble.tasks.classes import (
    Classification,
    Multilabel,
    Multioutput,
    Thresholded,
    Votes,
    one_of_classes,
    placement,
)
from mmensemble.tasks.numbers import Regression
from mmensemble.tasks.reading import task_from_dict
from mmensemble.tasks.texts import Generation, specs_from_dict

__all__ = [
    "Classification",
    "Generation",
    "Multilabel",
    "Multioutput",
    "Regression",
    "Task",
    "Thresholded",
    "Votes",
    "names_or_numbers",
    "one_of_classes",
    "placement",
    "specs_from_dict",
    "task_from_dict",
]
