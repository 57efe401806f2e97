"""Hashes of what weights come from: folders, modules, their code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from mmensemble.cache import UNHASHABLE, hash_of, hashed_as

__all__ = ["folder_stamp", "hash_module", "module_stamp"]


def folder_stamp(folder: str | os.PathLike[str] | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of the files of a folder of weights; nothing for a hub id."""
    if folder is None or not Path(folder).is_dir():
        return ()
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def module_stamp(backbone: Callable[[], nn.Module]) -> bytes | None:
    """Return a hash of the module that a callable backbone makes; None if it makes another one at each call.

    A process asks callables once that are of the same code and values, as the copies that `clone` makes of partials.
    """
    try:
        return _stamp_of(_Asked(hash_of(backbone), backbone))
    except UNHASHABLE:
        return None


@dataclass(frozen=True)
class _Asked:
    key: str
    backbone: Callable[[], nn.Module] = field(compare=False)


@functools.lru_cache(maxsize=16)
def _stamp_of(asked: _Asked) -> bytes | None:
    with torch.random.fork_rng(devices=[]):
        first, second = hash_module(asked.backbone()), hash_module(asked.backbone())
    return first if first == second else None


def hash_module(module: nn.Module, *more: str) -> bytes:
    """Hash a module's structure, attributes, code and weights.

    Raises
    ------
    UNHASHABLE
        If its code holds what no other process could tell from a like one.
    """
    attributes = {name: _attributes(part) for name, part in module.named_modules()}
    classes = list(dict.fromkeys(type(part) for part in module.modules()))
    # Not the state_dict, which leaves some buffers out.
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    return hash_of(repr(module), attributes, classes, tensors, more).encode()


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the numbers, strings, tuples of them and functions that a module works with; not whether it is trained."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (str, int, float, FunctionType, BuiltinFunctionType, functools.partial))


@hashed_as.register
def _(value: Tensor) -> Any:
    """Stand in for a tensor, in whose pickle there is an address."""
    numbers = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return "tensor", str(value.dtype), tuple(value.shape), numbers
