"""The work that a search over fusion strategies would repeat, and the stores that keep it."""

from __future__ import annotations

from mmensemble.cache.active import active_location, is_active, is_storing, pickled_for_the_store, storing
from mmensemble.cache.hashing import UNHASHABLE, hash_of, hashed_as
from mmensemble.cache.rows import embed_rows, encode_rows
from mmensemble.cache.store import HashedRows, Store

__all__ = [
    "UNHASHABLE",
    "HashedRows",
    "Store",
    "active_location",
    "embed_rows",
    "encode_rows",
    "hash_of",
    "hashed_as",
    "is_active",
    "is_storing",
    "pickled_for_the_store",
    "storing",
]
