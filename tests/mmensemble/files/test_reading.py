from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.files import formats
from mmensemble.files.csv import CsvFormat
from mmensemble.files.formats import FileFormat, Reader, Sink, format_of, register_format
from mmensemble.files.lines import BAD_LINE
from mmensemble.files.reading import TableReader, read_frame


def cells(path: Path, column: str, size: int = 100) -> list[object]:
    with TableReader(path) as reader:
        return [cell for table in reader.tables([column], size) for cell in table[column].to_pylist()]


def test_formats() -> None:
    assert format_of(Path("a.PARQUET")).name == format_of(Path("a.pq")).name == "Parquet"
    assert format_of(Path("a.csv")).name == "CSV"
    assert format_of(Path("a.jsonl")).name == format_of(Path("a.NDJSON")).name == "JSON Lines"
    with pytest.raises(ConfigurationError, match=r"a\.xls is neither Parquet \(\.parquet, \.pq\), CSV \(\.csv\), TSV"):
        format_of(Path("a.xls"))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_tables_have_the_size_and_the_order_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in.{suffix}"
    table = pa.table({"a": [str(i) for i in range(25)], "b": ["x"] * 25, "a.b": ["y"] * 25})
    if suffix == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif suffix == "jsonl":
        table.to_pandas().to_json(path, orient="records", lines=True)
    else:
        table.to_pandas().to_csv(path, index=False)
    with TableReader(path) as reader:
        assert reader.schema.names == ["a", "b", "a.b"]
        assert reader.n_rows == (None if suffix == "csv" else 25)
        tables = list(reader.tables(["b", "a"], 10))
        assert [t.num_rows for t in tables] == [10, 10, 5]
        assert {tuple(t.column_names) for t in tables} == {("b", "a")}
        assert pa.concat_tables(tables)["a"].to_pylist() == table["a"].to_pylist()
        assert next(reader.tables(["a.b"], 5)).column_names == ["a.b"]


def test_csv_cells(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes('\ufeffa,b\r\n"x,""y""\n z",1\r\n,2\r\n"",3\r\nNA,4\r\n\r\n007,5'.encode())
    assert cells(path, "a") == ['x,"y"\n z', None, "", "NA", "007"]


def test_json_cells(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        '\ufeff{"a": "x\\n\u2028z", "n": 1, "x": 1, "late": null}\r\n\n'
        '{"a": 3, "n": null, "x": 0.5, "b": true}\n'
        '{"a": {"é": [1]}, "n": 2, "x": 9007199254740993, "big": 18446744073709551616}\n'
        '{"a": "\\ud83d", "late": "y"}'.encode()
    )
    with TableReader(path) as reader:
        assert reader.n_rows == 4
        kinds = {field.name: str(field.type) for field in reader.schema}
    assert kinds == {"a": "string", "n": "int64", "x": "double", "late": "string", "b": "bool", "big": "string"}
    assert cells(path, "a", 2) == ["x\n\u2028z", "3", '{"é": [1]}', "?"]
    assert cells(path, "n") == [1, None, 2, None]
    assert cells(path, "x") == [1.0, 0.5, 9007199254740992.0, None]
    assert cells(path, "late") == [None, None, None, "y"]
    assert cells(path, "b") == [None, True, None, None]
    assert cells(path, "big") == [None, None, "18446744073709551616", None]


def test_an_empty_line_of_a_single_column_is_a_missing_cell(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a\nx\n\n""\ny\n')
    assert cells(path, "a") == ["x", None, "", "y"]


def test_a_late_cell_of_another_kind_does_not_stop_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a\n" + "1234567\n" * 1_200_000 + "x\n")
    with TableReader(path) as reader:
        sizes = []
        for table in reader.tables(["a"], 5000):
            sizes.append(table.num_rows)
    # Blocks of 8 MiB leave no trace.
    assert sizes == [5000] * 240 + [1]
    assert table["a"][-1].as_py() == "x"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.parquet", b""),
        ("text.parquet", b"not parquet at all, but long enough"),
        ("empty.csv", b""),
        ("ragged.csv", b"a,b\n1,2\n3\n"),
        ("latin.csv", b"a,b\n\xe4,2\n"),
        ("latin_header.csv", b"\xe4,a\n1,2\n"),
        ("text.jsonl", b'{"a": 1}\nno json\n'),
        ("list.jsonl", b"[1, 2]\n"),
        ("latin.jsonl", b'{"a": "\xe4"}\n'),
    ],
)
def test_a_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        cells(tmp_path / name, "a")


