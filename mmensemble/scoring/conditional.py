"""Methods that an object has only where it can do what they are for. Standard library only.

As scikit-learn's `available_if`, which the scoring side cannot import.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from types import MethodType
from typing import Any, TypeVar, cast

__all__ = ["available_if"]

Method = TypeVar("Method", bound=Callable[..., Any])


def available_if(check: Callable[[Any], object]) -> Callable[[Method], Method]:
    """Make a method an attribute of those objects only that pass a check, so that ``hasattr`` tells.

    Parameters
    ----------
    check : callable
        Takes the object; raises an AttributeError that says why it lacks the method, and what to use.

    Returns
    -------
    callable
        A decorator of methods.

    Examples
    --------
    >>> from mmensemble.scoring.conditional import available_if
    >>> def has_wings(bird):
    ...     if bird.species == "kiwi":
    ...         raise AttributeError("a kiwi has no fly; use walk")
    >>> class Bird:
    ...     def __init__(self, species):
    ...         self.species = species
    ...
    ...     @available_if(has_wings)
    ...     def fly(self):
    ...         return f"the {self.species} flies"
    >>> Bird("wren").fly()
    'the wren flies'
    >>> hasattr(Bird("kiwi"), "fly")
    False
    """

    def decorate(method: Method) -> Method:
        # To a type checker the class has the method, as it has in its documentation.
        return cast(Method, _ConditionalMethod(method, check))

    return decorate


class _ConditionalMethod:
    """A descriptor that checks whenever the method is looked up."""

    def __init__(self, method: Callable[..., Any], check: Callable[[Any], object]) -> None:
        self._method = method
        self._check = check
        update_wrapper(cast(Any, self), method)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:  # asked of the class, as for its documentation
            return self._method
        self._check(instance)
        return MethodType(self._method, instance)
