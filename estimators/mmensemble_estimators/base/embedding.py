"""The encoder of an estimator: whether it is a new one or a frozen one that others share, at what rate it learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmensemble.preprocessing import Encoded
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.base.rows import run
from mmensemble_estimators.frozen.encoders import frozen_encoder
from mmensemble_estimators.frozen.rows import embed, real_tokens, tokens
from mmensemble_estimators.training.fine_tuning import layer_patterns

__all__ = [
    "PRETRAINED_LEARNING_RATE",
    "frozen_embedding",
    "frozen_tokens",
    "is_pretrained",
    "layer_rates",
    "learning_rate_of",
    "new_encoder",
]

# AdamW's rate where the estimator's learning_rate is None. From scratch it is the modality's own.
PRETRAINED_LEARNING_RATE = 5e-5
# That of the head, from which the rates of the layers below it fall.
FINE_TUNING_LEARNING_RATE = 1e-4
LORA_LEARNING_RATE = 5e-4
# With AdamW a step moves an output by at most the rate times the sum of the features' sizes, which of normalised ones
# grows with their number; so the rate falls with it (Yang et al. 2021).
# It is for `partial_fit`, for `fit` solves for the head.
HEAD_LEARNING_RATE_TIMES_SIZE = 0.6


def is_pretrained(estimator: Any) -> bool:
    """Tell whether the encoder has learned something before."""
    return estimator.pretrained is not None or callable(estimator.backbone)


def learning_rate_of(estimator: Any) -> float:
    """Return the highest learning rate, chosen by what is trained where the estimator does not say it."""
    if estimator.learning_rate is not None:
        return float(estimator.learning_rate)
    if estimator.fine_tune == "head":
        return HEAD_LEARNING_RATE_TIMES_SIZE / float(estimator.module_.encoder.embedding_size)
    if estimator.fine_tune == "lora":
        return LORA_LEARNING_RATE
    if is_pretrained(estimator):
        return estimator.module_.encoder.fine_tuning_rate or PRETRAINED_LEARNING_RATE
    return float(estimator.modality.learning_rate)


def layer_rates(estimator: Any) -> list[tuple[str, float, float]]:
    """Return the optimiser's groups, as `train` takes them: lower layers of a pretrained network learn less.

    The head has the learning rate, and each layer below it `layer_decay` times that of the one above.
    """
    rate, decay = learning_rate_of(estimator), estimator.weight_decay
    if not is_pretrained(estimator) or estimator.fine_tune == "head":
        return [("*", rate, decay)]
    if estimator.learning_rate is None and estimator.fine_tune == "all":
        rate = FINE_TUNING_LEARNING_RATE
    groups = []
    for depth, patterns in enumerate(reversed(layer_patterns(estimator.module_.encoder, "encoder.")), 1):
        groups += [(pattern, rate * estimator.layer_decay**depth, decay) for pattern in patterns]
    return [*groups, ("*", rate, decay)]


def new_encoder(estimator: Any, *, frozen: bool = False) -> Encoder:
    """Return the encoder that an estimator with a fitted preprocessor starts from; a frozen one may be others' too."""
    if is_pretrained(estimator) and (estimator.fine_tune == "head" or frozen):
        return frozen_encoder(estimator, estimator.preprocessor_)
    encoder: Encoder = estimator.modality.build_encoder(estimator, estimator.preprocessor_)
    return encoder


def frozen_embedding(estimator: Any, encoded: Encoded) -> np.ndarray:
    """Return the embeddings of a frozen encoder, (n_rows, embedding_size) float32; zeros where missing."""
    return embed(estimator.module_.encoder, encoded, lambda function, rows: run(estimator, function, encoded, rows))


def frozen_tokens(estimator: Any, encoded: Encoded) -> list[np.ndarray]:
    """Return each row's tokens by a frozen encoder, (length, embedding_size) float32."""
    return tokens(
        estimator.module_.encoder,
        encoded,
        lambda function, rows: run(estimator, function, encoded, rows, loop=real_tokens),
    )
