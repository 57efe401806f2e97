"""Text backbones: token ids → one embedding per text. From scratch, from a config, or from pretrained weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, BertConfig, GPT2Config, PreTrainedConfig

from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.lstm import run_lstm
from mmensemble_estimators.backbones.n_grams import NGramVectors
from mmensemble_estimators.backbones.pretrained import load_tokenizer, pad_id
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork

__all__ = [
    "POOLINGS",
    "TEXT_BACKBONES",
    "PooledStates",
    "TextEncoder",
    "pool",
    "read_text_processor",
    "text_encoder_from_architecture",
    "text_encoder_from_config",
    "text_encoder_from_model",
]

POOLINGS = ("mean", "last", "cls", "max")

SIZE = 128

# Those of a config are of another vocabulary than that of a tokenizer which is trained here.
NO_SPECIAL_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


class TextEncoder(Encoder):
    """A network over tokens and a pooling over its last hidden states.

    Parameters
    ----------
    backbone : nn.Module
        Token ids and a mask → states (batch, length, embedding_size), or an object with ``last_hidden_state``.
    embedding_size : int
    attention : {"causal", "full", "own"}
        ``"causal"``: a position sees itself and those before it; padding stands on the right, so no padding mask is
        needed. ``"full"``: it sees all real positions. ``"own"``: the backbone gets the padding mask and makes of it
        what it was pretrained with.
    pooling : {"mean", "last", "cls", "max"}
        How the states of the real (unpadded) tokens become one embedding; ``"cls"`` is the first one.

    Attributes
    ----------
    n_grams : NGramVectors or None
        What the embedding is added to, where the texts come with n-grams; see `with_n_grams`.
    """

    def __init__(self, backbone: nn.Module, embedding_size: int, *, attention: str, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        config = getattr(backbone, "config", None)
        self.rotary = getattr(config, "rope_parameters", None) is not None and (
            "position_ids" in inspect.signature(backbone.forward).parameters
        )
        self.embedding_size = embedding_size
        self.attention = attention
        self.pooling = pooling
        self.n_grams: NGramVectors | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "n_grams" not in self._modules:  # of version 0.1.0, which had none
            self.n_grams = None

    def with_n_grams(self, n_features: int) -> Self:
        """Add the vectors of n-grams, as many as `NGramPreprocessor.n_features` says; return the encoder."""
        self.n_grams = NGramVectors(n_features, self.embedding_size)
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor, n_gram_ids: Tensor | None = None) -> Tensor:
        """Embed token ids.

        Parameters
        ----------
        input_ids, attention_mask : Tensor of int64, shape (batch, length)
        n_gram_ids : Tensor of int64, shape (batch, n_grams), default=None

        Returns
        -------
        Tensor of float, shape (batch, embedding_size)
        """
        embedding = pool(self._states(input_ids, attention_mask), attention_mask, self.pooling)
        if self.n_grams is None or n_gram_ids is None:
            return embedding
        return embedding + self.n_grams(n_gram_ids)

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last hidden states (batch, length, embedding_size), and which are real ones.

        Behind them is what the n-grams add, as a token of its own.
        """
        input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
        states, mask = self._states(input_ids, attention_mask), attention_mask.bool()
        if self.n_grams is None:
            return states, mask
        added = self.n_grams(inputs["n_gram_ids"]).unsqueeze(1)
        return torch.cat([states, added], dim=1), torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)

    def _states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask
        # A mask of four axes is taken by transformers as it is; it adds none of its own.
        if self.attention == "causal":
            length = input_ids.shape[1]
            mask = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        elif self.attention == "full":
            # ONNX Runtime's Attention wants the mask spelt out for every position that looks.
            mask = attention_mask.bool()[:, None, None, :].expand(-1, -1, input_ids.shape[1], -1)
        more = {}
        if self.rotary:
            # The model's own positions are those of one row, and ONNX Runtime's RotaryEmbedding wants every row's.
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)
            more["position_ids"] = positions[None].expand(len(input_ids), -1)
        states = self.backbone(input_ids=input_ids, attention_mask=mask, **more)
        hidden: Tensor = states if isinstance(states, Tensor) else states.last_hidden_state
        return hidden

    def architecture(self) -> dict[str, Any]:
        """Return what `text_encoder_from_architecture` rebuilds the untrained encoder from, as JSON values."""
        if isinstance(self.backbone, BidirectionalLSTM):
            backbone = {"lstm": dict(zip(("vocab_size", "size"), self.backbone.embedding.weight.shape, strict=True))}
        else:
            backbone = {"config": self.backbone.config.to_diff_dict()}  # type: ignore[union-attr, operator]
        more = {} if self.n_grams is None else {"n_grams": self.n_grams.n_features}
        return {"backbone": backbone, "attention": self.attention, "pooling": self.pooling, **more}


