"""Fortune cookies: short texts in five languages, by the Debian packages fortunes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmensemble.datasets._folders import absent, data_folder
from mmensemble.datasets._packages import require
from mmensemble.exceptions import ConfigurationError

if TYPE_CHECKING:
    from sklearn.utils import Bunch

# The packages of each language.
_PACKAGES = {
    "de": ("fortunes-de",),
    "en": ("fortunes", "fortunes-min"),
    "es": ("fortunes-es",),
    "it": ("fortunes-it",),
    "ru": ("fortunes-ru",),
}
LANGUAGES = tuple(_PACKAGES)

_FETCH = (
    f"apt-get download {' '.join(name for names in _PACKAGES.values() for name in names)} && "
    "for package in *.deb; do dpkg-deb -x $package ${package%%_*}; done"
)

# Drawings are no texts; and what the packages themselves put aside as offensive stays there.
_LEFT_OUT = {"ascii-art", "asciiart", "off", "banner"}
_CONTROL = re.compile(r"\x1b\[[0-9;]*m|.\x08|[\x00-\x08\x0b-\x1f\x7f]")

_DESCR = """\
.. _fortunes_dataset:

Fortunes: short texts in five languages
---------------------------------------

:Number of items: {n_items}
:Columns: ``text``, ``language``, ``topic`` (the file that holds it)
:Target: {n_classes} languages: {counts}
:Missing values: none

What the program ``fortune`` prints: proverbs, quotations, definitions, jokes, dialogues, verse. Half of them have less
than {median} characters. Lines are broken as they are in the files. Raw material for a language model; the language is
easy to tell, the topic is not.

What is removed, and why:

- Drawings, and the folders of texts that the packages mark as offensive.
- Texts that are there twice: {n_repeated}.

Source: the Debian packages fortunes, fortunes-min, fortunes-de, fortunes-es, fortunes-it and fortunes-ru. The
collections are under BSD (English) and GPL-2 (German, Spanish, Russian) licences or in the public domain (Italian); the
quotations are their authors'.
"""


def load_fortunes(folder: str | os.PathLike[str] | None = None, *, languages: Sequence[str] = LANGUAGES) -> Bunch:
    """Load short texts in five languages, for language models.

    The data come with Debian packages, not with a Python package: ``make data`` fetches and unpacks them (3 MB), which
    needs no root.

    Parameters
    ----------
    folder : str or path, default=None
        Where the packages were unpacked. None is ``fortunes`` in the folder that the environment variable
        ``MMENSEMBLE_DATA`` names, by default ``~/.cache/mmensemble``.
    languages : sequence of {"de", "en", "es", "it", "ru"}, default=all of them

    Returns
    -------
    Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 3)
            The columns ``text``, ``language`` and ``topic``, all str.
        target : ndarray of shape (n_items,), dtype object
            The language of each item, str.
        target_names : list of str
            The languages, sorted.
        DESCR : str
            What the data are, what was removed from them, their source and licence.

    Raises
    ------
    ConfigurationError
        If the folder does not hold them, or a language is none of the five.
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    .. [1] `The Debian source package fortune-mod <https://tracker.debian.org/pkg/fortune-mod>`_, and those of the other
       languages.

    Examples
    --------
    >>> from mmensemble.datasets import load_fortunes
    >>> fortunes = load_fortunes(languages=["de", "it"])  # doctest: +SKIP
    >>> fortunes.frame["text"][0]  # doctest: +SKIP
    'Die Liebe der Eltern geht auf die Kinder, ...'
    """
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown or not len(languages):
        raise ConfigurationError(f"languages must be some of {LANGUAGES}, not {list(languages)}")
    unpacked = data_folder(folder, "fortunes")
    rows = [
        (text, language, topic)
        for language in sorted(set(languages))
        for package in _PACKAGES[language]
        for topic, text in _texts(unpacked / package)
    ]
    frame = pd.DataFrame(rows, columns=["text", "language", "topic"])
    if frame["language"].nunique() < len(set(languages)):
        raise absent("the fortunes of Debian", unpacked, _FETCH)
    repeated = frame["text"].duplicated()
    frame = frame[~repeated].reset_index(drop=True)
    target = frame["language"].to_numpy(dtype=object)
    names, sizes = np.unique(target, return_counts=True)
    return sklearn_utils.Bunch(
        frame=frame,
        target=target,
        target_names=names.tolist(),
        DESCR=_DESCR.format(
            n_items=f"{len(frame):,}",
            n_classes=len(names),
            counts=", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True)),
            median=int(frame["text"].str.len().median()) + 1,
            n_repeated=int(repeated.sum()),
        ),
    )


def _texts(package: Path) -> Iterator[tuple[str, str]]:
    """Yield (topic, text) for every text of a package."""
    folder = package / "usr" / "share" / "games" / "fortunes"
    for file in sorted(folder.rglob("*")):
        # Beside each file lie an index and a link under another name.
        if file.suffix in {".dat", ".u8"} or file.is_symlink() or not file.is_file():
            continue
        topic = file.name.removesuffix(".fortunes")
        if topic in _LEFT_OUT or "off" in file.relative_to(folder).parts[:-1]:
            continue
        for part in re.split(r"(?m)^%+[ \t]*$", file.read_text(encoding="utf-8", errors="replace")):
            lines = [line.rstrip() for line in _CONTROL.sub("", part.replace("\r", "").expandtabs()).split("\n")]
            text = "\n".join(lines).strip("\n")
            if text.strip():
                yield topic, text
