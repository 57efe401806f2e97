"""What every torch estimator of one modality shares: what it reads, and how it is read from an older pickle."""

from __future__ import annotations

from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils import Tags

from mmensemble.preprocessing import Preprocessor
from mmensemble_estimators.base.modality import Modality

__all__ = ["TorchLeaf"]

# What attributes are called in the pickles of version 0.1.0.
RENAMED = {
    "_target": "target_",
    "_start_ids": "start_ids_",
    "_end_ids": "end_ids_",
    "_language_model_": "language_model_",
    "_label_ids": "label_ids_",
    "_prefix_ids": "prefix_ids_",
}
# Parameters that came later, with the value that says what was done before there were any.
ADDED = {"n_grams": None}


class TorchLeaf(BaseEstimator):
    """A scikit-learn estimator of one modality around a torch network."""

    modality: ClassVar[Modality]

    batch_size: int
    device: str

    module_: Any
    preprocessor_: Preprocessor

    def __setstate__(self, state: dict[str, Any]) -> None:
        added = {name: value for name, value in ADDED.items() if name in self._get_param_names()}
        super().__setstate__({**added, **{RENAMED.get(name, name): value for name, value in state.items()}})

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = self.modality.of_strings
        tags.input_tags.allow_nan = True
        return tags
