"""Audio backbones: spectrograms or samples → one embedding per sound. From scratch, from a config, or pretrained.

transformers' audio networks want every row of the same length, or let the padding in. Here a row's embedding is that of
the row alone: padding is kept out of every convolution, normalisation and attention. So a batch is as long as its
longest row and no longer. (In training alone, the ResNet's batch statistics count the padded frames too, of which there
are few, since the rows of a batch have about the same length.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import ASTConfig, AutoModel, PreTrainedConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import AudioPreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.pretrained import read_processor
from mmensemble_estimators.backbones.spectrogram_resnet import SpectrogramResNet
from mmensemble_estimators.backbones.text import pool

__all__ = [
    "AUDIO_BACKBONES",
    "AUDIO_POOLINGS",
    "AudioEncoder",
    "audio_encoder_from_architecture",
    "audio_encoder_from_config",
    "audio_encoder_from_model",
    "audio_preprocessor_for",
    "read_audio_processor",
]

AUDIO_POOLINGS = (None, "mean", "max")

# Where neither the estimator nor a pretrained folder says it.
SAMPLING_RATE = 16000
MAX_SECONDS = 10.0
N_MELS = 64

# The length of an export's example: every convolution gives several steps of it.
EXAMPLE_SAMPLES, EXAMPLE_FRAMES = 3200, 40

# AudioSet's mean and half of what AST divides by, of Kaldi's filter-bank energies.
AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974


class AudioEncoder(Encoder):
    """A network over frames or samples and a pooling over its last hidden states.

    Parameters
    ----------
    backbone : nn.Module
        A `SpectrogramResNet`, or an encoder of transformers that `audio_encoder_from_model` knows.
    embedding_size : int
    pooling : {"mean", "max"} or None, default=None
        Over the real tokens; None takes the mean of AST's two class tokens, and the mean of all tokens elsewhere.
    """

    def __init__(self, backbone: nn.Module, embedding_size: int, *, pooling: str | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding_size = embedding_size
        self.pooling = pooling
        self.family = _family(backbone)
        self.example_length = EXAMPLE_SAMPLES if self.family == "wav2vec2" else EXAMPLE_FRAMES

    def forward(self, **inputs: Tensor) -> Tensor:
        """Embed ``input_features`` (batch, frames, n_mels) or ``input_values`` (batch, samples) with their mask."""
        states, mask = self.tokens(**inputs)
        if self.pooling is None and self.family == "ast":
            return (states[:, 0] + states[:, 1]) / 2
        return pool(states, mask, self.pooling or "mean")

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last hidden states (batch, n, embedding_size), and which are real ones."""
        mask = inputs["attention_mask"].bool()
        features = inputs["input_values" if self.family == "wav2vec2" else "input_features"]
        return _STATES[self.family](self.backbone, features, mask)

    def architecture(self) -> dict[str, Any]:
        """Return what `audio_encoder_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        if isinstance(self.backbone, SpectrogramResNet):
            return {"cnn": {"n_mels": self.backbone.n_mels}, "pooling": self.pooling}
        return {"config": self.backbone.config.to_diff_dict(), "pooling": self.pooling}  # type: ignore[union-attr, operator]


def _cnn_states(backbone: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    return cast(tuple[Tensor, Tensor], backbone(features, mask))


def _whisper_states(backbone: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Run Whisper's encoder on the frames that there are, with as much of its table of positions."""
    real = mask.to(features.dtype).unsqueeze(1)
    hidden = nn.functional.gelu(backbone.conv1(features.transpose(1, 2)))
    hidden = nn.functional.gelu(backbone.conv2(hidden * real)).transpose(1, 2)
    mask = mask[:, ::2]
    hidden = hidden + backbone.embed_positions.weight[: hidden.shape[1]]
    hidden = nn.functional.dropout(hidden, p=backbone.config.dropout, training=backbone.training)
    return cast(Tensor, backbone.layer_norm(_layers(backbone.layers, hidden, mask))), mask


