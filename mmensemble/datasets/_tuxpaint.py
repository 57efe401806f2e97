"""The stamps of Tux Paint, by the Debian package tuxpaint-stamps-default."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmensemble.datasets._folders import absent, data_folder
from mmensemble.datasets._packages import require
from mmensemble.datasets._pictures import check_size, on_white
from mmensemble.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sklearn.utils import Bunch

_FETCH = "apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb ."

# Some three items in each of five folds.
_MIN_ITEMS_OF_CLASS = 15

# The first line of each description. The others are marked with their language.
_UNMARKED = "en"

_DESCR = """\
.. _tuxpaint_stamps_dataset:

Tux Paint stamps: things as texts, pictures and speech
------------------------------------------------------

:Number of items: {n_items}
:Columns: ``id`` (path without its ending), ``text`` (in the language {language!r}), ``picture`` (PNG bytes, {size} x
    {size} pixels, drawn on white), ``speech`` (path of an Ogg Vorbis file in the language {speech_language!r})
:Target: {n_classes} classes: {counts}
:Missing values: {n_without_text} of ``text``, {n_without_speech} of ``speech``

The stamps of a painting program for children: photographs and drawings of things, each described in a few words in up
to eighty languages. In some languages the description is also read aloud. The speech says what the text of its own
language says; take the two in different languages if each is to add something. The class is the first folder in which
the stamp lies.

The pictures keep their proportions in the middle of a white square. Where a stamp is there as pixels and as vectors,
the pixels are taken, since letters in the vectors need fonts.

{n_repeated} items share their text with another one: the same thing photographed and drawn, or of several kinds. A
random split puts some of them on both sides.

What is removed, and why:

- Classes of fewer than {min_items} items, too few for five folds: {n_rare} items.
- Descriptions without a picture: {n_without_picture}.

``id`` and the paths in ``speech`` hold the class. They say where an item comes from and are no features.

