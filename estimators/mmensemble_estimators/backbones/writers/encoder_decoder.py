"""Encoder-decoders: what an encoder makes of a row is the memory that a decoder attends to while it writes.

The encoders are those of the classifiers, of texts and of images alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from mmensemble.preprocessing import TensorSpec
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.text import (
    NO_SPECIAL_TOKENS,
    build_lstm,
    text_encoder_from_architecture,
    text_encoder_from_model,
)
from mmensemble_estimators.backbones.writers.decoders import (
    SIZE,
    Decoder,
    LSTMDecoder,
    TransformerDecoder,
    decoder_from_architecture,
    transformer_config,
)
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork, State

__all__ = [
    "SEQUENCE_BACKBONES",
    "EncoderDecoder",
    "encoder_decoder_from_architecture",
    "encoder_decoder_from_config",
    "encoder_decoder_from_model",
]


class EncoderDecoder(GenerativeNetwork):
    """An encoder and a decoder that attends to what it gives.

    Parameters
    ----------
    encoder : Encoder
        Its `tokens` are the memory.
    decoder : Decoder
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.vocab_size = decoder.vocab_size
        self.embedding_size = decoder.embedding_size
        self.max_length = decoder.max_length

    def encode(self, **inputs: Tensor) -> State:
        """Return the memory, ready to be attended to."""
        return self.decoder.remember(*self.encoder.tokens(**inputs))

    def encoded_spec(self) -> dict[str, TensorSpec]:
        return self.decoder.memory_spec()

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        return self.decoder.decode(input_ids, attention_mask, past, **state)

    def head(self, hidden: Tensor) -> Tensor:
        return self.decoder.head(hidden)

    def state_spec(self) -> dict[str, TensorSpec]:
        return self.decoder.state_spec()

    def train(self, mode: bool = True) -> EncoderDecoder:
        """Switch dropout and batch statistics on or off; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self


def build_transformer(*, vocab_size: int, max_length: int, pooling: str) -> EncoderDecoder:
    """Build a small transformer; encoder, decoder and head share the vectors of the tokens (Press and Wolf 2017)."""
    config = transformer_config(vocab_size=vocab_size, max_length=max_length)
    return encoder_decoder_from_config(config, vocab_size=None, attention="full", pooling=pooling)


def build_lstm_pair(*, vocab_size: int, max_length: int, pooling: str) -> EncoderDecoder:
    """Build a bidirectional LSTM that reads and two layers of LSTM with attention that write."""
    encoder = build_lstm(vocab_size=vocab_size, max_length=max_length, pooling=pooling)
    return EncoderDecoder(encoder, LSTMDecoder(vocab_size, SIZE, encoder.embedding_size))


SEQUENCE_BACKBONES: dict[str, Callable[..., EncoderDecoder]] = {
    "transformer": build_transformer,
    "lstm": build_lstm_pair,
}


def encoder_decoder_from_config(
    config: PreTrainedConfig | dict[str, Any], *, vocab_size: int | None, attention: str, pooling: str
) -> EncoderDecoder:
    """Build an untrained network from a transformers config, with a vocabulary of another size where one is given."""
    changes = {}
    if vocab_size is not None:
        changes = {"vocab_size": vocab_size, "decoder_start_token_id": 0, **NO_SPECIAL_TOKENS}
    model = AutoModelForSeq2SeqLM.from_config(config_of(config, **changes))
    return encoder_decoder_from_model(model, attention=attention, pooling=pooling)


def encoder_decoder_from_model(model: Any, *, attention: str, pooling: str) -> EncoderDecoder:
    """Take a transformers encoder-decoder apart; `attention` is that of `TextEncoder`."""
    encoder = text_encoder_from_model(model, pooling=pooling)
    encoder.attention = attention
    return EncoderDecoder(encoder, TransformerDecoder(model.float(), encoder.embedding_size))


def encoder_decoder_from_architecture(architecture: dict[str, Any]) -> EncoderDecoder:
    """Rebuild an untrained network of texts from the architectures of its encoder and decoder."""
    encoder, decoder = architecture["encoder"], architecture["decoder"]
    if "config" in decoder:
        return encoder_decoder_from_config(
            decoder["config"], vocab_size=None, attention=encoder["attention"], pooling=encoder["pooling"]
        )
    rebuilt = text_encoder_from_architecture(encoder)
    return EncoderDecoder(rebuilt, decoder_from_architecture(decoder, rebuilt.embedding_size))
