"""Host-side preprocessing: cells → batched arrays, without torch, and back from the JSON of a model file."""

from __future__ import annotations

from typing import Any

from mmensemble.exceptions import ModelFileError
from mmensemble.frames import Cells, is_missing, missing_cells
from mmensemble.preprocessing.audio import AudioPreprocessor
from mmensemble.preprocessing.base import PRESENT, Encoded, Preprocessor, TensorSpec
from mmensemble.preprocessing.categories import CategoryPreprocessor
from mmensemble.preprocessing.image import ImagePreprocessor
from mmensemble.preprocessing.prompt import PromptPreprocessor
from mmensemble.preprocessing.tabular import TabularPreprocessor
from mmensemble.preprocessing.terms import TermsPreprocessor
from mmensemble.preprocessing.text import TextPreprocessor
from mmensemble.preprocessing.video import VideoPreprocessor

__all__ = [
    "PRESENT",
    "AudioPreprocessor",
    "CategoryPreprocessor",
    "Cells",
    "Encoded",
    "ImagePreprocessor",
    "Preprocessor",
    "PromptPreprocessor",
    "TabularPreprocessor",
    "TensorSpec",
    "TermsPreprocessor",
    "TextPreprocessor",
    "VideoPreprocessor",
    "is_missing",
    "missing_cells",
    "preprocessor_from_dict",
]

_KINDS: dict[str, type[Preprocessor]] = {
    cls.kind: cls
    for cls in (
        TextPreprocessor,
        PromptPreprocessor,
        ImagePreprocessor,
        AudioPreprocessor,
        VideoPreprocessor,
        TabularPreprocessor,
        TermsPreprocessor,
        CategoryPreprocessor,
    )
}


def preprocessor_from_dict(state: dict[str, Any]) -> Preprocessor:
    """Rebuild any preprocessor from its `Preprocessor.to_dict`.

    Raises
    ------
    ModelFileError
        If its kind is unknown to this version.
    """
    if state.get("kind") not in _KINDS:
        raise ModelFileError(
            f"the preprocessor kind {state.get('kind')!r} is unknown here; this version knows {sorted(_KINDS)}"
        )
    return _KINDS[state["kind"]].from_dict(state)
