"""The documentation's table of all scikit-learn estimators: it is whole, and says what an export says."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import sklearn

from tests.coverage_matrix import KINDS, SIGNS, TABLE, Cell, cells_of, outcomes

WRITTEN_AGAIN = "write the table again: python -m tests.coverage_matrix --write"
CELLS = [cell for kind in KINDS for cell in cells_of(kind)]


def table() -> dict[tuple[str, str, str], str]:
    """Return the sign of each cell by kind, estimator and place."""
    signs: dict[tuple[str, str, str], str] = {}
    for kind, part in zip(KINDS, TABLE.read_text().split("\n## ")[1:], strict=True):
        lines = [line[1:-1].split("|") for line in part.splitlines() if line.startswith("|")]
        places = [place.strip() for place in lines[0][1:]]
        for name, *row in lines[2:]:
            signs |= {(kind, name.strip(), place): sign.strip() for place, sign in zip(places, row, strict=True)}
    return signs


pytestmark = pytest.mark.skipif(
    f"scikit-learn {sklearn.__version__}," not in TABLE.read_text(), reason="the table is of another scikit-learn"
)


def test_the_table_is_whole_and_nearly_all_is_equal() -> None:
    signs = table()
    assert list(signs) == [(kind, name, place.name) for kind, name, _, place in CELLS], WRITTEN_AGAIN
    counts = Counter(signs.values())
    assert set(counts) == set(SIGNS.values())
    assert counts["✓"] >= 0.95 * (counts["✓"] + counts["✗"])
    refused = {name for (_, name, _), sign in signs.items() if sign == "✗"}
    assert refused == set(re.findall(r"^- \*\*(\w+)\*\*, .*: .+", TABLE.read_text(), re.MULTILINE))


def one_of_each() -> list[Cell]:
    """Return one cell of each estimator, in another place from one to the next."""
    signs, chosen = table(), []
    for number, name in enumerate(dict.fromkeys((cell[0], cell[1]) for cell in CELLS)):
        fitted = [cell for cell in CELLS if cell[:2] == name and signs.get((*name, cell[3].name))]
        chosen += fitted[number % len(fitted) :][:1] if fitted else []
    return chosen


def test_a_cell_of_each_estimator_is_as_the_table_says() -> None:
    chosen = one_of_each()
    found = {cell[:2]: SIGNS.get(what, what) for cell, (what, _) in zip(chosen, outcomes(chosen), strict=True)}
    signs = table()
    assert found == {cell[:2]: signs[*cell[:2], cell[3].name] for cell in chosen}, WRITTEN_AGAIN
