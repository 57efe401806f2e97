"""Language models, and what classifies by one, as folders; the language model's is one that transformers reads too."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from sklearn.frozen import FrozenEstimator

from mmensemble.tasks import Classification, task_from_dict
from mmensemble_estimators.backbones.writers.causal_folder import read_network, read_prompts, write_causal
from mmensemble_estimators.protocols import LanguageModel, PromptClassifier
from mmensemble_estimators.storage.folder import STATE, params_of, read_state, reading, replacing, restore, state_text

__all__ = ["load_language_model", "load_prompt_classifier", "save_language_model", "save_prompt_classifier"]

# Tokens that are taken for `max_length` of a network that allows more.
LOADED_LENGTH = 1024
# Where a classifier's language model is, in its folder.
LANGUAGE_MODEL = "language_model"

L = TypeVar("L", bound=LanguageModel)
C = TypeVar("C", bound=PromptClassifier)


def save_language_model(model: LanguageModel, folder: Path) -> None:
    """Write a language model; see `CausalLM.save`."""
    text = state_text(_without_estimator(model, "pretrained"), end_ids=model.end_ids_)
    with replacing(folder, text) as draft:
        write_causal(draft, model.module_, model.preprocessor_, model.end_ids_)


def load_language_model(cls: type[L], folder: str | Path) -> L:
    """Read a language model, or take one of transformers as it is; see `CausalLM.load`."""
    if not (Path(folder) / STATE).exists():
        network = read_network(folder)
        max_length = min(network.max_length or LOADED_LENGTH, LOADED_LENGTH)
        model = cls(pretrained=os.fspath(folder), max_length=max_length)
        model.preprocessor_, model.end_ids_ = read_prompts(folder, max_length)
        model.module_ = network
        model.n_features_in_ = 1
        return model
    state = read_state(cls, Path(folder))
    with reading(Path(folder)):
        model = cls(**params_of(state))
        restore(model, state)
        model.end_ids_ = [int(end) for end in state["end_ids"]]
        model.module_ = read_network(folder)
    return model


def save_prompt_classifier(classifier: PromptClassifier, folder: Path) -> None:
    """Write a classifier and its language model; see `ZeroShotTextClassifier.save`."""
    text = state_text(
        _without_estimator(classifier, "language_model"),
        task=Classification(classifier.classes_).to_dict(),
        prior=classifier.class_prior_.tolist(),
        examples=classifier.examples_,
        bias=classifier.bias_.tolist(),
        label_ids=classifier.label_ids_,
        prefix_ids=classifier.prefix_ids_,
    )
    with replacing(folder, text) as draft:
        save_language_model(classifier.language_model_, draft / LANGUAGE_MODEL)


def load_prompt_classifier(
    cls: type[C], folder: Path, model_class: type[LanguageModel], rebuild: Callable[[C], Any]
) -> C:
    """Read a classifier and its language model; see `ZeroShotTextClassifier.load`.

    Parameters
    ----------
    cls : class
    folder : Path
    model_class : class
        Of the language model.
    rebuild : callable
        Classifier → its network.
    """
    place = folder / LANGUAGE_MODEL
    state = read_state(cls, folder)
    read_state(model_class, place)
    with reading(folder):
        params, model = params_of(state), load_language_model(model_class, place)
        if params["language_model"] is None:
            params["language_model"] = FrozenEstimator(model)
        classifier = cls(**params)
        restore(classifier, state)
        classifier.language_model_ = model
        classifier.classes_ = classes = task_from_dict(state["task"]).classes
        classifier.class_prior_, classifier.bias_ = (np.array(state[name], dtype=float) for name in ("prior", "bias"))
        classifier.examples_ = state["examples"]
        classifier.label_ids_ = [[int(token) for token in label] for label in state["label_ids"]]
        classifier.prefix_ids_ = [int(token) for token in state["prefix_ids"]]
        shapes = {classifier.class_prior_.shape, classifier.bias_.shape, (len(classifier.label_ids_),)}
        if shapes != {(len(classes),)} or not isinstance(classifier.examples_, list):
            raise ValueError("prior, bias, label_ids or examples are not those of the classes")
        classifier.module_ = rebuild(classifier)
    return classifier


def _without_estimator(estimator: Any, parameter: str) -> Any:
    """Return an estimator whose parameter is None where it is an estimator, which has no JSON form."""
    bare = copy.copy(estimator)
    if not isinstance(getattr(bare, parameter), (str, os.PathLike)):
        setattr(bare, parameter, None)
    return bare
