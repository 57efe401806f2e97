"""Networks that write: tokens so far → scores of the next one, with a state that spares computing anything twice.

The interface is `GenerativeNetwork`; a language model and an encoder-decoder differ in what they `encode`. Decoding
(greedy, sampling, beams) is in `mmensemble.scoring.generation`, and runs the same over a network and over its
exported graph.

Rows of different length are one batch by padding on the **left**, so that every row's next token stands in the same
place; ``attention_mask`` says which tokens are real, and positions are counted over the real ones.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache, DynamicCache, GPT2Config, PreTrainedConfig

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import TensorSpec
from mmensemble_estimators.backbones.configs import config_of
from mmensemble_estimators.backbones.portable import Portable
from mmensemble_estimators.backbones.writers.static_cache import static_cache

__all__ = ["CausalNetwork", "GenerativeNetwork", "State", "build_causal_gpt", "causal_network_from_config"]

State = dict[str, Tensor]


class GenerativeNetwork(Portable, ABC):
    """A network that gives the scores of each next token.

    Generation runs in two parts. `encode` is run once per row, on what the preprocessor makes of a cell; what it
    returns stays as it is (of an encoder-decoder: keys, values and mask for cross-attention; of a language model, whose
    prompt is tokens: nothing). `decode` is run again and again: on the first tokens with `initial_state`, then on each
    new token with the state that it returned before. Both states are passed as keywords, side by side; a name is in
    one of them only. All their tensors have the batch as first axis, so that rows can be selected.

    Attributes
    ----------
    vocab_size : int
        Width of the scores.
    embedding_size : int
        Of the hidden states.
    max_length : int or None
        Most tokens of a row, prompt and continuation together; None where there is no bound.
    """

    vocab_size: int
    embedding_size: int
    max_length: int | None

    def encode(self, **inputs: Tensor) -> State:
        """Return the part of the state that stays, from the preprocessor's arrays; here nothing."""
        return {}

    def encoded_spec(self) -> dict[str, TensorSpec]:
        """Return dtype and shape of what `encode` returns; a string names a dynamic axis, the first is ``"batch"``."""
        return {}

    @abstractmethod
    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        """Run some more tokens.

        Parameters
        ----------
        input_ids : Tensor of int64, shape (batch, length)
        attention_mask : Tensor of int64, shape (batch, past + length), or None
            1 at real tokens, those of the past included; padding stands on the left. None says that no real token
            has padding before it, as in training, where padding on the right is seen by nothing that counts.
        past : Tensor of int64, shape (batch,), default=None
            Where it is given, as in an export, what would grow are buffers of a fixed length, ``"capacity"``: so many
            of their places are taken, equally many in each row, the tokens are written behind them, and the mask has
            the buffers' length. Without it, the tokens are put behind what is there.
        **state : Tensor
            What `encode` returned, and `initial_state` or what this method returned before. Without the latter, the
            tokens are the first ones.

        Returns
        -------
        hidden : Tensor of float, shape (batch, length, embedding_size)
            What `head` makes scores of. Anything at padded positions, but finite.
        state : dict of str to Tensor
            Those of `state_spec`, in its order.
        """

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Turn hidden states (…, embedding_size) into scores (logits) (…, vocab_size)."""

    @abstractmethod
    def state_spec(self) -> dict[str, TensorSpec]:
        """Return dtype and shape of the state that `decode` returns.

        The axis ``"capacity"`` has a place for every token that was run, and none at the start (keys and values of
        attention). A tensor without it has a fixed size and is 0 at the start (the state of an LSTM).
        """

    def initial_state(self, n_rows: int) -> State:
        """Return the state before the first token, without what `encode` returns."""
        device = next(self.parameters()).device
        sizes: dict[int | str, int] = {"batch": n_rows, "capacity": 0}
        return {
            name: torch.zeros(
                [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape],
                dtype=getattr(torch, spec.dtype),
                device=device,
            )
            for name, spec in self.state_spec().items()
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **state: Tensor) -> tuple[Tensor, State]:
        """Return the scores after each token, (batch, length, vocab_size), and the new state; see `decode`."""
        hidden, state = self.decode(input_ids, attention_mask, **state)
        return self.head(hidden), state


class CausalNetwork(GenerativeNetwork):
    """Any causal model of transformers whose state are keys and values.

    Parameters
    ----------
    backbone : PreTrainedModel
        Of `transformers.AutoModelForCausalLM`.

    Raises
    ------
    ConfigurationError
        If the model's state is another one, or its attention is limited to a window.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        config = backbone.config.get_text_config(decoder=True)
        name = type(backbone).__name__
        if "position_ids" not in inspect.signature(backbone.forward).parameters:
            raise ConfigurationError(f"{name} cannot be generated with: it takes no position_ids")
        self.max_length = getattr(config, "max_position_embeddings", None)
        window = getattr(config, "sliding_window", None)
        if window is not None and getattr(config, "use_sliding_window", True):
            self.max_length = min(window, self.max_length or window)  # beyond it, some layers would see less
        self.backbone = backbone
        self.vocab_size = int(backbone.get_output_embeddings().weight.shape[0])
        self.embedding_size = int(backbone.get_output_embeddings().weight.shape[1])
        self._cache_shapes = self._look_at()

    def _look_at(self) -> list[tuple[tuple[int, int], ...]]:
        """Run two tokens; return heads and size of each layer's keys and values."""
        was_training = self.backbone.training
        device = next(self.backbone.parameters()).device
        tokens = torch.zeros(1, 2, dtype=torch.int64, device=device)
        with torch.no_grad():
            outputs = self.backbone.eval().base_model(input_ids=tokens, use_cache=True)
            logits = self.backbone(input_ids=tokens).logits
        self.backbone.train(was_training)
        layers = getattr(outputs.past_key_values, "layers", [])
        if not layers or any(getattr(layer, "keys", None) is None or layer.keys.ndim != 4 for layer in layers):
            raise ConfigurationError(
                f"{type(self.backbone).__name__} cannot be generated with: its state is not keys and values"
            )
        if not torch.allclose(self.head(outputs.last_hidden_state), logits, atol=1e-3):
            raise ConfigurationError(
                f"{type(self.backbone).__name__} cannot be generated with: its scores are not a linear layer's"
            )
        return [tuple((tensor.shape[1], tensor.shape[3]) for tensor in (layer.keys, layer.values)) for layer in layers]

    def state_spec(self) -> dict[str, TensorSpec]:
        return {
            f"{kind}.{layer}": TensorSpec("float32", ("batch", n_heads, "capacity", size))
            for layer, shapes in enumerate(self._cache_shapes)
            for kind, (n_heads, size) in zip(("key", "value"), shapes, strict=True)
        }

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor | None, past: Tensor | None = None, **state: Tensor
    ) -> tuple[Tensor, State]:
        """Run some more tokens; see `GenerativeNetwork.decode`.

        An `attention_mask` (batch, length, past + length) tells of each token which ones it sees, itself among them.
        Their number is its position: so several continuations of one prompt can stand side by side.
        """
        n_layers = len(self._cache_shapes)
        layers = [(state[f"key.{layer}"], state[f"value.{layer}"]) for layer in range(n_layers)] if state else None
        if attention_mask is None and layers is None and self.training:
            outputs = self.backbone.base_model(input_ids=input_ids, use_cache=False)
            return outputs.last_hidden_state, {}
        if attention_mask is None:
            before = 0 if layers is None else layers[0][0].shape[2]
            attention_mask = input_ids.new_ones(input_ids.shape[0], before + input_ids.shape[1])
        if attention_mask.ndim == 3:
            seen, positions = attention_mask.bool()[:, None], attention_mask.sum(dim=2) - 1
        else:
            places = places_of(input_ids, attention_mask, past)
            seen = causal_mask(attention_mask, places)
            positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0).gather(1, places)
        cache = DynamicCache(layers) if past is None else static_cache(state, past)
        outputs = self.backbone.base_model(
            input_ids=input_ids,
            attention_mask=seen,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return outputs.last_hidden_state, state_of(cache)

    def head(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.backbone.get_output_embeddings()(hidden)
        return logits

    def architecture(self) -> dict[str, Any]:
        """Return what `causal_network_from_config` rebuilds the untrained network from, as JSON values."""
        config: dict[str, Any] = self.backbone.config.to_diff_dict()
        return config


def state_of(cache: Cache) -> State:
    """Return the keys and values of a cache's layers, named as in a state."""
    state = {}
    for number, layer in enumerate(cache.layers):
        state[f"key.{number}"], state[f"value.{number}"] = layer.keys, layer.values
    return state


def places_of(input_ids: Tensor, attention_mask: Tensor, past: Tensor | None) -> Tensor:
    """Return where new tokens (batch, length) stand among all, (batch, length): behind `past`, or at the end."""
    n_rows, length = input_ids.shape
    if past is None:
        past = attention_mask.new_full((n_rows,), attention_mask.shape[1] - length)
    return past[:, None] + torch.arange(length, device=input_ids.device)


def causal_mask(attention_mask: Tensor, places: Tensor) -> Tensor:
    """Tell what some tokens of left-padded rows may see: the real ones up to themselves.

    Parameters
    ----------
    attention_mask : Tensor of int64, shape (batch, total)
    places : Tensor of int64, shape (batch, length)
        Where the tokens that look stand.

    Returns
    -------
    Tensor of bool, shape (batch, 1, length, total)
        Padding sees itself, since attention over nothing is NaN, and NaN spreads.
    """
    place, own = torch.arange(attention_mask.shape[1], device=attention_mask.device)[None, None], places[:, :, None]
    seen = (place <= own) & attention_mask.bool()[:, None]
    return (seen | (place == own))[:, None]


def build_causal_gpt(
    *, vocab_size: int, max_length: int, n_layers: int, n_heads: int, size: int, end_id: int
) -> CausalNetwork:
    """Build a GPT (Radford et al. 2018) whose head shares the weights of its token embedding."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length,
        n_embd=size,
        n_layer=n_layers,
        n_head=n_heads,
        # GPT-2's own "gelu_new" is the same function, but exports as a chain of operators instead of one Gelu.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=end_id,
        eos_token_id=end_id,
    )
    return causal_network_from_config(config)


def causal_network_from_config(config: PreTrainedConfig | dict[str, Any], **changes: Any) -> CausalNetwork:
    """Build an untrained network from a transformers config, or from `CausalNetwork.architecture`.

    Parameters
    ----------
    config : PreTrainedConfig or dict
    **changes
        Values that the config shall have in the place of its own: vocabulary size and special tokens.
    """
    return CausalNetwork(AutoModelForCausalLM.from_config(config_of(config, **changes)).float())
