"""The README's code runs, and its table is the one that the quickstart prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?P<skip><!-- skip -->\n+)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = ["text alone", "words alone", "image alone", "ten lines by hand", "soft voting", "stacking", "the default"]


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [match for match in BLOCK.finditer(README) if not match["skip"]]
    assert blocks, "the README has no example that runs"
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in blocks:
        # Blank lines in front, so that a traceback names the line of the README.
        before = README.count("\n", 0, block.start("code"))
        exec(compile("\n" * before + block["code"], "README.md", "exec"), namespace)


def test_the_table_of_results() -> None:
    header = "| model | accuracy | macro-F1 | log loss |"
    assert header in README.splitlines(), "the table that `make demo` prints is not in the README"
    lines = iter(README.splitlines()[README.splitlines().index(header) + 2 :])
    cells = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells.append([cell.strip(" *") for cell in line.strip("|").split("|")])
    assert [name for name, *_ in cells] == ROWS
    table = {name: [float(number) for number in numbers] for name, *numbers in cells}
    for accuracy, f1, log_loss in table.values():
        assert 0 < accuracy < 1
        assert 0 < f1 < 1
        assert log_loss > 0
    best_alone = max(table[name][0] for name in ROWS[:3])
    assert max(table[name][0] for name in ROWS[4:]) > best_alone, "joining them must pay, or the README says nothing"
