"""Every example but the quickstart, on a sliver of the data: it runs, and writes a figure and its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmensemble.datasets._folders import data_folder

EXAMPLES = Path(__file__).parents[2] / "examples"

# What each one writes beside its figure and its numbers.
ALSO_WRITES = {
    "multi_task": ["multi_task.onnx"],
    "fused_pretrained": ["fused_pretrained.onnx"],
    "language_model": ["language_model.onnx"],
}
# What `make data` must have fetched for it.
NEEDS = {
    "language_model": ["fortunes"],
    "spoken_language": ["asterisk_sounds"],
    "three_modalities": ["tuxpaint_stamps", "animated_emoji"],
}
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "quickstart")


def test_all_are_known() -> None:
    assert NAMES == [
        "captions",
        "fused_pretrained",
        "images",
        "language_model",
        "missing_modalities",
        "multi_task",
        "pretrained_text",
        "search_on_a_cluster",
        "search_strategies",
        "size_a_cluster",
        "spoken_language",
        "text_from_scratch",
        "three_modalities",
        "translation",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_example(name: str, tmp_path: Path, run_example: Callable[[str, Path], str]) -> None:
    absent = [data for data in NEEDS.get(name, []) if not data_folder(None, data).exists()]
    if absent:
        pytest.skip(f"needs {' and '.join(absent)}, which `make data` fetches")
    printed = run_example(name, tmp_path)
    written = sorted(path.name for path in (tmp_path / "output").iterdir())
    assert written == sorted([f"{name}.json", f"{name}.png", *ALSO_WRITES.get(name, [])])
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    assert "held-out" in printed or name == "size_a_cluster"
    assert f"{name}.png; all of it took" in printed
    results = json.loads((tmp_path / "output" / f"{name}.json").read_text(encoding="utf-8"))
    assert results
    with Image.open(tmp_path / "output" / f"{name}.png") as image:
        assert 900 < image.width < 3000
        assert len(image.convert("RGB").getcolors(2**24)) > 50, "an empty figure"
