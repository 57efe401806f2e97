from __future__ import annotations

import os
from pathlib import Path

from mmensemble.cache.stamps import file_stamp


def test_the_stamp_of_a_file_is_its_size_and_its_time(tmp_path: Path) -> None:
    path, stamps = tmp_path / "file", []
    for content, time in ((b"1", 0), (b"1", 1), (b"22", 1)):
        path.write_bytes(content)
        os.utime(path, ns=(time, time))
        stamps.append(file_stamp(path))
    assert len(set(stamps)) == 3
