"""Single rows that are kept: files as the network gets them, and their embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmensemble.cache.active import active_location
from mmensemble.cache.hashing import UNHASHABLE, hash_of
from mmensemble.cache.row_store import FORMAT, TRANSACTION_BYTES, RowStore, digest
from mmensemble.cache.stamps import file_stamp
from mmensemble.cache.versions import PYTHON, versions
from mmensemble.frames import Cells
from mmensemble.preprocessing import Encoded, Preprocessor

__all__ = ["embed_rows", "encode_rows"]

EMBEDDING_BYTES = 4 * 2**30
ENCODING_BYTES = 4 * 2**30


def embed_rows(
    fingerprint: bytes | None, rows: Sequence[np.ndarray | bytes], compute: Callable[[np.ndarray], Sequence[np.ndarray]]
) -> list[np.ndarray]:
    """Embed rows by a frozen network, those that the active store has not.

    Parameters
    ----------
    fingerprint : bytes
        Of the network and of what is asked of it; None for one that cannot be told from others, which keeps nothing.
    rows : sequence of ndarray or bytes
        Each row as the network gets it, or its key; see `mmensemble.preprocessing.Encoded.contents`.
    compute : callable
        ndarray of positions in `rows` → their embeddings, float32 of one or two axes.

    Returns
    -------
    list of ndarray
        An embedding per row. Equal rows are embedded once.
    """
    location = active_location.get()
    if location is None or fingerprint is None:
        return list(compute(np.arange(len(rows))))
    store = RowStore(location / "embeddings.sqlite", EMBEDDING_BYTES)
    prefix = repr((FORMAT, PYTHON, versions())).encode() + fingerprint
    keys = [digest(prefix, row) for row in rows]
    found = store.get(keys)
    first = {key: position for position, key in reversed(list(enumerate(keys))) if key not in found}
    wanted = np.asarray(sorted(first.values()), dtype=np.intp)
    if len(wanted):
        made = {keys[position]: value for position, value in zip(wanted, compute(wanted), strict=True)}
        store.put(made)
        found.update(made)
    return [found[key] for key in keys]


def encode_rows(preprocessor: Preprocessor, cells: Cells) -> Encoded:
    """Encode the cells of one column, those that the active store has not.

    Files alone are kept, given as paths or as bytes: to hash an array takes about as long as to resize it.

    Parameters
    ----------
    preprocessor : Preprocessor
        One without `decoders` is quicker than the store, and encodes all.
    cells : sequence of cells, n rows

    Returns
    -------
    Encoded
        As of `Preprocessor.encode`, with the keys of its rows.
    """
    location = active_location.get()
    if location is None or not preprocessor.decoders:
        return preprocessor.encode(cells)
    try:
        code = hash_of(type(preprocessor))
    except UNHASHABLE:
        return preprocessor.encode(cells)
    said = [FORMAT, PYTHON, versions("numpy", *preprocessor.decoders), code, preprocessor.to_dict()]
    prefix = json.dumps(said, sort_keys=True).encode()
    keys = [_file_key(prefix, cell) for cell in cells]
    if not any(keys):
        return preprocessor.encode(cells)
    store = RowStore(location / "encodings.sqlite", ENCODING_BYTES)
    whole = preprocessor.encode([None] * len(cells))  # a placeholder for each
    # Some rows at a time: until they are in their place, they lie in memory twice.
    step = max(1, TRANSACTION_BYTES // max(1, preprocessor.row_bytes))
    for start in range(0, len(cells), step):
        rows = range(start, min(start + step, len(cells)))
        found = store.get(key for row in rows if (key := keys[row]) is not None)
        others = [row for row in rows if keys[row] not in found]
        made = preprocessor.encode([cells[row] for row in others])
        for row, item, present in zip(others, made.items, made.present, strict=True):
            whole.items[row], whole.present[row] = item, present
        whole.errors.update({others[position]: message for position, message in made.errors.items()})
        store.put({key: whole.items[row] for row in others if whole.present[row] and (key := keys[row]) is not None})
        for row in rows:
            if (key := keys[row]) in found:
                whole.items[row], whole.present[row] = found[key], True
    return Encoded(whole.items, whole.present, whole.errors, preprocessor.lengths(whole.items), keys)


def _file_key(prefix: bytes, cell: Any) -> bytes | None:
    """Return a key of a cell that is a file, by its bytes, or by its path, size and time of change; else None."""
    if isinstance(cell, dict):
        if cell.get("array") is not None:
            return None
        cell = cell["bytes"] if cell.get("bytes") is not None else cell.get("path")
    if isinstance(cell, (bytes, bytearray)):
        return digest(prefix + b"bytes:", cell)
    stamp = file_stamp(cell)
    return None if stamp is None else digest(prefix + b"path:", repr(stamp).encode())