def test_what_is_wrong_with_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3,4\n5\n")
    with pytest.raises(DataError, match=r"short\.csv cannot be read: .*Row #4: Expected 2 columns, got 1: 5"):
        cells(tmp_path / "short.csv", "a")
    for content in (b"\xe4,a\n1,2\n", b"b,a\n1,\xe4\n"):
        (tmp_path / "latin.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"latin\.csv cannot be read: .*; save it as UTF-8"):
            cells(tmp_path / "latin.csv", "a")


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    outcomes = set()
    # Some depth can be read and not be written again.
    for depth in [*range(sys.getrecursionlimit() - 80, sys.getrecursionlimit() - 20), 200_000]:
        path.write_text('{"a": 1}\n{"a": ' + "[" * depth + "]" * depth + "}\n")
        try:
            outcomes.add(str(cells(path, "a") == ["1", "[" * depth + "]" * depth]))
        except DataError as error:
            outcomes.add(str(error))
    refused = f"{path} cannot be read: "
    assert f"{refused}line 2 is nested too deeply" in outcomes
    assert all(outcome == "True" or outcome.startswith(refused) for outcome in outcomes)


def test_a_parquet_file_damaged_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"a": [f"text {i}" for i in range(5000)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[1000:3000] = b"\xff" * 2000
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"in\.parquet cannot be read"):
        cells(path, "a")
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"in\.parquet cannot be read"):
        TableReader(path)


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    column = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    pq.write_table(pa.table({"a": column}), path)
    with pytest.raises(DataError, match=r"cannot be read: .*UTF8"):
        cells(path, "a")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        TableReader(tmp_path / "none.csv")


class LineFormat(FileFormat):
    """One text on each line, which is read two lines at a time; these tests write none."""

    name = "lines"
    suffixes = (".lines",)

    def open(self, path: Path) -> Reader:
        return LineReader(path.read_text())

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        raise AssertionError("these tests write no lines")


class LineReader:
    def __init__(self, text: str) -> None:
        self.schema = pa.schema([("line", pa.string())])
        self.n_rows = None
        self.lines = text.splitlines()

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        for start in range(0, len(self.lines), 2):
            if self.lines[start] == "damaged":
                raise ValueError("a line is damaged")
            yield pa.table({"line": self.lines[start : start + 2]}, schema=self.schema).select(columns)

    def close(self) -> None:
        self.lines.clear()


def test_a_format_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    register_format(LineFormat())
    register_format(LineFormat())  # as a cell of a notebook that is run again
    path = tmp_path / "in.lines"
    path.write_text("a\nb\nc\nd\ne\n")
    with TableReader(path) as reader:
        assert [table["line"].to_pylist() for table in reader.tables(["line"], 3)] == [["a", "b", "c"], ["d", "e"]]
    assert read_frame(path)["line"].tolist() == list("abcde")
    path.write_text("a\nb\ndamaged\n")
    with pytest.raises(DataError, match=r"in\.lines cannot be read: a line is damaged"):
        cells(path, "line")
    with pytest.raises(ConfigurationError, match=r"Arrow IPC \(\.arrow, \.feather\) nor lines \(\.lines\)"):
        format_of(tmp_path / "in.xls")


def test_a_suffix_belongs_to_one_format() -> None:
    class Semicolons(CsvFormat):
        name: ClassVar[str] = "CSV with semicolons"

    with pytest.raises(ConfigurationError, match=r"\.csv is the suffix of CSV; CSV with semicolons needs another"):
        register_format(Semicolons())


def noted(path: Path, on_bad_line: Any, columns: list[str]) -> list[list[Any]]:
    with TableReader(path, on_bad_line) as reader:
        rows = [list(row.values()) for table in reader.tables(columns, 2) for row in table.to_pylist()]
        return [*rows, reader.n_skipped]


def test_a_bad_line_costs_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'id,text\n1,"go\nod"\n\n2,bad,really\n3,\xff!\n4\n5,nice\n6,a,b\n')
    rows = [
        ["1", "go\nod", None],
        [None, None, "the line has 3 cells in place of 2: 2,bad,really"],
        ["3", "\ufffd!", "column 'text': the text is not UTF-8; save the file as UTF-8"],
        [None, None, "the line has 1 cells in place of 2: 4"],
        ["5", "nice", None],
        [None, None, "the line has 3 cells in place of 2: 6,a,b"],
    ]
    assert noted(path, "error", ["id", "text"]) == [*rows, 0]
    assert noted(path, "skip", ["text", "id"]) == [["go\nod", "1"], ["nice", "5"], 4]
    with pytest.raises(DataError, match="Row #3: Expected 2 columns, got 3"):
        noted(path, "raise", ["id"])


def test_bad_lines_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmensemble.files.csv._BLOCK", 64)
    path = tmp_path / "in.csv"
    lines = [f"{i},x" if i % 7 and i % 10 else f"{i},x,y" for i in range(200)]
    path.write_text("\n".join(["id,text", *lines]))
    found = noted(path, "error", ["id"])[:-1]
    assert len(found) == 200
    for i, (cell, message) in enumerate(found):
        good = bool(i % 7 and i % 10)
        assert (cell, message is None) == ((str(i), True) if good else (None, False))


