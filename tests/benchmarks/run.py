"""Run the benchmarks, print their tables and write ``benchmark_output/benchmarks.json``. ``make bench`` calls this."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, where `tests` is no installed package

from tests.benchmarks import engines, generation, memory, scoring, search, training
from tests.benchmarks.engines import as_engine_table
from tests.benchmarks.generation import as_cost_table
from tests.benchmarks.memory import as_memory_table
from tests.benchmarks.search import as_search_table
from tests.benchmarks.side_by_side import as_table, plot

# Searches fit some ten times as often as the other benchmarks.
SEARCHED_ROWS = 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="rows to fit on and to score")
    parser.add_argument(
        "--only", choices=["scoring", "training", "generation", "memory", "search", "engines"], help="one part of them"
    )
    parser.add_argument("--pretrained", help="folder of SmolLM2 (packaged.smollm2_folder), to generate with it as well")
    parser.add_argument("--output", type=Path, default=Path("benchmark_output"))
    arguments = parser.parse_args()
    results, costs, peaks, ratios, engine_costs = [], [], [], [], []
    if arguments.only in (None, "scoring"):
        results += scoring.run(n_rows=arguments.rows)
    if arguments.only in (None, "training"):
        results += training.run(n_rows=arguments.rows)
    if arguments.only in (None, "generation"):
        compared, costs = generation.run(pretrained=arguments.pretrained)
        results += compared
    if arguments.only in (None, "memory") and sys.platform == "linux":
        peaks += memory.run(n_rows=arguments.rows)
    if arguments.only in (None, "search"):
        ratios += search.run(n_rows=min(arguments.rows, SEARCHED_ROWS))
    if arguments.only in (None, "engines") and sys.platform == "linux":
        engine_costs += engines.run()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if results:
        print(f"{as_table(results)}\n\n{machine}; medians, in turn with the reference in one process\n")
    if costs:
        print(f"{as_cost_table(costs)}\n\none text, exported in float32; medians\n")
    if peaks:
        print(f"{as_memory_table(peaks)}\n\nrise of the peak resident set, each in a process of its own")
    if ratios:
        print(f"\n{as_search_table(ratios)}\n\n{machine}; each search once")
    if engine_costs:
        print(f"\n{as_engine_table(engine_costs)}\n\n{machine}; one worker on one thread, medians of three jobs")
    arguments.output.mkdir(parents=True, exist_ok=True)
    written = {
        "machine": machine,
        "results": [result.to_dict() for result in results],
        "generation": [cost.to_dict() for cost in costs],
        "memory": [peak.to_dict() for peak in peaks],
        "search": [ratio.to_dict() for ratio in ratios],
        "engines": [cost.to_dict() for cost in engine_costs],
    }
    if results:
        plot(results, arguments.output / "benchmarks.png")
    (arguments.output / "benchmarks.json").write_text(json.dumps(written, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
