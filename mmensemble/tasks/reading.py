"""Any task, back from the JSON of a model file."""

from __future__ import annotations

from typing import Any

from mmensemble.exceptions import ModelFileError
from mmensemble.tasks.base import Task
from mmensemble.tasks.classes import Classification, Multilabel, Multioutput, Thresholded, Votes, one_of_classes
from mmensemble.tasks.numbers import Regression
from mmensemble.tasks.texts import Generation, specs_from_dict

__all__ = ["task_from_dict"]


def task_from_dict(state: dict[str, Any]) -> Task:
    """Rebuild any task from its `Task.to_dict`.

    Raises
    ------
    ModelFileError
        If its name is unknown to this version.
    """
    name = state["name"]
    if name in (Classification.name, Thresholded.name, Votes.name):
        return one_of_classes(state)
    if name == Multilabel.name:
        return Multilabel(state["n_labels"], state.get("names"))
    if name == Multioutput.name:
        return Multioutput([one_of_classes(column) for column in state["columns"]], state.get("names"))
    if name == Regression.name:
        return Regression(state["n_targets"], one_dimensional=state["one_dimensional"], names=state.get("names"))
    if name == Generation.name:
        rest = {key: value for key, value in state.items() if key not in ("name", "state", "encoded")}
        return Generation(**rest, state=specs_from_dict(state["state"]), encoded=specs_from_dict(state["encoded"]))
    raise ModelFileError(f"the task {name!r} is unknown to this version; upgrade mmensemble on this machine")
