"""A job's report as one page of HTML, without scripts and without anything from elsewhere. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["page_of"]

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #1c1c1c }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } h3 { font-size: 1em; margin-bottom: .3em }
table { border-collapse: collapse; margin: .4em 0 1em } th, td { padding: .2em .8em .2em 0; text-align: left }
th { border-bottom: 1px solid #999; font-weight: 600 } td.n { text-align: right; font-variant-numeric: tabular-nums }
td { vertical-align: top; overflow-wrap: anywhere } tr.drifted td { background: #ffe9e2 }
.bar { display: inline-block; height: .75em; background: #3b6fb6 } .bar.profile { background: #b8b8b8 }
.bars { width: 16em; line-height: .8 } .note { color: #555 } code { font-size: .92em }
"""


def page_of(summary: Mapping[str, Any]) -> str:
    """Return the page of a report, `mmensemble.scoring.report.summary.summary_of`."""
    title = f"Scores of {summary['source']}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        _facts(summary),
        _errors(summary["errors"]),
        _predictions(summary["predictions"]),
        _drift(summary["drift"]),
        _inputs(summary["inputs"]),
        _stages(summary["stages"]),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{chr(10).join(parts)}\n</body></html>\n'


def _facts(summary: Mapping[str, Any]) -> str:
    rows = [
        ("model", f"{summary['model']} ({summary['task']})"),
        ("scores", summary["target"]),
        ("rows", summary["n_rows"]),
        ("scored", summary["n_scored"]),
        ("with an error or a note", summary["n_errors"]),
        ("lines dropped", summary["n_skipped"]),
        ("of an earlier, unfinished call", summary["n_resumed"]),
        ("not counted, for an earlier call had no report", summary["n_unobserved"]),
        ("run by", f"{summary['engine']}, {summary['device']}"),
        ("time", f"{summary['seconds']:.1f} s, {summary['rows_per_second']:,.0f} rows/s"),
        ("finished", summary["created"]),
    ]
    return _table((), [(name, value) for name, value in rows if value != 0 or name == "rows"])


def _errors(errors: Sequence[Mapping[str, Any]]) -> str:
    if not errors:
        return "<h2>Errors</h2><p>None.</p>"
    rows = []
    for each in errors:
        examples = "; ".join(f"row {one['row']} of {one['source']}: {one['message']}" for one in each["examples"])
        rows.append((each["kind"], each["count"], examples))
    return "<h2>Errors</h2>" + _table(("kind", "rows", "examples"), rows)


def _predictions(predictions: Sequence[Mapping[str, Any]]) -> str:
    parts = ["<h2>Predictions</h2>"]
    for each in predictions:
        parts.append(f"<h3>{escape(each['column'])}: {escape(each['what'])}</h3>")
        counted = list(each.get("classes", {}).items()) or each.get("histogram", [])
        if counted:
            total = max(1, sum(n for _, n in counted))
            parts.append(_table(("", "rows", "share"), [(name, n, _Bars((n / total,))) for name, n in counted]))
        if "mean" in each:
            parts.append(f"<p>{each['least']:.4g} to {each['most']:.4g}, on average {each['mean']:.4g}</p>")
    return "\n".join(parts)


def _drift(drift: Mapping[str, Any] | None) -> str:
    if drift is None:
        return (
            "<h2>Drift</h2><p>The model file has no profile to compare with; <code>export_onnx</code> puts one into it "
            "from the rows of <code>verify</code>, or of <code>profile</code>.</p>"
        )
    profile = drift["profile"]
    said = f"Compared with the {profile['n_rows']} rows of <code>{escape(profile['source'])}</code> at the export"
    limit = "" if drift["max_drift"] is None else f"; more than {drift['max_drift']:g} counts as drift"
    found = drift["distributions"]
    index = [(each["name"], f"{each['psi']:.3f}", f"{each['psi_by_chance']:.3f}", each["drifted"]) for each in found]
    rows = [
        f"<tr{' class=drifted' if drifted else ''}><td>{escape(name)}</td><td class=n>{psi}</td>"
        f"<td class=n>{chance}</td><td>{'drifted' if drifted else ''}</td></tr>"
        for name, psi, chance, drifted in index
    ]
    parts = [
        f"<h2>Drift</h2><p>{said}{limit}. Samples of these sizes exceed the second number by chance in one case of "
        "twenty.</p>",
        "<table><tr><th>what</th><th>population stability index</th><th>by chance</th><th></th></tr>",
        *rows,
        "</table>",
    ]
    for each in found:
        bars = [
            (one["label"], f"{one['profile']:.1%}", f"{one['rows']:.1%}", _Bars((one["profile"], one["rows"])))
            for one in each["bins"]
            if one["profile"] or one["rows"]
        ]
        parts += [f"<h3>{escape(each['name'])}</h3>", _table(("", "profile", "these rows", ""), bars)]
    return "\n".join(parts)


def _inputs(inputs: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            each["column"],
            each["what"],
            each["n_measured"],
            "" if each["missing"] is None else f"{each['missing']:.1%}",
            "" if each["bad"] is None else f"{each['bad']:.1%}",
            *(f"{each[name]:.4g}" if name in each else "" for name in ("least", "mean", "most")),
        )
        for each in inputs
    ]
    names = ("column", "what", "cells measured", "missing", "bad", "least", "mean", "most")
    return f"<h2>Inputs</h2>{_table(names, rows)}"


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    rows = [(each["stage"], f"{each['seconds']:.2f}", f"{each['rows_per_second'] or 0:,.0f}") for each in stages]
    said = '<p class="note">Seconds of all threads and workers together; stages go on at the same time.</p>'
    return f"<h2>Time by stage</h2>{said}{_table(('stage', 'seconds', 'rows per second of one thread'), rows)}"


class _Bars(tuple[float, ...]):
    """Shares, drawn below each other: of two, the first is the profile's."""

    __slots__ = ()

    def __str__(self) -> str:
        kinds = ("bar profile", "bar") if len(self) == 2 else ("bar",)
        bars = (
            f'<span class="{kind}" style="width:{15 * share:.2f}em"></span>'
            for kind, share in zip(kinds, self, strict=True)
        )
        return "<br>".join(bars)


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>" if names else ""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table>{head}{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, _Bars):
        return f'<td class="bars">{value}</td>'
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"
