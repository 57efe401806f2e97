from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from mmensemble.exceptions import DataError
from mmensemble.frames import column_cells, column_names, is_missing, leaf_cells, n_rows
from mmensemble.learning.columns import present_rows
from mmensemble.preprocessing import ImagePreprocessor, TextPreprocessor

COLUMNS = {"name": ["apple", "pear", None], "weight": [1.5, 2.5, 3.5], "count": [1, None, 3]}
FRAMES = {
    "pandas": pd.DataFrame(COLUMNS),
    "pandas, another index": pd.DataFrame(COLUMNS, index=[7, 7, 3]),
    "polars": pl.DataFrame(COLUMNS),
    "pyarrow": pa.table(COLUMNS),
    "dict": COLUMNS,
}


def normalized(cells: Any) -> list[Any]:
    return [None if is_missing(cell) else cell for cell in cells]


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    frame = FRAMES[name]
    assert column_names(frame) == ["name", "weight", "count"]
    assert n_rows(frame) == 3
    for column, cells in COLUMNS.items():
        assert normalized(column_cells(frame, column)) == cells


@pytest.mark.parametrize("name", [name for name in FRAMES if name != "dict"])
def test_numbers_without_gaps_come_as_an_array(name: str) -> None:
    weight = column_cells(FRAMES[name], "weight")
    assert isinstance(weight, np.ndarray)
    assert weight.dtype == np.float64
    assert isinstance(column_cells(FRAMES[name], "name"), list)


@pytest.mark.parametrize("name", FRAMES)
def test_a_column_that_is_not_there(name: str) -> None:
    with pytest.raises(DataError, match=r"column 'price': there is no such column; .*'name', 'weight', 'count'") as e:
        column_cells(FRAMES[name], "price")
    assert e.value.column == "price"


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "b", None],
        ("a", "b", None),
        np.array(["a", "b", None], dtype=object),
        np.array([["a"], ["b"], [None]], dtype=object),
        pd.Series(["a", "b", None]),
        pd.Series(["a", "b", None], index=[5, 5, 2]),
        pd.DataFrame({"x": ["a", "b", None]}),
        pl.Series(["a", "b", None]),
        pl.DataFrame({"x": ["a", "b", None]}),
        pa.chunked_array([["a"], ["b", None]]),
        pa.table({"x": ["a", "b", None]}),
    ],
    ids=lambda cells: f"{type(cells).__module__.partition('.')[0]}.{type(cells).__name__}",
)
def test_leaf_cells(cells: Any) -> None:
    assert normalized(leaf_cells(cells)) == ["a", "b", None]
    assert n_rows(cells) == 3


def test_leaf_cells_of_a_dict_are_those_of_its_column() -> None:
    assert leaf_cells({"name": ["a", "b", None]}) == ["a", "b", None]
    np.testing.assert_array_equal(leaf_cells({"weight": np.arange(3.0)}), np.arange(3.0))
    with pytest.raises(DataError, match="one column is expected, not 3"):
        leaf_cells(COLUMNS)
    with pytest.raises(DataError, match="if this is one cell, wrap it in a list"):
        leaf_cells({"array": np.zeros(9), "sampling_rate": 16000})
    with pytest.raises(DataError, match="not one str; wrap it in a list"):
        leaf_cells({"path": "sound.wav"})


def test_leaf_cells_of_a_generator() -> None:
    assert leaf_cells(text for text in ("a", "b")) == ["a", "b"]


@pytest.mark.parametrize(
    ("cell", "name"), [("one text", "str"), (b"bytes", "bytes"), (Image.new("L", (2, 2)), "Image"), (3, "int")]
)
def test_one_cell_where_a_sequence_is_expected(cell: Any, name: str) -> None:
    with pytest.raises(DataError, match=f"a sequence of cells is expected, not one {name}; wrap it in a list"):
        leaf_cells(cell)


@pytest.mark.parametrize("name", ["pandas", "polars", "pyarrow"])
def test_several_columns_where_one_is_expected(name: str) -> None:
    with pytest.raises(DataError, match=r"one column is expected, not 3 .*on_column"):
        leaf_cells(FRAMES[name])


@pytest.mark.parametrize("X", [["a", "b"], np.zeros((2, 2)), pd.Series([1, 2]), pl.Series([1, 2])])
def test_what_has_no_columns(X: Any) -> None:
    assert column_names(X) is None
    assert n_rows(X) == 2


def test_no_columns_no_rows() -> None:
    assert n_rows({}) == 0
    assert column_names({}) == []
    assert n_rows(pd.DataFrame({"a": []})) == 0


def test_structs_and_bytes_come_as_python_objects() -> None:
    structs = [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.png"}]
    for frame in (pa.table({"picture": structs}), pl.DataFrame({"picture": structs})):
        assert column_cells(frame, "picture") == structs
    assert column_cells(pl.DataFrame({"picture": [b"x", None]}), "picture") == [b"x", None]


@pytest.mark.parametrize("cell", [None, float("nan"), np.float64("nan"), np.float16("nan"), pd.NA, pd.NaT], ids=repr)
def test_is_missing(cell: object) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize("cell", ["", "nan", 0, 0.0, False, b"", [], np.array([np.nan]), float("inf")], ids=repr)
def test_is_not_missing(cell: object) -> None:
    assert not is_missing(cell)


def test_a_composition_and_a_preprocessor_agree_on_which_images_are_missing() -> None:
    # Parquet writes a missing Hugging Face image as a struct of nulls. What a composition takes for present in predict
    # must be what the preprocessor in the exported model takes for present.
    structs = [{"bytes": None, "path": None}, None, {"bytes": b"an image", "path": None}]
    frame = pl.DataFrame({"picture": structs})
    encoded = ImagePreprocessor(size=4).encode(column_cells(frame, "picture"))
    assert (encoded.present.tolist(), list(encoded.errors)) == ([False, False, False], [2])
    assert present_rows(frame, "picture").tolist() == [False, False, True]


def test_a_cell_that_python_has_no_value_for_spoils_itself_only() -> None:
    dates = pa.array([0, 10**17, None], pa.int64()).cast(pa.timestamp("s"), safe=False)
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", None]).buffers())
    frame = pa.table({"date": dates, "text": texts})
    cells = column_cells(frame, "text")
    assert (cells[0], cells[2]) == ("a", None)
    assert "a cell that cannot be read ('utf-8' codec" in repr(cells[1])
    assert [type(cell).__name__ for cell in column_cells(frame, "date")] == ["datetime", "UnreadableCell", "NoneType"]
    assert list(TextPreprocessor.train(["a b"], vocab_size=260).encode(cells).errors) == [1]
