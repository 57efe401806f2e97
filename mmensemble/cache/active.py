"""The store that is in use here and now: which folder, and whether something is pickled for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["active_location", "is_active", "is_storing", "pickled_for_the_store", "storing"]

active_location: ContextVar[Path | None] = ContextVar("active", default=None)
storing: ContextVar[bool] = ContextVar("storing", default=False)


@contextmanager
def pickled_for_the_store(yes: bool) -> Iterator[None]:
    """Say in this block whether objects are pickled for the store; see `is_storing`."""
    token = storing.set(yes)
    try:
        yield
    finally:
        storing.reset(token)


def is_active() -> bool:
    """Tell whether there is a store in which encodings and embeddings of rows are found."""
    return active_location.get() is not None


def is_storing() -> bool:
    """Tell whether an object is being pickled for the store, where it may refer to weights that lie elsewhere."""
    return storing.get()
