"""A causal language model as a folder that transformers reads: the network, its tokenizer and its end tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mmensemble.preprocessing import PromptPreprocessor
from mmensemble_estimators.backbones.pretrained import load_tokenizer, loading, no_progress_bar, pad_id
from mmensemble_estimators.backbones.writers.networks import CausalNetwork

__all__ = ["read_network", "read_prompts", "write_causal"]


def read_network(folder: Any) -> CausalNetwork:
    """Read the network of a folder or hub id, in evaluation mode."""
    with loading(folder):
        model = AutoModelForCausalLM.from_pretrained(folder)
    return CausalNetwork(model.float()).eval()


def read_prompts(folder: Any, max_length: int) -> tuple[PromptPreprocessor, list[int]]:
    """Read the tokenizer of a folder or hub id, as a preprocessor and the tokens that end a text."""
    tokenizer = load_tokenizer(folder)
    end_ids = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    backend = tokenizer.backend_tokenizer.to_str()
    return PromptPreprocessor(backend, max_length=max_length, pad_id=pad_id(tokenizer)), end_ids


def write_causal(
    folder: str | Path, network: CausalNetwork, preprocessor: PromptPreprocessor, end_ids: Sequence[int]
) -> None:
    """Write a folder that ``transformers.AutoModelForCausalLM`` and ``AutoTokenizer`` load as any other."""
    known = Tokenizer.from_str(preprocessor.tokenizer)
    end = known.id_to_token(end_ids[0]) if end_ids else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=known,
        pad_token=known.id_to_token(preprocessor.pad_id),
        eos_token=end,
        bos_token=end,
        model_max_length=network.max_length,
    )
    with no_progress_bar():
        network.backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
