"""Image backbones: pixels → one embedding per image. From scratch, from a config, or from pretrained weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, ResNetConfig, ViTConfig

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import ImagePreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.contrastive import Tower, is_contrastive
from mmensemble_estimators.backbones.encoder import Encoder, module_size
from mmensemble_estimators.backbones.pretrained import read_processor

__all__ = [
    "IMAGE_BACKBONES",
    "IMAGE_POOLINGS",
    "ImageEncoder",
    "image_encoder_from_architecture",
    "image_encoder_from_config",
    "image_encoder_from_model",
    "image_encoder_from_module",
    "read_image_processor",
]

IMAGE_POOLINGS = (None, "mean", "max", "cls")

Normalisation = tuple[Sequence[float], Sequence[float]]

HALF: Normalisation = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NONE: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class ImageEncoder(Encoder):
    """Rescaling to [0, 1], normalisation, a network, and a pooling over what it gives.

    Parameters
    ----------
    backbone : nn.Module
        Takes ``pixel_values`` (batch, 3, height, width). Gives embeddings (batch, size), or a transformers output with
        ``last_hidden_state``, tokens (batch, n, size) or a map (batch, size, height, width).
    embedding_size : int
        Size of the embedding.
    normalisation : (mean, std), default=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        Per channel, of pixels in [0, 1].
    pooling : {"mean", "max", "cls"} or None, default=None
        Over the tokens or the places of a map; None takes a map's own pooled output, and the mean of tokens.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        embedding_size: int,
        *,
        normalisation: Normalisation = HALF,
        pooling: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding_size = embedding_size
        self.pooling = pooling
        mean, std = normalisation
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed uint8 pixels (batch, height, width, 3) as (batch, embedding_size)."""
        return self._pooled(self._output(pixels))

    def _pooled(self, output: Any) -> Tensor:
        if isinstance(output, Tensor):
            return output.flatten(1)
        if output.last_hidden_state.ndim == 4:
            pooled = getattr(output, "pooler_output", None)
            if self.pooling is None and pooled is not None:
                return cast(Tensor, pooled.flatten(1))
        states = _sequence(output)
        if self.pooling == "cls":
            return states[:, 0]
        return states.amax(dim=1) if self.pooling == "max" else states.mean(dim=1)

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's tokens, or the places of its map (batch, n, size); all of them are real ones."""
        output = self._output(**inputs)
        states = None if isinstance(output, Tensor) else _sequence(output)
        if states is None or states.shape[-1] != self.embedding_size:  # it may pool to another size
            states = self._pooled(output).unsqueeze(1)
        return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)

    def _output(self, pixels: Tensor) -> Any:
        images = pixels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255.0
        return self.backbone(pixel_values=(images - self.mean) / self.std)

    def architecture(self) -> dict[str, Any]:
        """Return what `image_encoder_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        return {
            "config": self.backbone.config.to_diff_dict(),  # type: ignore[union-attr, operator]
            "normalisation": [self.mean.flatten().tolist(), self.std.flatten().tolist()],
            "pooling": self.pooling,
        }


def _sequence(output: Any) -> Tensor:
    """Return tokens (batch, n, size), or the places of a map as such."""
    states = output.last_hidden_state
    return cast(Tensor, states.flatten(2).transpose(1, 2) if states.ndim == 4 else states)


def cnn_config(*, image_size: int, n_channels: int = 3) -> ResNetConfig:
    """Describe a small ResNet (He et al. 2016): three stages of one basic block with 32, 64 and 128 channels."""
    return ResNetConfig(
        num_channels=n_channels, embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic"
    )


def vit_config(*, image_size: int, n_channels: int = 3) -> ViTConfig:
    """Describe a small vision transformer (Dosovitskiy et al. 2021): 4 layers of 128 features, 8 × 8 patches."""
    return ViTConfig(
        image_size=image_size,
        num_channels=n_channels,
        patch_size=image_size // 8,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.1,
    )


# The networks from scratch, as configs for images of a size and a number of channels.
IMAGE_BACKBONES: dict[str, Callable[..., PreTrainedConfig]] = {"cnn": cnn_config, "vit": vit_config}


def image_encoder_from_config(
    config: PreTrainedConfig | dict[str, Any], *, image_size: int, normalisation: Normalisation, pooling: str | None
) -> ImageEncoder:
    """Build an untrained network from a transformers config."""
    model = AutoModel.from_config(config_of(config))
    return image_encoder_from_model(model, image_size=image_size, normalisation=normalisation, pooling=pooling)


def image_encoder_from_architecture(architecture: dict[str, Any], *, image_size: int) -> ImageEncoder:
    """Rebuild an untrained encoder from `ImageEncoder.architecture`."""
    mean, std = architecture["normalisation"]
    return image_encoder_from_config(
        architecture["config"], image_size=image_size, normalisation=(mean, std), pooling=architecture["pooling"]
    )


def image_encoder_from_module(module: Any, *, image_size: int) -> ImageEncoder:
    """Wrap a user's module, from ``pixel_values`` in [0, 1] to embeddings."""
    size = module_size(module, {"pixel_values": torch.zeros(2, 3, image_size, image_size)})
    return ImageEncoder(module, size, normalisation=NONE)


