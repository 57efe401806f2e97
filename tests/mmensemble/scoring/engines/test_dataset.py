from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from mmensemble import score_dataset
from mmensemble.exceptions import ConfigurationError, DataError, ModelFileError
from mmensemble.scoring import Engine, register_engine, score_file
from mmensemble.scoring.engines import engine as engines
from mmensemble.scoring.engines.folder import ScoreFolder
from tests.mmensemble.scoring.engines.equal import assert_equal_scores, read_folder

OPTIONS: dict[str, Any] = {"keep": ["id"], "device": "cpu", "fragment_rows": 400}
FACTS = ["id", "title", "weight", "price"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def manifest_of(folder: Path) -> Any:
    return json.loads((folder / "_manifest.json").read_text())


def test_a_folder_gets_a_file_for_each_fragment(
    model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path
) -> None:
    report = score_dataset(model_path, rows_folder, tmp_path / "out", **OPTIONS)
    assert (report.n_rows, report.n_errors, report.n_resumed, report.device) == (1500, 3, 0, "cpu")
    parts = [name for name in names(tmp_path / "out") if name.startswith("part-")]
    assert names(tmp_path / "out") == ["_manifest.json", *parts]
    assert [pq.read_metadata(tmp_path / "out" / name).num_rows for name in parts] == [400, 200, 500, 400]
    assert_equal_scores(read_folder(tmp_path / "out"), scored)
    listed = manifest_of(tmp_path / "out")["fragments"]
    assert [each["file"] for each in listed] == parts
    assert [each["row_groups"] for each in listed] == [[0, 2], [2, 3], None, None]
    assert [Path(each["source"]).name for each in listed] == ["a.parquet", "a.parquet", "b.parquet", "c.parquet"]
    # What is finished is not done again.
    times = [(tmp_path / "out" / name).stat().st_mtime_ns for name in parts]
    again = score_dataset(model_path, rows_folder, tmp_path / "out", n_threads=1, batch_size=7, **OPTIONS)
    assert (again.n_rows, again.n_errors, again.n_resumed) == (1500, 3, 1500)
    assert [(tmp_path / "out" / name).stat().st_mtime_ns for name in parts] == times


def test_one_file_of_many(model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path) -> None:
    report = score_dataset(model_path, rows_folder, tmp_path / "out.parquet", **OPTIONS)
    assert (report.n_rows, report.n_errors) == (1500, 3)
    assert_equal_scores(pq.read_table(tmp_path / "out.parquet"), scored)
    with pytest.raises(ConfigurationError, match="exists; choose another name"):
        score_dataset(model_path, rows_folder, tmp_path / "out.parquet", **OPTIONS)
    score_dataset(model_path, rows_folder, tmp_path / "out.csv", top_k=1, **OPTIONS)
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == '"id","prediction","top_1","top_1_probability","error"'
    assert names(tmp_path) == ["out.csv", "out.parquet"]


def test_one_file_of_one_is_score_file(model_path: Path, rows_folder: Path, tmp_path: Path) -> None:
    source = rows_folder / "b.parquet"
    score_dataset(str(model_path), source, tmp_path / "out.parquet", keep=["id"], device="cpu")
    score_file(model_path, source, tmp_path / "file.parquet", keep=["id"], device="cpu")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "file.parquet").read_bytes()


def test_sources(model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path) -> None:
    def score(source: Any) -> list[Any]:
        score_dataset(model_path, source, tmp_path / "out.parquet", overwrite=True, **OPTIONS)
        return pq.read_table(tmp_path / "out.parquet")["id"].to_pylist()

    assert score(f"{rows_folder}/*.parquet") == list(range(1100))
    assert score(f"{rows_folder}/**/*.parquet") == list(range(1500))
    assert score(f"{rows_folder}/*/c.p*") == list(range(1100, 1500))
    assert score([rows_folder / "more", f"{rows_folder}/a.parquet"]) == [*range(1100, 1500), *range(600)]
    assert score(f"file://{rows_folder}/b.parquet") == list(range(600, 1100))
    for bad, error, message in [
        ([], ConfigurationError, "the list of files to score is empty"),
        ([rows_folder, rows_folder / "a.parquet"], ConfigurationError, r"a\.parquet stands in the source twice"),
        (f"{rows_folder}/*.csv", DataError, "no file of rows is named as"),
        (tmp_path.parent / "none", FileNotFoundError, "none"),
        ([rows_folder / "notes.txt"], ConfigurationError, r"notes\.txt is neither Parquet"),
        ("nothing://a/b", ConfigurationError, "nothing://a/b cannot be opened"),
    ]:
        with pytest.raises(error, match=message):
            score(bad)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no file of rows: Parquet"):
        score(tmp_path / "empty")


