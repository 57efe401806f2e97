from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from mmensemble.exceptions import DataError
from mmensemble.preprocessing import Encoded, ImagePreprocessor, TabularPreprocessor, TextPreprocessor
from mmensemble.scoring import Feed, Manifest
from mmensemble.scoring.batching import encoder_threads, row_batches, score_windows, window_size

NUMBERS = [Feed("x", ("x",), TabularPreprocessor({"x": "float"}))]


def double(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["x.features"] * 2


def test_batches_hold_each_row_once_the_longest_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 50)
    batches = list(row_batches(np.arange(50) + 7, lengths, 8))
    assert sorted(np.concatenate(batches)) == list(range(7, 57))
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    in_order = lengths[np.concatenate(batches) - 7]
    assert (np.diff(in_order) <= 0).all()


def test_batches_stay_within_the_token_budget() -> None:
    lengths = np.array([1000, 3, 600, 128, 90_000, 0])
    batches = list(row_batches(np.arange(6), lengths, 4))
    assert [batch.tolist() for batch in batches] == [[4], [0], [2], [3, 1, 5]]
    assert list(row_batches(np.arange(0), np.arange(0), 4)) == []


def test_windows_are_whole_batches_of_bounded_size() -> None:
    text = [Feed("text", ("text",), TextPreprocessor.train(["a"], vocab_size=258))]
    images = [Feed("image", ("image",), ImagePreprocessor(size=224))]
    assert window_size(text, 64) == 512
    assert window_size(text, 100) == 500
    assert window_size(text, 2000) == 2000
    assert window_size(images, 64) == 64
    assert window_size(images, 1) == 16 * 2**20 // (224 * 224 * 3 + 1)


def test_only_what_decodes_gets_threads() -> None:
    assert encoder_threads(NUMBERS, 8) == 1
    assert encoder_threads([Feed("image", ("image",), ImagePreprocessor())], 8) == 8
    assert encoder_threads([Feed("image", ("image",), ImagePreprocessor())], 128) == 16


@pytest.mark.parametrize("n_encoders", [1, 4])
def test_windows_come_back_in_order(n_encoders: int) -> None:
    windows = [{"x": [10.0 * i, 10.0 * i + 1]} for i in range(20)] + [{"x": []}]
    scored = list(score_windows(NUMBERS, windows, double, width=1, batch_size=1, n_encoders=n_encoders))
    assert len(scored) == 21
    assert scored[-1].outputs.shape == (0, 1)
    values = np.concatenate([window.outputs for window in scored])[:, 0]
    assert values.tolist() == [2 * x for window in windows for x in window["x"]]


def test_a_bad_row_is_not_run_and_costs_only_itself() -> None:
    seen: list[float] = []

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        seen.extend(arrays["x.features"][:, 0].tolist())
        return double(arrays)

    (window,) = score_windows(NUMBERS, [{"x": [1.0, "two", 3.0]}], run, width=1, batch_size=8)
    assert seen == [1.0, 3.0]
    np.testing.assert_array_equal(window.outputs[:, 0], [2.0, np.nan, 6.0])
    assert [str(error) if error else None for error in window.errors] == [
        None,
        "column 'x': 'two' is not a number",
        None,
    ]
    with pytest.raises(DataError, match="row 101, column 'x': 'two' is not a number"):
        window.raise_for_errors(100)


def test_all_rows_bad() -> None:
    (window,) = score_windows(NUMBERS, [{"x": ["a", "b"]}], double, width=1, batch_size=8)
    assert np.isnan(window.outputs).all()
    assert None not in window.errors


def test_errors_name_the_column(manifest: Manifest) -> None:
    X: dict[str, list[Any]] = {
        "title": ["a", 5, "a", "a"],
        "picture": [b"no image", None, None, None],
        "weight": [1, 1, "x", 1],
        "price": [1, 1, 1, 1],
    }
    windows = score_windows(manifest.feeds, [X], lambda a: np.zeros((len(a["text.present"]), 3)), width=3, batch_size=8)
    (window,) = windows
    assert [(error.column, str(error)) if error else None for error in window.errors] == [
        ("picture", "column 'picture': the image cannot be read: cannot identify image file"),
        ("title", "column 'title': a text is expected as str, not int"),
        ("weight", "column 'weight': 'x' is not a number"),
        None,
    ]


@pytest.mark.parametrize("n_encoders", [1, 3])
def test_few_windows_are_read_ahead(n_encoders: int) -> None:
    read = 0

    def windows() -> Iterator[dict[str, list[float]]]:
        nonlocal read
        for i in range(50):
            read += 1
            yield {"x": [float(i)]}

    scored = score_windows(NUMBERS, windows(), double, width=1, batch_size=1, n_encoders=n_encoders)
    for done, _ in enumerate(scored, start=1):
        assert read <= done + n_encoders
    assert read == 50


def test_an_error_in_the_source_or_the_graph_comes_through() -> None:
    def broken_source() -> Iterator[dict[str, list[float]]]:
        yield {"x": [1.0]}
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(score_windows(NUMBERS, broken_source(), double, width=1, batch_size=1))

    def broken_graph(arrays: dict[str, np.ndarray]) -> np.ndarray:
        raise RuntimeError("the graph is gone")

    with pytest.raises(RuntimeError, match="the graph is gone"):
        list(score_windows(NUMBERS, [{"x": [1.0]}] * 9, broken_graph, width=1, batch_size=1, n_encoders=3))


def test_closing_early_drops_the_windows_that_nobody_wants() -> None:
    encoded = 0

    class Counting(TabularPreprocessor):
        def encode(self, *columns: Any) -> Encoded:
            nonlocal encoded
            encoded += 1
            return super().encode(*columns)

    feeds = [Feed("x", ("x",), Counting({"x": "float"}))]
    with closing(score_windows(feeds, [{"x": [1.0]}] * 100, double, width=1, batch_size=1)) as scored:
        next(scored)
    assert encoded <= 2
