"""A folder of rows of the small model, and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble.scoring import score_file

# Run by the tests as processes of their own, with arguments.
collect_ignore = ["ray_cluster.py", "spark_cluster.py"]

Rows = dict[str, list[Any]]


@pytest.fixture(scope="session")
def table(rows: Rows) -> pa.Table:
    """1,500 rows, of which three are bad."""
    pictures = [b"no image" if row in (3, 700, 1499) else picture for row, picture in enumerate(rows["picture"])]
    return pa.table({**rows, "picture": pictures})


@pytest.fixture(scope="session")
def scored(model_path: Path, table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What `score_file` makes of the table."""
    folder = tmp_path_factory.mktemp("scored")
    pq.write_table(table, folder / "rows.parquet")
    score_file(model_path, folder / "rows.parquet", folder / "scores.parquet", keep=["id"], device="cpu")
    return pq.read_table(folder / "scores.parquet")


@pytest.fixture(scope="session")
def rows_folder(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table in files of 600, 500 and 400 rows, the first of three row groups."""
    folder = tmp_path_factory.mktemp("rows")
    pq.write_table(table[:600], folder / "a.parquet", row_group_size=200)
    pq.write_table(table[600:1100], folder / "b.parquet")
    (folder / "more").mkdir()
    pq.write_table(table[1100:], folder / "more" / "c.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "notes.txt").touch()
    return folder
