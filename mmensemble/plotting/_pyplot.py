"""matplotlib, or the error that names the extra which brings it."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.exceptions import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.image import AxesImage

__all__ = ["ink_on", "pyplot", "score_name"]


def pyplot() -> ModuleType:
    """Return ``matplotlib.pyplot``.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "plot") from error
    return plt


def ink_on(image: AxesImage, value: float) -> str:
    """Return the colour, black or white, in which text can be read on a cell of a heat map."""
    red, green, blue, _ = image.to_rgba(np.array([value]))[0]
    # Relative luminance of ITU-R BT.709, on the encoded values, which is close enough here.
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"


def score_name(estimator: Any, scoring: Any) -> str:
    """Return what an axis calls a score."""
    if isinstance(scoring, str):
        return scoring.replace("_", " ")
    if scoring is not None:
        return "score"
    from sklearn.base import is_classifier, is_regressor

    return "accuracy" if is_classifier(estimator) else "R²" if is_regressor(estimator) else "score"
