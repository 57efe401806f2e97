"""The network of a leaf estimator: an encoder and a linear head over its embedding."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Network"]

HEAD_DROPOUT = 0.1


class Network(nn.Module):
    """Named arrays → embedding → logits.

    Parameters
    ----------
    encoder : nn.Module
        Named tensors → (batch, embedding_size); has the attribute ``embedding_size``.
    n_outputs : int or None
        Number of logits; None for the encoder of a joint fusion, which has no head of its own.
    """

    def __init__(self, encoder: nn.Module, n_outputs: int | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(HEAD_DROPOUT)
        self.head = None if n_outputs is None else nn.Linear(encoder.embedding_size, n_outputs)  # type: ignore[arg-type]

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_outputs)."""
        if self.head is None:
            raise RuntimeError("this encoder belongs to a joint fusion and has no head of its own")
        logits: Tensor = self.head(self.dropout(self.encoder(**inputs)))
        return logits

    def train(self, mode: bool = True) -> Network:
        """Switch dropout and batch statistics on or off; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self
