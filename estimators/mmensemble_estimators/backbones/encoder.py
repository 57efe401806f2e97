"""What every encoder is: a network from the arrays of a batch to embeddings, or to tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmensemble.caching import is_storing

__all__ = ["Encoder", "origins"]

# Encoder → how to get it again, of the frozen ones whose weights lie in a file.
origins: WeakKeyDictionary[nn.Module, tuple[Callable[..., Any], tuple[Any, ...]]] = WeakKeyDictionary()


class Encoder(nn.Module):
    """Named arrays → (batch, embedding_size), or a sequence of tokens per row.

    Attributes
    ----------
    embedding_size : int
        Of the embedding and of each token.
    example_length : int
        Of the dynamic axes in the example by which the encoder is exported; they may not come out as 1 on the way.
    """

    embedding_size: int
    example_length: int = 3

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode rows without pooling; here the embedding as the one token.

        Returns
        -------
        states : Tensor of float, shape (batch, length, embedding_size)
        mask : Tensor of bool, shape (batch, length)
            True at real tokens; the first one always is.
        """
        states = self(**inputs).unsqueeze(1)
        return states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by reference into the store of a search, whose frozen networks would fill it with copies."""
        if is_storing() and self in origins:
            return origins[self]
        return super().__reduce_ex__(protocol)
