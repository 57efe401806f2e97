"""Tasks whose outputs are numbers. Imports numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mmensemble.tasks.base import Task, names_or_numbers

__all__ = ["Regression"]


class Regression(Task):
    """One or several numbers.

    Parameters
    ----------
    n_targets : int
    one_dimensional : bool
        Whether predictions are (n,) rather than (n, 1).
    names : sequence of str, default=None
        Of the targets; None numbers them.
    """

    name = "regression"
    output = "predictions"

    def __init__(self, n_targets: int, *, one_dimensional: bool, names: Sequence[str] | None = None) -> None:
        self.width = n_targets
        self.one_dimensional = one_dimensional
        self.names = names_or_numbers(n_targets, names)

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        return outputs[:, 0] if self.one_dimensional else outputs

    def prediction_columns(self) -> list[str]:
        return ["prediction"] if self.one_dimensional else [f"prediction_{name}" for name in self.names]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "n_targets": self.width,
            "one_dimensional": self.one_dimensional,
            "names": self.names,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        return cls(state["n_targets"], one_dimensional=state["one_dimensional"], names=state.get("names"))
