"""Checks of parameters, made in `fit`: each one names the parameter, what it may be and what it is."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from transformers import PreTrainedConfig

from mmensemble.exceptions import ConfigurationError, DataError

__all__ = [
    "check_augmentation",
    "check_backbone",
    "check_choice",
    "check_decay",
    "check_fractions",
    "check_integers",
    "check_positions",
    "check_rates",
    "check_target",
    "fitted_or_path",
    "label_text",
]

REAL = (int, float, np.number)


def check_augmentation(estimator: Any, choices: tuple[str, ...]) -> None:
    """Raise `ConfigurationError` for an augmentation that is not some of the choices."""
    value = estimator.augmentation
    if not isinstance(value, (tuple, list)) or not set(value) <= set(choices):
        raise ConfigurationError(f"augmentation must be some of {choices}, not {value!r}")


def check_backbone(backbone: Any, names: Collection[str]) -> None:
    """Raise `ConfigurationError` for a backbone that is none of the names, no transformers config and no callable."""
    built = isinstance(backbone, PreTrainedConfig) or callable(backbone)
    if not built and not (isinstance(backbone, str) and backbone in names):
        raise ConfigurationError(
            f"backbone must be one of {sorted(names)}, a transformers config or a callable, not {backbone!r}"
        )


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raise `ConfigurationError` for a value that is not one of the choices."""
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise ConfigurationError(f"{name} must be one of {tuple(choices)}, not {value!r}")


def check_integers(estimator: Any, **least: int) -> None:
    """Raise `ConfigurationError` for a parameter that is not an integer of at least so much."""
    for name, bound in least.items():
        value = getattr(estimator, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or value < bound:
            raise ConfigurationError(f"{name} must be an integer of at least {bound}, not {value!r}")


def check_decay(estimator: Any) -> None:
    """Raise `ConfigurationError` for a decay of the layers' learning rates that is not in (0, 1]."""
    value = estimator.layer_decay
    if isinstance(value, bool) or not isinstance(value, REAL) or not 0 < value <= 1:
        raise ConfigurationError(f"layer_decay must be a number in (0, 1], not {value!r}")


def check_fractions(estimator: Any, *names: str) -> None:
    """Raise `ConfigurationError` for a parameter that is not a number in [0, 1)."""
    for name in names:
        value = getattr(estimator, name)
        if not isinstance(value, REAL) or not 0 <= value < 1:
            raise ConfigurationError(f"{name} must be a number in [0, 1), not {value!r}")


def check_positions(max_length: int, positions: int | None) -> None:
    """Raise `ConfigurationError` where a network has fewer positions than `max_length`; None is any number of them."""
    if positions is not None and max_length > positions:
        raise ConfigurationError(f"max_length={max_length} is more than the {positions} positions that the network has")


def check_rates(estimator: Any) -> None:
    """Raise `ConfigurationError` for a learning rate that is not above 0, or a weight decay below 0."""
    rate, decay = estimator.learning_rate, estimator.weight_decay
    if rate is not None and not (isinstance(rate, REAL) and rate > 0 and math.isfinite(rate)):
        raise ConfigurationError(f"learning_rate must be a number above 0, not {rate!r}")
    if not (isinstance(decay, REAL) and decay >= 0 and math.isfinite(decay)):
        raise ConfigurationError(f"weight_decay must be a number of at least 0, not {decay!r}")


def check_target(estimator: Any, y: Any) -> None:
    """Raise `DataError` where `fit` is called without a target, in the words that scikit-learn looks for."""
    if y is None:
        raise DataError(f"{type(estimator).__name__}.fit requires y to be passed, but the target y is None")


def fitted_or_path(name: str, value: Any, model_class: type) -> Any:
    """Return the fitted estimator of a class, unfrozen, or the path, that is the value of a parameter.

    Raises
    ------
    ConfigurationError
        If it is neither, or not fitted.
    """
    kind = model_class.__name__
    if isinstance(value, FrozenEstimator):
        value = value.estimator
    if isinstance(value, model_class):
        if not hasattr(value, "module_"):
            raise ConfigurationError(
                f"{name} is a {kind} that is not fitted. If it was, clone forgot what it had learned: give "
                f"{name}=sklearn.frozen.FrozenEstimator(the fitted one)"
            )
    elif not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(f"{name} must be a fitted {kind}, a folder or a hub id, not {value!r}")
    return value


def label_text(label: Any, labels: Mapping[Any, str] | Sequence[str] | None, classes: np.ndarray) -> str:
    """Return how a class is written: by its own name, or as the parameter `labels` says.

    Raises
    ------
    ConfigurationError
        If `labels` does not say it.
    """
    if labels is None:
        return str(label)
    known: Mapping[Any, str]
    if isinstance(labels, Mapping):
        known = labels
    elif all(isinstance(each, int) for each in classes.tolist()):
        known = dict(enumerate(labels))
    elif len(labels) == len(classes):
        known = dict(zip(classes.tolist(), labels, strict=True))
    else:
        raise ConfigurationError(f"labels has {len(labels)} words for {len(classes)} classes")
    if label not in known:
        raise ConfigurationError(f"labels does not say how the class {label!r} is written")
    return str(known[label])
