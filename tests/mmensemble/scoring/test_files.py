from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import ConfigurationError, DataError, ModelFileError
from mmensemble.files.parts import Parts
from mmensemble.files.reading import TableReader
from mmensemble.files.writing import open_writer
from mmensemble.scoring import Manifest, OnnxPredictor, ScoreReport, score_file
from mmensemble.tasks import Classification

Rows = dict[str, list[Any]]
SCORES = ["prediction", "probability_apple", "probability_pear", "probability_plum", "error"]


@pytest.fixture(scope="module")
def predictor(model_path: Path) -> OnnxPredictor:
    return OnnxPredictor(model_path, device="cpu")


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(pa.table(rows), path, row_group_size=400)
    return path


def probabilities(table: pa.Table) -> np.ndarray:
    return np.column_stack([table[name].to_numpy() for name in SCORES[1:4]])


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parquet_to_parquet(model_path: Path, parquet: Path, tmp_path: Path, rows: Rows, expected: np.ndarray) -> None:
    report = score_file(model_path, parquet, tmp_path / "out.parquet", device="cpu", keep=["price", "id", "picture"])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["price", "id", "picture", *SCORES]
    assert table["id"].to_pylist() == rows["id"]
    assert table["picture"].to_pylist() == rows["picture"]
    np.testing.assert_allclose(probabilities(table), expected, atol=1e-5)
    assert table["prediction"].to_pylist() == [["apple", "pear", "plum"][i] for i in expected.argmax(axis=1)]
    assert table["error"].null_count == 1500
    assert table.schema.field("probability_apple").type == pa.float32()
    assert (report.n_rows, report.n_errors, report.device) == (1500, 0, "cpu")
    assert report.rows_per_second == pytest.approx(1500 / report.seconds)
    assert left_behind(tmp_path) == ["out.parquet"]


def test_csv_to_csv_keeps_cells_as_they_were_written(predictor: OnnxPredictor, tmp_path: Path, rows: Rows) -> None:
    path = tmp_path / "apple.png"
    path.write_bytes(next(picture for picture in rows["picture"] if picture))
    (tmp_path / "in.csv").write_text(
        "id,title,picture,weight,price,note\n"
        f'007,"a red, ripe\napple",{path},1.50,2,NA\n'
        "008,,,,,\n"
        f'009,"",{path},1,2,""\n'
        f"010,null,{tmp_path}/none.png,1,2,x\n"
        "011,pear,,heavy,2,x\n",
        encoding="utf-8-sig",
    )
    report = score_file(predictor, tmp_path / "in.csv", tmp_path / "out.csv", keep=["id", "weight", "note"])
    assert (report.n_rows, report.n_errors) == (5, 2)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == ",".join(f'"{name}"' for name in ["id", "weight", "note", *SCORES])
    assert lines[1].startswith('"007","1.50","NA","')
    assert lines[2].startswith('"008",,,"')
    assert lines[3].startswith('"009","1","","')
    assert lines[4] == '"010","1","x",,,,,"column \'picture\': the image cannot be read: ' + (
        f"[Errno 2] No such file or directory: '{tmp_path}/none.png'\""
    )
    assert lines[5] == '"011","heavy","x",,,,,"column \'weight\': \'heavy\' is not a number"'


def test_csv_and_json_score_as_parquet_does(predictor: OnnxPredictor, tmp_path: Path, rows: Rows) -> None:
    table = pa.table({name: rows[name] for name in ("title", "weight", "price")})
    table = table.append_column("picture", pa.nulls(1500, pa.string()))
    pq.write_table(table, tmp_path / "in.parquet")
    pa_csv.write_csv(table, tmp_path / "in.csv")
    with open_writer(tmp_path / "in.jsonl", table.schema) as writer:
        writer.write(table)
    for suffix in ("parquet", "csv", "jsonl"):
        score_file(predictor, tmp_path / f"in.{suffix}", tmp_path / f"{suffix}.parquet")
    tables = [pq.read_table(tmp_path / f"{suffix}.parquet") for suffix in ("parquet", "csv", "jsonl")]
    np.testing.assert_allclose(probabilities(tables[0]), probabilities(tables[1]), atol=1e-6)
    np.testing.assert_array_equal(probabilities(tables[0]), probabilities(tables[2]))


