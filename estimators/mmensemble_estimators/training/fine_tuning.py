"""What of a network is trained: parts that are frozen, or get low-rank adapters by peft, for the time of a training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from transformers.pytorch_utils import Conv1D

from mmensemble.exceptions import ConfigurationError, MissingDependencyError

__all__ = ["frozen", "layer_patterns", "with_lora"]

RANK = 8


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Train nothing of some modules inside the block; what could be trained before can be trained after it."""
    trained = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def with_lora(module: nn.Module) -> Iterator[None]:
    """Train adapters (Hu et al. 2022) of a module's linear layers inside the block; merge them into its weights then.

    They are put into the layers that are there, so whatever holds the module need not know of them. A layer named
    ``lm_head`` gets none: adapters of a head that shares its weights with the tokens' vectors could not be merged into
    one without the other.

    Parameters
    ----------
    module : nn.Module

    Raises
    ------
    ConfigurationError
        If the module has no linear layer.
    MissingDependencyError
        If peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise MissingDependencyError("peft", "lora") from error
    # Conv1D is GPT-2's linear layer. Subclasses are left out: nn.MultiheadAttention reads its one's weight uncalled.
    linear = [name for name, layer in module.named_modules() if type(layer) in (nn.Linear, Conv1D)]
    names = [name for name in linear if name.rpartition(".")[2] not in ("", "lm_head")]
    if not names:
        raise ConfigurationError(
            f"fine_tune='lora' adapts linear layers, and {type(module).__name__} has none; "
            "use fine_tune='all' or 'head'"
        )
    adapters = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, lora_dropout=0.05, target_modules="|".join(re.escape(name) for name in names)
    )
    with frozen(module):
        with warnings.catch_warnings():
            # peft asks transformers' models what they call by another name by now, and says how it treats Conv1D.
            warnings.simplefilter("ignore")
            adapted = get_peft_model(module, adapters)
        try:
            yield
        finally:
            adapted.merge_and_unload()


def layer_patterns(module: nn.Module, prefix: str = "") -> list[list[str]]:
    """Return glob patterns over the names of a module's parameters, layer by layer from the input on.

    The layers are the elements of the largest list of modules that have parts themselves, as the blocks of a
    transformer or the stages of a ResNet. What is registered before the list is one more layer, and so is what is
    registered after it. A module without a list is one.

    Parameters
    ----------
    module : nn.Module
    prefix : str, default=""
        What the names begin with, as ``"encoder."``.
    """
    stacks = {name: part for name, part in module.named_modules() if _is_stack(part)}
    if not stacks:
        return [[f"{prefix}*"]]
    place = max(stacks, key=lambda name: _size(stacks[name]))
    inside = f"{place}." if place else ""
    names = [name for name, _ in module.named_parameters()]
    first = next(number for number, name in enumerate(names) if name.startswith(inside))
    before = [prefix + name for name in names[:first]]
    after = [prefix + name for name in names[first:] if not name.startswith(inside)]
    layers = [before] if before else []
    layers += [[f"{prefix}{inside}{name}.*"] for name, _ in stacks[place].named_children()]
    return [*layers, after] if after else layers


def _is_stack(module: nn.Module) -> bool:
    """Tell whether a module is a list of at least two modules, each of which has parts."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)):
        return False
    return len(module) > 1 and all(any(True for _ in part.children()) for part in module)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
