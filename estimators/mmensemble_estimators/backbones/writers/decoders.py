"""Decoders: networks that write with a memory to look at, which an encoder has made of a text or an image.

Those of transformers that attend to a memory, whose state are keys and values; and an LSTM with attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, MBartConfig
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import TensorSpec
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.lstm import run_lstm
from mmensemble_estimators.backbones.writers.networks import State, state_of
from mmensemble_estimators.backbones.writers.static_cache import static_cache

__all__ = [
    "DECODERS",
    "Decoder",
    "LSTMDecoder",
    "TransformerDecoder",
    "decoder_from_architecture",
    "transformer_config",
]

SIZE = 128
N_LAYERS = 2
N_HEADS = 4
DROPOUT = 0.1

SOURCE = ("batch", "source")
STATES = ("hidden", "cell")  # of an LSTM


class Decoder(nn.Module, ABC):
    """A network that writes with a memory to look at; its tensors are as in `GenerativeNetwork`.

    Attributes
    ----------
    vocab_size, embedding_size : int
    max_length : int or None
        Most tokens that it can write; None where there is no bound.
    """

    vocab_size: int
    embedding_size: int
    max_length: int | None

    @abstractmethod
    def remember(self, states: Tensor, mask: Tensor) -> State:
        """Prepare the memory for attention, once per row.

        Parameters
        ----------
        states : Tensor of float, shape (batch, source, memory_size)
        mask : Tensor of bool, shape (batch, source)
            True at real places.
        """

    @abstractmethod
    def memory_spec(self) -> dict[str, TensorSpec]:
        """Return dtype and shape of what `remember` returns."""

    @abstractmethod
    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        """Run some more tokens; see `GenerativeNetwork.decode`. What is written has no padding before it."""

    @abstractmethod
    def state_spec(self) -> dict[str, TensorSpec]:
        """Return dtype and shape of the state that `decode` returns."""

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Turn hidden states into scores."""

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Return what `decoder_from_architecture` rebuilds the untrained decoder from, as JSON values."""


class TransformerDecoder(Decoder):
    """The decoder of a transformers model, with its head.

    Parameters
    ----------
    model : PreTrainedModel
        Of `AutoModelForSeq2SeqLM`, or of `AutoModelForCausalLM` with cross-attention.
    memory_size : int
        Of the memory. Where that is not what the decoder attends to, a linear layer is put in between.

    Raises
    ------
    ConfigurationError
        If the model computes its scores in another way than from its last hidden states by its head.
    """

    def __init__(self, model: Any, memory_size: int) -> None:
        super().__init__()
        config = model.config
        self.config = config
        self.network = model.get_decoder()
        self.lm_head = model.get_output_embeddings()
        # T5 scales what its head takes, and BART's family adds a bias to what it gives.
        self.scale = config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else 1.0
        self.bias: Tensor | None
        self.register_buffer("bias", getattr(model, "final_logits_bias", None))
        self.vocab_size, self.embedding_size = self.lm_head.weight.shape
        self.max_length = getattr(config, "max_position_embeddings", None)
        size = config.hidden_size
        self.bridge = nn.Identity() if memory_size == size else nn.Linear(memory_size, size)
        self._shapes = self._check(model, size)

    def _check(self, model: Any, size: int) -> list[tuple[int, int]]:
        """Compare with the model's own scores of one token; return the heads and their size of each layer."""
        was_training = model.training
        model.eval()
        one, memory = torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, size)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        with torch.no_grad():
            scores = self.head(self._run(one, memory, (one + 1).bool(), cache))
            if model.config.is_encoder_decoder:
                own = model(encoder_outputs=BaseModelOutput(memory), decoder_input_ids=one).logits
            else:
                own = model(input_ids=one, encoder_hidden_states=memory).logits
        model.train(was_training)
        layers = cache.cross_attention_cache.layers
        if not torch.allclose(scores, own, atol=1e-4) or any(layer.keys is None for layer in layers):
            raise ConfigurationError(
                f"{type(model).__name__} cannot be generated with: its scores are not those of its decoder and head"
            )
        return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in layers]

    def _run(self, input_ids: Tensor, states: Tensor, mask: Tensor, cache: EncoderDecoderCache) -> Tensor:
        # Masks of four axes are taken by transformers as they are, and ONNX Runtime's Attention wants them spelt out.
        n_rows, length = input_ids.shape
        total, _ = cache.get_mask_sizes(length, 0)
        own = torch.arange(length, device=input_ids.device)[:, None] + cache.get_seq_length()
        causal = torch.arange(total, device=input_ids.device) <= own
        hidden: Tensor = self.network(
            input_ids=input_ids,
            attention_mask=causal[None, None].expand(n_rows, -1, -1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=mask[:, None, None, :].expand(-1, -1, length, -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def remember(self, states: Tensor, mask: Tensor) -> State:
        # A token that counts for nothing makes each layer compute the keys and values of the memory.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self._run(mask.new_zeros(mask.shape[0], 1, dtype=torch.int64), self.bridge(states), mask, cache)
        memory = {"source_mask": mask}
        for number, layer in enumerate(cache.cross_attention_cache.layers):
            memory[f"source_key.{number}"], memory[f"source_value.{number}"] = layer.keys, layer.values
        return memory

    def memory_spec(self) -> dict[str, TensorSpec]:
        return {"source_mask": TensorSpec("bool", SOURCE), **self._spec("source_", "source")}

    def state_spec(self) -> dict[str, TensorSpec]:
        return self._spec("", "capacity")

    def _spec(self, prefix: str, axis: str) -> dict[str, TensorSpec]:
        return {
            f"{prefix}{kind}.{layer}": TensorSpec("float32", ("batch", n_heads, axis, size))
            for layer, (n_heads, size) in enumerate(self._shapes)
            for kind in ("key", "value")
        }

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        layers = range(len(self._shapes))
        before = [(state[f"key.{n}"], state[f"value.{n}"]) for n in layers] if "key.0" in state else None
        own = DynamicCache(before) if past is None else static_cache(state, past)
        memory = DynamicCache([(state[f"source_key.{n}"], state[f"source_value.{n}"]) for n in layers])
        cache = EncoderDecoderCache(own, memory)
        cache.is_updated = dict.fromkeys(layers, True)
        mask = state["source_mask"]
        # With keys and values at hand, the memory itself only says that there is one.
        hidden = self._run(input_ids, state["source_key.0"].flatten(2), mask, cache)
        return hidden, state_of(own)

    def head(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.lm_head(hidden * self.scale)
        return scores if self.bias is None else scores + self.bias

    def architecture(self) -> dict[str, Any]:
        return {"config": self.config.to_diff_dict()}


class LSTMDecoder(Decoder):
    """LSTMs over the tokens, and global attention to the memory (Luong et al. 2015, "general").

    What is attended to does not go back into the LSTMs, so that a whole text is trained on at once.

    Parameters
    ----------
    vocab_size, size : int
    memory_size : int
    """

    def __init__(self, vocab_size: int, size: int, memory_size: int) -> None:
        super().__init__()
        self.vocab_size, self.embedding_size, self.memory_size = vocab_size, size, memory_size
        self.max_length = None
        self.embedding = nn.Embedding(vocab_size, size)
        self.dropout = nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList([nn.LSTM(size, size, batch_first=True) for _ in range(N_LAYERS)])
        self.key = nn.Linear(memory_size, size)
        self.value = nn.Linear(memory_size, size)
        self.combine = nn.Linear(2 * size, size)
        self.lm_head = nn.Linear(size, vocab_size)

    def remember(self, states: Tensor, mask: Tensor) -> State:
        return {"source_mask": mask, "source_key": self.key(states), "source_value": self.value(states)}

    def memory_spec(self) -> dict[str, TensorSpec]:
        spec = TensorSpec("float32", (*SOURCE, self.embedding_size))
        return {"source_mask": TensorSpec("bool", SOURCE), "source_key": spec, "source_value": spec}

    def state_spec(self) -> dict[str, TensorSpec]:
        spec = TensorSpec("float32", ("batch", N_LAYERS, self.embedding_size))
        return dict.fromkeys(STATES, spec)

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        n_rows, length = input_ids.shape
        key, value, mask = (state[name].unsqueeze(1) for name in ("source_key", "source_value", "source_mask"))
        nothing = key.new_zeros(n_rows, N_LAYERS, self.embedding_size)
        started = [state.get(name, nothing).transpose(0, 1) for name in STATES]
        states, hiddens, cells = self.embedding(input_ids), [], []
        for number, layer in enumerate(self.layers):
            before = [part[number : number + 1] for part in started]
            states, hidden, cell = run_lstm(layer, self.dropout(states), *before)
            hiddens.append(hidden[0])
            cells.append(cell[0])
        mask = mask.unsqueeze(2).expand(-1, -1, length, -1)
        seen = scaled_dot_product_attention(states.unsqueeze(1), key, value, attn_mask=mask).squeeze(1)
        attended = self.dropout(torch.tanh(self.combine(torch.cat([states, seen], dim=2))))
        return attended, dict(zip(STATES, (torch.stack(hiddens, dim=1), torch.stack(cells, dim=1)), strict=True))

    def head(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.lm_head(hidden)
        return scores

    def architecture(self) -> dict[str, Any]:
        return {"lstm": {"vocab_size": self.vocab_size, "size": self.embedding_size, "memory_size": self.memory_size}}


def transformer_config(*, vocab_size: int, max_length: int, **changes: Any) -> MBartConfig:
    """Return a small transformer (Vaswani et al. 2017): 2 + 2 layers of 128 features, normalised before each."""
    return MBartConfig(
        vocab_size=vocab_size,
        max_position_embeddings=max_length + 1,  # the start token too has a place
        d_model=SIZE,
        encoder_layers=N_LAYERS,
        decoder_layers=N_LAYERS,
        encoder_attention_heads=N_HEADS,
        decoder_attention_heads=N_HEADS,
        encoder_ffn_dim=2 * SIZE,
        decoder_ffn_dim=2 * SIZE,
        dropout=DROPOUT,
        # The vectors of tokens and places have this size and no other: with 0.02, or with tokens alone scaled up, the
        # network did not learn in 10 epochs to write 2,000 strings of digits backwards, which takes it 7 with this.
        scale_embedding=False,
        init_std=SIZE**-0.5,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        forced_eos_token_id=None,
        **changes,
    )


def build_transformer_decoder(*, vocab_size: int, max_length: int, memory_size: int) -> TransformerDecoder:
    """Build the decoder of `build_transformer` for a memory of any size."""
    config = transformer_config(vocab_size=vocab_size, max_length=max_length, is_decoder=True, is_encoder_decoder=False)
    return TransformerDecoder(AutoModelForCausalLM.from_config(config), memory_size)


def build_lstm_decoder(*, vocab_size: int, max_length: int, memory_size: int) -> LSTMDecoder:
    """Build the decoder of `build_lstm_pair` for a memory of any size."""
    return LSTMDecoder(vocab_size, SIZE, memory_size)


DECODERS: dict[str, Callable[..., Decoder]] = {"transformer": build_transformer_decoder, "lstm": build_lstm_decoder}


def decoder_from_architecture(architecture: dict[str, Any], memory_size: int) -> Decoder:
    """Rebuild an untrained decoder from `Decoder.architecture`."""
    if "lstm" in architecture:
        return LSTMDecoder(**architecture["lstm"])
    return TransformerDecoder(AutoModelForCausalLM.from_config(config_of(architecture["config"])), memory_size)