def write_gzip(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content))


def test_formats_and_compressions(model_path: Path, table: pa.Table, tmp_path: Path) -> None:
    facts = table.select(FACTS).append_column("picture", pa.nulls(1500, pa.string()))[:300]
    source = tmp_path / "rows"
    source.mkdir()
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(facts, sink)
    write_gzip(source / "1.csv.gz", sink.getvalue())
    (source / "2.tsv").write_bytes(tabs := _tabs(facts))
    lines = "".join(json.dumps(row) + "\n" for row in facts.to_pylist())
    with pa.CompressedOutputStream(str(source / "3.jsonl.zst"), "zstd") as file:
        file.write(lines.encode())
    with pa.ipc.new_file(source / "4.arrow", facts.schema) as writer:
        writer.write_table(facts, max_chunksize=70)
    assert tabs.startswith(b'"id"\t"title"')
    # The first file's kept column is text, and so it is in all.
    report = score_dataset(model_path, source, tmp_path / "out", keep=["id"], device="cpu")
    assert (report.n_rows, report.n_errors) == (1200, 0)
    scores = read_folder(tmp_path / "out")
    assert scores["id"].to_pylist() == [str(i) for i in range(300)] * 4
    for start in (300, 600, 900):
        assert_equal_scores(scores[start : start + 300], scores[:300])

    (source / "5.csv.gz").write_bytes((source / "1.csv.gz").read_bytes()[:-200])
    with pytest.raises(DataError, match=r"5\.csv\.gz cannot be read"):
        score_dataset(model_path, source, tmp_path / "out", keep=["id"], device="cpu")
    assert pq.read_table(tmp_path / "out", columns=["id"]).num_rows == 1200


def _tabs(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(delimiter="\t"))
    return bytes(sink.getvalue())


def test_columns_that_folders_name(model_path: Path, table: pa.Table, tmp_path: Path) -> None:
    for day, rows in (("2026-11-26", table[:100]), ("2026%2D11-27", table[100:200]), ("", table[200:250])):
        folder = tmp_path / "rows" / f"day={day or '__HIVE_DEFAULT_PARTITION__'}" / "price=7"
        folder.mkdir(parents=True)
        pq.write_table(rows.drop_columns(["price"]), folder / "x.parquet")
    score_dataset(model_path, tmp_path / "rows", tmp_path / "out.parquet", keep=["day", "price", "id"], device="cpu")
    scores = pq.read_table(tmp_path / "out.parquet")
    days = dict(zip(scores["id"].to_pylist(), scores["day"].to_pylist(), strict=True))
    assert (days[0], days[100], days[200]) == ("2026-11-26", "2026-11-27", None)
    assert set(scores["price"].to_pylist()) == {"7"}
    assert scores["error"].null_count == 249


