"""Rows that are kept: embeddings, in a database that may be cut, garbled, full, shared, or left by a killed process."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

from mmensemble.cache import Store, embed_rows, row_store, rows
from mmensemble.cache.row_store import RowStore

SIZE = 64


def squares(start: int, stop: int, fingerprint: bytes = b"squares") -> list[int]:
    """Embed the numbers of a range as their square, many times over; return those that were computed."""
    computed: list[int] = []

    def compute(positions: np.ndarray) -> list[np.ndarray]:
        computed.extend(int(start + position) for position in positions)
        return [np.full((2, SIZE), float(start + position) ** 2, dtype=np.float32) for position in positions]

    made = embed_rows(fingerprint, [np.asarray([number]) for number in range(start, stop)], compute)
    for number, embedding in zip(range(start, stop), made, strict=True):
        assert embedding.shape == (2, SIZE)
        assert embedding.dtype == np.float32
        np.testing.assert_array_equal(embedding, np.float32(float(number) ** 2))
    return computed


def test_rows_are_embedded_once(tmp_path: Path) -> None:
    assert squares(0, 2) == [0, 1]
    assert squares(0, 2) == [0, 1], "there is no store"
    with Store.of(tmp_path).active():
        assert squares(0, 5) == [0, 1, 2, 3, 4]
        assert squares(2, 7) == [5, 6]
        assert squares(2, 7, b"another network") == [2, 3, 4, 5, 6]
    assert squares(0, 2) == [0, 1]


def test_equal_rows_are_embedded_once_and_like_ones_apart(tmp_path: Path) -> None:
    rows = [np.asarray([1, 2]), np.asarray([[1, 2]]), np.asarray([1, 2], dtype=np.int32), np.asarray([1, 2])]
    computed: list[int] = []

    def compute(positions: np.ndarray) -> list[np.ndarray]:
        computed.extend(positions.tolist())
        return [np.full(3, float(position), dtype=np.float32) for position in positions]

    with Store.of(tmp_path).active():
        made = embed_rows(b"f", rows, compute)
    assert computed == [0, 1, 2]
    assert [int(embedding[0]) for embedding in made] == [0, 1, 2, 0]


def test_another_version_embeds_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.of(tmp_path).active():
        squares(0, 3)
        monkeypatch.setattr(rows, "versions", lambda: ("torch 99",))
        assert squares(0, 3) == [0, 1, 2]


def test_another_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.of(tmp_path).active():
        with monkeypatch.context() as before:
            before.setattr(rows, "FORMAT", row_store.FORMAT - 1)
            before.setattr(row_store, "_to_bytes", lambda value: b"written otherwise")
            embed_rows(b"squares", [np.asarray([0])], lambda positions: [np.zeros((2, SIZE), dtype=np.float32)])
        assert squares(0, 3) == [0, 1, 2]
        assert squares(0, 3) == []


@pytest.mark.parametrize("transaction", [5_000, 1_000_000])
def test_embeddings_stay_below_their_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transaction: int) -> None:
    monkeypatch.setattr(rows, "EMBEDDING_BYTES", 200_000)
    monkeypatch.setattr(row_store, "TRANSACTION_BYTES", transaction)
    with Store.of(tmp_path).active():
        for start in range(0, 1500, 300):  # 5 times the bound
            squares(start, start + 300)
            assert (tmp_path / "embeddings.sqlite").stat().st_size <= 200_000
        squares(1500, 1520)
        assert squares(1500, 1520) == [], "after making room it keeps again"


@pytest.mark.parametrize("unusable", ["no folder", "not opened", "another's"])
def test_a_store_that_cannot_be_used_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unusable: str
) -> None:
    file = tmp_path / "embeddings.sqlite"
    if unusable == "no folder":
        file.mkdir()
    elif unusable == "not opened":
        monkeypatch.setattr(row_store, "BUSY_SECONDS", 0.01)
        with Store.of(tmp_path).active():
            squares(0, 3)
        other = sqlite3.connect(file)
        other.execute("BEGIN EXCLUSIVE")
    else:
        monkeypatch.setattr(sqlite3, "connect", lambda *_, **named: refuse())
    with Store.of(tmp_path).active():
        for _ in range(3):
            squares(0, 3)
        assert squares(0, 3) == [0, 1, 2]
    if unusable == "not opened":
        other.close()
        with Store.of(tmp_path).active():
            assert squares(0, 3) == [], "it waits no longer"
    assert [f"the rows kept in {file} cannot be used" in said.getMessage() for said in caplog.records] == [True]


def refuse() -> Any:
    raise PermissionError("it is another's")


# Damage


def content(folder: Path, n: int = 100) -> bytearray:
    with Store.of(folder).active():
        assert squares(0, n) == list(range(n))
    return bytearray((folder / "embeddings.sqlite").read_bytes())


def check_mended(folder: Path, n: int = 100) -> None:
    """Find the right squares, whatever is there, and after that find them all."""
    with Store.of(folder).active():
        squares(0, n)
        squares(0, n)
        assert squares(0, n) == []


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    whole = content(tmp_path)
    os.truncate(tmp_path / "embeddings.sqlite", int(share * len(whole)))
    check_mended(tmp_path)
    assert [said.getMessage() for said in caplog.records if "damaged and made anew" not in said.getMessage()] == []
    assert len(caplog.records) <= 1


@pytest.mark.parametrize("garbage", [b"not a database" * 2000, b"", b"\0" * 4096])
def test_what_is_no_database_is_made_anew(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "embeddings.sqlite").write_bytes(garbage)
    check_mended(tmp_path)


def test_garbled_bytes_are_not_read(tmp_path: Path) -> None:
    whole = content(tmp_path)
    rng = np.random.default_rng(0)
    # The first page tells what the others are.
    places = [*rng.integers(0, 200, 60), *rng.integers(0, 4096, 60), *rng.integers(0, len(whole), 120)]
    n_anew = 0
    for place in places:
        garbled = whole.copy()
        garbled[place] ^= int(rng.integers(1, 256))
        (tmp_path / "embeddings.sqlite").write_bytes(garbled)
        with Store.of(tmp_path).active():
            n_anew += len(squares(0, 100)) > 0
        check_mended(tmp_path)
    assert n_anew > 60, "most of the file is of use"


def test_an_entry_of_another_key_is_not_read(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "rows.sqlite", 2**20)
    store.put({b"a": np.asarray([1.0]), b"b": np.asarray([2.0])})
    with sqlite3.connect(store.file) as database:
        database.execute("UPDATE rows SET value = (SELECT value FROM rows WHERE key = ?)", (b"a",))
    database.close()
    assert store.get([b"a", b"b"]) == {b"a": np.asarray([1.0])}


def test_tables_of_others_are_replaced(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "embeddings.sqlite")
    database.execute("CREATE TABLE rows (name TEXT)")
    database.close()
    check_mended(tmp_path)


# A full disk


def on_a_full_disk(folder: Path, steps: Connection) -> None:
    """Embed where no file may be larger than 50 kB."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mmensemble").addHandler(handler)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    with Store.of(folder).active():
        computed = [squares(0, 20), squares(0, 20), squares(20, 500), squares(0, 500), squares(0, 20)]
    steps.send((computed, said))


