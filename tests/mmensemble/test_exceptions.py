from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

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
        str(MissingDependencyError("torch", "train")),
        "torch",
        "train",
    )
    assert str(pickle.loads(pickle.dumps(ConfigurationError("no")))) == "no"


# How to install what is missing


def test_a_checkout_is_installed_from_where_it_is() -> None:
    checkout = Path(exceptions.__file__).parent.parent
    assert (checkout / "pyproject.toml").is_file(), "the tests run in a checkout"
    message = f"torch is not installed; run: pip install -c '{checkout}/constraints.txt' -e '{checkout}[train]'"
    assert str(MissingDependencyError("torch", "train")) == message


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (None, "'mmensemble[plot]'"),
        ({"url": "file:///home/user/mmensemble", "dir_info": {}}, "'mmensemble[plot] @ file:///home/user/mmensemble'"),
        (
            {"url": "https://host/mmensemble", "vcs_info": {"vcs": "git", "commit_id": "1f2e"}},
            "'mmensemble[plot] @ git+https://host/mmensemble@1f2e'",
        ),
    ],
    ids=["an index", "a folder", "a repository"],
)
def test_a_package_is_installed_from_where_it_came(
    origin: Any, requirement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip notes it down (PEP 610)."""
    info = tmp_path / "mmensemble-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mmensemble\nVersion: 1.0\n")
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(exceptions, "__file__", str(tmp_path / "mmensemble" / "exceptions.py"))
    monkeypatch.syspath_prepend(tmp_path)
    assert str(MissingDependencyError("matplotlib", "plot")).endswith(f"run: pip install {requirement}")


def test_a_package_that_nobody_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptions, "__file__", str(tmp_path / "mmensemble" / "exceptions.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert str(MissingDependencyError("av", "video")).endswith("run: pip install 'mmensemble[video]'")


def test_a_row_is_numbered_anew() -> None:
    error = DataError("unreadable", row=1, column="picture", label="b").renumbered([4, 9])
    assert str(error) == "row 9, column 'picture': unreadable (row 9 is 'b' of the index)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(DataError("unreadable").renumbered([4])) == "unreadable"
    assert str(DataError("unreadable", row=3, label=3)) == "row 3: unreadable"
