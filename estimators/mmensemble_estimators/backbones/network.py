"""The network of a leaf estimator: an encoder and a linear head over its embedding."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor, nn

from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.portable import Portable

__all__ = ["Head", "Network"]

HEAD_DROPOUT = 0.1

# An embedding shorter than that counts as that long, so that one of zeros stays one of zeros.
SMALLEST_NORM = 1e-6


class Head(nn.Module):
    """Embedding → raw outputs: dropout and a linear layer.

    Parameters
    ----------
    embedding_size, n_outputs : int
    normalised : bool
        Scale each embedding to a root mean square of 1 first (Zhang and Sennrich 2019), so that it does not matter how
        loud a frozen backbone is, nor how loud it is on a row.
    """

    def __init__(self, embedding_size: int, n_outputs: int, *, normalised: bool = False) -> None:
        super().__init__()
        # What each embedding's Euclidean norm becomes.
        self.norm = math.sqrt(embedding_size) if normalised else None
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.linear = nn.Linear(embedding_size, n_outputs)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return the raw outputs, shape (batch, n_outputs)."""
        raw: Tensor = self.linear(self.dropout(self.scaled(embedding)))
        return raw

    def scaled(self, embedding: Tensor) -> Tensor:
        """Return what the linear layer sees of an embedding, (batch, embedding_size)."""
        if self.norm is None:
            return embedding
        return self.norm * nn.functional.normalize(embedding, eps=SMALLEST_NORM)


class Network(Portable):
    """Named arrays → embedding → raw outputs.

    Parameters
    ----------
    encoder : nn.Module
        Named tensors → (batch, embedding_size); has the attribute ``embedding_size``.
    n_outputs : int or None
        Raw outputs; None for the encoder of a joint fusion, which has no head of its own.
    normalised : bool, default=False
        Whether the head normalises the embedding; see `Head`.
    """

    def __init__(self, encoder: Encoder, n_outputs: int | None, *, normalised: bool = False) -> None:
        super().__init__()
        self.encoder: Encoder = encoder
        self.head = None if n_outputs is None else Head(encoder.embedding_size, n_outputs, normalised=normalised)

    def head_network(self) -> Head:
        """Return the head.

        Raises
        ------
        RuntimeError
            If the network is the encoder of a joint fusion.
        """
        if self.head is None:
            raise RuntimeError("this encoder belongs to a joint fusion and has no head of its own")
        return self.head

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the raw outputs, shape (batch, n_outputs)."""
        raw: Tensor = self.head_network()(self.encoder(**inputs))
        return raw

    def pickled_apart(self) -> Iterable[nn.Module]:
        """Return the encoder, which other estimators and a joint fusion may hold."""
        return [self.encoder]

    def train(self, mode: bool = True) -> Network:
        """Switch dropout and batch statistics on or off; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self
