"""Estimators that read a row and write a text about it as folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.writers.encoder_decoder import EncoderDecoder
from mmensemble_estimators.protocols import Writer
from mmensemble_estimators.storage.folder import (
    architecture_of,
    params_of,
    read_state,
    reading,
    restore,
    state_text,
    with_weights,
    write,
)

__all__ = ["load_writer", "save_writer"]

W = TypeVar("W", bound=Writer)


def save_writer(estimator: Writer, folder: Path) -> None:
    """Write an estimator; see `EncoderDecoderGenerator.save`."""
    text = state_text(
        estimator,
        architecture={
            "encoder": architecture_of(estimator, estimator.module_.encoder),
            "decoder": estimator.module_.decoder.architecture(),
        },
        target_preprocessor=estimator.target_preprocessor_.to_dict(),
        start_ids=list(estimator.start_ids_),
        end_ids=estimator.end_ids_,
    )
    write(folder, text, estimator.module_)


def load_writer(cls: type[W], folder: Path, backbone: Any, rebuild: Callable[[W, dict[str, Any]], EncoderDecoder]) -> W:
    """Read an estimator; see `EncoderDecoderGenerator.load`.

    Parameters
    ----------
    cls : class
    folder : Path
    backbone : callable or None
    rebuild : callable
        Estimator and architecture → its untrained network.
    """
    state = read_state(cls, folder)
    with reading(folder):
        estimator = cls(**params_of(state, backbone))
        restore(estimator, state)
        estimator.target_preprocessor_ = TextPreprocessor.from_dict(state["target_preprocessor"])
        estimator.start_ids_ = [int(token) for token in state["start_ids"]]
        estimator.end_ids_ = [int(token) for token in state["end_ids"]]
        estimator.module_ = with_weights(lambda: rebuild(estimator, state["architecture"]), folder)
    return estimator
