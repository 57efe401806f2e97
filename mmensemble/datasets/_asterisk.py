"""The prompts of a telephone exchange in five languages, by the Debian packages asterisk-core-sounds."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.datasets._folders import absent, data_folder
from mmensemble.datasets._packages import require

if TYPE_CHECKING:
    from sklearn.utils import Bunch

LANGUAGES = ("en", "es", "fr", "it", "ru")

_PACKAGES = " ".join(f"asterisk-core-sounds-{language}{part}" for language in LANGUAGES for part in ("", "-wav"))
_FETCH = f"apt-get download {_PACKAGES} && for package in *.deb; do dpkg-deb -x $package .; done"

# What is heard and not said: "[ascending tones]", "(1 second of silence)".
_NOT_SAID = re.compile(r"[\[(][^\])]*[\])]")

_DESCR = """\
.. _asterisk_sounds_dataset:

Asterisk's prompts: speech in five languages, and what it says
--------------------------------------------------------------

:Number of items: {n_items}
:Columns: ``id`` (language and key), ``key`` (the same for the same prompt in all languages), ``text`` (what is said),
    ``speech`` (path of a wav file, 8 kHz, one channel)
:Target: {n_classes} languages: {counts}
:Missing values: none

What the telephone exchange Asterisk says: whole sentences, single words, numbers, letters and the words by which they
are spelt. Half of the clips are shorter than 1.5 s. One voice speaks each language, and the same one speaks English and
Spanish, so that a voice tells a language in three cases of five.

What is removed, and why:

- Clips without a transcript, and transcripts without a clip: {n_unmatched}.
- Clips in which nothing is said, such as tones and silence: {n_not_said}.

``id`` and the paths in ``speech`` hold the language. They say where an item comes from and are no features.

Source: https://downloads.asterisk.org/pub/telephony/asterisk/, by the Debian packages asterisk-core-sounds. Voices:
Allison Smith (English, Spanish), June Wallack (French), Carlo Flora (Italian), Maxim Topal (Russian). Licence CC BY-SA
3.0, the Russian ones CC BY 3.0.
"""


def load_asterisk_sounds(folder: str | os.PathLike[str] | None = None) -> Bunch:
    """Load the prompts of a telephone exchange: speech, its transcript, and its language to predict.

    2,677 items in 5 languages. The data come with Debian packages, not with a Python package: ``make data`` fetches
    them.

    Parameters
    ----------
    folder : str or path-like, default=None
        Where the Debian packages were unpacked. None is the folder ``asterisk_sounds`` in ``~/.cache/mmensemble``, or
        in the folder that the environment variable ``MMENSEMBLE_DATA`` names.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 4)
            The columns ``id`` (language and key), ``key`` (the prompt's name in all languages), ``text`` (what is said)
            and ``speech`` (path of a wav file), all str.
        target : ndarray of shape (n_items,), dtype object
            The language of each item: ``"en"``, ``"es"``, ``"fr"``, ``"it"`` or ``"ru"``.
        target_names : list of str
            The languages, sorted.
        DESCR : str
            What the data are, what was removed from them, their source and licence.

    Raises
    ------
    ConfigurationError
        If the folder does not hold the sounds of all five languages.
    MissingDependencyError
        If pandas or scikit-learn is not installed.

    References
    ----------
    .. [1] `Asterisk's core sounds <https://downloads.asterisk.org/pub/telephony/asterisk/>`_, CC BY-SA 3.0.

    Examples
    --------
    >>> from mmensemble.datasets import load_asterisk_sounds
    >>> sounds = load_asterisk_sounds()  # doctest: +SKIP
    >>> sounds.frame["text"][0], sounds.target[0]  # doctest: +SKIP
    ('Activated.', 'en')
    """
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")

    unpacked = data_folder(folder, "asterisk_sounds")
    rows: list[dict[str, Any]] = []
    n_unmatched = n_not_said = 0
    for language in LANGUAGES:
        transcripts, clips = dict(_transcripts(unpacked, language)), dict(_clips(unpacked, language))
        both = sorted(transcripts.keys() & clips.keys())
        if not both:
            raise absent(f"Asterisk's sounds in the language {language!r}", unpacked, _FETCH)
        n_unmatched += len(transcripts.keys() ^ clips.keys())
        for key in both:
            text = _NOT_SAID.sub("", transcripts[key]).strip()
            if text:
                rows.append({"id": f"{language}/{key}", "key": key, "text": text, "speech": clips[key]})
            else:
                n_not_said += 1

    frame = pd.DataFrame(rows, dtype=object)
    target = np.asarray([row["id"][:2] for row in rows], dtype=object)
    return sklearn_utils.Bunch(
        frame=frame,
        target=target,
        target_names=list(LANGUAGES),
        DESCR=_DESCR.format(
            n_items=len(frame),
            n_classes=len(LANGUAGES),
            counts=", ".join(f"{language} {int((target == language).sum())}" for language in LANGUAGES),
            n_unmatched=n_unmatched,
            n_not_said=n_not_said,
        ),
    )


def _transcripts(unpacked: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yield what each clip says, from lines such as ``digits/1: one``; other lines are comments."""
    name = f"asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    path = unpacked / "usr" / "share" / "doc" / name
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            for line in lines:
                key, colon, text = line.partition(":")
                if colon and not line.startswith(";"):
                    yield key.strip(), text.strip()


def _clips(unpacked: Path, language: str) -> Iterator[tuple[str, str]]:
    sounds = unpacked / "usr" / "share" / "asterisk" / "sounds"
    for voice in sounds.glob(f"{language}_*"):
        for path in voice.rglob("*.wav"):
            yield path.relative_to(voice).with_suffix("").as_posix(), str(path)
