"""The errors of mmensemble; this module imports nothing of it.

::

    Exception
    └── MmensembleError
        ├── ConfigurationError (ValueError)      a parameter, or a combination of them, that cannot work
        ├── DataError (ValueError)               a cell, a row or a column that cannot be used
        ├── ExportError                          a part of a composition that has no ONNX form
        │   └── ParityError                      an exported graph that disagrees with its estimator
        ├── ModelFileError                       a damaged, foreign or newer model file
        ├── DeviceError                          a device that was asked for by name and does not work
        └── MissingDependencyError (ImportError) a package of an extra that is not installed

Errors that describe a bad value are also ``ValueError``, so code written for scikit-learn catches them unchanged.
scikit-learn's own ``NotFittedError`` and data-validation messages are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ConfigurationError",
    "DataError",
    "DeviceError",
    "ExportError",
    "MissingDependencyError",
    "MmensembleError",
    "ModelFileError",
    "ParityError",
]


class MmensembleError(Exception):
    """Base class of every error that mmensemble raises on its own account."""

    __module__ = "mmensemble"


class ConfigurationError(MmensembleError, ValueError):
    """A parameter, or a combination of parameters, that cannot work."""

    __module__ = "mmensemble"


class DataError(MmensembleError, ValueError):
    """A cell, row or column that cannot be used.

    Parameters
    ----------
    message : str
        What is wrong and what to do about it.
    row : int, default=None
        Position of the row, counted from 0, in the data that were passed in.
    column : str or int, default=None
        The column's name.
    label : object, default=None
        What a pandas index calls the row. It stays what it is in a part of a frame, as a search or a split makes it,
        where the position does not.
    """

    __module__ = "mmensemble"

    def __init__(
        self, message: str, *, row: int | None = None, column: str | int | None = None, label: object = None
    ) -> None:
        self.message = message
        self.row = row
        self.column = column
        self.label = label
        place = []
        if row is not None:
            place.append(f"row {row}")
        if column is not None:
            place.append(f"column {column!r}")
        # Behind all else, for what a row is called may be long.
        named = "" if row is None or label is None or label == row else f" (row {row} is {label!r} of the index)"
        super().__init__((f"{', '.join(place)}: {message}" if place else message) + named)

    def renumbered(self, rows: Sequence[int]) -> DataError:
        """Return the same error of a whole, given the numbers in it of the rows that the error counts."""
        if self.row is None:
            return self
        return DataError(self.message, row=int(rows[self.row]), column=self.column, label=self.label)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by BaseException's own pickling, and joblib pickles errors of its workers.
        return _rebuild_data_error, (self.message, self.row, self.column, self.label)


def _rebuild_data_error(message: str, row: int | None, column: str | int | None, label: object = None) -> DataError:
    return DataError(message, row=row, column=column, label=label)


class ExportError(MmensembleError):
    """A part of a composition that has no ONNX form."""

    __module__ = "mmensemble"


class ParityError(ExportError):
    """An exported graph whose scores differ from the estimator's by more than the tolerance."""

    __module__ = "mmensemble"


class ModelFileError(MmensembleError):
    """A model file that is damaged, was not written by mmensemble, or is newer than this version reads."""

    __module__ = "mmensemble"


class DeviceError(MmensembleError):
    """A device that was asked for by name and does not work here."""

    __module__ = "mmensemble"


class MissingDependencyError(MmensembleError, ImportError):
    """A package that is not installed; the message names the extra that brings it."""

    __module__ = "mmensemble"

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        self.how_to_install = f"pip install {_requirement(extra)}"
        super().__init__(f"{package} is not installed; run: {self.how_to_install}")

    def __reduce__(self) -> tuple[object, ...]:
        return MissingDependencyError, (self.package, self.extra)


def _requirement(extra: str) -> str:
    """Return what pip is to be given for an extra: the place that this was installed from, where it is known."""
    # Only here, as an error is the exception.
    import json
    from importlib import metadata
    from pathlib import Path

    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        # The newest torch may be a CUDA build of several GB; the tested one is none.
        return f"-c '{checkout / 'constraints.txt'}' -e '{checkout}[{extra}]'"
    try:
        origin = json.loads(metadata.distribution("mmensemble").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        origin = {}
    if "url" not in origin:
        return f"'mmensemble[{extra}]'"
    vcs = origin.get("vcs_info")
    url = f"{vcs['vcs']}+{origin['url']}@{vcs['commit_id']}" if vcs else origin["url"]
    return f"'mmensemble[{extra}] @ {url}'"
