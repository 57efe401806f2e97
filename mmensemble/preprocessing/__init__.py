"""Host-side preprocessing: cells → batched arrays, without torch, and back from the JSON of a model file."""

from __future__ import annotations

from mmensemble.frames import Cells, is_missing, leaf_cells, missing_cells
from mmensemble.preprocessing.audio import AudioPreprocessor
from mmensemble.preprocessing.base import PRESENT, Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.categories import CategoryPreprocessor
from mmensemble.preprocessing.image import ImagePreprocessor
from mmensemble.preprocessing.n_grams import NGramPreprocessor
from mmensemble.preprocessing.prompt import PromptPreprocessor
from mmensemble.preprocessing.registry import (
    preprocessor_from_dict,
    preprocessor_to_dict,
    register_preprocessor,
)
from mmensemble.preprocessing.tabular import TabularPreprocessor
from mmensemble.preprocessing.terms import HashedTermsPreprocessor, TermsPreprocessor
from mmensemble.preprocessing.text import TextPreprocessor
from mmensemble.preprocessing.video import VideoPreprocessor

__all__ = [
    "PRESENT",
    "AudioPreprocessor",
    "CategoryPreprocessor",
    "Cells",
    "Encoded",
    "HashedTermsPreprocessor",
    "ImagePreprocessor",
    "NGramPreprocessor",
    "Preprocessor",
    "PromptPreprocessor",
    "TabularPreprocessor",
    "TensorSpec",
    "TermsPreprocessor",
    "TextPreprocessor",
    "VideoPreprocessor",
    "is_missing",
    "leaf_cells",
    "missing_cells",
    "preprocessor_from_dict",
    "preprocessor_to_dict",
    "register_preprocessor",
]
