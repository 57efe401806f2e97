"""A file of prompts → a file of texts, by a model that writes the same in any batch."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.files.reading import TableReader
from mmensemble.scoring import GenerationSettings, OnnxPredictor, generate_file, score_file
from mmensemble.scoring.generation import texts as generation

Rows = dict[str, list[Any]]
DRAWN: dict[str, Any] = {"max_new_tokens": 12, "random_state": 3}


@pytest.fixture(scope="module")
def predictor(generator_path: Path) -> OnnxPredictor:
    return OnnxPredictor(generator_path, device="cpu")


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.parquet"
    pq.write_table(pa.table({name: rows[name][:500] for name in ("id", "title")}), path, row_group_size=120)
    return path


@pytest.fixture(scope="module")
def at_once(predictor: OnnxPredictor, parquet: Path) -> np.ndarray:
    return predictor.generate(pq.read_table(parquet), **DRAWN)


@pytest.mark.parametrize(("batch_size", "n_threads"), [(1, 1), (7, 1), (7, 3), (32, 2), (600, 2)])
def test_any_windows_give_the_texts_that_all_rows_at_once_get(
    generator_path: Path, parquet: Path, tmp_path: Path, at_once: np.ndarray, batch_size: int, n_threads: int
) -> None:
    options: dict[str, Any] = {"device": "cpu", "batch_size": batch_size, "n_threads": n_threads, "keep": ["id"]}
    report = generate_file(generator_path, parquet, tmp_path / "out.parquet", **options, **DRAWN)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "generated", "error"]
    assert table["id"].to_pylist() == list(range(500))
    assert table["generated"].to_pylist() == at_once[:, 0].tolist()
    assert table["generated"].null_count == pq.read_table(parquet)["title"].null_count > 0
    assert table["error"].null_count == 500
    assert (report.n_rows, report.n_errors, report.n_resumed) == (500, 0, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {"num_return_sequences": 3, "random_state": np.int64(1), "top_k": np.int64(5), "temperature": 2},
        {"num_beams": 4, "num_return_sequences": 2},
        {"random_state": 2, "top_p": 0.8},
    ],
)
def test_settings(predictor: OnnxPredictor, parquet: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    generate_file(predictor, parquet, tmp_path / "out.csv", max_new_tokens=5, **settings)
    table = pa_csv.read_csv(
        tmp_path / "out.csv",
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False),
    )
    expected = predictor.generate(pq.read_table(parquet), max_new_tokens=5, **settings)
    copies = settings.get("num_return_sequences", 1)
    names = ["generated"] if copies == 1 else [f"generated_{copy}" for copy in range(copies)]
    assert table.column_names == [*names, "error"]
    assert [table[name].to_pylist() for name in names] == expected.T.tolist()


def test_the_batches_of_one_window_share_the_cores(generator_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = OnnxPredictor(generator_path, device="cpu", batch_size=4, n_threads=4)
    cells = ["red apple", "pear", "a ripe plum", "green"] * 4
    assert predictor.window_size == len(cells)
    expected = predictor.generate(cells, **DRAWN)
    together = Barrier(4, timeout=60)
    write = generation.generate_tokens

    def waits(*arguments: Any, **options: Any) -> Any:
        together.wait()  # breaks unless four batches are written at the same time
        return write(*arguments, **options)

    monkeypatch.setattr(generation, "generate_tokens", waits)
    assert predictor.generate(cells, **DRAWN).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("n_rows", "n_threads", "copies", "at_once"),
    [
        (32, 2, 1, False),
        (33, 2, 1, True),
        (32, 2, 2, True),  # so many sequences are two batches
        (64, 2, 1, True),
        (96, 8, 1, False),  # more than half of the threads would have nothing to do
        (97, 8, 1, True),
        (256, 16, 1, True),
        (224, 16, 1, False),
        (300, 16, 1, True),
        (300, 1, 1, False),
    ],
)
def test_a_file_is_written_in_the_batches_and_sessions_of_all_rows_at_once(
    generator_path: Path,
    parquet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_rows: int,
    n_threads: int,
    copies: int,
    at_once: bool,
) -> None:
    predictor = OnnxPredictor(generator_path, device="cpu", n_threads=n_threads)
    table = pq.read_table(parquet).slice(0, n_rows)
    pq.write_table(table, tmp_path / "in.parquet")
    runs: list[tuple[bool, list[int]]] = []
    write = generation.generate_tokens

    def notes(decoder: Any, *arguments: Any, rows: np.ndarray, **options: Any) -> Any:
        runs.append((decoder.session is not predictor._model.session, rows.tolist()))
        return write(decoder, *arguments, rows=rows, **options)

    monkeypatch.setattr(generation, "generate_tokens", notes)
    settings: dict[str, Any] = {"max_new_tokens": 2, "random_state": 0, "num_return_sequences": copies}
    predictor.generate(table, **settings)
    in_memory = sorted(runs)
    runs.clear()
    generate_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet", **settings)
    assert sorted(runs) == in_memory
    assert {own_thread for own_thread, _ in runs} == {at_once}
    assert max(len(rows) for _, rows in runs) <= 32 // copies


def test_batches_of_rows_that_are_bad_or_missing(predictor: OnnxPredictor) -> None:
    cells = ["red", 3, None, "green apple", ""]
    frames = [{"title": cells[:2]}, {"title": cells[2:2]}, {"title": cells[2:]}]
    windows = list(predictor.generate_batches(frames, GenerationSettings.of(**DRAWN)))
    assert [len(window.outputs) for window in windows] == [2, 0, 3]
    texts = [text for window in windows for text in window.outputs[:, 0]]
    good = ["red", None, None, "green apple", ""]
    assert texts == predictor.generate(good, **DRAWN)[:, 0].tolist()
    assert [error is None for window in windows for error in window.errors] == [True, False, True, True, True]
    assert windows[0].errors[1].column == "title"
    (last,) = predictor.generate_batches([{"title": cells[2:]}], GenerationSettings.of(**DRAWN), first_row=2)
    assert last.outputs.tolist() == windows[2].outputs.tolist()


def test_bad_rows_of_a_file(predictor: OnnxPredictor, tmp_path: Path) -> None:
    pq.write_table(pa.table({"title": [None, b"bytes", None]}), tmp_path / "in.parquet")
    report = generate_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet", random_state=0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert (report.n_rows, report.n_errors) == (3, 1)
    assert table["generated"].to_pylist() == [None] * 3
    first, bad, last = table["error"].to_pylist()
    assert first is last is None
    assert bad.startswith("column 'title': ")
    with pytest.raises(DataError, match="row 1, column 'title'"):
        generate_file(predictor, tmp_path / "in.parquet", tmp_path / "raised.parquet", on_error="raise")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


def test_json_lines(predictor: OnnxPredictor, tmp_path: Path) -> None:
    lines = ['{"id": 7, "title": "red\\napple"}', '{"id": 8}', '{"id": 9, "title": ""}', '{"id": 10, "title": 3}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    report = generate_file(predictor, tmp_path / "in.jsonl", tmp_path / "out.jsonl", keep=["id"], **DRAWN)
    assert (report.n_rows, report.n_errors) == (4, 0)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = predictor.generate(["red\napple", None, "", "3"], **DRAWN)[:, 0].tolist()
    expected = zip([7, 8, 9, 10], texts, strict=True)
    assert written == [{"id": number, "generated": text, "error": None} for number, text in expected]


def test_no_rows(predictor: OnnxPredictor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,title\n")
    assert generate_file(predictor, tmp_path / "in.csv", tmp_path / "out.parquet", keep=["id"]).n_rows == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names == ["id", "generated", "error"]


def interrupt(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    tables = TableReader.tables

    def breaks(self: TableReader, columns: Any, size: int) -> Iterator[pa.Table]:
        for number, table in enumerate(tables(self, columns, size)):
            if number == after:
                raise KeyboardInterrupt
            yield table

    monkeypatch.setattr(TableReader, "tables", breaks)


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> None:
    """Generate 32 rows at a time, in windows of 128, and stop at the fourth window."""
    with monkeypatch.context() as patched:
        interrupt(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            generate_file(*arguments, **options)


def seed_of_the_parts(folder: Path) -> int:
    (said,) = folder.glob(".*.parts/job.json")
    return json.loads(said.read_text())["drawn"]["seed"]


def test_a_drawn_seed_outlives_an_interrupt(
    generator_path: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = OnnxPredictor(generator_path, device="cpu", n_threads=1), tmp_path / "out.parquet"
    interrupted(monkeypatch, model, parquet, out)
    seed = seed_of_the_parts(tmp_path)
    report = generate_file(model, parquet, out)
    assert 0 < report.n_resumed < report.n_rows == 500
    expected = model.generate(pq.read_table(parquet), random_state=seed)
    assert pq.read_table(out)["generated"].to_pylist() == expected[:, 0].tolist()
    interrupted(monkeypatch, model, parquet, out, overwrite=True)
    assert seed_of_the_parts(tmp_path) != seed


@pytest.mark.parametrize("changed", [{"random_state": 4}, {"random_state": None}, {"top_k": 9}, {"max_new_tokens": 3}])
def test_parts_of_other_settings_are_not_taken(
    generator_path: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    model, out = OnnxPredictor(generator_path, device="cpu", n_threads=1), tmp_path / "out.parquet"
    interrupted(monkeypatch, model, parquet, out, **DRAWN)
    assert generate_file(model, parquet, out, **{**DRAWN, **changed}).n_resumed == 0
    interrupted(monkeypatch, model, parquet, out, overwrite=True, **DRAWN)
    assert generate_file(model, parquet, out, overwrite=True, **DRAWN).n_resumed > 0


_KILLED = """
import os, signal, sys
from mmensemble.files import parts
from mmensemble.scoring import generate_file
parts._PART_ROWS = 1
write = parts.Parts.write
def dies(self, table):
    if self.n_rows >= 256:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, table)
