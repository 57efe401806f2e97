"""Files of JSON objects, one on each line. Imports pyarrow on first use only."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from mmensemble.files.formats import FileFormat, Sink
from mmensemble.files.lines import OnBadLine, with_bad_lines

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JsonLinesFormat", "JsonLinesReader"]


class JsonLinesFormat(FileFormat):
    """UTF-8 files of JSON objects, one on each line; see `JsonLinesReader`."""

    name: ClassVar[str] = "JSON Lines"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def open(self, path: Path) -> JsonLinesReader:
        return JsonLinesReader(path)

    def open_leniently(self, path: Path, on_bad_line: OnBadLine) -> JsonLinesReader:
        return JsonLinesReader(path, on_bad_line)

    def sink(self, path: Path, schema: pa.Schema) -> AbstractContextManager[Sink]:
        return _JsonLinesSink(path)

    def holds(self, column: pa.Field) -> bool:
        return self._holds(column.type)

    def _holds(self, kind: pa.DataType) -> bool:
        from pyarrow import types

        if (
            types.is_dictionary(kind)
            or types.is_list(kind)
            or types.is_large_list(kind)
            or types.is_fixed_size_list(kind)
        ):
            return self._holds(kind.value_type)
        if types.is_struct(kind):
            return all(self._holds(field.type) for field in kind)
        kinds = (
            types.is_null,
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_string,
            types.is_large_string,
        )
        return any(is_kind(kind) for is_kind in kinds)


class JsonLinesReader:
    """A UTF-8 file of JSON objects, one on each line; empty lines count for nothing.

    The columns are the keys of all objects, and a missing key is a missing cell. A column of nothing but truth values,
    whole numbers, or numbers is one of these; any other is read as text, and a cell of it that is no text is the text
    of its JSON: so it spoils its row at most, and not the file.

    Parameters
    ----------
    path : Path
        The file; it is read once to learn the columns.
    on_bad_line : {"error", "skip", "raise"}, default="raise"
        What becomes of a line that is no JSON object, or not UTF-8; see `FileFormat.open_leniently`.

    Attributes
    ----------
    n_skipped : int
        Rows dropped so far.
    """

    def __init__(self, path: Path, on_bad_line: OnBadLine = "raise") -> None:
        import pyarrow as pa

        self.path = path
        self.on_bad_line = on_bad_line
        self.n_skipped = 0
        kinds: dict[str, set[type]] = {}
        self.n_rows: int | None = 0
        with closing(self._objects()) as objects:
            for row in objects:
                self.n_rows += 1
                for name, cell in row.items():
                    kinds.setdefault(name, set()).add(_kind(cell))
        types = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        self.schema: pa.Schema = pa.schema(
            [(name, types.get(_common(found), pa.string())) for name, found in kinds.items()]
        )

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield the columns wanted, `size` rows at a time."""
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in columns])
        converters: dict[Any, Callable[[Any], Any]] = {pa.string(): _text, pa.float64(): float}
        self.n_skipped = 0
        with closing(self._objects()) as objects:
            while rows := list(islice(objects, size)):
                cells = {field.name: _cells(rows, field.name, converters.get(field.type)) for field in schema}
                table = pa.table(cells, schema=schema)
                if self.on_bad_line == "error":
                    says = [row.message if isinstance(row, _BadLine) else None for row in rows]
                    table = with_bad_lines(table, says if any(says) else None)
                yield table

    def close(self) -> None:
        """Do nothing: `tables` opens and closes the file."""

    def _objects(self) -> Generator[dict[str, Any]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.isspace():
                    continue
                try:
                    yield _object(line, number)
                except ValueError as error:
                    if self.on_bad_line == "raise":
                        raise
                    if self.on_bad_line == "error":
                        yield _BadLine(str(error))
                    else:
                        self.n_skipped += 1


class _BadLine(dict[str, Any]):
    """In the place of the object of a line that holds none."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message


def _object(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number} is not UTF-8: {error}; save the file as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"line {number} is nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no JSON object")
    return row


def _kind(cell: Any) -> type:
    whole_number = type(cell) is int and -(2**63) <= cell < 2**63
    return type(cell) if whole_number or isinstance(cell, (bool, float, type(None))) else str


def _common(kinds: set[type]) -> type:
    """Return the one kind that holds cells of all these."""
    kinds = kinds - {type(None)}
    if kinds == {int, float}:
        return float
    return kinds.pop() if len(kinds) == 1 else str


def _cells(rows: list[dict[str, Any]], name: str, convert: Callable[[Any], Any] | None) -> list[Any]:
    cells = [row.get(name) for row in rows]
    return cells if convert is None else [None if cell is None else convert(cell) for cell in cells]


def _text(cell: Any) -> str:
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    # JSON can escape half a character, which no other format can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


class _JsonLinesSink:
    """Writes each row as a JSON object; a number that is not finite, which JSON lacks, as null."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write_table(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            cells = {name: _finite(cell) for name, cell in row.items()}
            self._file.write(json.dumps(cells, ensure_ascii=False) + "\n")


def _finite(cell: Any) -> Any:
    """Return a cell with null for every number in it that is not finite."""
    if isinstance(cell, float):
        return cell if isfinite(cell) else None
    if isinstance(cell, list):
        return [_finite(each) for each in cell]
    return {name: _finite(each) for name, each in cell.items()} if isinstance(cell, dict) else cell
