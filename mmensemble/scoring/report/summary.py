"""A job's report as JSON values: counts, errors, predictions, seconds of stages, and drift."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from mmensemble._version import __version__
from mmensemble.scoring.manifest import Manifest
from mmensemble.scoring.report.profile import (
    CONFIDENCE,
    Distribution,
    Measure,
    chance_index,
    stability_index,
)
from mmensemble.scoring.report.tally import Tally

__all__ = ["drifted_in", "summary_of"]

_VERSION = 1


def summary_of(
    manifest: Manifest, tally: Tally, facts: Mapping[str, Any], max_drift: float | None, n_unobserved: int
) -> dict[str, Any]:
    """Put a report together.

    Parameters
    ----------
    manifest : Manifest
        Of the model.
    tally : Tally
    facts : dict
        What is known beside it: ``model``, ``source``, ``target``, ``engine``, ``device``, ``n_resumed``,
        ``n_skipped``, ``seconds``, ``rows_per_second``.
    max_drift : float or None
        Above which index a distribution has drifted, unless chance alone may do so.
    n_unobserved : int
        Rows that an earlier call finished and of which nothing was counted.

    Returns
    -------
    dict
    """
    errors = [{"kind": kind, **counted} for kind, counted in tally.errors.items()]
    return {
        "report_version": _VERSION,
        "mmensemble": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": manifest.task.name,
        **facts,
        "n_rows": tally.n_rows + n_unobserved,
        "n_unobserved": n_unobserved,
        "n_scored": tally.n_scored,
        "n_errors": tally.n_errors,
        "n_noted": tally.n_noted,
        "stages": _stages(tally, facts["n_resumed"]),
        "errors": sorted(errors, key=lambda each: -each["count"]),
        "predictions": [_prediction(measure, counts) for measure, counts in tally.scores.items()],
        "inputs": [_input(measure, counts) for measure, counts in tally.inputs.items()],
        "drift": _drift(manifest, tally, max_drift),
    }


def drifted_in(summary: Mapping[str, Any]) -> list[str]:
    """Return what has drifted, as messages name it."""
    drift = summary["drift"]
    return [] if drift is None else [each["name"] for each in drift["distributions"] if each["drifted"]]


def _stages(tally: Tally, n_resumed: int) -> list[dict[str, Any]]:
    n_rows = tally.n_rows - n_resumed
    return [
        {"stage": stage, "seconds": seconds, "rows_per_second": n_rows / seconds if seconds > 0 else None}
        for stage, seconds in tally.stages.seconds.items()
    ]


def _prediction(measure: Measure, counts: Any) -> dict[str, Any]:
    state: dict[str, Any] = {"column": measure.column, "what": measure.what, "n_values": counts.n_values}
    if measure.what == "confidence":
        bins = CONFIDENCE.labels()[:-1]
        state["histogram"] = [[label, int(n)] for label, n in zip(bins, counts.bins[:-1], strict=True)]
    if counts.names:
        state["classes"] = dict(sorted(counts.names.items(), key=lambda each: -each[1]))
    return {**state, **_range(counts)}


def _input(measure: Measure, counts: Any) -> dict[str, Any]:
    n = counts.n_values + counts.n_missing + counts.n_bad
    state = {
        "column": measure.column,
        "what": measure.what,
        "n_measured": n,
        "missing": counts.n_missing / n if n else None,
        "bad": counts.n_bad / n if n else None,
    }
    return {**state, **_range(counts)}


def _range(counts: Any) -> dict[str, float]:
    if counts.least > counts.most:
        return {}
    return {"least": counts.least, "mean": counts.total / counts.n_values, "most": counts.most}


def _drift(manifest: Manifest, tally: Tally, max_drift: float | None) -> dict[str, Any] | None:
    profile = manifest.profile
    if profile is None:
        return None
    distributions = []
    for of, expected, counted in (
        ("input", profile.inputs, tally.inputs),
        ("prediction", profile.predictions, tally.scores),
    ):
        for measure, distribution in expected.items():
            counts = counted.get(measure)
            if counts is not None and counts.bins is not None:
                distributions.append(_compared(of, measure, distribution, counts.bins.tolist(), max_drift))
    return {
        "profile": {"source": profile.source, "n_rows": profile.n_rows, "n_scored": profile.n_scored},
        "max_drift": max_drift,
        "distributions": sorted(distributions, key=lambda each: -each["psi"]),
    }


def _compared(
    of: str, measure: Measure, expected: Distribution, observed: list[int], max_drift: float | None
) -> dict[str, Any]:
    psi, chance = stability_index(expected.counts, observed), chance_index(expected.counts, observed)
    shares = [[count / max(1, sum(counts)) for count in counts] for counts in (expected.counts, observed)]
    return {
        "name": f"{measure.column} ({measure.what})",
        "of": of,
        "column": measure.column,
        "what": measure.what,
        "psi": psi,
        "psi_by_chance": chance,
        "drifted": max_drift is not None and psi > max(max_drift, chance),
        "bins": [
            {"label": label, "profile": one, "rows": other}
            for label, one, other in zip(expected.labels(), *shares, strict=True)
        ],
    }
