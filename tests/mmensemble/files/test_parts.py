from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmensemble.files import parts as parts_module
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


def names(parts: Parts) -> list[str]:
    return sorted(path.name for path in parts.folder.glob("part-*"))


@pytest.mark.parametrize(("bound", "n_parts"), [({"_PART_SECONDS": 0.0}, 3), ({"_PART_ROWS": 4}, 1), ({}, 0)])
def test_a_part_ends_after_some_seconds_or_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: dict[str, float], n_parts: int
) -> None:
    for name, value in bound.items():
        monkeypatch.setattr(parts_module, name, value)
    with Parts(tmp_path / "out.parquet", SCHEMA, {}) as parts:
        for _ in range(3):
            parts.write(table(range(2)))
        assert sum(name.endswith(".arrow") for name in names(parts)) == n_parts


def test_what_is_left_of_a_removal_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_PART_ROWS", 1)
    parts = Parts(tmp_path / "out.parquet", SCHEMA, {})
    with parts:
        for _ in range(3):
            parts.write(table(range(2)))
    unlink, n_deleted = Path.unlink, 0

    def die_after_two(path: Path, missing_ok: bool = False) -> None:
        nonlocal n_deleted
        n_deleted += 1
        if n_deleted > 2:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", die_after_two)
        with pytest.raises(KeyboardInterrupt):
            parts.remove()
    assert len(names(parts)) == 2
    with Parts(parts.output, SCHEMA, {}) as again:
        assert again.n_rows == 0
        assert names(again) == []


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_part_is_made_again_with_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    monkeypatch.setattr(parts_module, "_PART_ROWS", 1)
    parts = Parts(tmp_path / "out.parquet", SCHEMA, {})
    with parts:
        for start in (0, 2, 4):
            parts.write(table(range(start, start + 2)))
    second = parts.folder / "part-00001.arrow"
    content = bytearray(second.read_bytes())
    content[content.index((2).to_bytes(8, "little"))] = 9  # another number, which nothing but the digest can tell
    second.write_bytes(content if damage is None else damage)
    with Parts(tmp_path / "out.parquet", SCHEMA, {}) as again:
        assert again.n_rows == 2
        for start in (2, 4):
            again.write(table(range(start, start + 2)))
        assert pa.concat_tables(again.tables())["a"].to_pylist() == list(range(6))
        again.remove()
