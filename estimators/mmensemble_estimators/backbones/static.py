"""Static embeddings: one vector per token, whatever stands beside it, and their mean per text. No transformers here.

A folder is laid out as model2vec's (Tulkens and van Dongen 2024): ``model.safetensors`` with ``embeddings`` (or
``embedding.weight`` alone), and where it has them ``weights``, a factor per token, and ``mapping``, the row of each
token; ``tokenizer.json``; ``config.json``, which may say ``normalize``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmensemble.exceptions import ConfigurationError
from mmensemble.preprocessing import TextPreprocessor
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.backbones.pretrained import loading
from mmensemble_estimators.backbones.text import pool

__all__ = [
    "StaticEncoder",
    "is_static_folder",
    "read_static_encoder",
    "read_static_processor",
    "static_encoder_from_architecture",
]

POOLINGS = ("mean", "max")
WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"

# An embedding shorter than that counts as that long, so that one of zeros stays one of zeros.
SMALLEST_NORM = 1e-6


class StaticVectors(nn.Module):
    """Token ids → their vectors.

    Behind the tokens of the vocabulary there is one more, of which nothing is known: it pads, and stands in the place
    of a text without tokens. Its vector is 0, and so is that of every token whose row is the last one.

    Parameters
    ----------
    n_tokens : int
        Of the vocabulary.
    n_vectors, size : int
    weighted : bool
        Whether each token's vector has a factor.
    """

    def __init__(self, n_tokens: int, n_vectors: int, size: int, *, weighted: bool) -> None:
        super().__init__()
        self.vectors = nn.Embedding(n_vectors + 1, size, padding_idx=n_vectors)
        self.rows: Tensor
        self.register_buffer("rows", torch.full((n_tokens + 1,), n_vectors))
        self.weights = nn.Parameter(torch.ones(n_tokens + 1)) if weighted else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors (batch, length, size), and a mask (batch, length) of those of which something is known."""
        rows = self.rows[input_ids]
        vectors = self.vectors(rows)
        if self.weights is not None:
            vectors = vectors * self.weights[input_ids].unsqueeze(-1)
        return vectors, attention_mask * (rows < self.vectors.num_embeddings - 1)

    def get_input_embeddings(self) -> nn.Module:
        """Return the layer of the tokens' vectors, by transformers' name for it."""
        return self.vectors


