"""What a `y` is taken for. What networks make of it is tested with the estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import DataConversionWarning

from mmensemble.exceptions import DataError
from mmensemble.learning.targets import exact_matches, for_members, learn_labels, learn_numbers
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, task_from_dict

ONES = np.ones(4)
WEIGHT = np.array([1.0, 2, 3, 4])
WORDS = ["p", "q", "p", "r"]


# One column of labels


@pytest.mark.parametrize(
    "y",
    [
        WORDS,
        np.array(WORDS),
        np.array(WORDS, dtype=object),
        pd.Series(WORDS),
        pd.Series(WORDS, dtype="category"),
        pd.Series(WORDS, index=[9, 9, 1, 0]),
        pl.Series(WORDS),
    ],
    ids=["list", "str", "object", "series", "categorical", "indexed", "polars"],
)
def test_one_column(y: Any) -> None:
    learned = learn_labels(y, WEIGHT)
    assert isinstance(learned.task, Classification)
    assert learned.task.classes.tolist() == ["p", "q", "r"]
    assert learned.y.tolist() == WORDS
    np.testing.assert_allclose(learned.prior, [0.4, 0.2, 0.4])


@pytest.mark.parametrize("values", [[3, 1, 1, 2], [True, False, True, True], [0.0, 2.0, 1.0, 1.0], [-1, 1, -1, 1]])
def test_classes_keep_their_dtype(values: list[Any]) -> None:
    learned = learn_labels(values, ONES)
    assert learned.task.classes.tolist() == sorted(set(values))
    assert learned.task.classes.dtype == np.asarray(values).dtype
    assert learned.prior.sum() == pytest.approx(1)


def test_a_matrix_of_one_column_warns_as_in_scikit_learn() -> None:
    with pytest.warns(DataConversionWarning, match="column-vector"):
        learned = learn_labels(np.array(WORDS)[:, None], ONES)
    assert learned.y.shape == (4,)


# A 0/1 matrix


MATRIX = np.array([[0, 1], [1, 1], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    "y",
    [
        MATRIX,
        MATRIX.tolist(),
        MATRIX.astype(bool),
        MATRIX.astype(float),
        MATRIX.astype(object),
        pd.DataFrame(MATRIX),
        pd.DataFrame(MATRIX).astype("Int64"),
        pd.DataFrame(MATRIX).astype("boolean"),
        pl.DataFrame(MATRIX),
    ],
    ids=["int", "list", "bool", "float", "object", "frame", "Int64", "boolean", "polars"],
)
def test_multilabel(y: Any) -> None:
    learned = learn_labels(y, WEIGHT)
    assert isinstance(learned.task, Multilabel)
    assert learned.y.dtype == np.int64
    np.testing.assert_array_equal(learned.y, MATRIX)
    np.testing.assert_allclose(learned.prior, [0.2, 0.7])


def test_names_of_columns() -> None:
    named = pd.DataFrame(MATRIX, columns=["p", 7])
    for y in (named, pl.from_pandas(named.rename(columns=str))):
        assert learn_labels(y, WEIGHT).task.names == ["p", "7"]
    twice = pd.DataFrame(MATRIX, columns=["7", 7])
    for y in (MATRIX, MATRIX.tolist(), twice):
        assert learn_labels(y, WEIGHT).task.names == ["0", "1"]
    old = {key: value for key, value in learn_labels(named, WEIGHT).task.to_dict().items() if key != "names"}
    assert task_from_dict(old) == Multilabel(2)


def test_a_label_that_all_rows_have_or_none() -> None:
    learned = learn_labels(np.array([[0, 1], [0, 1]]), np.ones(2))
    np.testing.assert_array_equal(learned.prior, [0, 1])


# Several columns of labels


@pytest.mark.parametrize("values", [(1, 2), (-1, 1), (0, 5)], ids=str)
def test_two_integers_that_are_not_0_and_1_are_columns(values: tuple[int, int]) -> None:
    """scikit-learn calls any matrix of two integers multilabel."""
    y = np.asarray(values)[MATRIX]
    learned = learn_labels(y, WEIGHT)
    assert isinstance(learned.task, Multioutput)
    assert [c.tolist() for c in learned.task.classes] == [list(values)] * 2
    np.testing.assert_allclose(learned.prior, [0.8, 0.2, 0.3, 0.7])


@pytest.mark.parametrize("kind", [np.array, pd.DataFrame, pl.DataFrame])
def test_columns_of_strings(kind: Any) -> None:
    y = kind(np.array([WORDS, ["x", "y", "y", "y"]]).T)
    learned = learn_labels(y, WEIGHT)
    assert isinstance(learned.task, Multioutput)
    assert [c.tolist() for c in learned.task.classes] == [["p", "q", "r"], ["x", "y"]]
    np.testing.assert_allclose(learned.prior, [0.4, 0.2, 0.4, 0.1, 0.9])
    assert learned.y.dtype.kind == "U", "not object, which scikit-learn's estimators do not take"


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame])
def test_columns_of_several_dtypes(kind: Any) -> None:
    y = kind({"s": WORDS, "i": [30, 4, 30, 4], "b": [True, True, False, True]})
    learned = learn_labels(y, WEIGHT)
    assert isinstance(learned.task, Multioutput)
    assert [c.tolist() for c in learned.task.classes] == [["p", "q", "r"], [4, 30], [False, True]]
    assert [c.dtype.kind for c in learned.task.classes] == ["U", "i", "b"]
    np.testing.assert_allclose(learned.prior, [0.4, 0.2, 0.4, 0.6, 0.4, 0.3, 0.7])
    np.testing.assert_array_equal(learned.y, np.asarray(y, dtype=object))


def test_nullable_integers() -> None:
    learned = learn_labels(pd.DataFrame({"i": [3, 4, 5, 4], "j": [1, 2, 1, 2]}).astype("Int64"), ONES)
    assert isinstance(learned.task, Multioutput)
    assert learned.y.dtype == np.int64


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 4, r"one class only \('a'\)"),
        ([[1, 7], [2, 7], [3, 7], [4, 7]], r"one class only \(7\)"),
        (pd.DataFrame({"s": WORDS, "i": 1}), r"one class only \(1\)"),
        (np.array([["a", 1], [2, 5], ["b", 1], ["a", 5]], dtype=object), "column 0 of y holds strings and something"),
    ],
)
def test_labels_that_cannot_be_learned(y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        learn_labels(y, ONES)


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_a_label_that_is_missing(missing: Any) -> None:
    y = np.array(["a", "b", missing, "a"], dtype=object)
    for labels in (y, pd.Series(y), np.column_stack([WORDS, y])):
        with pytest.raises(DataError, match="row 2: Input y contains NaN: the label is missing"):
            learn_labels(labels, ONES)


@pytest.mark.parametrize(
    "y", [[0.5, 1.5, 2.5, 1.5], [[0.5, 1], [1, 2], [2.5, 1], [0, 1]], [[[1]], [[2]], [[1]], [[2]]]]
)
def test_what_are_no_labels(y: Any) -> None:
    with pytest.raises(ValueError, match="Unknown label type"):
        learn_labels(np.asarray(y), ONES)


@pytest.mark.parametrize("learn", [learn_labels, learn_numbers])
def test_weights_that_are_all_0(learn: Any) -> None:
    for y in (np.arange(4), MATRIX, np.arange(8).reshape(4, 2)):
        with pytest.raises(DataError, match="all sample weights are 0"):
            learn(y, np.zeros(4))


def test_a_class_without_weight() -> None:
    learned = learn_labels(WORDS, np.array([1.0, 0, 1, 2]))
    np.testing.assert_allclose(learned.prior, [0.5, 0, 0.5])


# Numbers


def test_numbers() -> None:
    learned = learn_numbers([1, 2, 3, 5], WEIGHT)
    assert learned.task == Regression(1, one_dimensional=True)
    assert learned.y.dtype == np.float64
    np.testing.assert_allclose(learned.prior, [3.4])
    table = learn_numbers(pd.DataFrame({"a": [1, 2, 3, 5], "b": [0.0, 0, 0, 10]}), WEIGHT)
    assert table.task == Regression(2, one_dimensional=False, names=["a", "b"])
    np.testing.assert_allclose(table.prior, [3.4, 4])
    assert learn_numbers([[1], [2], [3], [5]], WEIGHT).task == Regression(1, one_dimensional=False)


@pytest.mark.parametrize("y", [np.zeros((4, 1, 1)), ["a", "b", "c", "d"], [1, 2, np.nan, 3], [1, 2, np.inf, 3]])
def test_what_are_no_numbers(y: Any) -> None:
    with pytest.raises(ValueError, match=r"dim 3|could not convert|contains"):
        learn_numbers(y, ONES)


def test_labels_are_no_numbers() -> None:
    with pytest.raises(DataError, match=r"y must be numbers: .*'b'; labels are learned by a classifier"):
        learn_numbers(["b", "c", "b", "d"], ONES)


# As members get it


@pytest.mark.parametrize(
    ("y", "numbers"),
    [
        (WORDS, [0, 1, 0, 2]),
        ([7, -2, 7, 3], [2, 0, 2, 1]),
        ([True, False, True, True], [1, 0, 1, 1]),
        (pd.Series(WORDS, dtype=object), [0, 1, 0, 2]),
        (np.array([WORDS, WORDS]).T, [[0, 0], [1, 1], [0, 0], [2, 2]]),
        (pd.DataFrame({"s": WORDS, "i": [30, 4, 30, 4]}), [[0, 1], [1, 0], [0, 1], [2, 0]]),
    ],
    ids=["strings", "gaps", "booleans", "objects", "columns", "columns of several dtypes"],
)
def test_labels_are_numbered(y: Any, numbers: list[Any]) -> None:
    made = for_members(learn_labels(y, ONES))
    assert made.dtype.kind == "i"
    np.testing.assert_array_equal(made, numbers)


def test_one_target_is_a_vector_to_members() -> None:
    assert for_members(learn_numbers([[1], [2], [3], [5]], ONES)).shape == (4,)


def test_independent_labels_and_numbers_stay() -> None:
    for learned in (learn_labels(MATRIX, ONES), learn_numbers([1, 2, 3, 5], ONES)):
        np.testing.assert_array_equal(for_members(learned), learned.y)


# Score


def test_exact_matches() -> None:
    predicted = np.array([["p", "x"], ["q", "y"], ["p", "y"], ["r", "y"]], dtype=object)
    y = pd.DataFrame({"a": WORDS, "b": ["x", "y", "x", "y"]})
    assert exact_matches(y, predicted) == 0.75
    assert exact_matches(y, predicted, WEIGHT) == pytest.approx(0.7)
    assert exact_matches(["p", "q"], np.array(["p", "p"]), [1, 3]) == 0.25
    with pytest.raises(DataError, match=r"y must be of shape \(4, 2\), as the predictions, not \(4,\)"):
        exact_matches(WORDS, predicted)