def pool(states: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Pool hidden states (batch, length, size) over the real tokens to (batch, size)."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = attention_mask.sum(dim=1, keepdim=True) - 1
        return states.gather(1, last.unsqueeze(-1).expand(-1, -1, states.shape[-1])).squeeze(1)
    real = attention_mask.unsqueeze(-1).to(states.dtype)
    if pooling == "max":
        return (states + (real - 1.0) * 1e4).amax(dim=1)
    return (states * real).sum(dim=1) / real.sum(dim=1)


class PooledStates(Encoder):
    """Left-padded tokens → one embedding per row, of a network's last hidden states at the real ones.

    Parameters
    ----------
    network : GenerativeNetwork
    pooling : {"mean", "last", "max"}
        As in `TextEncoder`.
    """

    def __init__(self, network: GenerativeNetwork, pooling: str) -> None:
        super().__init__()
        self.network = network
        self.embedding_size = network.embedding_size
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids (batch, length) as (batch, embedding_size)."""
        hidden, _ = self.network.decode(input_ids, attention_mask)
        return hidden[:, -1] if self.pooling == "last" else pool(hidden, attention_mask, self.pooling)


class BidirectionalLSTM(nn.Module):
    """Two LSTMs (Hochreiter and Schmidhuber 1997) over the tokens, one of them from the end.

    The second one reads each row reversed within its own length, so padding never enters either of them.
    """

    def __init__(self, vocab_size: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.dropout = nn.Dropout(0.1)
        self.forwards = nn.LSTM(size, size // 2, batch_first=True)
        self.backwards = nn.LSTM(size, size // 2, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return states (batch, length, size)."""
        vectors = self.dropout(self.embedding(input_ids))
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        mirrored = (attention_mask.sum(dim=1, keepdim=True) - 1 - positions).clamp(min=0).unsqueeze(-1)
        # `shape[0]` instead of `len`, and `gather`, because torch.export fixes the batch size otherwise.
        state = vectors.new_zeros(1, input_ids.shape[0], self.forwards.hidden_size)
        forward_states, *_ = run_lstm(self.forwards, vectors, state, state)
        reversed_vectors = vectors.gather(1, mirrored.expand(-1, -1, vectors.shape[2]))
        backward_states, *_ = run_lstm(self.backwards, reversed_vectors, state, state)
        backward_states = backward_states.gather(1, mirrored.expand(-1, -1, backward_states.shape[2]))
        return torch.cat([forward_states, backward_states], dim=2)


def build_gpt(*, vocab_size: int, max_length: int, pooling: str) -> TextEncoder:
    """Build a small GPT (Radford et al. 2018): 2 causal layers of 128 features and 4 heads."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length,
        n_embd=SIZE,
        n_layer=2,
        n_head=4,
        # GPT-2's own "gelu_new" is the same function, but exports as a chain of operators instead of one Gelu.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    return TextEncoder(AutoModel.from_config(config), SIZE, attention="causal", pooling=pooling)


def build_bert(*, vocab_size: int, max_length: int, pooling: str) -> TextEncoder:
    """Build a small BERT (Devlin et al. 2019): 2 bidirectional layers of 128 features and 4 heads."""
    config = BertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=max_length,
        hidden_size=SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * SIZE,
    )
    return TextEncoder(AutoModel.from_config(config), SIZE, attention="full", pooling=pooling)


def build_lstm(*, vocab_size: int, max_length: int, pooling: str) -> TextEncoder:
    """Build a bidirectional LSTM of 2 × 64 features."""
    return build_lstm_of(vocab_size=vocab_size, size=SIZE, pooling=pooling)


def build_lstm_of(*, vocab_size: int, size: int, pooling: str) -> TextEncoder:
    """Build a bidirectional LSTM of another size."""
    return TextEncoder(BidirectionalLSTM(vocab_size, size), size, attention="own", pooling=pooling)


TEXT_BACKBONES: dict[str, Callable[..., TextEncoder]] = {"gpt": build_gpt, "bert": build_bert, "lstm": build_lstm}


def text_encoder_from_config(
    config: PreTrainedConfig | dict[str, Any], *, vocab_size: int | None, pooling: str
) -> TextEncoder:
    """Build an untrained network from a transformers config, with a vocabulary of another size where one is given."""
    changes = {} if vocab_size is None else {"vocab_size": vocab_size, **NO_SPECIAL_TOKENS}
    return text_encoder_from_model(AutoModel.from_config(config_of(config, **changes)), pooling=pooling)


def text_encoder_from_architecture(architecture: dict[str, Any]) -> TextEncoder:
    """Rebuild an untrained encoder from `TextEncoder.architecture`."""
    backbone, pooling = architecture["backbone"], architecture["pooling"]
    if "lstm" in backbone:
        encoder = build_lstm_of(**backbone["lstm"], pooling=pooling)
    else:
        encoder = text_encoder_from_config(backbone["config"], vocab_size=None, pooling=pooling)
        encoder.attention = architecture["attention"]
    return encoder.with_n_grams(architecture["n_grams"]) if "n_grams" in architecture else encoder


def text_encoder_from_model(model: Any, *, pooling: str) -> TextEncoder:
    """Wrap a transformers model; of an encoder-decoder the encoder is taken."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model.config.use_cache = False
    return TextEncoder(model.float(), model.config.hidden_size, attention="own", pooling=pooling)


def read_text_processor(folder: str, *, max_length: int) -> TextPreprocessor:
    """Read the tokenizer of a pretrained model."""
    tokenizer = load_tokenizer(folder)
    backend = tokenizer.backend_tokenizer.to_str()
    return TextPreprocessor(backend, max_length=max_length, pad_id=pad_id(tokenizer))
