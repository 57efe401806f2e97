"""Any task, back from the JSON of a model file."""

from __future__ import annotations

from typing import Any

from mmensemble.exceptions import ModelFileError
from mmensemble.tasks.base import Task
from mmensemble.tasks.classes import ONE_OF_CLASSES, Multilabel, MultilabelVotes, Multioutput
from mmensemble.tasks.numbers import Regression
from mmensemble.tasks.texts import Generation

__all__ = ["task_from_dict"]

_OTHERS: tuple[type[Task], ...] = (Multilabel, MultilabelVotes, Multioutput, Regression, Generation)
_KINDS: dict[str, type[Task]] = {**ONE_OF_CLASSES, **{kind.name: kind for kind in _OTHERS}}


def task_from_dict(state: dict[str, Any]) -> Task:
    """Rebuild any task from its `Task.to_dict`.

    Raises
    ------
    ModelFileError
        If its name is unknown to this version.
    """
    name = state["name"]
    if name not in _KINDS:
        raise ModelFileError(f"the task {name!r} is unknown to this version; upgrade mmensemble on this machine")
    return _KINDS[name].from_dict(state)
