"""A checksum at the end of a model file, over all bytes before it. Standard library only.

An ONNX file is a protobuf message, and what is appended to one is read as a part of it. So the checksum is one more
entry of the model's metadata, under the key ``mmensemble.sha256``: a reader that knows nothing of it passes over it.
Its value is the first half of the SHA-256 of all bytes before it, and that of the weights beside the file, or zeros.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["is_sealed", "seal", "sha256_of", "why_not_intact"]

_KEY = b"mmensemble.sha256"
_BLOCK = 2**20
_NONE = "0" * 32
# ModelProto.metadata_props is field 14, and a StringStringEntryProto has the key as field 1 and the value as field 2.
_BEGIN = b"\x0a" + bytes([len(_KEY)]) + _KEY + b"\x12\x40"
_BEGIN = b"\x72" + bytes([len(_BEGIN) + 64]) + _BEGIN
_LENGTH = len(_BEGIN) + 64


def seal(path: Path, data: Path | None = None) -> None:
    """Append the checksum of a file, and of the weights that lie beside it.

    Parameters
    ----------
    path : Path
        An ONNX file that has none.
    data : Path or None
        A file that belongs to it.
    """
    digest = _half(path, path.stat().st_size) + (_NONE if data is None else _half(data))
    with path.open("ab") as file:
        file.write(_BEGIN + digest.encode())


def is_sealed(path: Path) -> bool:
    """Tell whether a file ends in a checksum, right or wrong."""
    return _stored(path) is not None


def why_not_intact(path: Path, data: Path | None = None) -> str | None:
    """Say what is wrong with a file that ends in a checksum; None where it is right, and where there is none."""
    stored = _stored(path)
    if stored is None:
        return None
    if stored[:32] != _half(path, path.stat().st_size - _LENGTH):
        return "its checksum is not that of its bytes: it was damaged, or changed by another program"
    if data is not None and data.is_file() and stored[32:] not in (_NONE, _half(data)):
        return f"the weights in {data.name} are damaged, or those of another file"
    return None


def sha256_of(path: Path) -> str:
    """Return the digest of a whole file, as ``sha256sum`` does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stored(path: Path) -> str | None:
    size = path.stat().st_size
    if size < _LENGTH:
        return None
    with path.open("rb") as file:
        file.seek(size - _LENGTH)
        end = file.read()
    return end[-64:].decode("ascii", "replace") if end.startswith(_BEGIN) else None


def _half(path: Path, size: int | None = None) -> str:
    return _digest(path, path.stat().st_size if size is None else size)[:32]


def _digest(path: Path, size: int) -> str:
    """Return the SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _BLOCK))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()
