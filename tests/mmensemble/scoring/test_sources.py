"""Rows by other names, and from standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mmensemble.cli import main
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.scoring import score_dataset, score_file

Rows = dict[str, list[Any]]
FACTS = ["id", "title", "weight", "price"]


@pytest.fixture(scope="module")
def facts(rows: Rows) -> pa.Table:
    """The rows without pictures, which the small model is given as missing."""
    few = {name: rows[name][:200] for name in FACTS}
    return pa.table({**few, "picture": pa.nulls(200, pa.string())})


@pytest.fixture(scope="module")
def scored(model_path: Path, facts: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    folder = tmp_path_factory.mktemp("scored")
    pq.write_table(facts, folder / "rows.parquet")
    score_file(model_path, folder / "rows.parquet", folder / "scores.parquet", keep=["id"], device="cpu")
    return pq.read_table(folder / "scores.parquet")


def assert_same(path: Path, scored: pa.Table) -> None:
    found = pq.read_table(path)
    assert found.select(["prediction", "error"]).equals(scored.select(["prediction", "error"]))


# Names


@pytest.fixture
def renamed(facts: pa.Table, tmp_path: Path) -> Path:
    """The titles are called text, the prices cost; a column of titles holds something else."""
    names = {"title": "text", "price": "cost"}
    table = facts.rename_columns([names.get(name, name) for name in facts.column_names])
    table = table.append_column("title", pa.array(["something else"] * 200))
    pq.write_table(table, tmp_path / "renamed.parquet", row_group_size=50)
    return tmp_path / "renamed.parquet"


COLUMNS = {"title": "text", "price": "cost"}


def test_columns_of_other_names(model_path: Path, renamed: Path, scored: pa.Table, tmp_path: Path) -> None:
    options: dict[str, Any] = {"columns": COLUMNS, "keep": ["id", "text", "title"], "device": "cpu"}
    score_file(model_path, renamed, tmp_path / "file.parquet", **options)
    assert_same(tmp_path / "file.parquet", scored)
    kept = pq.read_table(tmp_path / "file.parquet")
    assert kept["text"].equals(kept["title"])  # the name stands for the column that it was given
    score_dataset(model_path, renamed, tmp_path / "folder", fragment_rows=80, **options)
    parts = sorted((tmp_path / "folder").glob("part-*"))
    assert len(parts) == 4
    whole = pa.concat_tables(pq.read_table(part) for part in parts)
    assert whole.select(["id", "prediction"]).equals(scored.select(["id", "prediction"]))
    # Other names are another job.
    with pytest.raises(ConfigurationError, match="holds scores of another job"):
        score_dataset(model_path, renamed, tmp_path / "folder", **{**options, "columns": {"price": "cost"}})


def test_bad_lines_of_other_names(model_path: Path, scored: pa.Table, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text,weight,cost,picture\na red apple,1,2,\none cell\na pear,1,2,\n")
    report = score_file(model_path, source, tmp_path / "out.parquet", columns=COLUMNS, device="cpu")
    assert (report.n_rows, report.n_errors) == (3, 1)


def test_names_that_are_not_there(model_path: Path, renamed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    for score in (score_file, score_dataset):
        target = out if score is score_file else tmp_path / "folder"
        with pytest.raises(ConfigurationError, match="the model reads no column 'name'; it reads"):
            score(model_path, renamed, target, columns={"name": "text"})
        with pytest.raises(DataError, match=r"no such column in .*renamed\.parquet") as missing:
            score(model_path, renamed, target, columns={"title": "words"})
        assert missing.value.column == "words"
    assert not out.exists()


# Standard input


def as_csv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink)
    return sink.getvalue()


def as_tsv(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa_csv.write_csv(table, sink, pa_csv.WriteOptions(delimiter="\t"))
    return sink.getvalue()


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def as_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_lines(table: pa.Table) -> bytes:
    return table.to_pandas().to_json(orient="records", lines=True).encode()


@pytest.mark.parametrize("form", [as_csv, as_tsv, as_parquet, as_arrow, as_lines])
def test_standard_input(
    form: Callable[[pa.Table], bytes],
    model_path: Path,
    facts: pa.Table,
    scored: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(form(facts))))
    report = score_dataset(model_path, "-", tmp_path / "out.parquet", device="cpu")
    assert (report.n_rows, report.n_errors) == (200, 0)
    assert_same(tmp_path / "out.parquet", scored)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(form(facts))))
    assert score_dataset(model_path, "-", tmp_path / "folder", device="cpu").n_rows == 200
    with pytest.raises(ConfigurationError, match="standard input is read here"):
        score_dataset(model_path, "-", tmp_path / "other", engine="ray")


def test_the_command(model_path: Path, facts: pa.Table, scored: pa.Table, tmp_path: Path) -> None:
    names = {"title": "text"}
    table = facts.rename_columns([names.get(name, name) for name in facts.column_names])
    arguments = ["score", str(model_path), "-", "-o", str(tmp_path / "out.parquet"), "--device", "cpu"]
    done = CliRunner().invoke(main, [*arguments, "--map", "title=text"], input=as_csv(table))
    assert done.exit_code == 0, done.output
    assert_same(tmp_path / "out.parquet", scored)
    wrong = CliRunner().invoke(main, [*arguments, "--map", "title"], input=b"")
    assert (wrong.exit_code, "'title' is not of the form name=other" in wrong.stderr) == (2, True)
    empty = CliRunner().invoke(main, [*arguments[:-2], "--overwrite"], input=b"")
    assert empty.exit_code == 1
