"""What every encoder is: a network from the arrays of a batch to embeddings, or to tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmensemble.cache import is_storing
from mmensemble.exceptions import ConfigurationError
from mmensemble_estimators.backbones.portable import Portable

__all__ = ["Encoder", "ModuleEncoder", "module_size", "origins"]

# Encoder → how to get it again, of the frozen ones whose weights lie in a file.
origins: WeakKeyDictionary[nn.Module, tuple[Callable[..., Any], tuple[Any, ...]]] = WeakKeyDictionary()


class Encoder(Portable):
    """Named arrays → (batch, embedding_size), or a sequence of tokens per row.

    Attributes
    ----------
    embedding_size : int
        Of the embedding and of each token.
    example_length : int
        Of the dynamic axes in the example by which the encoder is exported; they may not come out as 1 on the way.
    fine_tuning_rate : float or None
        AdamW's highest rate for its pretrained weights, where they take another one than networks do.
    """

    embedding_size: int
    example_length: int = 3
    fine_tuning_rate: float | None = None

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


class ModuleEncoder(Encoder):
    """A user's module from a preprocessor's arrays to embeddings.

    Parameters
    ----------
    backbone : nn.Module
    example : dict of str to Tensor
        A batch, by which the size of the embedding is found.
    example_length : int, default=3
        See `Encoder`.
    """

    def __init__(self, backbone: nn.Module, example: dict[str, Tensor], *, example_length: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.example_length = example_length
        self.embedding_size = module_size(backbone, example)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Embed a batch as (batch, embedding_size)."""
        embedding: Tensor = self.backbone(**inputs).flatten(1)
        return embedding


def module_size(module: nn.Module, example: dict[str, Tensor]) -> int:
    """Run a user's module once, and return the size of the embedding that it gives.

    Raises
    ------
    ConfigurationError
        If it is no module, or gives no embedding per row.
    """
    if not isinstance(module, nn.Module):
        raise ConfigurationError(f"a callable backbone must return a torch.nn.Module, not {type(module).__name__}")
    with torch.no_grad():
        output = module.eval()(**example)
    n_rows = len(next(iter(example.values())))
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != n_rows:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigurationError(f"a callable backbone's module must return embeddings (batch, size), not {shape}")
    return output.flatten(1).shape[1]
