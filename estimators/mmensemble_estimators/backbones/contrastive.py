"""Models that embed texts and images in one space, as CLIP and SigLIP: each half as an encoder of its own."""

from __future__ import annotations

import os
import re
import string
from typing import Any, Literal

import torch
from tokenizers import Regex, normalizers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.pretrained import load_tokenizer, loading, pad_id

__all__ = [
    "TextTowerEncoder",
    "Tower",
    "is_contrastive",
    "is_contrastive_folder",
    "load_contrastive",
    "load_model",
    "read_tower_processor",
    "text_tower_from_architecture",
]

# Types of transformers whose halves are called alike, and known to be used as they were trained.
CONTRASTIVE = ("clip", "siglip")

# What SigLIP's tokenizer is called, which transformers runs by the `sentencepiece` library.
_OF_SENTENCEPIECE = (None, "SiglipTokenizer", "SiglipTokenizerFast")


def is_contrastive(config: Any) -> bool:
    """Tell by its config whether a model embeds texts and images in one space."""
    return getattr(config, "model_type", None) in CONTRASTIVE


def is_contrastive_folder(pretrained: str | os.PathLike[str]) -> bool:
    """Tell whether a folder or hub id is of a model that embeds texts and images in one space."""
    with loading(pretrained):
        return is_contrastive(AutoConfig.from_pretrained(pretrained))


def load_model(pretrained: str | os.PathLike[str]) -> Any:
    """Load any model of transformers; one that embeds texts and images in one space with all of its weights.

    Raises
    ------
    ConfigurationError
        If it cannot be loaded, or something that takes part in the embedding is not there or would be left out.
    """
    with loading(pretrained):
        model, found = AutoModel.from_pretrained(pretrained, output_loading_info=True)
    name, missing = os.fspath(pretrained), sorted(found["missing_keys"])
    if missing and is_contrastive(model.config):
        raise ConfigurationError(
            f"pretrained={name!r} has no weights for {', '.join(missing[:3])}{', ...' if missing[3:] else ''}; without "
            "them, texts and images are not embedded in one space"
        )
    for kind in model.config.architectures or ():
        if kind.endswith("WithProjection"):
            raise ConfigurationError(
                f"pretrained={name!r} is one half alone, a {kind}, and transformers.AutoModel leaves its projection "
                "out; give the folder of the whole model"
            )
    return model


def load_contrastive(pretrained: str | os.PathLike[str]) -> Any:
    """Load a model that embeds texts and images in one space, both halves.

    Raises
    ------
    ConfigurationError
        If it is another model, or one of its weights is not there.
    """
    model = load_model(pretrained)
    if not is_contrastive(model.config):
        raise ConfigurationError(
            f"pretrained={os.fspath(pretrained)!r} is of the type {model.config.model_type!r}; texts and images are "
            f"embedded in one space by {' and '.join(map(repr, CONTRASTIVE))}"
        )
    return model.float().eval()


class Tower(nn.Module):
    """One half, with the projection into the space that both halves share.

    Parameters
    ----------
    model : nn.Module
        A model of `CONTRASTIVE`.
    half : {"text", "vision"}
    """

    base_model_prefix = ""  # peft asks whatever has a config

    def __init__(self, model: Any, half: Literal["text", "vision"]) -> None:
        super().__init__()
        self.config = model.config
        self.encoder = model.get_submodule(f"{half}_model")
        name = "text_projection" if half == "text" else "visual_projection"
        self.projection = getattr(model, name, nn.Identity())  # SigLIP's halves project by themselves

    def forward(self, **inputs: Tensor) -> Tensor:
        """Embed `input_ids` (batch, length) or `pixel_values` (batch, 3, height, width) as (batch, size)."""
        projected: Tensor = self.projection(self.encoder(**inputs).pooler_output)
        return projected


