"""Video backbones: frames → one embedding per clip. From scratch, from a config, or from pretrained weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import VideoPreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import module_size
from mmensemble_estimators.backbones.image import HALF, IMAGE_BACKBONES, NONE, ImageEncoder, Normalisation

__all__ = [
    "FramesTransformer",
    "VideoEncoder",
    "video_encoder_from_architecture",
    "video_encoder_from_config",
    "video_encoder_from_model",
    "video_encoder_from_module",
    "video_encoder_from_scratch",
    "wanted",
]

SIZE = 128


class VideoEncoder(ImageEncoder):
    """Rescaling to [0, 1], normalisation, a network over all frames of a clip, and a pooling over what it gives.

    Parameters
    ----------
    backbone : nn.Module
        Takes ``pixel_values``, or ``pixel_values_videos``, (batch, n_frames, 3, height, width). Gives embeddings
        (batch, size), or a transformers output with ``last_hidden_state``, tokens (batch, n, size).
    embedding_size, normalisation, pooling
        As in `ImageEncoder`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        embedding_size: int,
        *,
        normalisation: Normalisation = HALF,
        pooling: str | None = None,
    ) -> None:
        super().__init__(backbone, embedding_size, normalisation=normalisation, pooling=pooling)
        takes = inspect.signature(backbone.forward).parameters
        self.input_name = "pixel_values_videos" if "pixel_values_videos" in takes else "pixel_values"
        # V-JEPA 2 would predict masked patches after it has encoded them.
        self.encode_only = "skip_predictor" in takes

    def forward(self, frames: Tensor) -> Tensor:
        """Embed uint8 frames (batch, n_frames, height, width, 3) as (batch, embedding_size)."""
        return self._pooled(self._output(frames))

    def _output(self, frames: Tensor) -> Any:
        clips = frames.permute(0, 1, 4, 2, 3).to(self.mean.dtype) / 255.0
        inputs: dict[str, Any] = {self.input_name: (clips - self.mean) / self.std}
        if self.encode_only:
            inputs["skip_predictor"] = True
        return self.backbone(**inputs)

    def architecture(self) -> dict[str, Any]:
        """Return what `video_encoder_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        if isinstance(self.backbone, FramesTransformer):
            normalisation = [self.mean.flatten().tolist(), self.std.flatten().tolist()]
            return {**self.backbone.architecture(), "normalisation": normalisation, "pooling": self.pooling}
        return super().architecture()


class FramesTransformer(nn.Module):
    """An image network over each frame and its change, and a transformer over the frames.

    A network that pools over the places of a frame forgets where things are, and so how they move from one frame to the
    next. Therefore it sees, beside each frame, the difference to the frame before (0 for the first), in which what
    moves has a bright and a dark edge.

    Parameters
    ----------
    frame_config : transformers config
        Of an image network for 6 channels.
    n_frames : int
    """

    def __init__(self, frame_config: PreTrainedConfig, n_frames: int) -> None:
        super().__init__()
        self.frame_network = AutoModel.from_config(frame_config)
        self.n_frames = n_frames
        self.over_frames = AutoModel.from_config(
            BertConfig(
                vocab_size=1,  # its inputs are no words
                hidden_size=SIZE,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=2 * SIZE,
                max_position_embeddings=n_frames,
            ),
            add_pooling_layer=False,
        )

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        """Encode clips (batch, n_frames, 3, height, width) as a state per frame (batch, n_frames, size)."""
        change = pixel_values[:, 1:] - pixel_values[:, :-1]
        change = torch.cat([torch.zeros_like(pixel_values[:, :1]), change], dim=1)
        images = torch.cat([pixel_values, change], dim=2).flatten(0, 1)
        output = self.frame_network(pixel_values=images)
        states = output.last_hidden_state
        pooled = output.pooler_output.flatten(1) if states.ndim == 4 else states.mean(dim=1)
        embedded = self.over_frames(inputs_embeds=pooled.unflatten(0, (-1, self.n_frames)))
        return BaseModelOutput(last_hidden_state=embedded.last_hidden_state)

    def architecture(self) -> dict[str, Any]:
        """Return what it is built from, as JSON values."""
        return {"frame_config": self.frame_network.config.to_diff_dict(), "n_frames": self.n_frames}


def video_encoder_from_scratch(name: str, preprocessor: VideoPreprocessor, *, pooling: str | None) -> VideoEncoder:
    """Build one of the image networks from scratch, and a small transformer over the frames."""
    config = IMAGE_BACKBONES[name](image_size=preprocessor.size, n_channels=6)
    return _over_frames(config, preprocessor.n_frames, normalisation=HALF, pooling=pooling)


def _over_frames(
    frame_config: PreTrainedConfig, n_frames: int, *, normalisation: Normalisation, pooling: str | None
) -> VideoEncoder:
    network = FramesTransformer(frame_config, n_frames)
    return VideoEncoder(network, SIZE, normalisation=normalisation, pooling=pooling)


def video_encoder_from_config(
    config: PreTrainedConfig | dict[str, Any],
    preprocessor: VideoPreprocessor,
    *,
    normalisation: Normalisation,
    pooling: str | None,
) -> VideoEncoder:
    """Build an untrained network from a transformers config."""
    model = AutoModel.from_config(config_of(config))
    return video_encoder_from_model(model, preprocessor, normalisation=normalisation, pooling=pooling)


def video_encoder_from_architecture(architecture: dict[str, Any], preprocessor: VideoPreprocessor) -> VideoEncoder:
    """Rebuild an untrained encoder from `VideoEncoder.architecture`."""
    mean, std = architecture["normalisation"]
    pooling = architecture["pooling"]
    if "frame_config" in architecture:
        config = config_of(architecture["frame_config"])
        return _over_frames(config, architecture["n_frames"], normalisation=(mean, std), pooling=pooling)
    return video_encoder_from_config(architecture["config"], preprocessor, normalisation=(mean, std), pooling=pooling)


def video_encoder_from_module(module: Any, preprocessor: VideoPreprocessor) -> VideoEncoder:
    """Wrap a user's module, from ``pixel_values`` in [0, 1] to embeddings."""
    example = torch.zeros(2, preprocessor.n_frames, 3, preprocessor.size, preprocessor.size)
    return VideoEncoder(module, module_size(module, {"pixel_values": example}), normalisation=NONE)


def video_encoder_from_model(
    model: Any, preprocessor: VideoPreprocessor, *, normalisation: Normalisation, pooling: str | None
) -> VideoEncoder:
    """Wrap a transformers model.

    Raises
    ------
    ConfigurationError
        If it does not take clips of so many frames of such a size.
    """
    encoder = VideoEncoder(model.float(), 0, normalisation=normalisation, pooling=pooling)
    shape = (2, preprocessor.n_frames, preprocessor.size, preprocessor.size, 3)
    try:
        # The configs have no common name for it.
        encoder.embedding_size = module_size(encoder, {"frames": torch.zeros(shape, dtype=torch.uint8)})
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:  # networks for other inputs
        raise ConfigurationError(
            f"a {type(model).__name__} does not take clips of n_frames={shape[1]} and image_size={shape[2]}: {error}"
        ) from error
    return encoder


def wanted(config: Any) -> tuple[int | None, int | None]:
    """Return the number of frames and their size that a transformers config is for, None of what it does not say."""
    n_frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return n_frames, getattr(config, "image_size", None) or getattr(config, "crop_size", None)