parts.Parts.write = dies
generate_file(*sys.argv[1:], device="cpu", n_threads=2, max_new_tokens=12, random_state=3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_process_leaves_parts_that_the_next_one_takes_over(
    generator_path: Path, parquet: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    done = subprocess.run([sys.executable, "-c", _KILLED, generator_path, parquet, out], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = generate_file(generator_path, parquet, out, device="cpu", n_threads=2, **DRAWN)
    assert (report.n_rows, report.n_resumed) == (500, 256)
    generate_file(generator_path, parquet, whole, device="cpu", n_threads=2, **DRAWN)
    assert out.read_bytes() == whole.read_bytes()


def test_it_needs_no_training_packages(generator_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"title": "red"}\n')
    script = (
        "import sys\n"
        "from mmensemble.scoring import generate_file\n"
        "assert generate_file(*sys.argv[1:], device='cpu').n_rows == 1\n"
        "print({'torch', 'transformers', 'sklearn', 'joblib', 'onnx', 'scipy'} & set(sys.modules))\n"
    )
    arguments = [generator_path, tmp_path / "in.jsonl", tmp_path / "out.csv"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_cannot_work(predictor: OnnxPredictor, model_path: Path, parquet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(ConfigurationError, match=r"writes texts and has no scores; use generate_file \(mmensemble gen"):
        score_file(predictor, parquet, out)
    with pytest.raises(ConfigurationError, match=r"writes no texts; use score_file \(mmensemble score\)"):
        generate_file(model_path, parquet, out, device="cpu")
    with pytest.raises(ConfigurationError, match="max_new_tokens=64 is too many: the network has 64 positions"):
        generate_file(predictor, parquet, out, max_new_tokens=64)
    with pytest.raises(ConfigurationError, match="beam search draws nothing"):
        generate_file(predictor, parquet, out, num_beams=2, top_k=3)
    with pytest.raises(ConfigurationError, match="on_error must be"):
        generate_file(predictor, parquet, out, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="column 'size': there is no such column"):
        generate_file(predictor, parquet, out, keep=["size"])
    pq.write_table(pa.table({"title": ["a"], "generated": ["b"]}), tmp_path / "in.parquet")
    with pytest.raises(ConfigurationError, match="kept column 'generated' would stand in the output twice"):
        generate_file(predictor, tmp_path / "in.parquet", out, keep=["generated"])
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_a_predictor_has_the_methods_that_its_file_allows(predictor: OnnxPredictor, model_path: Path) -> None:
    scores = ["predict", "predict_proba", "score_batches", "classes_"]
    texts = ["generate", "generate_batches", "token_decoder"]
    classifier = OnnxPredictor(model_path, device="cpu")
    assert all(hasattr(classifier, name) and not hasattr(predictor, name) for name in scores)
    assert all(hasattr(predictor, name) and not hasattr(classifier, name) for name in texts)
    assert all(callable(getattr(OnnxPredictor, name)) for name in [*scores[:-1], *texts])
    with pytest.raises(AttributeError, match="the model does classification and writes no texts; use predict"):
        _ = classifier.generate
    with pytest.raises(AttributeError, match=r"the model writes texts and has neither predict .*; use generate"):
        _ = predictor.predict
