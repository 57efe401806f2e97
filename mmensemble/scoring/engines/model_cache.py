"""Model files on the machine that runs them: fetched once for each machine, checked by their digests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock

from mmensemble.datasets._folders import data_folder
from mmensemble.files.places import Place, is_uri, place_of
from mmensemble.files.writing import put_in_place

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["file_digest", "local_model", "model_digest"]

_BLOCK = 2**20
_FILE, _DIGESTS = "model.onnx", "digests.json"


def local_model(model: str | os.PathLike[str] | bytes) -> Path:
    """Return the file of a model on this machine.

    A path stays where it is. What a URI names, the weights beside it too, and bytes are written to the cache, at most
    once for each machine: a folder for each content, or for each URI with the size and time of what it names. A file
    whose digest is no longer what it was is fetched again.

    Parameters
    ----------
    model : str, path-like or bytes

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if isinstance(model, bytes):
        return _cached(_digest_of(model), {_FILE: model})
    if not is_uri(os.fspath(model)):
        path = Path(model).absolute()
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no model file {path} on this machine; a worker of a cluster needs a path that all see, a "
                "URI, or the model's bytes"
            )
        return path
    place = place_of(model)
    if place.local is not None:
        return local_model(place.local)
    found, weights = _infos(place)
    # ONNX knows its external data by the name that the file had.
    name = place.path.rpartition("/")[2]
    files: dict[str, bytes | Place] = {name: place}
    if weights is not None:
        files[f"{name}.data"] = place.at(f"{place.path}.data")
    seen = [place.uri, *((info.size, info.mtime_ns) for info in (found, weights) if info is not None)]
    return _cached(_digest_of(repr(seen).encode()), files)


def model_digest(path: Path) -> str:
    """Return a hash of a model's content, its external data included: the same on every machine."""
    data = path.with_name(f"{path.name}.data")
    return _digest_of(" ".join(file_digest(file) for file in (path, data) if file.is_file()).encode())


def file_digest(path: Path) -> str:
    """Return a hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _infos(place: Place) -> tuple[pa.fs.FileInfo, pa.fs.FileInfo | None]:
    found, weights = place.filesystem.get_file_info([place.path, f"{place.path}.data"])
    if not found.is_file:
        raise FileNotFoundError(f"there is no model file {place.uri}")
    return found, weights if weights.is_file else None


def _cached(key: str, files: dict[str, bytes | Place]) -> Path:
    folder = data_folder(None, "models") / key
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # one process fetches, those beside it wait
        if not _is_whole(folder, list(files)):
            for name, content in files.items():
                _write(folder / name, content)
            digests = {name: file_digest(folder / name) for name in files}
            _write(folder / _DIGESTS, json.dumps(digests).encode())
    return folder / next(iter(files))


def _is_whole(folder: Path, names: list[str]) -> bool:
    try:
        digests = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return bool(digests == {name: file_digest(folder / name) for name in names})
    except (FileNotFoundError, ValueError):
        return False


def _write(path: Path, content: bytes | Place) -> None:
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        if isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            with (
                content.filesystem.open_input_stream(content.path, compression=None) as source,
                partial.open("wb") as f,
            ):
                while block := source.read(_BLOCK):
                    f.write(block)
        put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _digest_of(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
