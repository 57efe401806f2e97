"""Compare two score files, one of them written by a base install. Imports pyarrow and numpy only, as that has no more.

Run by ``.ci/run``: ``python tests/integration/scoring_install_check.py scores.parquet scores_base_install.parquet``.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pyarrow.parquet as pq

TOLERANCE = 1e-5


def differences(expected_path: str, actual_path: str) -> list[str]:
    """Return what differs between two score files, in words; nothing where they agree."""
    expected, actual = pq.read_table(expected_path), pq.read_table(actual_path)
    if expected.column_names != actual.column_names:
        return [f"columns {actual.column_names} instead of {expected.column_names}"]
    if expected.num_rows != actual.num_rows or expected.num_rows == 0:
        return [f"{actual.num_rows} rows instead of {expected.num_rows}"]
    probability_columns = [name for name in expected.column_names if name.startswith("probability_")]
    if not probability_columns:
        return ["no probability columns"]

    found = []
    for name in expected.column_names:
        if name in probability_columns:
            values = [table[name].to_numpy(zero_copy_only=False).astype(float) for table in (expected, actual)]
            if not np.allclose(*values, rtol=0, atol=TOLERANCE, equal_nan=True):
                found.append(f"{name}: off by up to {np.nanmax(np.abs(values[0] - values[1])):.3g}")
        elif not expected[name].equals(actual[name]):
            found.append(f"{name}: not the same values")
    return found


def main() -> None:
    """Print the verdict; leave with status 1 where the files differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("expected", help="scores of the full install, a Parquet file")
    parser.add_argument("actual", help="scores of the base install, a Parquet file")
    arguments = parser.parse_args()
    found = differences(arguments.expected, arguments.actual)
    if found:
        sys.exit("the two installs do not score alike:\n" + "\n".join(found))
    rows = pq.read_metadata(arguments.actual).num_rows
    print(f"{rows} rows: probabilities agree within {TOLERANCE}, the other columns exactly")


if __name__ == "__main__":
    main()
