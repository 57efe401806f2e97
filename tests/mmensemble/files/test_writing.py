from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.writing import check_room, check_writable, open_writer

SCHEMA = pa.schema([("a", pa.int64())])


def table(values: range) -> pa.Table:
    return pa.table({"a": values}, schema=SCHEMA)


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.jsonl"])
def test_a_file_appears_when_it_is_complete(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with open_writer(path, SCHEMA) as writer:
        writer.write(table(range(3)))
        writer.flush()
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 1
        writer.write(table(range(3, 5)))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    read = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": partial(pd.read_json, lines=True)}[path.suffix]
    pd.testing.assert_frame_equal(read(path), pd.DataFrame({"a": range(5)}))


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    path.write_text("old")

    def fail() -> None:
        with open_writer(path, SCHEMA) as writer:
            writer.write(table(range(3)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]
    assert path.read_text() == "old"


def test_small_tables_share_a_row_group(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with open_writer(path, SCHEMA) as writer:
        for start in range(0, 100_000, 1000):
            writer.write(table(range(start, start + 1000)))
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [66_000, 34_000]
    assert pq.read_table(path)["a"].to_pylist() == list(range(100_000))


def test_json_cells(tmp_path: Path) -> None:
    cells = pa.table({"text": ["größer\n", None], "number": [float("nan"), 0.5], "flag": [True, None]})
    with open_writer(tmp_path / "out.jsonl", cells.schema) as writer:
        writer.write(cells)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == [
        '{"text": "größer\\n", "number": null, "flag": true}',
        '{"text": null, "number": 0.5, "flag": null}',
    ]


def test_a_type_without_a_csv_form(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.list_(pa.int64()))])
    with pytest.raises(ConfigurationError, match=r"column 'b' of type list<.*> has no CSV form; write Parquet or JSON"):
        check_writable(tmp_path / "out.csv", schema)
    for kind in (pa.binary(), pa.list_(pa.binary()), pa.decimal128(5, 2), pa.timestamp("us")):
        with pytest.raises(ConfigurationError, match=r"column 'b' of type .* has no JSON Lines form; write Parquet"):
            check_writable(tmp_path / "out.jsonl", pa.schema([("b", kind)]))
    for kind in (pa.binary(), pa.large_binary(), pa.binary(3), pa.dictionary(pa.int8(), pa.binary())):
        with pytest.raises(ConfigurationError, match="has no CSV form; write Parquet"):
            check_writable(tmp_path / "out.csv", pa.schema([("b", kind)]))
    for kind in (pa.decimal128(5, 2), pa.timestamp("us"), pa.dictionary(pa.int8(), pa.string())):
        check_writable(tmp_path / "out.csv", pa.schema([("b", kind)]))
    check_writable(tmp_path / "out.parquet", schema)
    assert list(tmp_path.iterdir()) == []


def test_json_of_nested_cells(tmp_path: Path) -> None:
    cells = pa.table({"a": [{"x": [1.5, float("inf")], "y": "é"}, None], "b": pa.array(["u", "u"]).dictionary_encode()})
    check_writable(tmp_path / "out.jsonl", cells.schema)
    with open_writer(tmp_path / "out.jsonl", cells.schema) as writer:
        writer.write(cells)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == ['{"a": {"x": [1.5, null], "y": "é"}, "b": "u"}', '{"a": null, "b": "u"}']


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ConfigurationError, match="cannot be written"):
            check_room(tmp_path / "out.csv", 0)
    finally:
        tmp_path.chmod(0o700)


def test_names_and_space_are_looked_at_beforehand(tmp_path: Path) -> None:
    check_room(tmp_path / "out.csv", 1000)
    with pytest.raises(ConfigurationError, match=r"cannot be written: .*File name too long"):
        check_room(tmp_path / f"{'x' * 240}.csv", 0)
    with pytest.raises(ConfigurationError, match="is a folder"):
        check_room(tmp_path, 0)
    with pytest.raises(ConfigurationError, match=r"needs some 1,000,000,000,000 MB, and there are \d"):
        check_room(tmp_path / "out.csv", 10**18)
    assert list(tmp_path.iterdir()) == []
