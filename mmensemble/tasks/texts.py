"""Tasks whose outputs are texts, token by token. Imports numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from mmensemble.preprocessing import TensorSpec
from mmensemble.tasks.base import Task

__all__ = ["Generation"]


class Generation(Task):
    """Texts, token by token: the graph gives the scores of each row's next token and a state to go on from.

    A step of the graph takes ``input_ids`` and ``attention_mask``, of the one feed where the prompt is tokens and of
    ``decoder`` where the feed is encoded first, ``decoder.past``, the number of places of each row that are taken, and
    ``state.<name>`` for every tensor of the state; it gives ``logits`` and ``next.<name>``. What is encoded once is
    given by ``encoded.<name>`` from the feed's inputs alone, in a run in
    which ``decoder.encode`` is true.

    Parameters
    ----------
    vocab_size : int
    end_ids : list of int
        Tokens that end a text.
    start_ids : list of int
        Tokens that every text begins with; none where the prompt is tokens.
    max_length : int or None
        Most tokens of a row, prompt and continuation together.
    state : dict of str to TensorSpec
        What changes with every step. One with an axis ``"capacity"`` is a buffer with places for tokens to come, as
        many as ``attention_mask`` is long; the step writes behind those that are taken, in place where
        ``state.<name>`` and ``next.<name>`` are bound to the same memory.
    encoded : dict of str to TensorSpec
        What is encoded once and stays.
    tokenizer : str or None
        Of what is written, in the JSON form of the `tokenizers` library; None is that of the feed.
    """

    name = "generation"
    output = "logits"

    def __init__(
        self,
        *,
        vocab_size: int,
        end_ids: list[int],
        start_ids: list[int],
        max_length: int | None,
        state: dict[str, TensorSpec],
        encoded: dict[str, TensorSpec],
        tokenizer: str | None = None,
    ) -> None:
        self.width = vocab_size
        self.end_ids = end_ids
        self.start_ids = start_ids
        self.max_length = max_length
        self.state = state
        self.encoded = encoded
        self.tokenizer = tokenizer

    @property
    def further_inputs(self) -> list[str]:
        states = [f"state.{name}" for name in (*self.encoded, *self.state)]
        further = ["decoder.encode", "decoder.input_ids", "decoder.attention_mask"] if self.start_ids else []
        return [*states, "decoder.past", *further]

    def take_types(self, dtypes: Mapping[str, np.dtype]) -> None:
        """Say the state's types as they are in a graph, by its inputs' names."""
        for specs in (self.state, self.encoded):
            for name, spec in specs.items():
                specs[name] = TensorSpec(str(dtypes.get(f"state.{name}", spec.dtype)), spec.shape)

    def check_texts(self) -> None:
        """Do nothing: texts are what it writes."""

    def predict(self, outputs: np.ndarray) -> np.ndarray:
        self.check_scores()
        return outputs

    def prediction_columns(self) -> list[str]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "vocab_size": self.width,
            "end_ids": self.end_ids,
            "start_ids": self.start_ids,
            "max_length": self.max_length,
            "state": _specs_to_dict(self.state),
            "encoded": _specs_to_dict(self.encoded),
            "tokenizer": self.tokenizer,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Self:
        specs = {key: _specs_from_dict(state[key]) for key in ("state", "encoded")}
        return cls(**{key: value for key, value in state.items() if key != "name"} | specs)


def _specs_to_dict(specs: dict[str, TensorSpec]) -> dict[str, Any]:
    return {name: {"dtype": spec.dtype, "shape": list(spec.shape)} for name, spec in specs.items()}


def _specs_from_dict(state: dict[str, Any]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(spec["dtype"], tuple(spec["shape"])) for name, spec in state.items()}
