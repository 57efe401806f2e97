"""Texts, token by token: the one decoding loop, and a decoder over an ONNX graph."""

from __future__ import annotations

from mmensemble.scoring.generation.loop import Decoder, generate_tokens, log_softmax
from mmensemble.scoring.generation.settings import GenerationSettings
from mmensemble.scoring.generation.texts import generate_texts, room_for_prompt, start_texts

__all__ = [
    "Decoder",
    "GenerationSettings",
    "generate_texts",
    "generate_tokens",
    "log_softmax",
    "room_for_prompt",
    "start_texts",
]
