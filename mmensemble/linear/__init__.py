"""Linear models that are solved to convergence, with penalties chosen by cross-validation. Imports no torch."""

from __future__ import annotations

from mmensemble.linear.models import LinearSolution, solve_classes, solve_labels, solve_numbers

__all__ = ["LinearSolution", "solve_classes", "solve_labels", "solve_numbers"]
