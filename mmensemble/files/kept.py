"""The types of columns that are copied from one file to another. Imports pyarrow on first use only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["is_of_fixed_width", "kept_type", "plain_schema"]


def kept_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of a column's copy.

    That of a column of categories numbers them by 32 bits, for a part of a file may have few of them, and the whole
    more than its own numbers count.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        copy = pa.dictionary(pa.int32(), plain_type(kind.value_type), kind.ordered)
        try:
            pa.array([], copy.value_type).cast(copy)
        except pa.ArrowException:
            return copy.value_type
        return copy
    return plain_type(kind)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema without dictionaries, of which a file of batches cannot have one in each batch."""
    import pyarrow as pa

    return pa.schema([field.with_type(plain_type(field.type)) for field in schema])


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without dictionaries, runs and views, at any depth."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain_type(kind.value_type)))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)), kind.list_size)
    if types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind])
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    return kind


def is_of_fixed_width(kind: pa.DataType) -> bool:
    """Tell whether every cell takes the same room."""
    from pyarrow import types

    return types.is_primitive(kind)
