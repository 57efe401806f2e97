"""A hash of what decides a result: state, code, and the versions of what both come from. Imports joblib.

What is pickled by name is hashed by name and version where it was installed. Where it was not, as in a notebook or in
modules that their user writes, a function is hashed by its bytecode, defaults and closure, and by the globals that the
bytecode reads; a class by its bases and all that it holds. What these name is hashed alike.

The hash is that of any process that runs the same code: nothing in it depends on an address, on the order of a set, or
on where in a file a function stands.
"""

from __future__ import annotations

import dis
import functools
import io
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from joblib.hashing import NumpyHasher, Pickler

from mmensemble._sklearn import CALLBACKS
from mmensemble.cache.versions import version_of

__all__ = ["UNHASHABLE", "Key", "hash_of", "hashed_as"]

# Raised for what cannot be hashed: no other process could tell it from a like one.
UNHASHABLE = (pickle.PicklingError, TypeError, AttributeError, RecursionError)

# What Python keeps in a class for itself.
_BOOKKEEPING = {
    "__abstractmethods__", "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__dict__",
    "__doc__", "__firstlineno__", "__slotnames__", "__static_attributes__", "__weakref__", "_abc_impl",
}  # fmt: skip
_READS_A_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_PLAIN = {str, bytes, int, float, bool, type(None)}


