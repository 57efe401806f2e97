"""Model cards: what a file is, reads, comes from and can do, for readers and for model hubs. Imports onnxruntime.

The sections follow Mitchell et al. 2019, Model cards for model reporting, as far as a model file can fill them; what it
cannot know, as what a model is meant for, is the user's to write.
"""

from __future__ import annotations

import html
import os
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmensemble.exceptions import ConfigurationError
from mmensemble.files.reading import TableReader
from mmensemble.files.writing import write_text
from mmensemble.frames import check_columns, frame_with, n_rows
from mmensemble.scoring.facts import model_facts

__all__ = ["write_card"]

# What stands between these is written anew each time; all else in the file is the user's.
_BEGIN = "<!-- mmensemble card: written anew by each `mmensemble card`, down to the line that ends it -->"
_END = "<!-- end of mmensemble card -->"
# The user's sections, as a new card proposes them.
_OWN_SECTIONS = {
    "Intended use": "What the model is for, who should use it, and what it must not be used for.",
    "Training data": "Where the rows come from, how they were labelled, and whom they do not represent.",
    "Evaluation": "On which rows it was tested, and how well it did, for each group of people or things that matters.",
}

# The tasks of the Hugging Face Hub, by the only modality and whether labels are predicted.
_HUB_TASKS = {
    ("text", True): "text-classification",
    ("image", True): "image-classification",
    ("audio", True): "audio-classification",
    ("video", True): "video-classification",
    ("tabular", True): "tabular-classification",
    ("tabular", False): "tabular-regression",
}
_MODALITIES = {
    "prompt": "text",
    "terms": "text",
    "hashed terms": "text",
    "text with n-grams": "text",
    "categories": "tabular",
}
_MOST_CLASSES = 40
_READ_ROWS = 65_536
_TASKS = {
    "classification": "one of {n} classes",
    "thresholded": "one of {n} classes",
    "decided": "one of {n} classes",
    "votes": "one of {n} classes, by votes: there are no probabilities",
    "multilabel": "any of {n} labels",
    "multilabel_votes": "any of {n} labels, by votes: there are no probabilities",
    "multioutput": "one class in each of {n} columns",
    "regression": "numbers",
    "generation": "a text",
}


class _Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class _Code(NamedTuple):
    language: str
    text: str


# A heading and what stands below it: paragraphs, tables and code.
_Section = tuple[str, list[str | _Table | _Code]]


def write_card(model: str | Path, path: str | Path, *, rows: Any = None) -> None:
    """Write a model card from what a model file says of itself.

    The part that is ours stands between two comments and is replaced when the card is written again; what stands
    outside of them, such as a section on intended use, stays as it is.

    Parameters
    ----------
    model : str or path
        What `export_onnx` has written.
    path : str or path
        The card: ``.md`` is Markdown with the header that the Hugging Face Hub reads, ``.html`` a page.
    rows : frame, str or path, default=None
        Rows, or a file of them, on which the time of scoring is measured here, on the CPU, those that cannot be read
        among them; without them the card gives none.

    Raises
    ------
    ConfigurationError
        If the card's name has another ending, or a file of that name has only one of the two comments.
    ModelFileError
        If the model cannot be opened.
    """
    path = Path(path)
    if path.suffix.lower() not in (".md", ".html"):
        raise ConfigurationError(f"a card is a file whose name ends in .md or .html, not {path.name!r}")
    before, after = _own_parts(path)
    facts = model_facts(Path(model))
    sections = _sections(facts, None if rows is None else _speed(Path(model), rows))
    title = Path(model).stem
    if path.suffix.lower() == ".md":
        ours = _markdown(sections)
        new = (f"{_hub_header(facts)}\n# {title}\n\n", _as_markdown(_OWN_SECTIONS))
    else:
        ours = _html(sections)
        new = (_HTML_HEAD.replace("{title}", html.escape(title)), f"\n{_as_html(_OWN_SECTIONS)}</main>\n</html>\n")
    start, end = new if before is None else (before, after)
    write_text(path, f"{start}{_BEGIN}\n\n{ours}\n{_END}{end}")


