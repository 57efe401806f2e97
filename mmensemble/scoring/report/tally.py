"""What a job counts while it runs: as much of a hundred million rows as of one. Imports pyarrow on first use only.

Tallies are added up: of the fragments of a source, whoever scored them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from mmensemble.frames import column_cells
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.report.measures import measured_columns
from mmensemble.scoring.report.profile import CONFIDENCE, Distribution, Measure
from mmensemble.scoring.report.scores import measured_scores
from mmensemble.scoring.report.stages import Stages

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Tally"]

# Kinds of messages that are told apart, examples of each, and characters of one.
_MOST_KINDS = 50
_EXAMPLES = 3
_SHOWN = 300
_OTHERS = "(other messages)"
# Classes and categories that are counted by name where no profile says which.
_MOST_NAMES = 1000
_UNNAMED = "(others)"
_COLUMN = re.compile(r"^(row \d+, )?column ('[^']*'|\"[^\"]*\"):? ?")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBER = re.compile(r"\d[\d.,_]*")


class Tally:
    """Counts of rows, errors, inputs and predictions, and seconds of stages.

    Parameters
    ----------
    manifest : Manifest
        Of the model; its profile, if it has one, says in which bins values are counted.
    source : str
        What examples of errors call the rows' file.
    first_row : int, default=0
        The number of the first row in that file.
    """

    def __init__(self, manifest: Manifest, source: str, first_row: int = 0) -> None:
        self._task = manifest.task
        self._measured = measured_columns(manifest.feeds)
        self._source = source
        self._row = first_row
        profile = manifest.profile
        self._expected_inputs = {} if profile is None else profile.inputs
        self._expected_scores = {} if profile is None else profile.predictions
        self.stages = Stages()
        self.n_rows = 0
        self.n_scored = 0
        self.n_errors = 0
        self.n_noted = 0
        self.errors: dict[str, dict[str, Any]] = {}
        self.inputs: dict[Measure, _Counts] = {}
        self.scores: dict[Measure, _Counts] = {}

    def add_inputs(self, table: pa.Table) -> None:
        """Count the cells of rows as they were read; it need not be the rows of one `add_scores`."""
        cells = {column: column_cells(table, column) for column in {measure.column for measure in self._measured}}
        for measure, measured in self._measured.items():
            found = measured(cells[measure.column])
            counts = _counts(self.inputs, measure, self._expected_inputs.get(measure))
            counts.add(found.values, found.n_missing, found.n_bad)

    def add_scores(self, table: pa.Table) -> None:
        """Count the scores of rows, in their order."""
        self.n_rows += table.num_rows
        errors = table["error"]
        if errors.null_count < len(errors):
            scored = table[self._task.prediction_columns()[0]].is_valid().to_pylist()
            for row, message in enumerate(errors.to_pylist()):
                if message is not None:
                    self._count_error(self._row + row, message)
                    self.n_errors += 1
                    self.n_noted += scored[row]
        self._row += table.num_rows
        n_scored = 0
        for measure, values in measured_scores(self._task, table).items():
            n_scored = values.total() if isinstance(values, Counter) else len(values)
            expected = self._expected_scores.get(measure, CONFIDENCE if measure.what == "confidence" else None)
            _counts(self.scores, measure, expected).add(values, 0, 0)
        self.n_scored += n_scored

    def _count_error(self, row: int, message: str) -> None:
        kind = kind_of(message)
        if kind not in self.errors and len(self.errors) >= _MOST_KINDS:
            kind = _OTHERS
        counted = self.errors.setdefault(kind, {"count": 0, "examples": []})
        counted["count"] += 1
        if len(counted["examples"]) < _EXAMPLES:
            counted["examples"].append({"source": self._source, "row": row, "message": message[:_SHOWN]})

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, from which `merge` adds up."""
        return {
            "n_rows": self.n_rows,
            "n_scored": self.n_scored,
            "n_errors": self.n_errors,
            "n_noted": self.n_noted,
            "errors": self.errors,
            "seconds": self.stages.seconds,
            "inputs": [[*measure, counts.to_dict()] for measure, counts in self.inputs.items()],
            "scores": [[*measure, counts.to_dict()] for measure, counts in self.scores.items()],
        }

    def merge(self, other: Mapping[str, Any]) -> Self:
        """Add what another tally of the same model counted, given as its `to_dict`."""
        self.n_rows += other["n_rows"]
        self.n_scored += other["n_scored"]
        self.n_errors += other["n_errors"]
        self.n_noted += other["n_noted"]
        for kind, counted in other["errors"].items():
            known = kind if kind in self.errors or len(self.errors) < _MOST_KINDS else _OTHERS
            mine = self.errors.setdefault(known, {"count": 0, "examples": []})
            mine["count"] += counted["count"]
            mine["examples"] = [*mine["examples"], *counted["examples"]][:_EXAMPLES]
        for stage, seconds in other["seconds"].items():
            self.stages.add(stage, seconds)
        for counted_here, states in ((self.inputs, other["inputs"]), (self.scores, other["scores"])):
            for column, what, state in states:
                counts = _Counts.from_dict(state)
                present = counted_here.setdefault(Measure(column, what), counts)
                if present is not counts:
                    present.merge(counts)
        return self