Source: Tux Paint stamps, Bill Kendrick and contributors, https://tuxpaint.org, licence GPL-2, by the Debian package
tuxpaint-stamps-default. Whoever shares the pictures, texts or sounds keeps that licence.
"""


def load_tuxpaint_stamps(
    folder: str | os.PathLike[str] | None = None,
    *,
    size: int = 64,
    language: str = "en",
    speech_language: str = "fr",
) -> Bunch:
    """Load the stamps of Tux Paint: texts in many languages, pictures, speech, and the kind of thing to predict.

    917 items in 12 classes, 893 of them with speech in French. The data come with a Debian package, not with a Python
    package: ``make data`` fetches them. Rendering the pictures takes some seconds.

    Parameters
    ----------
    folder : str or path-like, default=None
        Where the Debian package was unpacked, or its folder of stamps itself. None is the folder ``tuxpaint_stamps``
        in ``~/.cache/mmensemble``, or in the folder that the environment variable ``MMENSEMBLE_DATA`` names.
    size : int, default=64
        Height and width of the pictures in pixels.
    language : str, default="en"
        The language of the texts: ``"en"``, or a code as the descriptions have it, such as ``"fr"``, ``"pt_BR"`` or
        ``"sr@latin"``. An item that is not described in it has None.
    speech_language : str, default="fr"
        The language of the speech: ``"fr"``, ``"ru"``, ``"es"`` and some others. An item without speech in it has
        None.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 4)
            The columns ``id`` (path within the stamps, without its ending, str), ``text`` (str or None), ``picture``
            (PNG, bytes) and ``speech`` (path of an Ogg Vorbis file, str, or None).
        target : ndarray of shape (n_items,), dtype object
            The class of each item, str.
        target_names : list of str
            The classes, sorted.
        DESCR : str
            What the data are, what was removed from them, their source and licence.

    Raises
    ------
    ConfigurationError
        If the folder does not hold the stamps, or no stamp has a text or speech in the language.
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    .. [1] `Tux Paint <https://tuxpaint.org>`_, GPL-2.

    Examples
    --------
    >>> from mmensemble.datasets import load_tuxpaint_stamps
    >>> stamps = load_tuxpaint_stamps(language="de")  # doctest: +SKIP
    >>> stamps.frame["text"][0], stamps.target[0]  # doctest: +SKIP
    ('Ein Frosch.', 'animals')
    >>> spoken = stamps.frame["speech"].notna()  # doctest: +SKIP
    >>> X, y = stamps.frame[spoken], stamps.target[spoken]  # doctest: +SKIP
    """
    check_size(size)
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")

    unpacked = data_folder(folder, "tuxpaint_stamps")
    stamps = unpacked / "usr" / "share" / "tuxpaint" / "stamps"
    if not stamps.is_dir():
        stamps = unpacked

    described = [path for path in sorted(stamps.rglob("*.txt")) if path.parent != stamps]
    pictured = [(path, picture) for path in described if (picture := _picture_of(path)) is not None]
    counts = Counter(_class_of(path, stamps) for path, _ in pictured)
    kept = [(path, picture) for path, picture in pictured if counts[_class_of(path, stamps)] >= _MIN_ITEMS_OF_CLASS]
    if not kept:
        raise absent("the stamps of Tux Paint", unpacked, _FETCH)

    texts = [_texts(path) for path, _ in kept]
    if not any(language in text for text in texts):
        known = ", ".join(sorted({code for text in texts for code in text}))
        raise ConfigurationError(f"no stamp is described in the language {language!r}; there are {known}")
    speeches = [_speech_of(path, speech_language) for path, _ in kept]
    if not any(speeches):
        known = ", ".join(sorted({code for path, _ in kept for code in _speech_languages(path)})) or "none"
        raise ConfigurationError(f"no stamp has speech in the language {speech_language!r}; there are {known}")

    rows: list[dict[str, Any]] = [
        {
            "id": path.relative_to(stamps).with_suffix("").as_posix(),
            "text": text.get(language),
            "picture": _png(picture, size),
            "speech": speech,
        }
        for (path, picture), text, speech in zip(kept, texts, speeches, strict=True)
    ]
    # As objects, since pandas makes NaN of None in a column of strings.
    frame = pd.DataFrame(rows, dtype=object)
    target = np.asarray([_class_of(path, stamps) for path, _ in kept], dtype=object)
    target_names = sorted(set(target))
    return sklearn_utils.Bunch(
        frame=frame,
        target=target,
        target_names=target_names,
        DESCR=_DESCR.format(
            n_items=len(frame),
            size=size,
            language=language,
            speech_language=speech_language,
            n_classes=len(target_names),
            counts=", ".join(f"{name} {counts[name]}" for name in target_names),
            n_without_text=int(frame["text"].isna().sum()),
            n_without_speech=int(frame["speech"].isna().sum()),
            n_repeated=int(frame["text"].dropna().duplicated(keep=False).sum()),
            min_items=_MIN_ITEMS_OF_CLASS,
            n_rare=len(pictured) - len(kept),
            n_without_picture=len(described) - len(pictured),
        ),
    )


def _class_of(path: Path, stamps: Path) -> str:
    return path.relative_to(stamps).parts[0]


def _texts(path: Path) -> dict[str, str]:
    """Read a description: a line in English, then lines such as ``fr.utf8=Une grenouille.``."""
    first, *others = path.read_text(encoding="utf-8").split("\n")
    texts = {_UNMARKED: first}
    for line in others:
        language, _, text = line.partition(".utf8=")
        texts.setdefault(language, text)
    return {language: text.strip() for language, text in texts.items() if text.strip()}


def _picture_of(path: Path) -> Path | None:
    return next((file for ending in (".png", ".svg") if (file := path.with_suffix(ending)).exists()), None)


def _speech_of(path: Path, language: str) -> str | None:
    marked = "" if language == _UNMARKED else f"_{language}"
    speech = path.with_name(f"{path.stem}_desc{marked}.ogg")
    return str(speech) if speech.exists() else None


def _speech_languages(path: Path) -> list[str]:
    name = re.compile(re.escape(path.stem) + r"_desc(?:_(\w+))?\.ogg")
    matches = (name.fullmatch(file.name) for file in path.parent.iterdir())
    return [match[1] or _UNMARKED for match in matches if match]


def _png(picture: Path, size: int) -> bytes:
    if picture.suffix == ".svg":
        resvg_py = require("resvg_py", "resvg-py")
        # It fits the drawing into this square. Without a resolution it takes lengths in points or millimetres for 0.
        drawn = resvg_py.svg_to_bytes(svg_path=str(picture), width=size, height=size, dpi=96, skip_system_fonts=True)
        source: Path | io.BytesIO = io.BytesIO(bytes(drawn))
    else:
        source = picture
    with Image.open(source) as image:
        return on_white(image, size)