def image_encoder_from_model(
    model: Any, *, image_size: int, normalisation: Normalisation, pooling: str | None
) -> ImageEncoder:
    """Wrap a transformers model; of a text-and-image model the image half is taken.

    Where that was trained to embed texts and images in one space, its embedding is the one in there, unless a `pooling`
    of its tokens is named.
    """
    if pooling is None and is_contrastive(model.config):
        half: nn.Module = Tower(model, "vision")
    else:
        half = getattr(model, "vision_model", model)
    encoder = ImageEncoder(half.float(), 0, normalisation=normalisation, pooling=pooling)
    # The configs have no common name for it.
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    try:
        encoder.embedding_size = module_size(encoder, {"pixels": example})
    except (RuntimeError, ValueError) as error:  # of a network whose positions are those of one size
        raise ConfigurationError(f"the network takes no images of {image_size} pixels: {error}") from error
    return encoder


def read_image_processor(folder: str) -> tuple[ImagePreprocessor, Normalisation]:
    """Read how a pretrained model wants its images, from its ``preprocessor_config.json``.

    Returns
    -------
    preprocessor : ImagePreprocessor
        Size, crop and filter.
    normalisation : (mean, std)

    Raises
    ------
    ConfigurationError
        If the file is not there, or wants images that are not square, or prepared in a way that is not known here.
    """
    config = read_processor(folder, "images", "image_processor", "video_processor")
    config = {**_defaults(config), **config}
    _check_processor(folder, config)
    size = config.get("size", 224)
    resize: Literal["stretch", "shortest_edge"] = "stretch"
    if isinstance(size, int):
        edge = size
        if not config.get("default_to_square", True):  # as in OpenAI's folders of CLIP, older than names of sizes
            resize = "shortest_edge"
    elif "shortest_edge" in size:
        edge, resize = size["shortest_edge"], "shortest_edge"
    elif size.get("height") == size.get("width") and "height" in size:
        edge = size["height"]
    else:
        raise ConfigurationError(f"{folder} wants images of {size}; only square ones are supported")
    final = edge
    if config.get("crop_pct"):
        # ConvNeXt's processor: below 384 pixels, scale the shorter edge to size / crop_pct and crop to size.
        edge, resize = (int(edge / config["crop_pct"]), "shortest_edge") if edge < 384 else (edge, "stretch")
    elif config.get("do_center_crop"):
        crop = config.get("crop_size", edge)
        final = crop if isinstance(crop, int) else crop["height"]
        if isinstance(crop, dict) and crop["width"] != final:
            raise ConfigurationError(f"{folder} wants crops of {crop}; only square ones are supported")
    elif resize == "shortest_edge":
        raise ConfigurationError(f"{folder} keeps the aspect ratio without a crop; only square images are supported")
    preprocessor = ImagePreprocessor(
        size=final,
        resize=resize,
        resize_to=edge,
        resample=Image.Resampling(config.get("resample", Image.Resampling.BILINEAR)).name.lower(),
    )
    # The encoder divides pixels by 255 whatever the processor does, so mean and standard deviation make up for it.
    scale = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    mean, std = NONE
    if config.get("do_normalize", True):
        mean, std = config.get("image_mean", HALF[0]), config.get("image_std", HALF[1])
    if config.get("do_rescale", True) and (config.get("offset") or config.get("rescale_offset")):
        mean = [value + 1.0 for value in mean]  # rescaled to [-1, 1], as by ViViT's processor
    return preprocessor, ([value / scale for value in mean], [value / scale for value in std])


# What the files of older versions leave out, and the class says.
_BY_CLASS = ("size", "default_to_square", "resample", "do_center_crop", "crop_size", "crop_pct")


def _defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers takes where a file leaves it out, by the class of the processor that it names."""
    named = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    name = named.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    kind = getattr(transformers, f"{name}Pil", None) if name else None
    values = {each: getattr(kind, each, None) for each in _BY_CLASS}
    return {each: value for each, value in values.items() if value is not None}


# What a processor may do to images and `ImagePreprocessor` cannot; what it does and is left out of this is done.
_UNKNOWN = {"do_pad": True, "do_resize": False, "do_flip_channel_order": True}


def _check_processor(folder: str, config: dict[str, Any]) -> None:
    """Raise `ConfigurationError` for what would be done in another way than the model was trained with."""
    for name, value in _UNKNOWN.items():
        if config.get(name) is value:
            raise ConfigurationError(f"{folder} wants images prepared with {name}={value}, which is not supported")
    size = config.get("size")
    if isinstance(size, dict) and "shortest_edge" in size and size.get("longest_edge") is not None:
        raise ConfigurationError(f"{folder} wants images of {size}; a longest edge is not supported")