def _counts(columns: dict[Measure, _Counts], measure: Measure, expected: Distribution | None) -> _Counts:
    """Return the counts of a measure, which start at its first values."""
    if measure not in columns:
        columns[measure] = _Counts(expected)
    return columns[measure]


class _Counts:
    """The values of one measure: in the bins of a profile, or else by name, or only how many and how large.

    Parameters
    ----------
    expected : Distribution or None
        Whose bins or categories count; its counts do not.
    """

    def __init__(self, expected: Distribution | None) -> None:
        self.expected = expected
        self.bins = None if expected is None else np.zeros(len(expected.counts), dtype=np.int64)
        self.names: dict[str, int] = {}
        self.n_values = 0
        self.n_missing = 0
        self.n_bad = 0
        self.total = 0.0
        self.least, self.most = np.inf, -np.inf

    def add(self, values: Any, n_missing: int, n_bad: int) -> None:
        """Count some more values."""
        self.n_values += values.total() if isinstance(values, Counter) else len(values)
        self.n_missing += n_missing
        self.n_bad += n_bad
        if self.expected is not None:
            self.bins = self.bins + self.expected.count(values, n_missing)
        if isinstance(values, Counter):
            for name, count in values.items():
                self._count_name(name, count)
        else:
            finite = values[np.isfinite(values)]
            if len(finite):
                self.total += float(finite.sum())
                self.least, self.most = min(self.least, float(finite.min())), max(self.most, float(finite.max()))

    def _count_name(self, name: str, count: int) -> None:
        if name not in self.names and len(self.names) >= _MOST_NAMES:
            name = _UNNAMED
        self.names[name] = self.names.get(name, 0) + count

    def merge(self, other: _Counts) -> None:
        """Add what another one counted."""
        if self.bins is not None and other.bins is not None:
            self.bins = self.bins + other.bins
        for name, count in other.names.items():
            self._count_name(name, count)
        self.n_values += other.n_values
        self.n_missing += other.n_missing
        self.n_bad += other.n_bad
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        ends = {"least": self.least, "most": self.most, "total": self.total} if self.least <= self.most else {}
        return {
            "expected": None if self.expected is None else self.expected.to_dict(),
            "bins": None if self.bins is None else self.bins.tolist(),
            "names": self.names,
            "n_values": self.n_values,
            "n_missing": self.n_missing,
            "n_bad": self.n_bad,
            **ends,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild counts from their `to_dict`."""
        counts = cls(None if state["expected"] is None else Distribution.from_dict(state["expected"]))
        counts.bins = None if state["bins"] is None else np.asarray(state["bins"], dtype=np.int64)
        counts.names = dict(state["names"])
        counts.n_values, counts.n_missing, counts.n_bad = state["n_values"], state["n_missing"], state["n_bad"]
        counts.total = state.get("total", 0.0)
        counts.least, counts.most = state.get("least", np.inf), state.get("most", -np.inf)
        return counts


def kind_of(message: str) -> str:
    """Return a message without what differs from row to row: its column stays, quotes and numbers go.

    Examples
    --------
    >>> kind_of("column 'price': 'four' is not a number")
    "column 'price': … is not a number"
    """
    named = _COLUMN.match(message)
    column = "" if named is None else f"column {named.group(2)}: "
    rest = message if named is None else message[named.end() :]
    return column + _NUMBER.sub("…", _QUOTED.sub("…", rest))[:_SHOWN]