def test_files_that_do_not_agree(model_path: Path, table: pa.Table, tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.mkdir()
    pq.write_table(table[:10], source / "1.parquet")
    texts = table[10:20].set_column(0, "id", pa.array([f"row {i}" for i in range(10)]))
    pq.write_table(texts, source / "2.parquet")
    with pytest.raises(DataError, match=r"column 'id': the column is string in .*2\.parquet, and int64 in the first"):
        score_dataset(model_path, source, tmp_path / "out", keep=["id"], device="cpu")
    pq.write_table(table[10:20].drop_columns(["weight"]), source / "2.parquet")
    with pytest.raises(DataError, match=r"column 'weight': there is no such column in .*2\.parquet"):
        score_dataset(model_path, source, tmp_path / "out", keep=["id"], device="cpu", overwrite=True)


def test_the_first_bad_row_ends_the_work(model_path: Path, rows_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 3, column 'picture': .* \(in .*a\.parquet\)") as caught:
        score_dataset(model_path, rows_folder, tmp_path / "out", on_error="raise", **OPTIONS)
    assert caught.value.row == 3
    bad = tmp_path / "bad.parquet"
    table = pq.read_table(rows_folder / "a.parquet")
    pictures = [b"no image" if row == 450 else None for row in range(600)]
    pq.write_table(table.set_column(2, "picture", pa.array(pictures)), bad, row_group_size=200)
    with pytest.raises(DataError) as caught:
        score_dataset(model_path, [bad], tmp_path / "raised", on_error="raise", **OPTIONS)
    assert caught.value.row == 450, "the number in the file, not among the row groups"


class Interrupting(Engine):
    """Ends after some fragments, as an interrupt does."""

    name = "interrupting"

    def map(self, function: Callable[[Any], Any], fragments: Sequence[Any], **_: Any) -> Iterator[Any]:
        for fragment in fragments[:2]:
            yield function(fragment)
        raise KeyboardInterrupt


class Threads(Engine):
    """Fragments at the same time, the last ones first, each one twice."""

    name = "threads"

    def map(self, function: Callable[[Any], Any], fragments: Sequence[Any], **options: Any) -> Iterator[Any]:
        assert options == {"workers": 4, "cpus": 1, "gpus": 0}
        with ThreadPoolExecutor(4) as pool:
            twice = list(pool.map(function, [*reversed(fragments), *fragments]))
        yield from twice[: len(fragments)]


def test_another_engine_goes_on(
    model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_ENGINES", dict(engines._ENGINES))
    with pytest.raises(ConfigurationError, match="engine must be one of 'local'"):
        score_dataset(model_path, rows_folder, tmp_path / "out", engine="threads")
    register_engine(Threads())
    with pytest.raises(KeyboardInterrupt):
        score_dataset(model_path, rows_folder, tmp_path / "out", engine=Interrupting(), **OPTIONS)
    assert not (tmp_path / "out" / "_manifest.json").exists()
    report = score_dataset(model_path, rows_folder, tmp_path / "out", engine="threads", workers=4, **OPTIONS)
    assert (report.n_rows, report.n_errors, report.n_resumed) == (1500, 3, 600)
    assert_equal_scores(read_folder(tmp_path / "out"), scored)
    targets: list[dict[str, Any]] = [
        {"engine": "threads", "target": tmp_path / "out.csv"},
        {"target": "memory://x/out.parquet"},
    ]
    for what in targets:
        with pytest.raises(ConfigurationError, match="is a folder, whose name has no suffix"):
            score_dataset(model_path, rows_folder, **what)
    with pytest.raises(ConfigurationError, match=r"out.xlsx ends in '.xlsx', which is no format of rows"):
        score_dataset(model_path, rows_folder, tmp_path / "out.xlsx")
    with pytest.raises(ConfigurationError, match="workers=2 needs an engine of several processes"):
        score_dataset(model_path, rows_folder, tmp_path / "other", workers=2)
    assert names(tmp_path) == ["out"]


def test_what_is_damaged_or_has_changed_is_scored_again(
    model_path: Path, rows_folder: Path, table: pa.Table, scored: pa.Table, tmp_path: Path
) -> None:
    source, out = tmp_path / "rows", tmp_path / "out"
    source.mkdir()
    for name, start in (("a", 0), ("b", 500)):
        pq.write_table(table[start : start + 500], source / f"{name}.parquet")
    score = dict(OPTIONS, model=model_path, source=source, target=out)
    score_dataset(**score)
    pq.write_table(table[1000:], source / "c.parquet")  # more rows
    assert score_dataset(**score).n_resumed == 1000
    part = sorted(out.glob("part-*"))[1]
    content = bytearray(part.read_bytes())
    content[100] ^= 1  # of the same size
    part.write_bytes(content)
    assert score_dataset(**score).n_resumed == 1000
    assert_equal_scores(read_folder(out), scored)

    os.utime(source / "a.parquet", (0, 0))
    with pytest.raises(ConfigurationError, match=r"holds scores of rows that have changed, such as part-00000"):
        score_dataset(**score)
    assert score_dataset(**score, overwrite=True).n_resumed == 0, "a finished job is done again"
    with pytest.raises(ConfigurationError, match=r"holds scores of another job"):
        score_dataset(**score | {"keep": []})
    score_dataset(**score | {"keep": []}, overwrite=True)
    assert read_folder(out).column_names[0] == "prediction"
    (out / "mine.parquet").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"has files that mmensemble did not write, such as mine\.parquet"):
        score_dataset(**score, overwrite=True)
    with pytest.raises(ConfigurationError, match="of the source lies in the target"):
        score_dataset(**score | {"source": sorted(out.glob("part-*"))[:1]})


def test_half_a_job_is_cleared_up(model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        score_dataset(model_path, rows_folder, out, engine=Interrupting(), **OPTIONS)
    first, second = sorted(out.glob("part-*"))
    (out / f".{second.name}.0123.part").write_bytes(b"half a file")
    records = sorted((out / "_done").glob("*.json"), key=lambda path: json.loads(path.read_text())["fragment"]["file"])
    records[1].unlink()  # killed between the file and its record
    second.write_bytes(b"half a file")
    assert score_dataset(model_path, rows_folder, out, **OPTIONS).n_resumed == 400
    assert_equal_scores(read_folder(out), scored)
    assert not list(out.glob(".*"))
    assert first.exists()


def test_one_process_at_a_time(model_path: Path, rows_folder: Path, tmp_path: Path) -> None:
    with (
        ScoreFolder(str(tmp_path / "out"), ".parquet", {}).writing(),
        pytest.raises(ConfigurationError, match=r"another process is writing .*out"),
    ):
        score_dataset(model_path, rows_folder, tmp_path / "out", **OPTIONS)
    assert names(tmp_path) == []


def test_a_worker_with_another_model_scores_nothing(
    model_path: Path, rows_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmensemble.scoring.engines.work._digest", lambda *_: "another")
    with pytest.raises(ModelFileError, match="is not the model that the job began with"):
        score_dataset(model_path, rows_folder, tmp_path / "out", **OPTIONS)


def test_a_file_system_of_fsspec(model_path: Path, rows_folder: Path, scored: pa.Table, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(rows_folder), "/jobs/rows", recursive=True)
    try:
        score = dict(OPTIONS, model=model_path.read_bytes(), source="memory://jobs/rows", target="memory://jobs/out")
        with pytest.raises(KeyboardInterrupt):
            score_dataset(engine=Interrupting(), **score)
        assert score_dataset(**score).n_resumed == 600
        assert score_dataset(**score).n_resumed == 1500
        memory.get("/jobs/out", str(tmp_path / "out"), recursive=True)
        assert_equal_scores(read_folder(tmp_path / "out"), scored)
        assert not [name for name in names(tmp_path / "out") if name.startswith(".")]
        assert score_dataset(**score | {"source": "memory://jobs/rows/*.parquet"}, overwrite=True).n_rows == 1100
    finally:
        memory.rm("/jobs", recursive=True)


_SCORE = """
import sys
from mmensemble import score_dataset
score_dataset(*sys.argv[1:], keep=["id"], device="cpu", n_threads=1, fragment_rows=100,
              batch_size=4, overwrite=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_kills_at_random_moments_change_nothing(model_path: Path, table: pa.Table, tmp_path: Path) -> None:
    source = tmp_path / "rows"
    source.mkdir()
    for number in range(3):
        pq.write_table(table, source / f"{number}.parquet", row_group_size=100)
    arguments = [sys.executable, "-c", _SCORE, model_path, source]
    for name in ("whole", "whole.parquet"):
        started = time.monotonic()
        subprocess.run([*arguments, tmp_path / name], check=True)
        usual = time.monotonic() - started
    moments = random.Random(0)
    for target in (tmp_path / "out", tmp_path / "out.parquet"):
        killed = []
        for _ in range(5):
            process = subprocess.Popen([*arguments, target])
            time.sleep(usual * moments.uniform(0.4, 0.9))
            process.kill()
            killed.append(process.wait() == -signal.SIGKILL)
        assert any(killed)
        subprocess.run([*arguments, target], check=True)
    for part in sorted((tmp_path / "whole").glob("part-*")):
        assert (tmp_path / "out" / part.name).read_bytes() == part.read_bytes()
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert names(tmp_path) == ["out", "out.parquet", "rows", "whole", "whole.parquet"]
