"""The kinds of preprocessors: what JSON in a model file is read back by. Imports nothing that a preprocessor needs."""

from __future__ import annotations

from typing import Any, TypeVar

from mmensemble.exceptions import ConfigurationError, ExportError, ModelFileError
from mmensemble.preprocessing.base import Preprocessor

__all__ = ["check_registered", "preprocessor_from_dict", "preprocessor_to_dict", "register_preprocessor"]

Class = TypeVar("Class", bound=type[Preprocessor])

_KINDS: dict[str, type[Preprocessor]] = {}


def register_preprocessor(cls: Class) -> Class:
    """Let model files with a preprocessor of this class be written and read; a decorator.

    A model file holds a preprocessor's `kind` and what its `to_dict` returns, and no code: whoever opens the file has
    imported the module that registers the kind. Its name is written into the file, for the message to those who have
    not; nothing is imported by opening a file.

    Parameters
    ----------
    cls : type
        A `Preprocessor` with a `kind` of its own.

    Returns
    -------
    type
        The same class.

    Raises
    ------
    ConfigurationError
        If the kind belongs to another class.

    Examples
    --------
    >>> from mmensemble.preprocessing import Preprocessor, register_preprocessor
    >>> @register_preprocessor  # doctest: +SKIP
    ... class PressurePreprocessor(Preprocessor):
    ...     kind = "pressure"
    """
    known = _KINDS.get(cls.kind)
    if known is not None and not _same(known, cls):
        raise ConfigurationError(
            f"the preprocessor kind {cls.kind!r} belongs to {_full_name(known)}; give {_full_name(cls)} another one"
        )
    _KINDS[cls.kind] = cls
    return cls


def check_registered(preprocessor: Preprocessor) -> None:
    """Check that a model file with a preprocessor could be opened.

    Raises
    ------
    ExportError
        If its class is not registered, or has the kind of another.
    """
    known, cls = _KINDS.get(preprocessor.kind), type(preprocessor)
    if known is None or not _same(known, cls):
        raise ExportError(
            f"a file with the preprocessor {_full_name(cls)} could not be opened: give it a kind of its own and "
            "decorate it with mmensemble.preprocessing.register_preprocessor"
        )


def preprocessor_to_dict(preprocessor: Preprocessor) -> dict[str, Any]:
    """Describe any preprocessor by JSON values, from which `preprocessor_from_dict` rebuilds it.

    They are those of `Preprocessor.to_dict`, and of a class from elsewhere the ``module`` that registers it.
    """
    module = type(preprocessor).__module__
    ours = module.partition(".")[0] == __name__.partition(".")[0]
    return {**preprocessor.to_dict(), **({} if ours else {"module": module})}


def preprocessor_from_dict(state: dict[str, Any]) -> Preprocessor:
    """Rebuild any preprocessor from its description.

    Parameters
    ----------
    state : dict
        What `preprocessor_to_dict` or `Preprocessor.to_dict` returned.

    Raises
    ------
    ModelFileError
        If its kind is unknown here.
    """
    state = dict(state)
    kind, module = state.get("kind"), state.pop("module", None)
    if kind not in _KINDS:
        hint = (
            f"this version knows {sorted(_KINDS)}"
            if module is None
            else f"import {module}, which registers it, before the file is opened"
        )
        raise ModelFileError(f"the preprocessor kind {kind!r} is unknown here; {hint}")
    return _KINDS[kind].from_dict(state)


def _same(one: type, other: type) -> bool:
    """Tell whether two classes are one; that of a module that is loaded again is another object."""
    return _full_name(one) == _full_name(other)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