def _own_parts(path: Path) -> tuple[str | None, str]:
    """Return what of an existing card is the user's, before and after our part; None where there is no card."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not text.strip():
        return None, ""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if bool(begin) != bool(end) or (not begin and _END in text):
        raise ConfigurationError(
            f"{path} has only one of the two comments between which a card is written: {_BEGIN} … {_END}; put both back"
        )
    if not begin:  # a README that somebody has written: the card goes below it
        return f"{text.rstrip()}\n\n", "\n"
    return before, after


# What the card says


def _sections(facts: dict[str, Any], speed: str | None) -> list[_Section]:
    return [
        ("What it predicts", _predicts(facts)),
        ("What it reads", _reads(facts)),
        *([("What it is made of", _made_of(facts))] if facts["provenance"].get("members") else []),
        ("How to use it", _use(facts)),
        ("How true the file is to the fitted model", _parity(facts)),
        ("Size and speed", [f"{facts['bytes'] / 1e6:.1f} MB.", speed or "Its speed was not measured for this card."]),
        ("Limits", _limits(facts)),
        ("Where it comes from", _origin(facts["provenance"])),
    ]


def _predicts(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    classes = facts["classes"]
    n = 0 if classes is None else len(classes)
    said = _TASKS.get(facts["task"], facts["task"]).format(n=n)
    names = [] if classes is None else [str(label) for label in classes]
    listed = ", ".join(names[:_MOST_CLASSES]) + (f", and {n - _MOST_CLASSES} more" if n > _MOST_CLASSES else "")
    return [f"For each row, {said}.", *([f"Classes: {listed}."] if names else [])]


def _reads(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    rows = [
        (feed["name"], feed["modality"], ", ".join(map(str, feed["columns"])), _details(feed))
        for feed in facts["inputs"]
    ]
    return [
        "A table with these columns. A missing cell is None or NaN.",
        _Table(("input", "modality", "columns", "as the network gets it"), rows),
    ]


def _details(feed: dict[str, Any]) -> str:
    settings = feed["settings"]
    said = {
        "max_length": "the first {} tokens",
        "size": "{0} × {0} pixels",
        "sampling_rate": "{} samples per second",
        "n_frames": "{} frames",
        "duration": "the first {} seconds",
    }
    return ", ".join(text.format(settings[name]) for name, text in said.items() if settings.get(name) is not None)


def _made_of(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    provenance = facts["provenance"]
    fusion = provenance["fusion"]
    members = [(m["name"], ", ".join(m["columns"]), _in_one_line(m["estimator"])) for m in provenance["members"]]
    found: list[str | _Table | _Code] = [_Table(("member", "columns", "estimator"), members)]
    if "chosen" not in fusion:
        return [*found, f"Joined by {fusion['name']}."]
    scores = [(name, f"{loss:.4f}", f"{share:.2f}" if share else "") for name, loss, share in fusion["scores"]]
    return [
        *found,
        f"Joined by {fusion['chosen']}, which {fusion['name']} chose by the loss on rows that were held out:",
        _Table(("candidate", "loss", "share"), scores),
    ]


def _in_one_line(text: str) -> str:
    return textwrap.shorten(text, 160, placeholder="...")


def _use(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    name = Path(facts["file"]).name
    columns = list(dict.fromkeys(str(column) for feed in facts["inputs"] for column in feed["columns"]))
    if facts["generation"] is not None:
        code = f'texts = OnnxPredictor("{name}").generate(prompts)'
        command = f"mmensemble generate {name} prompts.parquet --output texts.parquet"
    else:
        method = "predict" if facts["classes"] is None or "votes" in facts["task"] else "predict_proba"
        code = f'scores = OnnxPredictor("{name}").{method}(X)  # a DataFrame with {", ".join(map(repr, columns))}'
        command = f"mmensemble score {name} items.parquet --output scores.parquet"
    return [
        "It runs by ONNX Runtime; torch and scikit-learn are not needed.",
        _Code("python", f"from mmensemble import OnnxPredictor\n\n{code}"),
        _Code("bash", command),
    ]


def _parity(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    parity, score = facts["parity"], "R²" if facts["classes"] is None else "accuracy"
    if not parity or parity.get("rows") == "none":
        return ["It was not compared with the fitted model (`verify=False`)."]
    said = "It was scored beside the fitted model when it was written."
    names = {"score": f"{score} of the file", "reference_score": f"{score} of the fitted model"}
    rows = [(names.get(name, name.replace("_", " ")), _value(value)) for name, value in parity.items()]
    return [said, _Table(("measured", "value"), rows)]


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else _in_one_line(str(value))


def _limits(facts: dict[str, Any]) -> list[str | _Table | _Code]:
    said = [
        "It knows what its training rows showed it, and nothing says here whether rows of another time or place are "
        "like them.",
    ]
    if facts["classes"] is not None:
        said.append("Each row gets one of the classes above, also one that is of none of them.")
    if len(facts["inputs"]) > 1:
        said.append(
            "A row that lacks some of its inputs is scored by the others; one that lacks all of them gets what "
            "is most frequent in the training rows."
        )
    for feed in facts["inputs"]:
        most = feed["settings"].get("max_length")
        if most is not None:
            said.append(
                f"Of {', '.join(map(str, feed['columns']))}, what is behind the first {most} tokens is not read."
            )
    precision = facts["provenance"].get("precision", "fp32")
    if precision != "fp32":
        said.append(f"Its weights are {precision}: scores differ from those of the fitted model as measured above.")
    return list(said)


def _origin(provenance: dict[str, Any]) -> list[str | _Table | _Code]:
    if not provenance:
        return ["The file does not say."]
    versions = provenance.get("versions", {})
    return [
        f"Written on {provenance.get('created', 'a day that it does not say')}.",
        _Table(("package", "version"), list(versions.items())),
        _Code("text", str(provenance.get("estimator", ""))),
    ]


def _speed(model: Path, rows: Any) -> str:
    """Measure rows per second on the CPU: the better of two runs, since other work only ever slows them."""
    from mmensemble.scoring.predictor import OnnxPredictor

    predictor = OnnxPredictor(model, device="cpu")
    if isinstance(rows, (str, os.PathLike)):
        rows = _read(Path(rows), predictor.manifest.columns)
    n = n_rows(rows)
    if n == 0:
        raise ConfigurationError("there are no rows to measure the speed on")
    if predictor.manifest.task.name == "generation":
        raise ConfigurationError("the speed of a model that writes texts is not measured; leave the rows out")
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        for _ in predictor.score_batches(predictor.windows(frame_with(rows, predictor.manifest.columns))):
            pass
        seconds.append(time.perf_counter() - started)
    return f"{n / min(seconds):,.0f} rows/s on {os.cpu_count()} cores, measured on {n} rows, opening the file apart."


def _read(path: Path, columns: list[str]) -> Any:
    """Read these columns of a file, without pandas, which scoring does not need."""
    import pyarrow as pa

    with TableReader(path) as reader:
        check_columns(reader.schema.names, columns)
        return pa.concat_tables([reader.schema.empty_table().select(columns), *reader.tables(columns, _READ_ROWS)])


# How it is written down


def _hub_header(facts: dict[str, Any]) -> str:
    kinds = list(dict.fromkeys(_modality(feed) for feed in facts["inputs"]))
    lines = ["---", "library_name: mmensemble", "tags:", "- mmensemble", "- onnx"]
    lines += [f"- {kind}" for kind in kinds]
    lines += ["- multimodal"] if len(kinds) > 1 else []
    labelled = facts["classes"] is not None
    tag = _HUB_TASKS.get((kinds[0], labelled)) if len(kinds) == 1 else None
    if facts["generation"] is not None:
        tag = "text-generation" if kinds == ["text"] else "image-to-text" if kinds == ["image"] else None
    lines += [f"pipeline_tag: {tag}"] if tag else []
    return "\n".join([*lines, "---", ""])


def _modality(feed: dict[str, Any]) -> str:
    return _MODALITIES.get(feed["modality"], feed["modality"])


def _markdown(sections: Sequence[_Section]) -> str:
    parts = []
    for heading, blocks in sections:
        parts.append(f"## {heading}\n")
        for block in blocks:
            if isinstance(block, _Table):
                lines = [block.header, ["---"] * len(block.header), *block.rows]
                parts.append("".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines))
            elif isinstance(block, _Code):
                parts.append(f"```{block.language}\n{block.text}\n```\n")
            else:
                parts.append(f"{block}\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _as_markdown(own: dict[str, str]) -> str:
    return "\n\n" + "\n".join(f"## {heading}\n\n*{text}*\n" for heading, text in own.items())


_HTML_HEAD = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 52rem; margin: auto; padding: 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #8888; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
pre { background: #8882; overflow-x: auto; padding: .8rem; white-space: pre-wrap; }
</style>
<main>
<h1>{title}</h1>
"""


def _html(sections: Sequence[_Section]) -> str:
    parts = []
    for heading, blocks in sections:
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        for block in blocks:
            if isinstance(block, _Table):
                lines = [_html_line("th", block.header), *(_html_line("td", row) for row in block.rows)]
                parts.append(f"<div><table>\n{''.join(lines)}</table></div>")
            elif isinstance(block, _Code):
                parts.append(f"<pre><code>{html.escape(block.text)}</code></pre>")
            else:
                parts.append(f"<p>{html.escape(block)}</p>")
    return "\n".join(parts) + "\n"


def _html_line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>\n"


def _as_html(own: dict[str, str]) -> str:
    return "".join(
        f"<h2>{html.escape(heading)}</h2>\n<p><em>{html.escape(text)}</em></p>\n" for heading, text in own.items()
    )
