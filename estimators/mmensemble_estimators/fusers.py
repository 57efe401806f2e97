"""The networks that fuse the representations of modalities: the torch half of the joint strategies.

A fuser takes one entry per modality, in the order of the members: an embedding (batch, size), or, where it is
`token_level`, the pair of tokens (batch, length, size) and their mask (batch, length). A missing modality comes as its
learned token, which is not told apart. It returns (batch, fused_size).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["AttentionFuser", "BilinearFuser", "ConcatFuser", "CrossAttentionFuser", "Fuser", "GatedFuser"]


class Fuser(nn.Module):
    """Representations of all modalities → one.

    Attributes
    ----------
    fused_size : int
    token_level : bool
        Whether it takes tokens instead of embeddings.
    """

    token_level: ClassVar[bool] = False
    fused_size: int


# LayerNorm takes a representation's mean and size away: of one number that is all, of two it leaves the larger one's
# place. So few are columns of a table, which come standardised.
SMALLEST_NORMALISED = 16


def _normaliser(size: int) -> nn.Module:
    return nn.LayerNorm(size) if size >= SMALLEST_NORMALISED else nn.Identity()


class ConcatFuser(Fuser):
    """LayerNorm of each modality, so that none drowns another, concatenation, a ReLU layer."""

    def __init__(self, sizes: Sequence[int], hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.fused_size = hidden_size
        self.normalise = nn.ModuleList(_normaliser(size) for size in sizes)
        self.layers = nn.Sequential(nn.Linear(sum(sizes), hidden_size), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        """Fuse embeddings, each (batch, size), to (batch, fused_size)."""
        parts = [layer(embedding) for layer, embedding in zip(self.normalise, embeddings, strict=True)]
        fused: Tensor = self.layers(torch.cat(parts, dim=1))
        return fused


class _Projections(nn.Module):
    """LayerNorm and a linear layer per modality: every one of them comes to the same size and scale."""

    def __init__(self, sizes: Sequence[int], size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(_normaliser(s), nn.Linear(s, size)) for s in sizes)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        return [layer(part) for layer, part in zip(self.layers, parts, strict=True)]


class AttentionFuser(Fuser):
    """Sum over modalities, weighted by attention with a learned query per head."""

    def __init__(self, sizes: Sequence[int], hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.fused_size = hidden_size
        self.n_heads = n_heads
        self.project = _Projections(sizes, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.query = nn.Parameter(torch.randn(n_heads, hidden_size // n_heads) / (hidden_size // n_heads) ** 0.5)
        self.after = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))

    def _attend(self, embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the values (batch, n_modalities, n_heads, size) and weights (batch, n_modalities, n_heads)."""
        values = torch.stack(self.project(embeddings), dim=1)
        heads = (*values.shape[:2], self.n_heads, self.fused_size // self.n_heads)
        scores = (torch.tanh(self.key(values)).reshape(heads) * self.query).sum(dim=-1)
        return values.reshape(heads), scores.softmax(dim=1)

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        """Fuse embeddings, each (batch, size), to (batch, fused_size)."""
        values, weights = self._attend(embeddings)
        fused: Tensor = self.after((values * weights.unsqueeze(-1)).sum(dim=1).flatten(1))
        return fused

    def weights(self, embeddings: list[Tensor]) -> Tensor:
        """Return the attention (batch, n_modalities), its mean over the heads."""
        return self._attend(embeddings)[1].mean(dim=2)


class GatedFuser(Fuser):
    """Gated multimodal units."""

    def __init__(self, sizes: Sequence[int], hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.fused_size = hidden_size
        self.normalise = nn.ModuleList(_normaliser(size) for size in sizes)
        self.candidates = nn.ModuleList(nn.Linear(size, hidden_size) for size in sizes)
        # Of two modalities one gate is the other's complement.
        self.n_gates = 1 if len(sizes) == 2 else len(sizes)
        self.gate = nn.Linear(sum(sizes), self.n_gates * hidden_size)
        self.after = nn.Dropout(dropout)

    def _gates(self, parts: list[Tensor]) -> Tensor:
        """Return the gates, (batch, n_modalities, fused_size)."""
        gates = torch.sigmoid(self.gate(torch.cat(parts, dim=1))).reshape(-1, self.n_gates, self.fused_size)
        return torch.cat([gates, 1 - gates], dim=1) if len(parts) == 2 else gates

    def _normalised(self, embeddings: list[Tensor]) -> list[Tensor]:
        return [layer(embedding) for layer, embedding in zip(self.normalise, embeddings, strict=True)]

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        """Fuse embeddings, each (batch, size), to (batch, fused_size)."""
        parts = self._normalised(embeddings)
        candidates = [torch.tanh(layer(part)) for layer, part in zip(self.candidates, parts, strict=True)]
        fused: Tensor = self.after((self._gates(parts) * torch.stack(candidates, dim=1)).sum(dim=1))
        return fused

    def weights(self, embeddings: list[Tensor]) -> Tensor:
        """Return the gates (batch, n_modalities), their mean over the units."""
        return self._gates(self._normalised(embeddings)).mean(dim=2)


class BilinearFuser(Fuser):
    """Low-rank multimodal fusion: the product over modalities of projections of rank `rank`, summed over the rank."""

    def __init__(self, sizes: Sequence[int], hidden_size: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.fused_size = hidden_size
        self.normalise = nn.ModuleList(_normaliser(size) for size in sizes)
        # A product of several factors is small, or large, unless each is near 1: the constant input starts at 1.
        self.factors = nn.ModuleList(nn.Linear(size, rank * hidden_size) for size in sizes)
        for layer in self.factors:
            nn.init.ones_(layer.bias)  # type: ignore[arg-type]
        self.rank_weights = nn.Parameter(torch.randn(rank) / rank**0.5)
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.after = nn.Sequential(nn.LayerNorm(hidden_size), nn.Dropout(dropout))

    def forward(self, embeddings: list[Tensor]) -> Tensor:
        """Fuse embeddings, each (batch, size), to (batch, fused_size)."""
        shape = (-1, len(self.rank_weights), self.fused_size)
        product = torch.ones((), device=self.bias.device)
        for layer, normalise, embedding in zip(self.factors, self.normalise, embeddings, strict=True):
            product = product * layer(normalise(embedding)).reshape(shape)
        summed = (product * self.rank_weights[:, None]).sum(dim=1) + self.bias
        fused: Tensor = self.after(summed)
        return fused


class _AttentionLayer(nn.Module):
    """A transformer layer with the normalisation first, whose queries come from one sequence, keys from another."""

    def __init__(self, size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.of_queries, self.of_keys, self.of_states = (nn.LayerNorm(size) for _ in range(3))
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.feed_forward = nn.Sequential(
            nn.Linear(size, 4 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * size, size)
        )

    def _heads(self, states: Tensor) -> Tensor:
        batch, length, size = states.shape
        return states.reshape(batch, length, self.n_heads, size // self.n_heads).transpose(1, 2)

    def forward(self, states: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """Let states (batch, length, size) look at others (batch, n, size), where mask (batch, n) is True."""
        keys = self.of_keys(others)
        attended = functional.scaled_dot_product_attention(
            self._heads(self.query(self.of_queries(states))),
            self._heads(self.key(keys)),
            self._heads(self.value(keys)),
            # ONNX Runtime's Attention wants the mask spelt out for every position that looks.
            attn_mask=mask[:, None, None, :].expand(-1, -1, states.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        states = states + self.out(attended.transpose(1, 2).flatten(2))
        result: Tensor = states + self.feed_forward(self.of_states(states))
        return result


class _Transformer(nn.Module):
    """Layers over one sequence, which look at another one, or, where there is none, at itself."""

    def __init__(self, size: int, n_heads: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_AttentionLayer(size, n_heads, dropout) for _ in range(n_layers))

    def forward(self, states: Tensor, others: Tensor | None, mask: Tensor) -> Tensor:
        for layer in self.layers:
            states = layer(states, states if others is None else others, mask)
        return states


class CrossAttentionFuser(Fuser):
    """Cross-modal transformers between all pairs of modalities, then one over what each of them has gathered."""

    token_level = True

    def __init__(self, sizes: Sequence[int], hidden_size: int, n_heads: int, n_layers: int, dropout: float) -> None:
        super().__init__()
        n = len(sizes)
        self.project = _Projections(sizes, hidden_size)
        # From each modality's point of view, the others; one alone looks at itself.
        self.others = [[other for other in range(n) if other != m] or [m] for m in range(n)]
        gathered = hidden_size * len(self.others[0])
        self.cross = nn.ModuleList(
            _Transformer(hidden_size, n_heads, n_layers, dropout) for others in self.others for _ in others
        )
        self.gather = nn.ModuleList(_Transformer(gathered, n_heads, n_layers, dropout) for _ in range(n))
        self.fused_size = gathered * n
        self.after = nn.Sequential(nn.LayerNorm(self.fused_size), nn.Dropout(dropout))

    def forward(self, sequences: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Fuse pairs of tokens (batch, length, size) and mask (batch, length) to (batch, fused_size)."""
        states = self.project([tokens for tokens, _ in sequences])
        masks = [mask for _, mask in sequences]
        cross, pooled = iter(self.cross), []
        for m, others in enumerate(self.others):
            seen = [next(cross)(states[m], states[other], masks[other]) for other in others]
            gathered = self.gather[m](torch.cat(seen, dim=2), None, masks[m])
            real = masks[m].unsqueeze(-1).to(gathered.dtype)
            pooled.append((gathered * real).sum(dim=1) / real.sum(dim=1))
        fused: Tensor = self.after(torch.cat(pooled, dim=1))
        return fused
