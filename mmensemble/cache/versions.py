"""Which version of what is installed here a piece of code belongs to."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

__all__ = ["PYTHON", "version_of", "versions"]

# This project's own packages change with their sources, of which a checkout has others under the same version.
_OWN = ("mmensemble", "mmensemble_estimators")
# What they compute with, beside what a model names.
_DECIDING = (
    "av",
    "numpy",
    "peft",
    "pillow",
    "scikit-learn",
    "skorch",
    "soundfile",
    "tokenizers",
    "torch",
    "transformers",
)
PYTHON = sys.implementation.cache_tag
_STANDARD = Path(os.__file__).parent


@functools.cache
def version_of(module: str) -> str | None:
    """Return what tells a module's code from that of another version; None for code that was not installed.

    Installed is what lies in a folder where installers leave their notes, beside the standard library: a checkout, also
    one that is installed in place, is not.
    """
    top = module.partition(".")[0]
    if top in _OWN:
        return _sources(top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # `__main__`
        return None
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return "standard"
    places = spec.submodule_search_locations or [spec.origin or ""]
    folders = {Path(place).parent for place in places}
    if all(folder == _STANDARD or folder.name == "lib-dynload" for folder in folders):
        return "standard"
    if not all(_holds_installed(folder) for folder in folders):
        return None
    return " ".join(versions(*_distributions().get(top, [])))


@functools.cache
def versions(*names: str) -> tuple[str, ...]:
    """Return the versions of distributions that are installed, and of those that they need, and these in turn."""
    found: dict[str, str] = {}
    waiting = list(names or _DECIDING)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            try:
                one = distribution(name)
            except PackageNotFoundError:
                continue
            found[name] = one.version
            needs = [need for need in one.requires or [] if "extra ==" not in need]
            waiting.extend(re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs)
    return tuple(f"{name}=={number}" for name, number in sorted(found.items()))


_distributions = functools.cache(packages_distributions)


@functools.cache
def _holds_installed(folder: Path) -> bool:
    return any(folder.glob("*.dist-info"))


@functools.cache
def _sources(package: str) -> str:
    """Return a hash of a package's source files."""
    spec = importlib.util.find_spec(package)
    (folder,) = spec.submodule_search_locations if spec is not None and spec.submodule_search_locations else ("",)
    found = blake2b(digest_size=16)
    for file in sorted(Path(folder).rglob("*.py")):
        found.update(f"{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()
