from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmensemble.exceptions import DataError, ModelFileError
from mmensemble.preprocessing import TabularPreprocessor, preprocessor_from_dict


def facts(**parameters: Any) -> TabularPreprocessor:
    return TabularPreprocessor({"weight": "float", "price": "float"}, **parameters)


def test_matrix_layout() -> None:
    encoded = facts().encode([1, 2, 3], [4.0, 5.5, 6.0])
    batch = facts().collate(encoded, [2, 0])
    assert list(batch) == ["features", "present"]
    assert batch["features"].tolist() == [[3.0, 6.0], [1.0, 4.0]]
    assert batch["features"].dtype == np.float32
    assert facts().tensors["features"].shape == ("batch", 2)
    assert facts().tensors["features"].dtype == "float32"
    assert encoded.lengths.tolist() == [1, 1, 1]


def test_columns_layout() -> None:
    mixed = TabularPreprocessor({"weight": "float", "kind": "string"}, layout="columns")
    assert {name: (spec.dtype, spec.shape) for name, spec in mixed.tensors.items()} == {
        "weight": ("float32", ("batch", 1)),
        "kind": ("object", ("batch", 1)),
    }
    batch = mixed.collate(mixed.encode([1, 2, None], ["a", None, "c"]), slice(None))
    assert list(batch) == ["weight", "kind", "present"]
    assert (batch["weight"].dtype, batch["kind"].dtype) == (np.float32, object)
    np.testing.assert_array_equal(batch["weight"], [[1.0], [2.0], [np.nan]])
    assert batch["kind"].tolist() == [["a"], [""], ["c"]]
    assert batch["present"].tolist() == [True, True, True]


def test_a_matrix_of_strings() -> None:
    words = TabularPreprocessor({"kind": "string", "color": "string"})
    assert words.tensors["features"].dtype == "object"
    batch = words.collate(words.encode(["a", None], ["b", None]), slice(None))
    assert batch["features"].tolist() == [["a", "b"], ["", ""]]
    assert batch["features"].dtype == object
    assert batch["present"].tolist() == [True, False]


def test_partly_missing_stays_nan_and_all_missing_is_absent() -> None:
    encoded = facts().encode([1.0, None, float("nan"), pd.NA], [None, 2.0, None, np.float32("nan")])
    assert encoded.present.tolist() == [True, True, False, False]
    assert encoded.errors == {}
    np.testing.assert_array_equal(facts().collate(encoded, [0, 1])["features"], [[1, np.nan], [np.nan, 2]])
    assert facts().collate(encoded, [3, 0])["features"].shape == (2, 2)


def test_missing_in_numpy_columns() -> None:
    encoded = facts().encode(np.array([1.0, np.nan, np.nan]), np.array([1.0, 2.0, np.nan]))
    assert encoded.present.tolist() == [True, True, False]
    np.testing.assert_array_equal(facts().collate(encoded, [0, 1])["features"], [[1.0, 1.0], [np.nan, 2.0]])


def test_encoding_does_not_write_into_its_input() -> None:
    weight = np.array([np.nan, 1.0], dtype=np.float32)
    facts().encode(weight, [None, 1.0])
    assert np.isnan(weight[0])


@pytest.mark.parametrize(
    "cells",
    [
        [1, 0, 1],
        [True, False, True],
        [1.0, 0.0, 1.0],
        ["1", "0.0", " 1e0 "],
        [Decimal(1), Decimal(0), Decimal(1)],
        np.array([1, 0, 1], dtype=np.uint8),
        np.array([True, False, True]),
        np.array([1, 0, 1], dtype=object),
    ],
    ids=["int", "bool", "float", "digits", "Decimal", "uint8", "numpy bool", "object"],
)
def test_what_counts_as_a_number(cells: Any) -> None:
    number = TabularPreprocessor({"x": "float"})
    encoded = number.encode(cells)
    assert encoded.errors == {}
    assert number.collate(encoded, slice(None))["features"].tolist() == [[1.0], [0.0], [1.0]]


@pytest.mark.parametrize(
    "cell",
    ["four", "", "1,5", [1], {"a": 1}, b"x", 10**400, np.zeros(2), np.zeros(1), np.zeros((2, 2)), "x" * 999],
    ids=lambda cell: repr(cell)[:10],
)
def test_what_is_no_number_is_an_error_of_its_row(cell: object) -> None:
    encoded = facts().encode([1.0, 2.0, 3.0], [1.0, cell, 3.0])
    assert encoded.present.tolist() == [True, False, True]
    assert list(encoded.errors) == [1]
    assert encoded.errors[1].startswith(f"column 'price': {cell!r}"[:40])
    batch = facts().collate(encoded, slice(None))
    assert batch["features"].tolist() == [[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]
    with pytest.raises(DataError, match="row 1: column 'price'"):
        encoded.raise_for_errors()


def test_the_first_bad_column_of_a_row_is_reported() -> None:
    assert facts().encode(["a"], ["b"]).errors == {0: "column 'weight': 'a' is not a number"}


@pytest.mark.parametrize("cell", [1, 2.5, True, b"a"])
def test_what_is_no_string_is_an_error_of_its_row(cell: object) -> None:
    words = TabularPreprocessor({"kind": "string"})
    encoded = words.encode(["a", cell])
    assert encoded.errors == {1: f"column 'kind': a string is expected, not {cell!r}"}
    assert encoded.present.tolist() == [True, False]
    assert words.collate(encoded, [1])["features"].tolist() == [[""]]


def test_no_rows() -> None:
    batch = facts().collate(facts().encode([], []), slice(None))
    assert batch["features"].shape == (0, 2)
    assert batch["present"].shape == (0,)


def test_another_number_of_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        facts().encode([1.0])


@pytest.mark.parametrize("layout", ["matrix", "columns"])
def test_json_round_trip(layout: Any) -> None:
    before = facts(layout=layout)
    after = preprocessor_from_dict(json.loads(json.dumps(before.to_dict())))
    assert after == before
    assert list(after.columns) == ["weight", "price"], "the order of the columns is that of the matrix"
    other = "columns" if layout == "matrix" else "matrix"
    assert before != facts(layout=other)
    assert before != TabularPreprocessor({"weight": "float", "cost": "float"}, layout=layout)


@pytest.mark.parametrize("state", [{"kind": "smell"}, {}])
def test_a_preprocessor_of_an_unknown_kind(state: dict[str, Any]) -> None:
    with pytest.raises(ModelFileError, match=r"is unknown here; this version knows \[.*'image', .*'tabular', .*\]"):
        preprocessor_from_dict(state)
