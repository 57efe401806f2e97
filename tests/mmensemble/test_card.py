from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx
import pandas as pd
import pytest
from click.testing import CliRunner

from mmensemble.cli import main
from mmensemble.exceptions import ConfigurationError, DataError, ModelFileError
from mmensemble.publishing import write_card
from mmensemble.scoring import OnnxPredictor
from mmensemble.scoring.manifest import METADATA_KEY

Rows = dict[str, list[Any]]


def test_markdown(model_path: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    write_card(model_path, card)
    text = card.read_text(encoding="utf-8")
    header = text.split("---\n")[1]
    assert {"library_name: mmensemble", "- onnx", "- text", "- image", "- tabular", "- multimodal"} <= set(
        header.splitlines()
    )
    assert "pipeline_tag" not in header, "the hub has no task for several modalities"
    assert "one of 3 classes" in text
    assert "apple, pear, plum" in text
    assert "| image | image | picture | 8 × 8 pixels |" in text
    assert f'OnnxPredictor("{model_path.name}").predict_proba(X)' in text
    assert "was not measured" in text
    assert "## Intended use" in text.split("<!-- end of mmensemble card -->")[1]


def test_what_the_user_has_written_stays(model_path: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    write_card(model_path, card)
    written = card.read_text(encoding="utf-8")
    mine = written.replace("# tiny", "# Fruit, by me").replace("*What the model is for", "It sorts fruit. *What")
    assert mine != written
    card.write_text(mine.replace("one of 3 classes", "an old sentence"), encoding="utf-8")
    write_card(model_path, card)
    assert card.read_text(encoding="utf-8") == mine


def test_below_a_readme_that_is_there(model_path: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# Fruit\n\nMine.\n", encoding="utf-8")
    for _ in range(2):
        write_card(model_path, card)
    text = card.read_text(encoding="utf-8")
    assert text.startswith("# Fruit\n\nMine.\n\n<!-- mmensemble card")
    assert text.count("What it predicts") == text.count("Mine.") == 1
    assert "Intended use" not in text


@pytest.mark.parametrize("part", ["<!-- mmensemble card", "<!-- end of mmensemble card"])
def test_a_comment_that_was_lost(model_path: Path, tmp_path: Path, part: str) -> None:
    card = tmp_path / "README.md"
    write_card(model_path, card)
    text = card.read_text(encoding="utf-8").replace(part, "<!-- mine")
    card.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="only one of the two comments"):
        write_card(model_path, card)
    assert card.read_text(encoding="utf-8") == text


class _Tags(HTMLParser):
    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html(model_path: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.html"
    for _ in range(2):
        write_card(model_path, card)
    text = card.read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(text)
    assert not tags.open
    assert text.count("<h2>What it predicts</h2>") == text.count("<h1>") == 1
    assert "<td>8 × 8 pixels</td>" in text
    assert "{" not in text.partition("</style>")[2]


def test_names_are_escaped(model_path: Path, tmp_path: Path) -> None:
    model = onnx.load(model_path)
    manifest = json.loads(OnnxPredictor(model_path).manifest.to_json())
    manifest["task"]["classes"] = json.loads(json.dumps(manifest["task"]["classes"]).replace("apple", "<b>|apple"))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(manifest)})
    onnx.save(model, tmp_path / "named.onnx")
    write_card(tmp_path / "named.onnx", tmp_path / "card.html")
    text = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;|apple" in text
    assert "<b>" not in text


def test_speed(model_path: Path, rows: Rows, tmp_path: Path) -> None:
    write_card(model_path, tmp_path / "card.md", rows=pd.DataFrame(rows))
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"measured on {len(rows['id'])} rows" in text
    assert "was not measured" not in text
    with pytest.raises(ConfigurationError, match="no rows"):
        write_card(model_path, tmp_path / "card.md", rows=pd.DataFrame(rows).iloc[:0])
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == text


def test_speed_on_a_file_with_bad_rows(model_path: Path, rows: Rows, tmp_path: Path) -> None:
    frame = pd.DataFrame(rows).head(20)
    frame.at[3, "picture"] = "nowhere.png"
    frame.drop(columns="id").to_parquet(tmp_path / "rows.parquet")
    done = CliRunner().invoke(
        main, ["card", str(model_path), str(tmp_path / "a.md"), "--rows", f"{tmp_path}/rows.parquet"]
    )
    assert done.exit_code == 0, done.output
    assert "measured on 20 rows" in (tmp_path / "a.md").read_text(encoding="utf-8")
    frame[["title"]].to_parquet(tmp_path / "less.parquet")
    with pytest.raises(DataError, match="no such column"):
        write_card(model_path, tmp_path / "card.md", rows=tmp_path / "less.parquet")


def test_one_that_writes_texts(generator_path: Path, tmp_path: Path) -> None:
    write_card(generator_path, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-generation" in text
    assert ".generate(prompts)" in text
    assert f"mmensemble generate {generator_path.name}" in text


def test_members_and_what_was_chosen(exported: Callable[..., Path], tmp_path: Path) -> None:
    path = exported("super_learner")
    provenance = OnnxPredictor(path).manifest.provenance
    assert [member["name"] for member in provenance["members"]] == ["text", "image", "facts"]
    assert provenance["members"][2]["columns"] == ["length", "brightness"]
    assert provenance["fusion"]["name"] == "SuperLearner"
    write_card(path, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"Joined by {provenance['fusion']['chosen']}, which SuperLearner chose" in text
    assert "| facts | length, brightness |" in text
    write_card(exported("soft_voting"), tmp_path / "other.md")
    assert "Joined by SoftVoting." in (tmp_path / "other.md").read_text(encoding="utf-8")


def test_command(model_path: Path, rows: Rows, tmp_path: Path) -> None:
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    arguments = ["card", str(model_path), str(tmp_path / "card.md"), "--rows", str(tmp_path / "rows.parquet")]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'card.md'}\n")
    assert "rows/s" in (tmp_path / "card.md").read_text(encoding="utf-8")
    result = CliRunner().invoke(main, ["card", str(model_path), str(tmp_path / "card.pdf")])
    assert result.exit_code == 1
    assert "ends in .md or .html" in result.stderr


def test_no_card_of_another_file(foreign_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        write_card(foreign_path, tmp_path / "card.md")
    assert not list(tmp_path.glob("*card*"))