def _ast_states(backbone: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Run AST on the patches that there are: those that lie wholly within a row's frames, two class tokens first."""
    config, embeddings = backbone.config, backbone.embeddings
    patches = embeddings.patch_embeddings.projection(features.transpose(1, 2).unsqueeze(1))
    n_steps = patches.shape[3]
    # The table's order is by frequency, then time.
    table = embeddings.position_embeddings[0]
    bands, steps = embeddings.get_shape(config)
    positions = table[2:].T.reshape(-1, bands, steps)[:, :, :n_steps]
    first = torch.stack([embeddings.cls_token[0, 0], embeddings.distillation_token[0, 0]]) + table[:2]
    patches = (patches + positions).flatten(2).transpose(1, 2)
    hidden = torch.cat([first.expand(len(features), -1, -1), patches], dim=1)
    hidden = embeddings.dropout(hidden)
    real = _steps(mask, config.patch_size, config.time_stride)[:, None].expand(-1, bands, -1).flatten(1)
    mask = torch.cat([torch.ones_like(mask[:, :2]), real], dim=1)
    return cast(Tensor, backbone.layernorm(_layers(backbone.layers, hidden, mask))), mask


def _wav2vec2_states(backbone: Any, samples: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Run wav2vec 2.0 or HuBERT; where a first layer is normalised over time, over a row's own time."""
    config, hidden = backbone.config, samples.unsqueeze(1)
    for layer, kernel, stride in zip(
        backbone.feature_extractor.conv_layers, config.conv_kernel, config.conv_stride, strict=True
    ):
        mask = _steps(mask, kernel, stride)
        if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
            hidden = layer.conv(hidden)
            hidden = layer.activation(_instance_norm(hidden, mask, layer.layer_norm))
        else:
            hidden = layer(hidden)
    projected = backbone.feature_projection(hidden.transpose(1, 2))
    hidden = projected[0] if isinstance(projected, tuple) else projected
    hidden = hidden * mask.unsqueeze(-1).to(hidden.dtype)
    encoder = backbone.encoder
    hidden = hidden + encoder.pos_conv_embed(hidden)
    if config.do_stable_layer_norm:
        return cast(Tensor, encoder.layer_norm(_layers(encoder.layers, encoder.dropout(hidden), mask))), mask
    return _layers(encoder.layers, encoder.dropout(encoder.layer_norm(hidden)), mask), mask


def _steps(mask: Tensor, kernel: int, stride: int) -> Tensor:
    """Return which steps of a convolution without padding see real places alone, by the last place that each sees."""
    return mask[:, kernel - 1 :: stride]


def _instance_norm(hidden: Tensor, mask: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise each channel of each row over its real steps; `norm` has as many groups as channels."""
    real = mask.unsqueeze(1).to(hidden.dtype)
    count = real.sum(dim=2, keepdim=True)
    mean = (hidden * real).sum(dim=2, keepdim=True) / count
    centred = (hidden - mean) * real
    variance = (centred * centred).sum(dim=2, keepdim=True) / count
    return centred / torch.sqrt(variance + norm.eps) * norm.weight[:, None] + norm.bias[:, None]


def _layers(layers: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """Run transformer layers, in which nothing sees padding."""
    # ONNX Runtime's Attention wants the mask spelt out for every position that looks.
    seen = mask[:, None, None, :].expand(-1, -1, hidden.shape[1], -1)
    for layer in layers:
        output = layer(hidden, attention_mask=seen)
        hidden = output[0] if isinstance(output, tuple) else output
    return hidden


_STATES: dict[str, Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "cnn": _cnn_states,
    "whisper": _whisper_states,
    "ast": _ast_states,
    "wav2vec2": _wav2vec2_states,
}

# transformers' model_type → how its encoder is run.
_FAMILIES = {
    "whisper": "whisper",
    "audio-spectrogram-transformer": "ast",
    "wav2vec2": "wav2vec2",
    "hubert": "wav2vec2",
}


def _family(backbone: Any) -> str:
    return "cnn" if isinstance(backbone, SpectrogramResNet) else family_of(backbone.config)


def family_of(config: Any) -> str:
    """Return how a transformers network is run.

    Raises
    ------
    ConfigurationError
        If it is of a kind that is not known here.
    """
    if config.model_type not in _FAMILIES:
        raise ConfigurationError(
            f"a network of transformers' type {config.model_type!r} is not known as one of sounds; "
            f"these are: {sorted(_FAMILIES)}"
        )
    return _FAMILIES[config.model_type]


def build_cnn(preprocessor: AudioPreprocessor, *, pooling: str | None) -> AudioEncoder:
    """Build a small ResNet over the spectrogram; see `SpectrogramResNet`."""
    backbone = SpectrogramResNet(preprocessor.n_mels)
    return AudioEncoder(backbone, backbone.size, pooling=pooling)


def build_ast(preprocessor: AudioPreprocessor, *, pooling: str | None) -> AudioEncoder:
    """Build a small audio spectrogram transformer (Gong et al. 2021): 4 layers of 128 features."""
    config = ASTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=256,
        hidden_dropout_prob=0.1,
        patch_size=16,
        frequency_stride=16,
        time_stride=10,
        max_length=preprocessor.max_length,
        num_mel_bins=preprocessor.n_mels,
    )
    return audio_encoder_from_config(config, pooling=pooling or "mean")


AUDIO_BACKBONES: dict[str, Callable[..., AudioEncoder]] = {"cnn": build_cnn, "ast": build_ast}


def audio_encoder_from_config(config: PreTrainedConfig | dict[str, Any], *, pooling: str | None) -> AudioEncoder:
    """Build an untrained network from a transformers config; of Whisper the encoder alone."""
    config = config_of(config)
    model = WhisperEncoder(config) if family_of(config) == "whisper" else AutoModel.from_config(config)
    return audio_encoder_from_model(model, pooling=pooling)


def audio_encoder_from_architecture(architecture: dict[str, Any]) -> AudioEncoder:
    """Rebuild an untrained encoder from `AudioEncoder.architecture`."""
    if "cnn" in architecture:
        backbone = SpectrogramResNet(**architecture["cnn"])
        return AudioEncoder(backbone, backbone.size, pooling=architecture["pooling"])
    return audio_encoder_from_config(architecture["config"], pooling=architecture["pooling"])


def audio_encoder_from_model(model: Any, *, pooling: str | None) -> AudioEncoder:
    """Wrap a transformers model; of an encoder-decoder the encoder is taken."""
    if family_of(model.config) == "whisper" and not isinstance(model, WhisperEncoder):
        model = model.get_encoder()
    if family_of(model.config) == "wav2vec2":
        positions = model.encoder.pos_conv_embed
        positions.conv = _plain(positions.conv)
    return AudioEncoder(model.float(), model.config.hidden_size, pooling=pooling)


def _plain(conv: nn.Conv1d) -> nn.Conv1d:
    """Return a convolution with the weight that this one computes at each use, by a hook that cannot be pickled."""
    plain = nn.utils.skip_init(
        nn.Conv1d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        padding=conv.padding,
        groups=conv.groups,
    )
    plain.load_state_dict({"weight": conv.weight.detach(), "bias": conv.bias.detach()})  # type: ignore[union-attr]
    return plain


def audio_preprocessor_for(config: Any, *, sampling_rate: int | None, max_seconds: float | None) -> AudioPreprocessor:
    """Return what a network takes that a transformers config describes."""
    rate = sampling_rate or SAMPLING_RATE
    family = family_of(config)
    if family == "wav2vec2":
        return AudioPreprocessor(
            features="waveform", sampling_rate=rate, max_seconds=max_seconds or MAX_SECONDS, normalise=True
        )
    if family == "ast":
        return AudioPreprocessor(
            features="filter_bank",
            sampling_rate=rate,
            max_seconds=_at_most(max_seconds, config.max_length / 100, MAX_SECONDS),
            n_mels=config.num_mel_bins,
            mean=AUDIOSET_MEAN,
            std=2 * AUDIOSET_STD,
        )
    hop = rate // 100
    return AudioPreprocessor(
        sampling_rate=rate,
        max_seconds=_at_most(max_seconds, 2 * config.max_source_positions * hop / rate, MAX_SECONDS),
        n_mels=config.num_mel_bins,
        n_fft=rate // 40,
        hop_length=hop,
    )


def read_audio_processor(
    folder: str, *, sampling_rate: int | None = None, max_seconds: float | None = None
) -> AudioPreprocessor:
    """Read how a pretrained model wants its sounds, from its ``preprocessor_config.json``.

    Parameters
    ----------
    folder : str
    sampling_rate : int, default=None
        None takes the folder's; another than that is an error.
    max_seconds : float, default=None
        None takes the folder's limit, and 10 where it has none.

    Returns
    -------
    AudioPreprocessor

    Raises
    ------
    ConfigurationError
        If the file is not there, or is of a kind that is not known here.
    """
    settings = read_processor(folder, "sounds", "feature_extractor")
    rate = int(settings.get("sampling_rate", SAMPLING_RATE))
    if sampling_rate not in (None, rate):
        raise ConfigurationError(f"sampling_rate={sampling_rate}, and pretrained={folder!r} was trained on {rate}")
    kind = settings.get("feature_extractor_type")
    if kind == "WhisperFeatureExtractor":
        limit = float(settings.get("chunk_length", 30))
        return AudioPreprocessor(
            sampling_rate=rate,
            max_seconds=_at_most(max_seconds, limit, limit),
            n_mels=settings.get("feature_size", 80),
            n_fft=settings.get("n_fft", 400),
            hop_length=settings.get("hop_length", 160),
        )
    if kind == "ASTFeatureExtractor":
        limit = settings.get("max_length", 1024) / 100
        mean, std = settings.get("mean", AUDIOSET_MEAN), 2 * settings.get("std", AUDIOSET_STD)
        return AudioPreprocessor(
            features="filter_bank",
            sampling_rate=rate,
            max_seconds=_at_most(max_seconds, limit, limit),
            n_mels=settings.get("num_mel_bins", 128),
            mean=mean if settings.get("do_normalize", True) else 0.0,
            std=std if settings.get("do_normalize", True) else 1.0,
        )
    if kind == "Wav2Vec2FeatureExtractor":
        return AudioPreprocessor(
            features="waveform",
            sampling_rate=rate,
            max_seconds=max_seconds or MAX_SECONDS,
            normalise=settings.get("do_normalize", True),
        )
    raise ConfigurationError(
        f"pretrained={folder!r} prepares its input by {kind!r}, which is none of: WhisperFeatureExtractor, "
        "ASTFeatureExtractor, Wav2Vec2FeatureExtractor"
    )


def _at_most(asked: float | None, limit: float, default: float) -> float:
    if asked is None:
        return min(limit, default)
    if asked > limit:
        raise ConfigurationError(f"max_seconds={asked:g} is more than the {limit:g} that the network takes")
    return asked
