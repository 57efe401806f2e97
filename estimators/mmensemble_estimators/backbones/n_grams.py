"""Hashed n-grams as one vector per text, beside the states of its tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NGramVectors"]

# Features of an n-gram; they are few for there are many n-grams, and a linear layer makes more of them.
N_GRAM_SIZE = 32

# The vectors begin small, and are multiplied by this: with AdamW, whose steps are as long for every weight, they learn
# that many times as fast as the rest of the network, as n-grams that occur seldom must.
SPEED = 10.0
STANDARD_DEVIATION = 0.01


class NGramVectors(nn.Module):
    """Ids of n-grams → one vector per text: the sum of theirs, by the root of their number (Joulin et al. 2017).

    Those of characters and those of words are divided by the roots of their own numbers, so that the few words weigh as
    much as the many parts of them.

    Parameters
    ----------
    n_features : int
        How many ids there are of characters, 1 to `n_features`, and again of words. 0 pads, and adds nothing.
    size : int
        Of the vector of a text.
    """

    def __init__(self, n_features: int, size: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.table = nn.Embedding(1 + 2 * n_features, N_GRAM_SIZE, padding_idx=0)
        self.linear = nn.Linear(N_GRAM_SIZE, size, bias=False)
        with torch.no_grad():
            self.table.weight[1:].normal_(std=STANDARD_DEVIATION)

    def forward(self, n_gram_ids: Tensor) -> Tensor:
        """Embed ids (batch, n_grams) as (batch, size)."""
        vectors = self.table(n_gram_ids)
        words = n_gram_ids > self.n_features
        weights = _shares(words) + _shares((n_gram_ids > 0) & ~words)
        vector: Tensor = self.linear(SPEED * (weights.unsqueeze(1) @ vectors).squeeze(1))
        return vector


def _shares(counted: Tensor) -> Tensor:
    """Return what each of those counted weighs, by the root of their number; 0 for the others."""
    ones = counted.float()
    return ones / ones.sum(dim=1, keepdim=True).clamp(min=1.0).sqrt()
