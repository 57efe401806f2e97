"""Estimators that predict as folders: what they learned, and the weights of encoder and head."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from mmensemble_estimators.backbones.network import Network
from mmensemble_estimators.protocols import Predictor
from mmensemble_estimators.storage.folder import (
    architecture_of,
    params_of,
    read_state,
    reading,
    rebuilt_encoder,
    restore,
    state_text,
    with_weights,
    write,
)
from mmensemble_estimators.training.targets import target_from_dict

__all__ = ["load_predictor", "save_predictor"]

P = TypeVar("P", bound=Predictor)


def save_predictor(estimator: Predictor, folder: Path) -> None:
    """Write an estimator; see `TorchEstimator.save`."""
    text = state_text(
        estimator,
        architecture=architecture_of(estimator, estimator.module_.encoder),
        normalised=estimator.module_.head_network().norm is not None,
        target=estimator.target_.to_dict(),
    )
    write(folder, text, estimator.module_)


def load_predictor(cls: type[P], folder: Path, backbone: object) -> P:
    """Read an estimator; see `TorchEstimator.load`."""
    state = read_state(cls, folder)
    with reading(folder):
        estimator = cls(**params_of(state, backbone))
        estimator.target_ = target = target_from_dict(state["target"])
        restore(estimator, state)
        normalised = state["format_version"] > 1 and state["normalised"]
        if not isinstance(normalised, bool):
            raise TypeError(f"normalised is {normalised!r}")
        estimator.module_ = with_weights(
            lambda: Network(rebuilt_encoder(estimator, state["architecture"]), target.n_outputs, normalised=normalised),
            folder,
        )
    return estimator
