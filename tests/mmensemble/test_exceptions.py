from __future__ import annotations

import pickle

import pytest

from mmensemble import exceptions
from mmensemble.exceptions import (
    ConfigurationError,
    DataError,
    ExportError,
    MissingDependencyError,
    MmensembleError,
    ParityError,
)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_every_error_is_one_of_ours_and_drawn_in_the_tree(name: str) -> None:
    assert issubclass(getattr(exceptions, name), MmensembleError)
    assert f" {name}" in exceptions.__doc__


def test_double_inheritance() -> None:
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(DataError, ValueError)
    assert issubclass(ParityError, ExportError)
    assert issubclass(MissingDependencyError, ImportError)
    assert not issubclass(ExportError, ValueError)


@pytest.mark.parametrize(
    ("row", "column", "text"),
    [
        (None, None, "unreadable"),
        (0, None, "row 0: unreadable"),
        (None, "picture", "column 'picture': unreadable"),
        (7, "picture", "row 7, column 'picture': unreadable"),
        (7, 0, "row 7, column 0: unreadable"),
    ],
)
def test_data_error_names_its_place(row: int | None, column: str | int | None, text: str) -> None:
    error = DataError("unreadable", row=row, column=column)
    assert str(error) == text
    assert (error.message, error.row, error.column) == ("unreadable", row, column)


def test_errors_survive_the_way_back_from_a_worker_process() -> None:
    data = pickle.loads(pickle.dumps(DataError("unreadable", row=7, column="picture")))
    assert type(data) is DataError
    assert (str(data), data.row, data.column) == ("row 7, column 'picture': unreadable", 7, "picture")
    missing = pickle.loads(pickle.dumps(MissingDependencyError("torch", "train")))
    assert type(missing) is MissingDependencyError
    assert (str(missing), missing.package, missing.extra) == (
        "torch is not installed; run: pip install 'mmensemble[train]'",
        "torch",
        "train",
    )
    assert str(pickle.loads(pickle.dumps(ConfigurationError("no")))) == "no"
