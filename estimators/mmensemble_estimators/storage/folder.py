"""A fitted estimator as a folder: ``estimator.json``, ``weights.safetensors`` and their digests, ``SHA256SUMS``.

Nothing is pickled, no code is run.

To change the format: raise `FORMAT_VERSION`, teach what loads in this room to read the older version, and add folders
of the older version to ``tests/old_files``, by its ``write_files.py``. A reader refuses a version newer than its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import AutoConfig, PreTrainedConfig

from mmensemble._version import __version__
from mmensemble.exceptions import ConfigurationError, ModelFileError
from mmensemble.preprocessing import preprocessor_from_dict
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.protocols import Leaf, TrainedLeaf
from mmensemble_estimators.storage.checksums import SUMS, check_sums, write_sums

__all__ = [
    "STATE",
    "architecture_of",
    "params_of",
    "read_state",
    "reading",
    "rebuilt_encoder",
    "replacing",
    "restore",
    "state_text",
    "with_weights",
    "write",
]

# 2: a head may normalise its embedding, "normalised", and a text may come with n-grams. In 1 neither was so.
# 3: there are digests.
FORMAT_VERSION = 3
STATE, WEIGHTS = "estimator.json", "weights.safetensors"

M = TypeVar("M", bound=nn.Module)


def architecture_of(estimator: TrainedLeaf, encoder: Any) -> dict[str, Any] | None:
    """Return what rebuilds an encoder, as JSON values; None of a callable `backbone`'s, which is code."""
    if callable(estimator.backbone) and estimator.pretrained is None:
        return None
    architecture: dict[str, Any] = encoder.architecture()
    return architecture


def rebuilt_encoder(estimator: TrainedLeaf, architecture: dict[str, Any] | None) -> Encoder:
    """Return the untrained encoder of an estimator with a preprocessor from what `architecture_of` returned."""
    modality, preprocessor = estimator.modality, estimator.preprocessor_
    encoder: Encoder
    if architecture is None:
        encoder = modality.build_encoder(estimator, preprocessor)
    else:
        encoder = modality.rebuild_encoder(architecture, preprocessor)
    return encoder


def write(folder: Path, text: str, module: nn.Module) -> None:
    """Write what `state_text` returned, and the weights of a network, both or neither."""
    with replacing(folder, text) as draft:
        save_model(module, str(draft / WEIGHTS))


@contextmanager
def replacing(folder: Path, text: str) -> Iterator[Path]:
    """Write what `state_text` returned, and what the block writes into the draft that it gets, all or nothing.

    Raises
    ------
    ConfigurationError
        If the folder has files in it, and none of an earlier `save`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others and STATE not in others:
        raise ConfigurationError(
            f"{folder} holds other files, {others[0]} among them, which saving might replace; name a new or an empty "
            "folder, or one that save wrote before"
        )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as name:
        draft = Path(name)
        yield draft
        (draft / STATE).write_text(text, encoding="utf-8")
        files = [file.relative_to(draft) for file in draft.rglob("*") if file.is_file()]
        files.sort(key=lambda file: file == Path(STATE))
        write_sums(draft, files)
        for file in [Path(SUMS), *files]:
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copymode(draft / STATE, draft / file)  # safetensors lets nobody else read what it writes
            os.replace(draft / file, folder / file)


def state_text(estimator: Leaf, **more: Any) -> str:
    """Return the JSON of a fitted estimator without its weights.

    Raises
    ------
    ConfigurationError
        If a parameter has no JSON form.
    """
    history = getattr(estimator, "history_", None)
    state = {
        "format_version": FORMAT_VERSION,
        "mmensemble": __version__,
        "class": type(estimator).__name__,
        "params": {name: _to_json(name, value) for name, value in estimator.get_params(deep=False).items()},
        **more,
        "preprocessor": estimator.preprocessor_.to_dict(),
        # A network that was taken as it is has none.
        "history": {} if history is None else history.to_dict(orient="list"),
        "feature_names_in": getattr(estimator, "feature_names_in_", np.array([])).tolist(),
    }
    try:
        return json.dumps(state, ensure_ascii=False, indent=1)
    except TypeError as error:
        raise ConfigurationError(f"the estimator has no JSON form: {error}") from error


def read_state(cls: type[Leaf], folder: Path) -> dict[str, Any]:
    """Read what `state_text` wrote.

    Raises
    ------
    ModelFileError
        If it is damaged, as are files beside it, or newer, or another class's.
    FileNotFoundError
        If one of them is not there.
    """
    content = (folder / STATE).read_bytes()
    summed = (folder / SUMS).exists()
    if summed:
        check_sums(folder, STATE)
    try:
        state: dict[str, Any] = json.loads(content.decode("utf-8"))
        version, kind = int(state["format_version"]), state["class"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{folder / STATE} is damaged or was not written by save ({error!r})") from error
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{folder} has format version {version} and this mmensemble reads up to {FORMAT_VERSION}; upgrade it"
        )
    if version >= 3 and not summed:
        raise ModelFileError(f"{folder} has no {SUMS}, which save wrote; without it, damage would not show")
    if kind != cls.__name__:
        raise ModelFileError(f"{folder} holds a {kind}; load it by {kind}.load")
    return state


def restore(estimator: Leaf, state: dict[str, Any]) -> None:
    """Give an estimator what `state_text` wrote of what it has learned."""
    estimator.preprocessor_ = preprocessor_from_dict(state["preprocessor"])
    if state["history"] != {}:
        estimator.history_ = pd.DataFrame(state["history"])
    estimator.n_features_in_ = 1
    names = state["feature_names_in"]
    if not isinstance(names, list):
        raise TypeError(f"feature_names_in is {names!r}")
    if names:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)


def params_of(state: dict[str, Any], backbone: Any = None) -> dict[str, Any]:
    """Return the parameters that `state_text` wrote, with a callable backbone, which is code and not in the folder.

    Raises
    ------
    ConfigurationError
        If a callable was fitted and is not given.
    """
    params = {name: _from_json(value) for name, value in state["params"].items()}
    if backbone is not None:
        params["backbone"] = backbone
    if "backbone" in params and params["backbone"] is None:
        raise ConfigurationError("it was fitted with a callable backbone; give it again: load(folder, backbone=...)")
    return params


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Raise what a damaged folder raises in this block as a `ModelFileError`."""
    try:
        yield
    except ConfigurationError:
        raise
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{folder} is damaged: {(str(error) or repr(error)).splitlines()[0]}") from error


def with_weights(build: Callable[[], M], folder: Path) -> M:
    """Build a network and give it the weights that `write` wrote; what is drawn at random meanwhile does not show."""
    with torch.random.fork_rng(devices=[]):
        module = build()
    load_model(module, folder / WEIGHTS)
    return module.eval()


def _to_json(name: str, value: Any) -> Any:
    if isinstance(value, PreTrainedConfig):
        return {"config": value.to_dict()}
    if isinstance(value, tuple):
        return {"tuple": list(value)}
    if isinstance(value, list):
        return [_to_json(name, item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {"items": [[_to_json(name, k), _to_json(name, v)] for k, v in value.items()]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if name == "backbone" and callable(value):
        return None
    raise ConfigurationError(f"{name}={value!r} has no JSON form; set it to a plain value before save")


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "config" in value:
        return AutoConfig.for_model(**value["config"])
    if "tuple" in value:
        return tuple(value["tuple"])
    return {_from_json(k): _from_json(v) for k, v in value["items"]}
