from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmensemble.files.parts import Parts
from mmensemble.files.writing import open_writer

SCHEMA = pa.schema([("a", pa.int64()), ("error", pa.string())])


def table(values: range) -> pa.Table:
    return pa.table({"a": values, "error": pa.nulls(len(values), pa.string())}, schema=SCHEMA)


def test_bytes_are_on_the_disk_before_a_file_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[int, int] = {}
    named: dict[str, bool] = {}
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        file = os.fstat(descriptor)
        synced[file.st_ino] = file.st_size

    def watched_replace(source: Any, target: Any) -> None:
        file = os.stat(source)
        named[Path(target).name] = synced.get(file.st_ino) == file.st_size
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("a file gets its name by put_in_place"))
    output = tmp_path / "out.parquet"
    with Parts(output, SCHEMA, {"rows": 5}) as parts:
        parts.write(table(range(5)))
        parts.close()
        with open_writer(output, SCHEMA) as writer:
            for part in parts.tables():
                writer.write(part)
        parts.remove()
    assert named == {"job.json": True, "part-00000.arrow": True, "out.parquet": True}