class TextTowerEncoder(Encoder):
    """Token ids → embeddings in the space that texts and images share.

    CLIP's is that of the end token, which sees what stands before it and no padding. SigLIP's is that of the last
    position: it was trained with padding up to its longest text, and without a mask, and so it is run.

    Parameters
    ----------
    model : nn.Module
        A model of `CONTRASTIVE`.
    pad_id : int
        The tokenizer's, which need not be the one of the model's config.
    """

    def __init__(self, model: Any, *, pad_id: int) -> None:
        super().__init__()
        text = model.config.text_config
        self.backbone = Tower(model.float(), "text")
        self.filled_to, self.pad_id = 0, pad_id
        if model.config.model_type == "siglip":
            self.embedding_size = int(text.projection_size or text.hidden_size)
            self.filled_to = int(text.max_position_embeddings)
        else:
            self.embedding_size = int(model.config.projection_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids (batch, length) as (batch, embedding_size)."""
        if self.filled_to:
            padding = torch.full_like(input_ids[:, :1], self.pad_id).expand(-1, self.filled_to)
            real = torch.where(attention_mask.bool(), input_ids, self.pad_id)
            input_ids = torch.cat([real, padding], dim=1)[:, : self.filled_to]
        embedding: Tensor = self.backbone(input_ids=input_ids)
        return embedding

    def architecture(self) -> dict[str, Any]:
        """Return what `text_tower_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        return {"contrastive": self.backbone.config.to_diff_dict(), "pad_id": self.pad_id}


def text_tower_from_architecture(architecture: dict[str, Any]) -> TextTowerEncoder:
    """Rebuild an untrained encoder from `TextTowerEncoder.architecture`."""
    model = AutoModel.from_config(config_of(architecture["contrastive"]))
    return TextTowerEncoder(model, pad_id=architecture["pad_id"])


def read_tower_processor(pretrained: str, *, max_length: int) -> TextPreprocessor:
    """Read the tokenizer of a model that embeds texts and images; texts are cut to the positions that it has.

    Raises
    ------
    ConfigurationError
        If there is none of the `tokenizers` library, or it pads in a way that the model's half for texts cannot be run.
    """
    with loading(pretrained):
        config = AutoConfig.from_pretrained(pretrained)
    read = _load_siglip_tokenizer if config.model_type == "siglip" else load_tokenizer
    tokenizer = read(pretrained)
    if config.model_type == "siglip" and tokenizer.padding_side != "right":
        # The state that is the embedding is that of the last position, so it would be another one.
        raise ConfigurationError(
            f"pretrained={pretrained!r} has a tokenizer that pads on the {tokenizer.padding_side}; SigLIP was trained "
            'with padding on the right: if this model was, write "padding_side": "right" into its tokenizer_config.json'
        )
    longest = min(max_length, int(config.text_config.max_position_embeddings))
    return TextPreprocessor(tokenizer.backend_tokenizer.to_str(), max_length=longest, pad_id=pad_id(tokenizer))


def _load_siglip_tokenizer(pretrained: str) -> Any:
    """Load SigLIP's own tokenizer, by its file for the `tokenizers` library, or that of another model.

    What transformers' class does before it, the file need not do: take away capitals, punctuation, double spaces.
    """
    with loading(pretrained):
        settings = get_tokenizer_config(pretrained)
    if settings.get("tokenizer_class") not in _OF_SENTENCEPIECE:
        return load_tokenizer(pretrained)
    with loading(pretrained):
        if cached_file(pretrained, "tokenizer.json", _raise_exceptions_for_missing_entries=False) is None:
            raise ConfigurationError(f"pretrained={pretrained!r} has no tokenizer.json, which its texts are read by")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained)
    backend: Any = tokenizer.backend_tokenizer
    before = [normalizers.Lowercase()] if settings.get("do_lower_case", True) else []
    backend.normalizer = normalizers.Sequence(
        [
            *before,
            normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            *([] if backend.normalizer is None else [backend.normalizer]),
        ]
    )
    return tokenizer