def test_the_struct_of_hugging_face(predictor: OnnxPredictor, tmp_path: Path, rows: Rows, expected: np.ndarray) -> None:
    pictures = [None if picture is None else {"bytes": picture, "path": "x.png"} for picture in rows["picture"]]
    pq.write_table(pa.table({**rows, "picture": pictures}), tmp_path / "in.parquet")
    score_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet", keep=["picture"])
    table = pq.read_table(tmp_path / "out.parquet")
    np.testing.assert_allclose(probabilities(table), expected, atol=1e-5)
    assert table["picture"].to_pylist() == pictures
    with pytest.raises(ConfigurationError, match=r"column 'picture' .* has no CSV form"):
        score_file(predictor, tmp_path / "in.parquet", tmp_path / "out.csv", keep=["picture"])
    assert left_behind(tmp_path) == ["in.parquet", "out.parquet"]


def test_bad_rows(predictor: OnnxPredictor, tmp_path: Path, rows: Rows, expected: np.ndarray) -> None:
    bad = [3, 700, 1499]
    pictures = [b"no image" if row in bad else picture for row, picture in enumerate(rows["picture"])]
    pq.write_table(pa.table({**rows, "picture": pictures}), tmp_path / "in.parquet", row_group_size=100)
    report = score_file(predictor, tmp_path / "in.parquet", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert report.n_errors == 3
    errors = table["error"].to_pylist()
    assert [row for row, error in enumerate(errors) if error] == bad
    assert errors[3] == "column 'picture': the image cannot be read: cannot identify image file"
    for name in SCORES[:4]:
        assert [row for row, cell in enumerate(table[name].to_pylist()) if cell is None] == bad
    good = np.setdiff1d(np.arange(1500), bad)
    np.testing.assert_allclose(probabilities(table)[good], expected[good], atol=1e-5)

    with pytest.raises(DataError, match="row 3, column 'picture': the image cannot be read") as caught:
        score_file(predictor, tmp_path / "in.parquet", tmp_path / "raised.parquet", on_error="raise")
    assert (caught.value.row, caught.value.column) == (3, "picture")
    pq.write_table(pa.table({**rows, "picture": [None] * 700 + pictures[700:]}), tmp_path / "late.parquet")
    with pytest.raises(DataError, match="row 700, column 'picture'"):
        score_file(predictor, tmp_path / "late.parquet", tmp_path / "raised.parquet", on_error="raise")
    assert left_behind(tmp_path) == ["in.parquet", "late.parquet", "out.parquet"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_no_rows(predictor: OnnxPredictor, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_text("id,title,picture,weight,price\n")
    report = score_file(predictor, tmp_path / "in.csv", tmp_path / f"out.{suffix}", keep=["id"])
    assert (report.n_rows, report.n_errors) == (0, 0)
    read = pq.read_table if suffix == "parquet" else pa_csv.read_csv
    table = read(tmp_path / f"out.{suffix}")
    assert table.column_names == ["id", *SCORES]
    assert table.num_rows == 0


def test_classes_keep_their_type(
    write_model: Callable[[Path, str | None], Path], manifest: Manifest, parquet: Path, tmp_path: Path
) -> None:
    for classes, kind in (([0, 1, 5], pa.int64()), ([0.5, 1.5, 2.5], pa.float64()), ("aäß", pa.string())):
        renamed = Manifest(Classification(np.array(list(classes))), manifest.feeds)
        model = write_model(tmp_path / "model.onnx", renamed.to_json())
        score_file(model, parquet, tmp_path / "out.parquet", device="cpu", overwrite=True)
        table = pq.read_table(tmp_path / "out.parquet")
        assert table.schema.field("prediction").type == kind
        assert table.column_names[1:-1] == [f"probability_{label}" for label in classes]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Interrupt the reading of the file at a table, and count the rows that are read."""
    read: list[int] = []
    tables = TableReader.tables

    def breaks(self: TableReader, columns: Any, size: int) -> Iterator[pa.Table]:
        for place, table in enumerate(tables(self, columns, 100)):
            if place == number:
                raise KeyboardInterrupt
            read.append(table.num_rows)
            yield table

    monkeypatch.setattr(TableReader, "tables", breaks)
    return read


def count_scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    scored: list[int] = []
    write = Parts.write

    def counting(self: Parts, table: pa.Table) -> None:
        scored.append(table.num_rows)
        write(self, table)

    monkeypatch.setattr(Parts, "write", counting)
    return scored


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_an_interrupted_call_goes_on_and_writes_the_same_file(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    with monkeypatch.context() as patched:
        interrupt_at(patched, 1000)
        score_file(predictor, parquet, whole, keep=["id"])
    for place in (9, 12):
        with monkeypatch.context() as patched:
            interrupt_at(patched, place)
            with pytest.raises(KeyboardInterrupt):
                score_file(predictor, parquet, out, keep=["id"])
    assert left_behind(tmp_path) == [f".out.{suffix}.parts", whole.name]
    with monkeypatch.context() as patched:
        interrupt_at(patched, 1000)
        scored = count_scored(patched)
        report = score_file(predictor, parquet, out, keep=["id"])
    assert (report.n_rows, report.n_resumed) == (1500, 1500 - sum(scored))
    assert 0 < sum(scored) <= 800
    assert out.read_bytes() == whole.read_bytes()
    assert left_behind(tmp_path) == sorted([out.name, whole.name])


def test_an_interrupt_before_the_first_row_leaves_nothing(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        score_file(predictor, parquet, tmp_path / "out.parquet")
    assert left_behind(tmp_path) == []


_KILLED = """
import os, signal, sys
from mmensemble.files import parts
from mmensemble.scoring import score_file
parts._PART_ROWS = 1
write = parts.Parts.write
def dies(self, table):
    if self.n_rows >= 512:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, table)
parts.Parts.write = dies
score_file(*sys.argv[1:], device="cpu", n_threads=2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_process_leaves_parts_that_the_next_one_takes_over(
    model_path: Path, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    done = subprocess.run([sys.executable, "-c", _KILLED, model_path, parquet, out], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = tmp_path / ".out.parquet.parts"
    (parts / f"part-{len(list(parts.glob('*.arrow'))):05}.arrow.partial").write_bytes(b"half a part")
    report = score_file(model_path, parquet, out, device="cpu", n_threads=2)
    assert (report.n_rows, report.n_resumed) == (1500, 512)
    score_file(model_path, parquet, tmp_path / "whole.parquet", device="cpu", n_threads=2)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert left_behind(tmp_path) == [out.name, "whole.parquet"]


def test_one_process_writes_at_a_time(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "mmensemble", "score", predictor.path, parquet, "-o", out, "--device", "cpu"]
    write, others = Parts.write, []

    def meanwhile(self: Parts, table: pa.Table) -> None:
        write(self, table)
        if not others:
            others.append(subprocess.run(command, capture_output=True, text=True))
            with pytest.raises(ConfigurationError, match=r"another process is writing .*out\.parquet"):
                score_file(predictor, parquet, out)

    monkeypatch.setattr(Parts, "write", meanwhile)
    report = score_file(predictor, parquet, out)
    (other,) = others
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr.startswith("Error: another process is writing"), other.stderr
    assert (report.n_rows, report.n_resumed) == (1500, 0)
    assert pq.read_table(out, columns=["prediction"]).num_rows == 1500
    assert left_behind(tmp_path) == [out.name]


def test_parts_of_another_job_are_not_taken(
    model_path: Path, predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, changed, again = tmp_path / "out.parquet", tmp_path / "changed.parquet", tmp_path / "again.parquet"
    pq.write_table(pq.read_table(parquet).slice(0, 1400), changed, row_group_size=400)
    shutil.copy2(parquet, again)
    others: list[dict[str, Any]] = [
        {"input": changed},
        {"input": again},
        {"keep": ["id"]},
        {"on_error": "raise"},
    ]
    job = {"model": predictor, "input": parquet, "output": out, "overwrite": True}
    for other in others:
        interrupted(monkeypatch, **job)
        assert score_file(**job | other).n_resumed == 0, f"{other} is another job"
    interrupted(monkeypatch, **job | {"input": again})
    os.utime(again, (0, 0))
    assert score_file(**job | {"input": again}).n_resumed == 0, "the file was written again"
    for same in (
        predictor,
        OnnxPredictor(model_path, device="cpu", batch_size=predictor.batch_size + 1),
        OnnxPredictor(model_path, device="cpu", n_threads=predictor.n_threads + 1),
    ):
        interrupted(monkeypatch, **job)
        assert score_file(**job | {"model": same}).n_resumed > 0


def interrupted(monkeypatch: pytest.MonkeyPatch, **job: Any) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, 12)
        with pytest.raises(KeyboardInterrupt):
            score_file(**job)


def test_an_error_in_the_data_leaves_nothing_behind(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TableReader.tables

    def breaks(self: TableReader, columns: Any, size: int) -> Iterator[pa.Table]:
        for number, table in enumerate(tables(self, columns, 100)):
            if number == 12:
                raise DataError("the file is damaged")
            yield table

    monkeypatch.setattr(TableReader, "tables", breaks)
    (tmp_path / "out.parquet").write_text("what was there before")
    with pytest.raises(DataError, match="the file is damaged"):
        score_file(predictor, parquet, tmp_path / "out.parquet", overwrite=True)
    assert left_behind(tmp_path) == ["out.parquet"]
    assert (tmp_path / "out.parquet").read_text() == "what was there before"


def test_memory_does_not_grow_with_the_file(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead: list[int] = []
    read = written = 0
    tables, write = TableReader.tables, Parts.write

    def counting_tables(self: TableReader, columns: Any, size: int) -> Iterator[pa.Table]:
        nonlocal read
        for table in tables(self, columns, 10):
            read += 1
            ahead.append(read - written)
            yield table

    def counting_write(self: Parts, table: pa.Table) -> None:
        nonlocal written
        written += 1
        write(self, table)

    monkeypatch.setattr(TableReader, "tables", counting_tables)
    monkeypatch.setattr(Parts, "write", counting_write)
    score_file(predictor, parquet, tmp_path / "out.parquet")
    assert read == written >= 150
    assert max(ahead) <= predictor.n_threads + 2


def test_paths_that_cannot_work(predictor: OnnxPredictor, model_path: Path, parquet: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"there\.csv exists"):
        score_file(predictor, parquet, tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    with pytest.raises(ConfigurationError, match="is the input"):
        score_file(predictor, parquet, parquet.parent / ".." / parquet.parent.name / parquet.name, overwrite=True)
    with pytest.raises(ConfigurationError, match=r"neither Parquet \(.*, \.pq\), CSV \(\.csv\), .* nor Arrow"):
        score_file(predictor, parquet, tmp_path / "out.json")
    with pytest.raises(ConfigurationError, match=r"neither Parquet \(.*, \.pq\), CSV \(\.csv\), .* nor Arrow"):
        score_file(predictor, model_path, tmp_path / "out.csv")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        score_file(predictor, parquet, tmp_path / "none" / "out.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        score_file(predictor, tmp_path / "none.csv", tmp_path / "out.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.onnx"):
        score_file(tmp_path / "none.onnx", parquet, tmp_path / "out.csv")
    with pytest.raises(ModelFileError):
        score_file(parquet, parquet, tmp_path / "out.csv", device="cpu")
    with pytest.raises(ConfigurationError, match="on_error must be"):
        score_file(predictor, parquet, tmp_path / "out.csv", on_error="ignore")  # type: ignore[arg-type]
    assert left_behind(tmp_path) == ["there.csv"]


def test_columns_that_cannot_work(predictor: OnnxPredictor, parquet: Path, tmp_path: Path, rows: Rows) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match=r"column 'size': there is no such column in .*'weight'"):
        score_file(predictor, parquet, out, keep=["size"])
    pq.write_table(pa.table(rows).drop_columns("title"), tmp_path / "no_title.parquet")
    with pytest.raises(DataError, match=r"column 'title': there is no such column"):
        score_file(predictor, tmp_path / "no_title.parquet", out)
    (tmp_path / "twice.csv").write_text("title,title,picture,weight,price\n")
    with pytest.raises(DataError, match=r"column 'title': there is more than one such column"):
        score_file(predictor, tmp_path / "twice.csv", out)
    with pytest.raises(ConfigurationError, match="kept column 'id' would stand in the output twice"):
        score_file(predictor, parquet, out, keep=["id", "id"])
    pq.write_table(pa.table({**rows, "error": rows["id"]}), tmp_path / "error.parquet")
    with pytest.raises(ConfigurationError, match="kept column 'error' would stand in the output twice"):
        score_file(predictor, tmp_path / "error.parquet", out, keep=["error"])
    assert not out.exists()


def test_progress(predictor: OnnxPredictor, parquet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score_file(predictor, parquet, tmp_path / "silent.parquet")
    assert capsys.readouterr() == ("", "")
    score_file(predictor, parquet, tmp_path / "shown.parquet", progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "rows 0 of 1,500" in captured.err
    assert ": rows took 0." in captured.err


def test_the_report_of_no_time() -> None:
    assert ScoreReport(0, 0, 0, 0.0, "cpu").rows_per_second == 0.0


def test_categories_of_their_own_in_each_row_group(predictor: OnnxPredictor, tmp_path: Path, rows: Rows) -> None:
    kinds = [f"c{row // 3}" for row in range(1500)]
    with pq.ParquetWriter(tmp_path / "in.parquet", _with_kind(rows, kinds, 0, 500).schema) as writer:
        for start in range(0, 1500, 500):
            writer.write_table(_with_kind(rows, kinds, start, start + 500))
    for suffix in ("parquet", "csv", "jsonl"):
        keep = ["kind"] if suffix == "csv" else ["kind", "tags"]
        score_file(predictor, tmp_path / "in.parquet", tmp_path / f"out.{suffix}", keep=keep)
        with TableReader(tmp_path / f"out.{suffix}") as reader:
            assert [cell for table in reader.tables(["kind"], 100) for cell in table["kind"].to_pylist()] == kinds
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("kind").type == pa.dictionary(pa.int32(), pa.string())
    assert table["tags"].to_pylist() == [[kind] for kind in kinds]


def _with_kind(rows: Rows, kinds: list[str], start: int, stop: int) -> pa.Table:
    few = pa.table({name: cells[start:stop] for name, cells in rows.items()})
    kind = pa.array(kinds[start:stop]).cast(pa.dictionary(pa.int16(), pa.string()))
    tags = pa.array([[each] for each in kinds[start:stop]])
    return few.append_column("kind", kind).append_column("tags", tags)


def test_a_bad_line_costs_its_own_row(predictor: OnnxPredictor, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "id,title,picture,weight,price\n1,a red apple,,1,2\n2,a pear\n3,a plum,,1,2\n4,a,,1,2,3,4\n"
    )
    report = score_file(predictor, tmp_path / "in.csv", tmp_path / "out.parquet", keep=["id"])
    assert (report.n_rows, report.n_errors, report.n_skipped) == (4, 2, 0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == ["1", None, "3", None]
    assert [cell is None for cell in table["prediction"].to_pylist()] == [False, True, False, True]
    assert table["error"].to_pylist()[1] == "the line has 2 cells in place of 5: 2,a pear"
    report = score_file(predictor, tmp_path / "in.csv", tmp_path / "few.parquet", keep=["id"], on_bad_line="skip")
    assert (report.n_rows, report.n_errors, report.n_skipped) == (2, 0, 2)
    assert pq.read_table(tmp_path / "few.parquet").equals(table.take([0, 2]))
    with pytest.raises(DataError, match="Expected 5 columns, got 2"):
        score_file(predictor, tmp_path / "in.csv", tmp_path / "no.parquet", on_bad_line="raise")
    with pytest.raises(DataError, match="row 1: the line has 2 cells"):
        score_file(predictor, tmp_path / "in.csv", tmp_path / "no.parquet", on_error="raise")


def test_an_unreadable_cell_counts_as_missing(model_path: Path, tmp_path: Path, rows: Rows) -> None:
    few: Rows = {name: cells[:6] for name, cells in rows.items()}
    without = {name: [*cells] for name, cells in few.items()}
    few["picture"][1], without["picture"][1] = b"no image", None
    for name in ("weight", "price"):
        few[name] = [None if cell is None else str(cell) for cell in few[name]]
    few["weight"][3], without["weight"][3] = "heavy", None
    few["price"][3], without["price"][3] = "dear", None
    pq.write_table(pa.table(few), tmp_path / "in.parquet")
    expected = OnnxPredictor(model_path, device="cpu").predict_proba(without)
    report = score_file(model_path, tmp_path / "in.parquet", tmp_path / "out.parquet", on_error="missing", device="cpu")
    table = pq.read_table(tmp_path / "out.parquet")
    np.testing.assert_allclose(probabilities(table), expected, atol=1e-6)
    assert table["prediction"].null_count == 0
    assert report.n_errors == 2
    assert [row for row, error in enumerate(table["error"].to_pylist()) if error] == [1, 3]
    assert table["error"][3].as_py() == "column 'weight': 'heavy' is not a number"
    predictor = OnnxPredictor(model_path, device="cpu", on_error="missing", batch_size=2)
    with pytest.warns(UserWarning, match=r"2 rows are scored without a cell .* row 1, column 'picture'") as warned:
        found = predictor.predict_proba(few)
    assert len(warned) == 1  # of all windows together
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_job_with_too_many_errors_ends_and_can_go_on(
    predictor: OnnxPredictor, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmensemble.files.parts._PART_ROWS", 100)
    pictures = [b"no image" if row % 100 == 99 else picture for row, picture in enumerate(rows["picture"])]
    pq.write_table(pa.table({**rows, "picture": pictures}), tmp_path / "in.parquet", row_group_size=100)
    out = tmp_path / "out.parquet"
    for most in (7, 0.005):
        with pytest.raises(DataError, match=r"\d+ rows are bad, more than max_errors"):
            score_file(predictor, tmp_path / "in.parquet", out, max_errors=most)
        assert not out.exists()
    report = score_file(predictor, tmp_path / "in.parquet", out, max_errors=15)
    assert report.n_resumed > 0
    assert report.n_errors == 15
    assert score_file(predictor, tmp_path / "in.parquet", out, max_errors=0.01, overwrite=True).n_errors == 15
    for wrong in (-1, 1.5, True):
        with pytest.raises(ConfigurationError, match="max_errors must be a number of rows or a share"):
            score_file(predictor, tmp_path / "in.parquet", out, max_errors=wrong, overwrite=True)


def test_a_name_that_is_too_long_is_refused_before_the_first_row(
    predictor: OnnxPredictor, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxPredictor, "score_batches", None)
    with pytest.raises(ConfigurationError, match="File name too long"):
        score_file(predictor, parquet, tmp_path / f"{'x' * 230}.parquet")
    assert left_behind(tmp_path) == []
