from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from mmensemble.datasets import load_tweets
from mmensemble.exceptions import DataError
from mmensemble.preprocessing import (
    CategoryPreprocessor,
    Encoded,
    ImagePreprocessor,
    TabularPreprocessor,
    TextPreprocessor,
)
from mmensemble.scoring import Feed, Manifest
from mmensemble.scoring.batching import row_batches, score_window, score_windows, usual_batch_size, window_size
from mmensemble.tasks import Regression

TWEETS = load_tweets().frame["text"].tolist()[:512]
NUMBERS = [Feed("x", ("x",), TabularPreprocessor({"x": "float"}))]


def double(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return arrays["x.features"] * 2


def test_batches_hold_each_row_once_the_longest_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 50)
    batches = list(row_batches(np.arange(50) + 7, lengths, 8))
    assert sorted(np.concatenate(batches)) == list(range(7, 57))
    assert max(len(batch) for batch in batches) <= 8
    in_order = lengths[np.concatenate(batches) - 7]
    assert (np.diff(in_order) <= 0).all()


def test_rows_alike_are_cut_evenly() -> None:
    batches = list(row_batches(np.arange(50), np.ones(50, dtype=np.int64), 8))
    assert [len(batch) for batch in batches] == [8, 7, 7, 7, 7, 7, 7]


def test_batches_stay_within_the_token_budget() -> None:
    lengths = np.array([1000, 3, 600, 128, 90_000, 0])
    batches = list(row_batches(np.arange(6), lengths, 4))
    assert [batch.tolist() for batch in batches] == [[4], [0], [2], [3], [1, 5]]
    assert list(row_batches(np.arange(0), np.arange(0), 4)) == []
    assert [batch.tolist() for batch in row_batches(np.array([3]), np.array([0]), 4)] == [[3]]
    many = np.random.default_rng(0).integers(1, 128, 500)
    for rows in row_batches(np.arange(500), many, 32):
        assert len(rows) <= 32
        assert len(rows) * many[rows].max() <= 32 * 32


def all_cuts(lengths: list[int]) -> Iterator[list[list[int]]]:
    """Every way to cut a list into runs."""
    if not lengths:
        yield []
    for end in range(1, len(lengths) + 1):
        for rest in all_cuts(lengths[end:]):
            yield [lengths[:end], *rest]


def test_no_other_way_to_cut_the_rows_costs_less() -> None:
    def cost(batches: list[list[int]]) -> float:
        # In tokens: what is computed, padding included, and 1/32 of a full batch, of 4 × 32 tokens, for each call.
        return sum(len(batch) * max(batch) + 4 for batch in batches)

    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = np.sort(rng.choice(np.arange(1, 32), 9, replace=False))[::-1]
        chosen = [lengths[rows].tolist() for rows in row_batches(np.arange(9), lengths, 4)]
        assert cost(chosen) == min(cost(cut) for cut in all_cuts(lengths.tolist()) if max(map(len, cut)) <= 4)


def test_tweets_are_hardly_padded() -> None:
    lengths = TextPreprocessor.train(TWEETS, vocab_size=2000).encode(TWEETS).lengths
    padded = sum(len(rows) * lengths[rows].max() for rows in row_batches(np.arange(512), lengths, 32))
    assert 1.0 - lengths.sum() / padded < 0.05


def test_windows_are_whole_batches_of_bounded_size() -> None:
    text = [Feed("text", ("text",), TextPreprocessor.train(["a"], vocab_size=258))]
    images = [Feed("image", ("image",), ImagePreprocessor(size=224))]
    assert window_size(text, 64) == 512
    assert window_size(text, 100) == 500
    assert window_size(text, 2000) == 8000
    assert window_size(images, 64) == 64
    assert window_size(images, 1) == 16 * 2**20 // (224 * 224 * 3 + 1)


def test_members_that_read_the_same_cells_alike_share_their_arrays() -> None:
    numbers, others = TabularPreprocessor({"x": "float"}), TabularPreprocessor({"x": "float"}, dtype="float64")
    written = Manifest(
        Regression(1, one_dimensional=True), [Feed(name, ("x",), TabularPreprocessor({"x": "float"})) for name in "ab"]
    )
    one, other = Manifest.from_json(written.to_json()).feeds
    assert one.preprocessor is other.preprocessor
    feeds = [one, other, Feed("c", ("x",), others), Feed("d", ("y",), numbers)]
    given: dict[str, np.ndarray] = {}

    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        given.update(arrays)
        return arrays["a.features"]

    score_window(feeds, {"x": [1.0, 2.0], "y": [3.0, 4.0]}, run, width=1, batch_size=2)
    assert given["a.features"] is given["b.features"]
    assert given["c.features"].dtype == np.float64
    assert given["d.features"].ravel().tolist() == [3.0, 4.0]


@pytest.mark.parametrize("n_threads", [1, 4])
@pytest.mark.parametrize("run_in_threads", [False, True])
def test_windows_come_back_in_order(n_threads: int, run_in_threads: bool) -> None:
    windows = [{"x": [10.0 * i, 10.0 * i + 1]} for i in range(20)] + [{"x": []}]
    settings: dict[str, Any] = {"width": 1, "batch_size": 1, "n_threads": n_threads, "run_in_threads": run_in_threads}
    scored = list(score_windows(NUMBERS, windows, double, **settings))
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


def test_a_row_for_which_the_model_gives_nan_is_bad() -> None:
    def run(arrays: dict[str, np.ndarray]) -> np.ndarray:
        return np.log(arrays["x.features"])

    with np.errstate(invalid="ignore"):
        (window,) = score_windows(NUMBERS, [{"x": [1.0, -1.0, 1.0]}], run, width=1, batch_size=2)
    assert [error is None for error in window.errors] == [True, False, True]
    with pytest.raises(DataError, match="row 1: the model gives NaN for this row"):
        window.raise_for_errors(0)


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


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("run_in_threads", [False, True])
def test_few_windows_are_read_ahead(n_threads: int, run_in_threads: bool) -> None:
    read = 0

    def windows() -> Iterator[dict[str, list[float]]]:
        nonlocal read
        for i in range(50):
            read += 1
            yield {"x": [float(i)]}

    settings: dict[str, Any] = {"width": 1, "batch_size": 1, "n_threads": n_threads, "run_in_threads": run_in_threads}
    scored = score_windows(NUMBERS, windows(), double, **settings)
    for done, _ in enumerate(scored, start=1):
        assert read <= done + n_threads + run_in_threads
    assert read == 50


def test_an_error_in_the_source_or_the_graph_comes_through() -> None:
    def broken_source() -> Iterator[dict[str, list[float]]]:
        yield {"x": [1.0]}
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(score_windows(NUMBERS, broken_source(), double, width=1, batch_size=1))

    def broken_graph(arrays: dict[str, np.ndarray]) -> np.ndarray:
        raise RuntimeError("the graph is gone")

    for in_threads in (False, True):
        with pytest.raises(RuntimeError, match="the graph is gone"):
            list(
                score_windows(
                    NUMBERS,
                    [{"x": [1.0]}] * 9,
                    broken_graph,
                    width=1,
                    batch_size=1,
                    n_threads=3,
                    run_in_threads=in_threads,
                )
            )


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


def test_the_usual_batch_suits_every_input() -> None:
    categories = Feed("y", ("y",), CategoryPreprocessor({"y": ["a", "b"]}))
    assert usual_batch_size([*NUMBERS, categories]) == 2048
    assert usual_batch_size([*NUMBERS, Feed("image", ("image",), ImagePreprocessor(size=8)), categories]) == 32
