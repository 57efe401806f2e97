"""Rows whose columns have other names than the model knows. Imports pyarrow on first use only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmensemble.exceptions import DataError
from mmensemble.files.lines import BAD_LINE

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RenamedRows"]


class RenamedRows:
    """Rows of which some columns are there by another name too.

    Parameters
    ----------
    rows : object
        With a ``schema`` and ``tables(columns, size)``, as `mmensemble.files.reading.TableReader`.
    columns : dict of str to str
        New name → the name of a column. A column of the new name, if there is one, is out of sight.
    source : str
        What messages call the rows.

    Attributes
    ----------
    schema : pyarrow.Schema

    Raises
    ------
    DataError
        If there is no such column.
    """

    def __init__(self, rows: Any, columns: Mapping[str, str], source: str) -> None:
        import pyarrow as pa

        self._rows = rows
        self._columns = dict(columns)
        names = rows.schema.names
        for name in self._columns.values():
            if names.count(name) != 1:
                what = "no such column" if name not in names else "more than one such column"
                raise DataError(f"there is {what} in {source}; its columns are {names}", column=name)
        own = [field for field in rows.schema if field.name not in self._columns]
        new = [rows.schema.field(name).with_name(renamed) for renamed, name in self._columns.items()]
        self.schema: pa.Schema = pa.schema([*own, *new])

    def tables(self, columns: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Yield these columns, by their new names, `size` rows at a time."""
        import pyarrow as pa

        names = [self._columns.get(column, column) for column in columns]
        for table in self._rows.tables(list(dict.fromkeys(names)), size):
            cells = [table[name] for name in names]
            fields = [table.schema.field(name).with_name(column) for name, column in zip(names, columns, strict=True)]
            if BAD_LINE in table.column_names:
                cells.append(table[BAD_LINE])
                fields.append(table.schema.field(BAD_LINE))
            yield pa.Table.from_arrays(cells, schema=pa.schema(fields))