def test_bad_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\nnope\n[1]\n{"a": "\xff"}\n\n{"a": 2}\n')
    rows = noted(path, "error", ["a"])
    assert [row[0] for row in rows[:-1]] == [1, None, None, None, 2]
    assert [row[1] and row[1][:12] for row in rows[:-1]] == [None, "line 2 is no", "line 3 is no", "line 4 is no", None]
    assert noted(path, "skip", ["a"]) == [[1], [2], 3]


def test_parquet_texts_that_are_not_utf8_cost_their_own_row(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    column = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff\xfe", None]).buffers())
    pq.write_table(pa.table({"a": column, "b": [1, 2, 3]}), path)
    message = "column 'a': the text is not UTF-8; save the file as UTF-8"
    assert noted(path, "error", ["a", "b"]) == [["a", 1, None], ["\ufffd\ufffd", 2, message], [None, 3, None], 0]
    assert noted(path, "skip", ["a", "b"]) == [["a", 1], [None, 3], 1]


@pytest.mark.parametrize("on_bad_line", ["error", "skip", "raise"])
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'id,text\n1,good\n2,"bad\n3,nice\n4,fine\n', 3),
        (b'id,text\n1,good\n2,"bad\n3,nice\n4,fine', 3),
        (b'id,text\n1,good\n"2,bad\n3,nice\n4,fine\n', 3),
        (b'\xef\xbb\xbf"id","text"\n1,"a ""b"" \nc"\n2,"ends so""\n', 4),
        (b'id,text\n1,good\n2,"', 3),
        (b'id,"text\n1,good\n2,nice\n', 1),
        (b'id,"text\n' + b"1,good\n" * 30_000, 1),
        (b'id,text\n1,"good\n' + b"2,nice\n" * 1_300_000, 2),
    ],
    ids=["last", "no line break", "first", "escaped", "nothing in it", "header", "long header", "larger than a block"],
)
def test_a_quote_that_is_never_closed(tmp_path: Path, content: bytes, line: int, on_bad_line: Any) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(content)
    for columns in (["id"], ["text", "id"]):
        with pytest.raises(DataError, match=rf"in\.csv cannot be read: the quote that opens in line {line} is never"):
            noted(path, on_bad_line, columns)


@pytest.mark.parametrize(
    "content", [b'id,text\n1,5" wide\n2,"a\nb"', b'id,text\n1,x\n2,"a\nb"c\n', b'id,text\n1,x\n2,""', b"id,text\n"]
)
def test_quotes_that_are_closed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    assert all(row[1] is None for row in noted(tmp_path / "in.csv", "error", ["id"])[:-1])


def test_a_format_from_elsewhere_knows_no_bad_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))
    register_format(LineFormat())
    (tmp_path / "in.lines").write_text("a\nb\nc\n")
    assert noted(tmp_path / "in.lines", "error", ["line"]) == [["a", None], ["b", None], ["c", None], 0]


@pytest.mark.parametrize("row_group_size", [3, 10, 100])
def test_tables_are_cut_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group_size: int) -> None:
    monkeypatch.setattr("mmensemble.files.reading._MOST_BYTES", 1000)
    monkeypatch.setattr("mmensemble.files.parquet._BATCH_BYTES", 2000)
    lengths = [10] * 20 + [400] * 5 + [3000, 3000] + [900, 101] + [10] * 20
    table = pa.table({"a": ["x" * length for length in lengths], "b": [{"c": b"y"}] * len(lengths)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=row_group_size)
    with TableReader(tmp_path / "in.parquet") as reader:
        tables = list(reader.tables(["a"], 15))
    # However the rows lie in the file: at most 15 of them, and 1,000 bytes, where there are more than one.
    assert [each.num_rows for each in tables] == [15, 7, 2, 1, 1, 1, 1, 15, 6]
    assert pa.concat_tables(tables)["a"].to_pylist() == table["a"].to_pylist()
    with TableReader(tmp_path / "in.parquet") as reader:
        assert sum(each.num_rows for each in reader.tables(["b", "a"], 15)) == len(lengths)


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_another_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    rows = [["name", "price", "note"], ["a, b", "1,5", 'he said "x"; y'], ["", "2", "two\nlines"], ["bad"]]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows([*rows, *[["c", "3", "d"]] * 40])
    with TableReader(tmp_path / "rows.csv", "error") as reader:
        assert reader.schema.names == ["name", "price", "note"]
        table = pa.concat_tables(reader.tables(["name", "price", "note"], 100))
    assert table["name"].to_pylist()[:4] == ["a, b", None, None, "c"]
    assert table["note"].to_pylist()[:2] == ['he said "x"; y', "two\nlines"]
    assert "cells in place of 3" in table[BAD_LINE][2].as_py()


@pytest.mark.parametrize("text", ["a;b\n1\n2;3\n4;5;6\n", "a;b,c\n1,2\n", "name\nx; y\n", "one\n1\n"])
def test_what_is_not_surely_another_delimiter(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with TableReader(tmp_path / "rows.csv") as reader:
        assert reader.schema.names == text.split("\n")[0].split(",")
