"""Models that embed texts and images in one space, as CLIP and SigLIP: each half as an encoder of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.pretrained import load_tokenizer, loading, pad_id

__all__ = [
    "ImageTower",
    "TextTower",
    "is_contrastive",
    "is_contrastive_folder",
    "read_contrastive",
    "read_tower_processor",
    "text_features",
    "text_tower_from_architecture",
    "text_tower_from_model",
]

# Types of transformers whose halves are called alike, and known to be used as they were trained.
CONTRASTIVE = ("clip", "siglip")


def is_contrastive(config: Any) -> bool:
    """Tell by its config whether a model embeds texts and images in one space."""
    return getattr(config, "model_type", None) in CONTRASTIVE


def is_contrastive_folder(pretrained: str | os.PathLike[str]) -> bool:
    """Tell whether a folder or hub id is of a model that embeds texts and images in one space."""
    with loading(pretrained):
        return is_contrastive(AutoConfig.from_pretrained(pretrained))


def read_contrastive(pretrained: str | os.PathLike[str]) -> Any:
    """Load a model that embeds texts and images in one space, both halves.

    Raises
    ------
    ConfigurationError
        If it is another model.
    """
    with loading(pretrained):
        model = AutoModel.from_pretrained(pretrained)
    if not is_contrastive(model.config):
        raise ConfigurationError(
            f"pretrained={os.fspath(pretrained)!r} is of the type {model.config.model_type!r}; texts and images are "
            f"embedded in one space by {' and '.join(map(repr, CONTRASTIVE))}"
        )
    return model.float().eval()


class ImageTower(nn.Module):
    """The image half, with the projection into the space that both halves share.

    Parameters
    ----------
    model : nn.Module
        A model of `CONTRASTIVE`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", nn.Identity())  # SigLIP's head projects

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed pixels (batch, 3, height, width) as (batch, size)."""
        projected: Tensor = self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)
        return projected


class TextTower(Encoder):
    """Token ids → embeddings in the space that both halves share.

    CLIP's is that of the end token, which sees what stands before it and no padding. SigLIP's is that of the last
    position: it was trained with padding up to its longest text, and without a mask, and so it is run.

    Parameters
    ----------
    model : nn.Module
        A model of `CONTRASTIVE`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.config = model.config
        text = model.config.text_config
        self.text_model = model.text_model
        self.text_projection = getattr(model, "text_projection", nn.Identity())
        self.filled_to, self.pad_id = 0, int(text.pad_token_id or 0)
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
        projected: Tensor = self.text_projection(self.text_model(input_ids=input_ids).pooler_output)
        return projected

    def architecture(self) -> dict[str, Any]:
        """Return what `text_tower_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        return {"contrastive": self.config.to_diff_dict()}


def text_tower_from_model(model: Any) -> TextTower:
    """Take the text half of a model that embeds texts and images in one space."""
    return TextTower(model.float())


def text_tower_from_architecture(architecture: dict[str, Any]) -> TextTower:
    """Rebuild an untrained encoder from `TextTower.architecture`."""
    return TextTower(AutoModel.from_config(config_of(architecture["contrastive"])))


def read_tower_processor(pretrained: str, *, max_length: int) -> TextPreprocessor:
    """Read the tokenizer of a model that embeds texts and images; texts are cut to the positions that it has."""
    with loading(pretrained):
        config = AutoConfig.from_pretrained(pretrained)
    tokenizer = load_tokenizer(pretrained)
    longest = min(max_length, int(config.text_config.max_position_embeddings))
    return TextPreprocessor(tokenizer.backend_tokenizer.to_str(), max_length=longest, pad_id=pad_id(tokenizer))


def text_features(model: Any, preprocessor: TextPreprocessor, texts: Sequence[str]) -> Tensor:
    """Embed texts, each of length 1, (n, size) float32."""
    encoded = preprocessor.encode(list(texts))
    arrays = preprocessor.collate(encoded, slice(None))
    with torch.inference_mode():
        ids, mask = (torch.from_numpy(arrays[name]) for name in ("input_ids", "attention_mask"))
        return nn.functional.normalize(TextTower(model).eval()(ids, mask))
