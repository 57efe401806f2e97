"""Whether scores are equal that were made in other batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

EXACT = ["id", "prediction", "error"]


def read_folder(folder: Path) -> pa.Table:
    """Read a folder of scores as Arrow does, in the order of the names."""
    return ds.dataset(sorted(folder.glob("part-*")), format="parquet").to_table()


def assert_equal_scores(scores: pa.Table, expected: pa.Table) -> None:
    """Rows once, in order, bad ones in place, probabilities up to their rounding in batches of other rows."""
    assert scores.column_names == expected.column_names
    assert scores.select(EXACT).equals(expected.select(EXACT))
    for name in expected.column_names:
        if name.startswith("probability_"):
            np.testing.assert_allclose(scores[name].to_numpy(), expected[name].to_numpy(), atol=1e-6)
