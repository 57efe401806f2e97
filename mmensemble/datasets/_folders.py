"""Data that no Python package carries: the folder they are read from, and the error that says how to fetch them.

``make data`` runs the commands that the errors name; a test compares the two.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from mmensemble.exceptions import ConfigurationError

_DEFAULT = "~/.cache/mmensemble"


def data_folder(folder: str | os.PathLike[str] | None, name: str) -> Path:
    """Return the folder to read: the one given, or ``name`` in ``MMENSEMBLE_DATA`` or in the cache of the user."""
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("MMENSEMBLE_DATA") or _DEFAULT).expanduser() / name


def absent(what: str, folder: Path, command: str) -> ConfigurationError:
    """Return the error of a folder that does not hold the data; ``command`` fetches them into the current folder."""
    quoted = shlex.quote(str(folder))
    return ConfigurationError(
        f"{folder} does not hold {what}. Fetch them by `make data` in a checkout of mmensemble, which fills the folder "
        f"{_DEFAULT}, or the one that the environment variable MMENSEMBLE_DATA names; or by hand, without root:\n"
        f"mkdir -p {quoted} && cd {quoted} && {command}"
    )
