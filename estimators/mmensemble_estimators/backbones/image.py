"""Image backbones, built from scratch by transformers: pixels → one embedding per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

__all__ = ["IMAGE_BACKBONES", "ImageEncoder"]

HALF = (0.5, 0.5, 0.5)


class ImageEncoder(nn.Module):
    """Rescaling, normalisation and a transformers image model.

    Parameters
    ----------
    backbone : nn.Module
        A transformers model with a ``pooler_output`` of `embedding_size` values per image.
    embedding_size : int
        Size of the embedding.
    mean, std : sequence of 3 floats, default=(0.5, 0.5, 0.5)
        Normalisation per channel of pixels rescaled to [0, 1].
    """

    def __init__(
        self, backbone: nn.Module, embedding_size: int, *, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding_size = embedding_size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed uint8 pixels (batch, height, width, 3) as (batch, embedding_size)."""
        images = pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255.0
        states = self.backbone(pixel_values=(images - self.mean) / self.std)
        return states.pooler_output.flatten(1)


def build_cnn() -> ImageEncoder:
    """Build a small ResNet (He et al. 2016): three stages of one basic block with 32, 64 and 128 channels."""
    config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    return ImageEncoder(ResNetModel(config), config.hidden_sizes[-1])


IMAGE_BACKBONES: dict[str, Callable[..., ImageEncoder]] = {"cnn": build_cnn}
