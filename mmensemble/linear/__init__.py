"""Linear models that are solved to convergence, with penalties chosen by cross-validation. Imports no torch."""

from __future__ import annotations

from mmensemble.linear.features import pareto_scale
from mmensemble.linear.models import LinearSolution, solve_classes, solve_labels, solve_numbers

__all__ = ["LinearSolution", "pareto_scale", "solve_classes", "solve_labels", "solve_numbers"]
