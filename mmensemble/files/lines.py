"""Lines that cannot be read, and what becomes of them. Imports pyarrow on first use only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BAD_LINE", "OnBadLine", "open_quote", "with_bad_cells", "with_bad_lines"]

# error: the row stays, empty, and says what is wrong with it; skip: it is dropped and counted; raise: the work ends.
OnBadLine = Literal["error", "skip", "raise"]

# The column that says of each row what is wrong with its line, null where all is well.
BAD_LINE = "mmensemble: what is wrong with the line"


def with_bad_lines(table: pa.Table, messages: list[str | None] | None = None) -> pa.Table:
    """Add the column `BAD_LINE`."""
    import pyarrow as pa

    column = pa.nulls(table.num_rows, pa.string()) if messages is None else pa.array(messages, pa.string())
    return table.append_column(BAD_LINE, column)


def with_bad_cells(table: pa.Table) -> tuple[pa.Table, dict[int, str]]:
    """Turn columns of bytes or of text into text, and say which rows hold cells that are not UTF-8.

    Returns
    -------
    table : pyarrow.Table
        In the cells that are none, U+FFFD stands for what is no character.
    messages : dict of int to str
        What is wrong with rows, by their position.
    """
    import pyarrow as pa
    from pyarrow import types

    messages: dict[int, str] = {}
    for number, field in enumerate(table.schema):
        kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
        if not any(is_kind(field.type) for is_kind in kinds):
            continue
        large = types.is_large_string(field.type) or types.is_large_binary(field.type)
        of_bytes, of_text = (pa.large_binary(), pa.large_string()) if large else (pa.binary(), pa.string())
        as_bytes = table.column(number).cast(of_bytes)
        try:
            column = as_bytes.cast(of_text)
        except pa.ArrowInvalid:
            cells = as_bytes.to_pylist()
            for row, cell in enumerate(cells):
                try:
                    cells[row] = None if cell is None else cell.decode()
                except UnicodeDecodeError:
                    messages.setdefault(row, f"column {field.name!r}: the text is not UTF-8; save the file as UTF-8")
                    cells[row] = cell.decode(errors="replace")
            column = pa.chunked_array([pa.array(cells, of_text)])
        table = table.set_column(number, pa.field(field.name, of_text), column)
    return table, messages


def open_quote(path: Path, delimiter: str = ",") -> int | None:
    """Return the line of a CSV file where a quote opens that nothing closes; None where there is none.

    A quote opens a cell where it is the cell's first character, and two of them in such a cell are one.
    """
    inside, opened, opening = False, 0, f'{delimiter}"'.encode()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if b'"' not in line:
                continue
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            at = 0
            if not inside and line.startswith(b'"'):
                inside, opened, at = True, number, 1
            while True:
                if inside:
                    at = line.find(b'"', at)
                    if at < 0:
                        break
                    escaped = line[at + 1 : at + 2] == b'"'
                    inside, at = escaped, at + 1 + escaped
                else:
                    at = line.find(opening, at)
                    if at < 0:
                        break
                    inside, opened, at = True, number, at + 2
    return opened if inside else None
