"""Hashes of what weights come from: folders, modules, their code."""

from __future__ import annotations

import functools
import inspect
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from torch import nn

__all__ = ["folder_stamp", "hash_module", "module_stamp"]

# What a network does follows from these packages' versions, which the store knows, not from their code.
_VERSIONED = ("torch", "transformers")


def folder_stamp(folder: str | os.PathLike[str] | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of the files of a folder of weights; nothing for a hub id."""
    if folder is None or not Path(folder).is_dir():
        return ()
    files = sorted(path for path in Path(folder).iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def module_stamp(backbone: Callable[[], nn.Module]) -> bytes | None:
    """Return a hash of the module that a callable backbone makes; None if it makes another one at each call.

    A process asks each callable once: equal partials, of which `clone` makes copies, count as one.
    """
    if isinstance(backbone, functools.partial):
        key: Any = (backbone.func, _pickled(backbone, (backbone.args, backbone.keywords)))
    elif inspect.isroutine(backbone) or inspect.isclass(backbone):
        key = backbone
    else:
        key = (type(backbone), _pickled(backbone, backbone))
    return _stamp_of(_Asked(key, backbone))


def _pickled(backbone: Any, content: Any) -> Any:
    try:
        return pickle.dumps(content)
    except (pickle.PicklingError, TypeError, AttributeError):
        return id(backbone)


@dataclass(frozen=True)
class _Asked:
    key: Any
    backbone: Callable[[], nn.Module] = field(compare=False)


@functools.lru_cache(maxsize=16)
def _stamp_of(asked: _Asked) -> bytes | None:
    with torch.random.fork_rng(devices=[]):
        first, second = hash_module(asked.backbone()), hash_module(asked.backbone())
    return first if first == second else None


def hash_module(module: nn.Module, *more: str) -> bytes:
    """Hash a module's structure, plain attributes, code and weights."""
    attributes = {name: _plain_attributes(part) for name, part in module.named_modules()}
    classes = dict.fromkeys(cls for part in module.modules() for cls in type(part).__mro__)
    code = [(cls.__qualname__, list(_code(cls))) for cls in classes if cls.__module__.split(".")[0] not in _VERSIONED]
    digest = blake2b(repr((repr(module), attributes, code, more)).encode(), digest_size=32)
    # Not the state_dict, which leaves some buffers out.
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the numbers, strings and tuples of them that a module works with; not whether it is being trained."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, (str, int, float))


def _code(cls: type) -> Iterator[Any]:
    """Yield the bytecode of a class's methods: with the same weights, another `forward` embeds otherwise."""
    for name, value in sorted(vars(cls).items()):
        function = inspect.unwrap(value) if callable(value) else getattr(value, "__func__", None)
        code = getattr(function, "__code__", None)
        if code is not None:
            yield name, _parts(code)


def _parts(code: CodeType) -> list[Any]:
    constants = [
        _parts(part) if isinstance(part, CodeType) else sorted(map(repr, part)) if isinstance(part, frozenset) else part
        for part in code.co_consts
    ]
    return [code.co_code, code.co_names, constants]
