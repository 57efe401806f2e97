"""Text backbones, built from scratch by transformers: token ids → one embedding per text."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

__all__ = ["POOLINGS", "TEXT_BACKBONES", "TextEncoder"]

POOLINGS = ("mean", "last", "cls", "max")


class TextEncoder(nn.Module):
    """A transformer over tokens and a pooling over its last hidden states.

    Parameters
    ----------
    backbone : nn.Module
        A transformers model with a ``last_hidden_state`` of shape (batch, length, embedding_size).
    causal : bool
        Whether a position sees only itself and those before it. Padding stands on the right, so a causal backbone
        needs no padding mask.
    pooling : {"mean", "last", "cls", "max"}
        How the states of the real (unpadded) tokens become one embedding; ``"cls"`` is the first one.
    """

    def __init__(self, backbone: nn.Module, *, causal: bool, pooling: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.causal = causal
        self.pooling = pooling
        self.embedding_size: int = backbone.config.hidden_size  # type: ignore[union-attr, assignment]

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids.

        Parameters
        ----------
        input_ids, attention_mask : Tensor of int64, shape (batch, length)

        Returns
        -------
        Tensor of float, shape (batch, embedding_size)
        """
        if self.causal:
            length = input_ids.shape[1]
            # Four axes: transformers takes such a mask as it is and adds none of its own.
            visible = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).tril()[None, None]
        else:
            visible = attention_mask.bool()[:, None, None, :]
        states = self.backbone(input_ids=input_ids, attention_mask=visible).last_hidden_state
        return pool(states, attention_mask, self.pooling)


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


def build_gpt(*, vocab_size: int, max_length: int, pooling: str) -> TextEncoder:
    """Build a small GPT (Radford et al. 2018): 2 layers of 128 features and 4 heads."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=max_length,
        n_embd=128,
        n_layer=2,
        n_head=4,
        # GPT-2's own "gelu_new" is the same function, but exports as a chain of operators instead of one Gelu.
        activation_function="gelu_pytorch_tanh",
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )
    return TextEncoder(GPT2Model(config), causal=True, pooling=pooling)


TEXT_BACKBONES: dict[str, Callable[..., TextEncoder]] = {"gpt": build_gpt}
