"""What explaining a text and an image have in common: the score that is explained, and a network to differentiate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from mmensemble.exceptions import ConfigurationError, MissingDependencyError
from mmensemble.learning.outputs import outputs_of
from mmensemble.tasks import Classification, Multilabel
from mmensemble_estimators.base.estimator import TorchEstimator, check_has_head
from mmensemble_estimators.base.modality import Modality
from mmensemble_estimators.base.rows import encode, run
from mmensemble_estimators.training.loop import resolve_device
from mmensemble_estimators.training.targets import NumberTarget

__all__ = [
    "N_STEPS",
    "captum_attr",
    "check_explainable",
    "explained_outputs",
    "gradients",
    "pyplot",
    "score_titles",
    "unit",
]

N_STEPS = 50


def captum_attr() -> Any:
    """Return ``captum.attr``, or raise the error that names the extra."""
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise MissingDependencyError("captum", "inspect") from error
    return captum.attr


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, or raise the error that names the extra."""
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "inspect") from error
    return plt


def check_explainable(estimator: Any, modality: type[Modality], n_steps: int) -> None:
    """Raise the error that says why an estimator cannot be explained."""
    if not isinstance(estimator, TorchEstimator) or not isinstance(estimator.modality, modality):
        name = modality.name.capitalize()
        raise ConfigurationError(
            f"a {name}Classifier or {name}Regressor is expected, not {type(estimator).__name__}; of a "
            "composition, take a member from named_estimators_"
        )
    check_has_head(estimator)
    if n_steps < 1:
        raise ConfigurationError(f"n_steps must be at least 1, not {n_steps}")


@contextmanager
def gradients(estimator: TorchEstimator) -> Iterator[tuple[nn.Module, torch.device]]:
    """Lend the network, ready to be differentiated by its inputs."""
    device = resolve_device(estimator.device)
    network = estimator.module_.to(device).eval()
    # cuDNN differentiates an LSTM in training mode only, which dropout forbids here.
    with torch.backends.cudnn.flags(enabled=False), torch.enable_grad():
        yield network, device


def explained_outputs(estimator: TorchEstimator, encoded: Any, target: Any) -> np.ndarray:
    """Return the position of the raw output to explain in each row."""
    task = estimator.target_.task
    if target is None:
        if task.width == 1:
            return np.zeros(len(encoded), dtype=np.int64)
        if not isinstance(task, (Classification, Multilabel)):
            raise ConfigurationError(f"target must say which of the {task.width} outputs is explained")
        if len(encoded) == 0:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(run(estimator, estimator.module_, encoded)).argmax(axis=1)
    wanted = [target] * len(encoded) if np.ndim(target) == 0 else list(target)
    if len(wanted) != len(encoded):
        raise ConfigurationError(f"target has {len(wanted)} entries for {len(encoded)} rows")
    names = task.classes.tolist() if isinstance(task, Classification) else list(range(task.width))
    for name in wanted:
        if name not in names:
            hint = ""
            if names == list(range(len(names))):
                hint = "; a member of a composition knows the classes by their numbers in the composition's classes_"
            raise ConfigurationError(f"there is no target {name!r}; there are {names}{hint}")
    return np.array([names.index(name) for name in wanted], dtype=np.int64)


def unit(estimator: TorchEstimator, output: int) -> float:
    """Return what one of the raw output is worth: a regressor is trained on standardised targets."""
    target = estimator.target_
    return float(target.scale[output]) if isinstance(target, NumberTarget) else 1.0


def score_titles(estimator: TorchEstimator, cells: Any, target: Any) -> list[str] | None:
    """Say what is explained, and how probable the estimator finds it."""
    outputs = explained_outputs(estimator, encode(estimator, cells), target)
    task = estimator.target_.task
    values = outputs_of(estimator, task, cells)[np.arange(len(outputs)), outputs]
    if isinstance(task, Classification):
        return [f"{label}  {value:.2f}" for label, value in zip(task.classes[outputs], values, strict=True)]
    if task.width == 1:
        return [f"{value:.4g}" for value in values]
    return [f"output {output}: {value:.4g}" for output, value in zip(outputs, values, strict=True)]