def test_a_full_disk_costs_the_store_alone(tmp_path: Path) -> None:
    process, steps = start(on_a_full_disk, tmp_path)
    computed, said = steps.recv()
    process.join()
    assert process.exitcode == 0
    small, large = list(range(20)), list(range(20, 500))
    assert computed == [small, [], large, large, []], "what was there before is still found"
    assert len(said) == 1
    assert "cannot be used" in said[0]


def test_what_a_full_disk_broke_off_gives_its_room_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = RowStore(tmp_path / "rows.sqlite", 100_000)
    store.put({b"a": np.zeros(10)})
    before = store.file.stat().st_size
    store.put({b"b": np.zeros(20_000)})  # to SQLite a bound is a full disk
    assert "database or disk is full" in caplog.text
    assert store.file.stat().st_size == before
    assert list(tmp_path.iterdir()) == [store.file]
    store.put({b"c": np.zeros(10)})
    assert list(store.get([b"b", b"c"])) == [b"c"]


# Several threads and processes, and processes that are killed


def test_threads_share_the_embeddings(tmp_path: Path) -> None:
    def work(start: int) -> list[int]:
        with Store.of(tmp_path).active():
            return squares(start, start + 50)

    # All of them open the store at the same time.
    computed = joblib.Parallel(n_jobs=8, backend="threading")(joblib.delayed(work)(50 * i) for i in range(16))
    assert sorted(itertools.chain(*computed)) == list(range(800))


def in_a_fork(folder: Path, queue: Any) -> None:
    with Store.of(folder).active():
        queue.put(squares(0, 6))


def test_a_forked_process_opens_the_embeddings_anew(tmp_path: Path) -> None:
    with Store.of(tmp_path).active():
        squares(0, 3)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=in_a_fork, args=(tmp_path, queue))
        process.start()
        assert queue.get(timeout=30) == [3, 4, 5]
        process.join()
        assert squares(0, 8) == [6, 7]


def start(work: Callable[[Path, Connection], None], folder: Path) -> tuple[BaseProcess, Connection]:
    """Let another process work in a folder; it sends something after each step."""
    context = multiprocessing.get_context("fork")
    steps, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(folder, sender))
    process.start()
    sender.close()
    return process, steps


def embed(folder: Path, steps: Connection, n_steps: int | None = None) -> None:
    with Store.of(folder).active():
        for i in itertools.islice(itertools.count(), n_steps):
            squares(20 * i, 20 * i + 20)
            steps.send(i)


def test_processes_write_at_once(tmp_path: Path) -> None:
    for process, steps in [start(partial(embed, n_steps=40), tmp_path) for _ in range(2)]:
        assert [steps.recv() for _ in range(40)] == list(range(40))
        process.join()
        assert process.exitcode == 0
    with Store.of(tmp_path).active():
        assert squares(0, 800) == []


def kill_three(work: Callable[[Path, Connection], None], folder: Path, *, n_steps: int, delay: float) -> None:
    """Let three processes work at once, and kill each at another moment after some steps."""
    for number, (process, steps) in enumerate([start(work, folder) for _ in range(3)]):
        for _ in range(n_steps):
            steps.recv()
        time.sleep(number * delay)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL


def test_embeddings_survive_a_kill(tmp_path: Path) -> None:
    kill_three(embed, tmp_path, n_steps=20, delay=0.0007)
    with Store.of(tmp_path).active():
        assert squares(0, 400) == [], "what was committed is there, and is right"
        squares(0, 2000)
        assert squares(0, 2000) == []
