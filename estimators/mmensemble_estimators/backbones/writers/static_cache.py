"""Keys and values of attention in buffers of a fixed length, which an exported graph writes in place.

A cache that grows by concatenation copies all that went before for every token. ONNX's ``TensorScatter`` (opset 24)
writes the new tokens alone, where a runtime binds its input and its output to the same memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["LATER", "static_cache"]

# In an export, the domain of operators that the opset of the export does not have yet.
LATER = "later"


def static_cache(state: Mapping[str, Tensor], past: Tensor) -> Cache:
    """Make a cache for transformers' models from buffers.

    Parameters
    ----------
    state : mapping of str to Tensor
        ``key.<n>`` and ``value.<n>`` of every layer, each (batch, n_heads, capacity, size).
    past : Tensor of int64, shape (batch,)
        How many places of each row are taken. New tokens are written behind them.

    Returns
    -------
    Cache
        After a run, its layers hold the buffers with the new tokens in them.
    """
    n_layers = sum(name.startswith("key.") for name in state)
    return Cache([_Layer(state[f"key.{n}"], state[f"value.{n}"], past) for n in range(n_layers)])


class _Layer(CacheLayerMixin):
    """The buffers of a layer."""

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, past: Tensor) -> None:
        super().__init__()
        self.keys: Tensor = keys
        self.values: Tensor = values
        self.past = past
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffers are there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new tokens' keys and values, and return the buffers."""
        self.keys = _written(self.keys, key_states, self.past)
        self.values = _written(self.values, value_states, self.past)
        return self.keys, self.values

    def get_seq_length(self) -> Tensor:
        """Return how many places are taken, of rows that have equally many: models ask for one number."""
        return self.past[0]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys are attended to, and which is the first."""
        return self.keys.shape[2], 0

    def get_max_length(self) -> int:
        """Return how many tokens there is room for."""
        return self.keys.shape[2]


def _written(buffer: Tensor, new: Tensor, past: Tensor) -> Tensor:
    """Write new tokens (batch, n_heads, length, size) into a buffer (batch, n_heads, capacity, size) behind `past`."""
    if torch.onnx.is_in_onnx_export():
        name = f"{LATER}::TensorScatter"
        written: Tensor = torch.onnx.ops.symbolic(
            name, (buffer, new, past), {"axis": -2}, dtype=buffer.dtype, shape=buffer.shape, version=1
        )
        return written
    places = past[:, None] + torch.arange(new.shape[2], device=new.device)
    return buffer.scatter(2, places[:, None, :, None].expand_as(new), new)
