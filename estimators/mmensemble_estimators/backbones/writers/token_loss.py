"""How likely a network takes texts to be, token by token: what it is trained by, and the pieces of long texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from mmensemble.preprocessing import Encoded
from mmensemble.preprocessing.text import padded
from mmensemble_estimators.backbones.writers.networks import GenerativeNetwork

__all__ = ["Pieces", "TokenLoss"]


class TokenLoss(nn.Module):
    """Texts → the mean negative log-likelihood of their tokens, given those before them and what is encoded.

    Parameters
    ----------
    network : GenerativeNetwork
    label_smoothing : float, default=0.0
        In training, the share of each token that the loss spreads over the vocabulary (Szegedy et al. 2016).
    """

    def __init__(self, network: GenerativeNetwork, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.network = network
        self.label_smoothing = label_smoothing

    def forward(self, token_ids: Tensor, token_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Return each row's mean over its tokens, (batch,).

        Parameters
        ----------
        token_ids, token_mask : Tensor of int64, shape (batch, length)
            Whole texts with their start and end tokens, padded on the **right**; the first token is given, and is not
            predicted.
        **inputs : Tensor
            What the network encodes.
        """
        sums, counts = self.sums(token_ids, token_mask, **inputs).unbind(dim=1)
        return -sums / counts.clamp(min=1)

    def sums(self, token_ids: Tensor, token_mask: Tensor, **inputs: Tensor) -> Tensor:
        """Return each row's log-likelihood and the number of tokens that it is of, (batch, 2)."""
        hidden, _ = self.network.decode(token_ids[:, :-1], None, **self.network.encode(**inputs))
        real = token_mask[:, 1:].bool()
        # The head, which costs most in a small network, is spared the padding.
        losses = nn.functional.cross_entropy(
            self.network.head(hidden[real]).float(),
            token_ids[:, 1:][real],
            reduction="none",
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        sums = losses.new_zeros(len(token_ids)).index_add(0, real.nonzero()[:, 0], -losses)
        return torch.stack([sums, real.sum(dim=1).to(sums.dtype)], dim=1)


@dataclass(frozen=True)
class Pieces:
    """Texts cut into pieces that a network takes at once.

    Parameters
    ----------
    items : list of ndarray of int64
        Token ids.
    row_of : ndarray of int, shape (n_pieces,)
        The text that each piece is of.
    pad_id : int
    """

    items: list[np.ndarray]
    row_of: np.ndarray
    pad_id: int

    @classmethod
    def of(cls, texts: Encoded, end_ids: Sequence[int], *, max_length: int, pad_id: int) -> Self:
        """Cut texts, with an end token, into pieces of at most `max_length` tokens.

        A piece begins with the last token of the one before, so that every token but the first is predicted once. Texts
        that are missing, or have but one token, have no piece.
        """
        items, row_of = [], []
        for row in np.flatnonzero(texts.present):
            tokens = np.concatenate([texts.items[row], np.asarray(end_ids[:1], dtype=np.int64)])
            for start in range(0, len(tokens) - 1, max_length - 1):
                items.append(tokens[start : start + max_length])
                row_of.append(row)
        return cls(items, np.asarray(row_of, dtype=np.int64), pad_id)

    @property
    def n_predicted(self) -> np.ndarray:
        """Tokens that are predicted in each piece: all but the first."""
        return np.asarray([len(item) - 1 for item in self.items], dtype=np.int64)

    def batch(self, chosen: np.ndarray) -> dict[str, np.ndarray]:
        """Return some pieces as `TokenLoss` takes them."""
        ids, mask = padded([self.items[piece] for piece in chosen], self.pad_id)
        return {"token_ids": ids, "token_mask": mask}