class StaticEncoder(Encoder):
    """Tokens → the mean of their vectors, or the largest value of each feature; 0 where no token is known.

    Parameters
    ----------
    backbone : StaticVectors
    pooling : {"mean", "max"}
    normalised : bool
        Whether an embedding is scaled to length 1.
    """

    # Vectors of tokens move only where the token occurs, and bear a higher rate than the weights of a transformer.
    fine_tuning_rate = 1e-3

    def __init__(self, backbone: StaticVectors, *, pooling: str, normalised: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.embedding_size = backbone.vectors.embedding_dim
        self.pooling = pooling
        self.normalised = normalised

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed token ids (batch, length) as (batch, embedding_size)."""
        vectors, known = self.backbone(input_ids, attention_mask)
        # A text of which nothing is known has the mean of vectors of 0, and not of none.
        mask = torch.where(known.sum(dim=1, keepdim=True) > 0, known, attention_mask)
        embedding = pool(vectors, mask, self.pooling)
        if not self.normalised:
            return embedding
        # Not torch's `normalize`, which exports as an operator without a CUDA kernel and has no gradient at 0.
        squares = (embedding * embedding).sum(dim=1, keepdim=True)
        return embedding / squares.clamp(min=SMALLEST_NORM**2).sqrt()

    def tokens(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens' vectors (batch, length, embedding_size), and which are real ones."""
        vectors, _ = self.backbone(**inputs)
        return vectors, inputs["attention_mask"].bool()

    def architecture(self) -> dict[str, Any]:
        """Return what `static_encoder_from_architecture` rebuilds the encoder from, without its vectors."""
        table = self.backbone.vectors
        shape = {
            "n_tokens": len(self.backbone.rows) - 1,
            "n_vectors": table.num_embeddings - 1,
            "size": table.embedding_dim,
            "weighted": self.backbone.weights is not None,
        }
        return {"static": shape, "pooling": self.pooling, "normalised": self.normalised}


def static_encoder_from_architecture(architecture: dict[str, Any]) -> StaticEncoder:
    """Rebuild an encoder, without its vectors, from `StaticEncoder.architecture`."""
    backbone = StaticVectors(**architecture["static"])
    return StaticEncoder(backbone, pooling=architecture["pooling"], normalised=architecture["normalised"])


def is_static_folder(pretrained: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds static embeddings, and not a network of transformers."""
    folder = Path(pretrained)
    if not (folder / WEIGHTS).is_file() or not (folder / TOKENIZER).is_file():
        return False
    try:
        with safe_open(folder / WEIGHTS, "np") as file:
            names = set(file.keys())
    except SafetensorError:
        return False
    return "embeddings" in names or names == {"embedding.weight"}


def read_static_processor(folder: str, *, max_length: int) -> TextPreprocessor:
    """Read the tokenizer of static embeddings; the tokens that it would put around a text have no meaning to add."""
    state = json.loads(_tokenizer(folder).to_str())
    text = json.dumps({**state, "post_processor": None}, ensure_ascii=False)
    return TextPreprocessor(text, max_length=max_length, pad_id=_n_tokens(folder))


def read_static_encoder(folder: str, *, pooling: str) -> StaticEncoder:
    """Read static embeddings.

    Raises
    ------
    ConfigurationError
        If the files of the folder do not belong together, or are not pooled so.
    """
    if pooling not in POOLINGS:
        raise ConfigurationError(f"pooling must be one of {POOLINGS} with static embeddings, not {pooling!r}")
    with loading(folder), safe_open(Path(folder, WEIGHTS), "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        config = Path(folder, CONFIG)
        settings = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    table = tensors.get("embeddings", tensors.get("embedding.weight"))
    if table is None or table.ndim != 2:
        raise ConfigurationError(f"pretrained={folder!r}: {WEIGHTS} has no table of vectors")
    n_tokens, (n_vectors, size) = _n_tokens(folder), table.shape
    rows = tensors.get("mapping", np.arange(n_tokens)).astype(np.int64)
    weights = tensors.get("weights")
    _check_length(folder, "mapping", rows, n_tokens)
    _check_length(folder, "weights", weights, n_tokens)
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_vectors:
        raise ConfigurationError(
            f"pretrained={folder!r}: {WEIGHTS} has {n_vectors} vectors, and {TOKENIZER} has tokens beyond them"
        )
    backbone = StaticVectors(n_tokens, n_vectors, size, weighted=weights is not None)
    with torch.no_grad():
        backbone.vectors.weight[:-1] = torch.from_numpy(table.astype(np.float32))
        backbone.rows[:-1] = torch.from_numpy(rows[:n_tokens])
        unknown = _unknown(_tokenizer(folder))
        if unknown is not None:
            backbone.rows[unknown] = n_vectors
        if backbone.weights is not None and weights is not None:
            backbone.weights[:-1] = torch.from_numpy(weights[:n_tokens].astype(np.float32))
    return StaticEncoder(backbone, pooling=pooling, normalised=bool(settings.get("normalize", False)))


def _check_length(folder: str, name: str, values: np.ndarray | None, n_tokens: int) -> None:
    if values is not None and (values.ndim != 1 or len(values) < n_tokens):
        raise ConfigurationError(
            f"pretrained={folder!r}: {name!r} of {WEIGHTS} has the shape {values.shape}, and {TOKENIZER} has "
            f"{n_tokens} tokens"
        )


def _tokenizer(folder: str) -> Tokenizer:
    path = Path(folder, TOKENIZER)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ConfigurationError(f"pretrained={folder!r}: {TOKENIZER} cannot be read ({error})") from error


def _n_tokens(folder: str) -> int:
    """Return how many ids there are: those of a vocabulary may have gaps."""
    return max(_tokenizer(folder).get_vocab(with_added_tokens=True).values(), default=-1) + 1


def _unknown(tokenizer: Tokenizer) -> int | None:
    """Return the token that stands for what the vocabulary does not have."""
    model = json.loads(tokenizer.to_str())["model"]
    if isinstance(model.get("unk_id"), int):  # Unigram
        return int(model["unk_id"])
    return tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
