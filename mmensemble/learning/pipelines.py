"""What a pipeline does when it predicts. Imports scikit-learn's type only."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline

__all__ = ["prediction_steps"]


def prediction_steps(pipeline: Pipeline) -> list[tuple[str, Any]]:
    """Return the steps that rows pass through on their way to a prediction.

    A sampler of imbalanced-learn, which has a method ``fit_resample``, changes the rows of `fit` alone.
    """
    return [
        (name, step)
        for name, step in pipeline.steps
        if step not in (None, "passthrough") and not hasattr(step, "fit_resample")
    ]
