from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mmensemble.cache.stamps import file_stamp, file_stamps


def test_the_stamp_of_a_file_is_its_size_and_its_time(tmp_path: Path) -> None:
    path, stamps = tmp_path / "file", []
    for content, time in ((b"1", 0), (b"1", 1), (b"22", 1)):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        stamps.append(file_stamp(path))
    assert len(set(stamps)) == 3
    (tmp_path / "other").write_bytes(b"22")
    os.utime(tmp_path / "other", ns=(1, 1))
    assert file_stamp(tmp_path / "other") != stamps[-1]


def test_a_relative_path_is_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Path("file").touch()
        os.utime("file", ns=(0, 0))
        stamps.append(file_stamp("file"))
    assert None not in stamps
    assert stamps[0] != stamps[1]


def test_every_cell_that_names_a_file_has_a_stamp(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    named = [str(path), path, {"path": str(path)}, {"bytes": None, "path": str(path)}]
    others = ["a text", "", "\0", "x" * 10_000, None, float("nan"), pd.NA, b"bytes", 3, str(tmp_path), "nowhere/file"]
    others += [{"bytes": b"1", "path": str(path)}, {"path": None}, {"array": [0.0]}]
    cells = others * 5 + named
    X = pd.DataFrame({"a": pd.Series(cells, dtype=object), "b": 1.0})
    (stamps,) = file_stamps(X)
    assert list(stamps) == list(range(len(others) * 5, len(cells)))
    assert file_stamps(X["a"]) == [stamps]
    assert file_stamps(np.asarray(cells, dtype=object)) == [stamps]
    texts = [*["a text"] * 50, str(path)]
    for rows in (pl.DataFrame({"a": texts}), pd.DataFrame({"a": texts}, dtype="category")):
        assert [list(found) for found in file_stamps(rows)] == [[50]]
    assert [list(found) for found in file_stamps(pl.DataFrame({"a": [None, {"path": str(path)}]}))] == [[1]]
