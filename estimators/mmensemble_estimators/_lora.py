"""Low-rank adapters (Hu et al. 2022), by peft, for the time of a training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from mmensemble.exceptions import ConfigurationError, MissingDependencyError

__all__ = ["with_lora"]

RANK = 8


@contextmanager
def with_lora(encoder: Any, *, leave_out: str = "") -> Iterator[None]:
    """Put adapters on every linear layer of an encoder's backbone, and afterwards merge them into its weights.

    Parameters
    ----------
    encoder : object with the attribute ``backbone``
    leave_out : str, default=""
        The name of a layer that gets none.

    Raises
    ------
    ConfigurationError
        If the backbone has no linear layer.
    MissingDependencyError
        If peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingDependencyError("peft", "lora") from error
    # Conv1D is GPT-2's linear layer. Subclasses are left out: nn.MultiheadAttention reads its one's weight uncalled.
    modules = [(name, module) for name, module in encoder.backbone.named_modules() if name != leave_out]
    names = [name for name, module in modules if type(module) in (nn.Linear, Conv1D)]
    if not names:
        raise ConfigurationError(
            f"fine_tune='lora' adapts linear layers, and {type(encoder.backbone).__name__} has none; "
            "use fine_tune='all' or 'head'"
        )
    adapters = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.05, target_modules="|".join(re.escape(name) for name in names)
    )
    with warnings.catch_warnings():
        # peft asks transformers' models what they call by another name by now, and says how it treats Conv1D.
        warnings.simplefilter("ignore")
        adapted = get_peft_model(encoder.backbone, adapters)
    encoder.backbone = adapted
    try:
        yield
    finally:
        encoder.backbone = adapted.merge_and_unload()
