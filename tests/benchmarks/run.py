"""Run the benchmarks, print their table and write ``benchmark_output/benchmarks.json``. ``make bench`` calls this."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, where `tests` is no installed package

from tests.benchmarks import scoring
from tests.benchmarks.side_by_side import as_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="rows to score")
    parser.add_argument("--output", type=Path, default=Path("benchmark_output"))
    arguments = parser.parse_args()
    results = scoring.run(n_rows=arguments.rows)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{as_table(results)}\n\n{machine}; medians of 5, in turn with the reference in one process")
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "benchmarks.json").write_text(
        json.dumps({"machine": machine, "results": [result.to_dict() for result in results]}, indent=2)
    )


if __name__ == "__main__":
    main()
