"""`to_graph` and `to_generator_graph`: which function adds which estimator to a graph."""

from __future__ import annotations

from abc import ABCMeta
from functools import singledispatch
from typing import Any, Protocol

from mmensemble.exceptions import ExportError
from mmensemble.graph.parts import Frame, GeneratorGraph, Outputs, Source

__all__ = ["add_itself", "class_named", "is_registered", "to_generator_graph", "to_graph"]


class Dispatch(Protocol):
    """What `functools.singledispatch` returns."""

    def dispatch(self, cls: type) -> Any:
        """Return the function for a class."""


@singledispatch
def to_graph(estimator: Any, source: Source | None = None) -> Outputs:
    """Add a fitted estimator to a graph.

    It is a `functools.singledispatch`: register a function for a class of your own with ``to_graph.register``, or give
    the class a method ``__onnx_graph__(self, source) -> Outputs``. What has neither is converted by skl2onnx. A class
    whose package is not to be imported for that is registered by its name, with `class_named`.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    source : Frame or Tensor, default=None
        What the estimator's X is; None is a new graph and all columns.

    Returns
    -------
    Outputs
        Values in ``source.graph``.

    Raises
    ------
    ExportError
        If the estimator, or a part of it, has no ONNX form.

    Examples
    --------
    >>> from mmensemble import to_graph
    >>> from mmensemble.export import Outputs, as_tensor
    >>> class Doubler:
    ...     n_features_in_ = 2
    >>> @to_graph.register
    ... def doubler_graph(estimator: Doubler, source=None):
    ...     X = as_tensor(estimator, source)
    ...     return Outputs(X.graph, transformed=X.graph.op("Add", X.value, X.value), present=X.present)
    """
    return add_itself(estimator, source)


def add_itself(estimator: Any, source: Source | None) -> Outputs:
    """Add an estimator by its own method ``__onnx_graph__``.

    Raises
    ------
    ExportError
        If it has none.
    """
    if not hasattr(estimator, "__onnx_graph__"):
        raise ExportError(
            f"{type(estimator).__name__} has no ONNX form: give it a method __onnx_graph__, or register a function for "
            "it with to_graph.register"
        )
    outputs: Outputs = estimator.__onnx_graph__(Frame() if source is None else source)
    return outputs


@singledispatch
def to_generator_graph(estimator: Any, source: Source) -> GeneratorGraph:
    """Add a fitted estimator that writes texts to a graph, as a step with a state.

    Register a function for a class of your own with ``to_generator_graph.register``. Where its estimators embed rows
    too, `to_graph` adds that.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    source : Frame
        What the estimator's X is; its graph has the opset `GENERATION_OPSET`.

    Returns
    -------
    GeneratorGraph
        Values in ``source.graph``.

    Raises
    ------
    ExportError
        If the estimator writes no texts.
    """
    raise ExportError(
        f"{type(estimator).__name__} writes no texts: register a function for it with to_generator_graph.register"
    )


def is_registered(dispatch: Dispatch, estimator: Any) -> bool:
    """Tell whether `to_graph`, or `to_generator_graph`, has a function for an estimator's class."""
    return dispatch.dispatch(type(estimator)) is not dispatch.dispatch(object)


def class_named(name: str) -> type:
    """Stand for a class that need not be imported, and all that derives from it, where functions are registered.

    Parameters
    ----------
    name : str
        The module that defines the class, and the class: ``"xgboost.sklearn.XGBModel"``.

    Returns
    -------
    type
        An abstract class, which counts as their base.

    Examples
    --------
    >>> from fractions import Fraction
    >>> issubclass(Fraction, class_named("numbers.Rational")), issubclass(int, class_named("numbers.Rational"))
    (True, False)
    """

    def derives(cls: type, other: type) -> bool:
        return any(f"{base.__module__}.{base.__qualname__}" == name for base in other.__mro__)

    return ABCMeta(name.rpartition(".")[2], (), {"__subclasshook__": classmethod(derives)})
