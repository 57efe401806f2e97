"""The folds that members share, among the rows that one of them has."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import check_cv


def shared_folds(present: np.ndarray, y: np.ndarray, cv: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split all rows as scikit-learn does, and leave out those that are not present."""
    numbers = np.cumsum(present) - 1
    folds = check_cv(cv, y, classifier=y.dtype.kind != "f").split(np.zeros(len(y)), y)
    return [tuple(numbers[rows[present[rows]]] for rows in fold) for fold in folds]
