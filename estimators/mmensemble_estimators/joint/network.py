"""The network of a joint fusion: encoders side by side, a fuser, a head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmensemble.preprocessing import PRESENT
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.portable import Portable
from mmensemble_estimators.fusers import Fuser

__all__ = ["JointNetwork", "with_missing"]


class JointNetwork(Portable):
    """Encoders side by side, a fuser over their representations, a linear head.

    Parameters
    ----------
    encoders : sequence of Encoder
    fuser : Fuser
    n_outputs : int
    modality_dropout : float
        In training, each modality of a row is withheld with this probability, never all of them.
    """

    def __init__(self, encoders: Sequence[Encoder], fuser: Fuser, n_outputs: int, *, modality_dropout: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.missing = nn.ParameterList(torch.zeros(encoder.embedding_size) for encoder in encoders)
        self.fuser = fuser
        self.head = nn.Linear(fuser.fused_size, n_outputs)
        self.modality_dropout = modality_dropout

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the raw outputs, shape (batch, n_outputs). Inputs are named ``<number of member>.<tensor>``."""
        raw: Tensor = self.head(self.fuse(**inputs))
        return raw

    def fuse(self, **inputs: Tensor) -> Tensor:
        """Return the fused representation, shape (batch, fused_size)."""
        fused: Tensor = self.fuser(self._representations(**inputs))
        return fused

    def weights(self, **inputs: Tensor) -> Tensor:
        """Return what each modality weighs, shape (batch, n_modalities), of a fuser that weighs."""
        weights: Tensor = self.fuser.weights(self._representations(**inputs))  # type: ignore[operator]
        return weights

    def _representations(self, **inputs: Tensor) -> list[Any]:
        parts: list[dict[str, Tensor]] = [{} for _ in self.encoders]
        for name, tensor in inputs.items():
            number, _, tensor_name = name.partition(".")
            parts[int(number)][tensor_name] = tensor
        present = torch.stack([part.pop(PRESENT) for part in parts], dim=1)
        used = self._withhold(present) if self.training and self.modality_dropout else present
        encoded = [self._encode(m, part, present[:, m]) for m, part in enumerate(parts)]
        return with_missing(encoded, used, self.missing)

    def _withhold(self, present: Tensor) -> Tensor:
        kept = present & (torch.rand(present.shape, device=present.device) >= self.modality_dropout)
        return torch.where(kept.any(dim=1, keepdim=True), kept, present)

    def _encode(self, number: int, part: dict[str, Tensor], present: Tensor) -> Any:
        """Return embeddings, or tokens and their mask, with zeros for rows that are not there."""
        # Only rows that are there pass the encoder: placeholders would spoil the statistics of batch normalisation.
        encoder = cast(Encoder, self.encoders[number])
        rows = present.nonzero().squeeze(1)
        if not self.fuser.token_level:
            embedding = present.new_zeros((len(present), encoder.embedding_size), dtype=self.head.weight.dtype)
            if len(rows):
                encoded = encoder(**{name: tensor[rows] for name, tensor in part.items()})
                embedding = embedding.index_put((rows,), encoded.to(embedding.dtype))
            return embedding
        if not len(rows):
            states = present.new_zeros((len(present), 1, encoder.embedding_size), dtype=self.head.weight.dtype)
            return states, present.new_zeros(states.shape[:2])
        tokens, real = encoder.tokens(**{name: tensor[rows] for name, tensor in part.items()})
        states = tokens.new_zeros((len(present), *tokens.shape[1:])).index_put((rows,), tokens)
        return states, real.new_zeros((len(present), real.shape[1])).index_put((rows,), real)

    def pickled_apart(self) -> Iterable[nn.Module]:
        """Return the encoders, which the members hold too."""
        return self.encoders

    def train(self, mode: bool = True) -> JointNetwork:
        """Switch dropout and batch statistics on or off; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders:
            parameters = list(encoder.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                encoder.eval()
        return self


def with_missing(encoded: Sequence[Any], used: Tensor, tokens: Iterable[Tensor]) -> list[Any]:
    """Put the learned token of a modality in the place of what a row has not, or is not to use.

    Parameters
    ----------
    encoded : sequence of Tensor (batch, size), or of pairs (batch, length, size) and mask (batch, length)
    used : Tensor of bool, shape (batch, n_modalities)
    tokens : iterable of Tensor, each (size,)
    """
    parts: list[Any] = []
    for m, (part, token) in enumerate(zip(encoded, tokens, strict=True)):
        present = used[:, m : m + 1]
        if isinstance(part, Tensor):
            parts.append(torch.where(present, part, token))
            continue
        states, mask = part
        first = torch.arange(states.shape[1], device=states.device) == 0
        mask = (present & mask) | (~present & first[None])  # ONNX Runtime has no Where of booleans
        parts.append((torch.where(present.unsqueeze(2), states, token), mask))
    return parts
