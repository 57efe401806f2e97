"""Trees, forests and boosted trees as graphs, of scikit-learn, xgboost, lightgbm and catboost.

One writer of tree ensembles serves them all: each module reads the trees of one library into `Tree`, with comparisons
that fall as that library's own do. None of the libraries is imported; see `class_named`.
"""

from __future__ import annotations

from mmensemble.converters.trees import catboost as _catboost  # noqa: F401
from mmensemble.converters.trees import lightgbm as _lightgbm  # noqa: F401
from mmensemble.converters.trees import scikit_learn as _scikit_learn  # noqa: F401
from mmensemble.converters.trees import xgboost as _xgboost  # noqa: F401

__all__: list[str] = []