@dataclass(frozen=True)
class Key:
    """A hash of some parts, and the functions and classes of theirs that were not installed.

    Equal keys list equal code in the same order, so what is pickled under one may refer to its code by place: also to
    that of a notebook, which no other process finds by name.
    """

    text: str
    code: Sequence[Any]

    @classmethod
    def of(cls, *parts: Any) -> Key:
        """Return the key of some parts; see `hash_of`."""
        hasher = _Hasher()
        return cls(hasher.hash(parts), hasher.code)

    def dumps(self, value: Any) -> bytes:
        """Pickle a value that was made of the parts."""
        file = io.BytesIO()
        places = {id(code): place for place, code in enumerate(self.code)}
        pickler = pickle.Pickler(file, protocol=pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = lambda obj: places.get(id(obj))  # type: ignore[method-assign]
        pickler.dump(value)
        return file.getvalue()

    def loads(self, content: bytes) -> Any:
        """Read what `dumps` of an equal key wrote."""
        unpickler = pickle.Unpickler(io.BytesIO(content))
        unpickler.persistent_load = self.code.__getitem__  # type: ignore[method-assign]
        return unpickler.load()


def hash_of(*parts: Any) -> str:
    """Return a hash that is equal in all processes for which the parts decide the same.

    Raises
    ------
    UNHASHABLE
        If a part can neither be pickled nor is code, as a lock or an open file.
    """
    return Key.of(*parts).text


@functools.singledispatch
def hashed_as(value: Any) -> Any:
    """Return what is hashed in place of a value: register here the types whose pickles differ from time to time."""
    return value


class _Hasher(NumpyHasher):
    """joblib's, which hashes arrays, with code, and with sets and dicts as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[int, int] = {}
        self.code: list[Any] = []

    def dump(self, obj: Any) -> None:
        super().dump(obj)
        for code in self.code:  # which grows: what a function calls is not hashed inside it, for calls go in circles
            self.save(_function(code) if isinstance(code, FunctionType) else _class(code))

    def save(self, obj: Any) -> None:
        if type(obj) in _PLAIN:
            super().save(obj)
        elif isinstance(obj, (FunctionType, type)):
            module, name = obj.__module__ or "", obj.__qualname__
            version = version_of(module)
            if version is not None and _is_found(obj, module, name):
                self.save(("installed", module, name, version))
            else:
                if id(obj) not in self._places:
                    self._places[id(obj)] = len(self.code)
                    self.code.append(obj)
                self.save(("code", self._places[id(obj)]))
        else:
            super().save(hashed_as(obj))

    def memoize(self, obj: Any) -> None:
        """Remember what was saved, but for tuples: whether two that are equal are one is up to the compiler."""
        if type(obj) is not tuple:
            super().memoize(obj)

    def save_global(self, obj: Any, name: str | None = None, pack: Any = None) -> None:
        """Save what is pickled by name, and is no function or class of Python."""
        name = name or obj.__qualname__
        module = pickle.whichmodule(obj, name)  # type: ignore[attr-defined]
        self.save(("named", module, name, version_of(module)))

    def save_reduce(self, func: Any, args: Any, state: Any = None, *more: Any, **named: Any) -> None:
        """Save an object. The order in which it got its attributes does not matter."""
        if type(state) is dict:
            known = ((name, value) for name, value in state.items() if name != CALLBACKS)  # they only listen
            state = dict(sorted(known, key=lambda item: str(item[0])))
        super().save_reduce(func, args, state, *more, **named)

    def _batch_setitems(self, items: Any, *more: Any) -> None:
        """Save a dict in its order, by which loops go; joblib sorts."""
        Pickler._batch_setitems(self, items, *more)


def _is_found(obj: Any, module: str, name: str) -> bool:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


@hashed_as.register(set)
@hashed_as.register(frozenset)
def _(value: set[Any] | frozenset[Any]) -> Any:
    if all(type(member) is str for member in value):
        return type(value), sorted(value)
    return type(value), sorted(map(hash_of, value))


@hashed_as.register
def _(value: MappingProxyType) -> Any:
    return dict(value)


@hashed_as.register
def _(value: MethodType) -> Any:
    return "method", value.__func__, value.__self__


@hashed_as.register
def _(value: BuiltinFunctionType) -> Any:
    owner = value.__self__
    if owner is None or isinstance(owner, ModuleType):
        module = value.__module__ or ""
        return "builtin", module, value.__name__, version_of(module)
    return "builtin method", owner, value.__name__


@hashed_as.register(staticmethod)
@hashed_as.register(classmethod)
def _(value: Any) -> Any:
    return type(value), value.__func__


@hashed_as.register
def _(value: property) -> Any:
    return "property", value.fget, value.fset, value.fdel


@hashed_as.register
def _(value: functools.cached_property) -> Any:
    return "cached property", value.func


@hashed_as.register(type(functools.cache(len)))
def _(value: Any) -> Any:
    return "cached", value.__wrapped__  # which is pickled by the name of what it wraps


@hashed_as.register
def _(value: ModuleType) -> Any:
    version = version_of(value.__name__)
    if version is None:
        raise TypeError(f"the module {value.__name__} was not installed, and what is taken out of it is not known")
    return "module", value.__name__, version


@hashed_as.register
def _(value: CodeType) -> Any:
    return _read(value).text


def _class(cls: type) -> Any:
    held = sorted(
        (name, value)
        for name, value in vars(cls).items()
        if name not in _BOOKKEEPING and not isinstance(value, (GetSetDescriptorType, MemberDescriptorType))
    )
    return "class", cls.__module__, cls.__qualname__, type(cls), cls.__bases__, dict(held)


def _function(function: FunctionType) -> Any:
    read = _read(function.__code__)
    namespace = function.__globals__
    used: dict[Any, Any] = dict(zip(read.free, map(_content, function.__closure__ or ()), strict=True))
    if version_of(namespace.get("__name__", "")) is None:  # what installed code reads was installed with it
        used.update({name: namespace[name] for name in read.globals if name in namespace})
        used.update({str(found): _imported(found, namespace) for found in read.imports})
    used = {name: _taken(value, read.names) for name, value in used.items()}
    parts = (function.__defaults__, function.__kwdefaults__, vars(function), used)
    return "function", function.__module__, function.__qualname__, read.text, parts


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "nothing yet"


def _taken(value: Any, names: tuple[str, ...], *inside: ModuleType) -> Any:
    """Return a value that code reads; of a module that was not installed, what the code may take out of it."""
    if not isinstance(value, ModuleType) or version_of(value.__name__) is not None:
        return value
    if value in inside:
        return "module", value.__name__
    held = vars(value)
    return "module", value.__name__, {name: _taken(held[name], names, value, *inside) for name in names if name in held}


def _imported(found: _Import, namespace: dict[str, Any]) -> Any:
    """Return the module that an import inside a function gives, which need not have run yet."""
    top = found.name.partition(".")[0]
    if not found.level and version_of(top) is not None:
        return "module", found.name, version_of(top)
    try:
        return __import__(found.name, namespace, None, found.members, found.level)
    except Exception as error:  # as the function itself will find
        return "no module", type(error).__name__


@dataclass(frozen=True)
class _Import:
    name: str
    members: tuple[str, ...]
    level: int


@dataclass(frozen=True)
class _Read:
    text: str
    free: tuple[str, ...]
    globals: tuple[str, ...]
    names: tuple[str, ...]
    imports: tuple[_Import, ...]


@functools.lru_cache(maxsize=4096)
def _read(code: CodeType) -> _Read:
    """Return what a code object does, as a text, and the names that it and the code inside it read."""
    inner = [_read(part) for part in code.co_consts if isinstance(part, CodeType)]
    instructions = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    named = {i.argval for i in instructions if i.opname in _READS_A_GLOBAL}
    imports = [
        _Import(instructions[i].argval, tuple(instructions[i - 1].argval or ()), instructions[i - 2].argval)
        for i in range(2, len(instructions))
        if instructions[i].opname == "IMPORT_NAME"
    ]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    text = repr((counts, names, code.co_code, code.co_exceptiontable, [_text(part) for part in code.co_consts]))
    return _Read(
        text,
        code.co_freevars,
        tuple(sorted(named.union(*(read.globals for read in inner)))),
        tuple(sorted(set(code.co_names).union(*(read.names for read in inner)))),
        tuple(dict.fromkeys([*imports, *(found for read in inner for found in read.imports)])),
    )


def _text(constant: Any) -> str:
    if isinstance(constant, CodeType):
        return _read(constant).text
    if isinstance(constant, frozenset):
        return f"frozenset({sorted(map(_text, constant))})"
    return f"({','.join(map(_text, constant))})" if isinstance(constant, tuple) else repr(constant)
