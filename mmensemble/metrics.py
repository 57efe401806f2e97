"""How close generated texts come to reference texts: corpus BLEU, chrF and ROUGE, by sacrebleu and rouge-score.

All are percentages, as papers report them, and greater is better. Each has a scorer for ``GridSearchCV(scoring=...)``
and scikit-learn's other tools. They need the extra ``generation``; no torch.
"""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import make_scorer
from sklearn.utils.validation import check_consistent_length

from mmensemble.exceptions import ConfigurationError, DataError, MissingDependencyError
from mmensemble.frames import is_missing, leaf_cells

__all__ = ["bleu_score", "bleu_scorer", "chrf_score", "chrf_scorer", "rouge_score", "rouge_scorer"]

References = Sequence[str] | Sequence[Sequence[str]] | np.ndarray

ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def bleu_score(y_true: References, y_pred: Any, *, tokenize: str = "13a", lowercase: bool = False) -> float:
    """Corpus BLEU: the precision of word sequences of one to four words, with a penalty for texts that are too short.

    The counts of all rows are added up before the precisions are taken, so this is no mean over rows.

    Parameters
    ----------
    y_true : sequence of str, or of sequences of str, length n_samples
        The reference of each row, or its references.
    y_pred : array-like of str, shape (n_samples,)
        The generated texts. A missing one (None) counts as an empty text.
    tokenize : {"13a", "intl", "char", "zh", "none"}, default="13a"
        How sacrebleu finds words; ``"13a"`` is the one that results are compared by, ``"zh"`` is for Chinese. Others
        that sacrebleu knows need more packages.
    lowercase : bool, default=False
        Ignore case.

    Returns
    -------
    float
        In [0, 100].

    Raises
    ------
    ConfigurationError
        If sacrebleu does not know `tokenize`.
    DataError
        If a reference is missing or is no text, or a generated text is none.
    MissingDependencyError
        If sacrebleu is not installed.

    Notes
    -----
    Texts of fewer than four words have no sequence of four. Where none of an order matches, sacrebleu smooths its
    precision ("exp"); for such short texts `chrf_score` says more.

    References
    ----------
    Papineni, Roukos, Ward, Zhu (2002). BLEU: a method for automatic evaluation of machine translation. ACL.

    Post (2018). A call for clarity in reporting BLEU scores. WMT.

    Examples
    --------
    >>> from mmensemble.metrics import bleu_score
    >>> round(bleu_score(["the cat sat on the mat"], ["the cat sat on a mat"]), 1)
    53.7
    """
    references, texts = _checked(y_true, y_pred)
    bleu = _module("sacrebleu").BLEU
    if tokenize not in bleu.TOKENIZERS:
        raise ConfigurationError(f"tokenize must be one of {sorted(bleu.TOKENIZERS)}, not {tokenize!r}")
    metric = bleu(tokenize=tokenize, lowercase=lowercase)
    # Rounding takes a perfect score a little above 100.
    return min(100.0, float(metric.corpus_score(texts, _by_number(references)).score))


def chrf_score(y_true: References, y_pred: Any, *, word_order: int = 0, lowercase: bool = False) -> float:
    """Corpus chrF: the F-score of character sequences of one to six characters, in which recall weighs double.

    Parameters
    ----------
    y_true : sequence of str, or of sequences of str, length n_samples
        The reference of each row, or its references.
    y_pred : array-like of str, shape (n_samples,)
        The generated texts. A missing one (None) counts as an empty text.
    word_order : int, default=0
        Longest sequence of words that counts as well; 2 is the metric called chrF++.
    lowercase : bool, default=False
        Ignore case.

    Returns
    -------
    float
        In [0, 100].

    Raises
    ------
    ConfigurationError
        If `word_order` is no integer of at least 0.
    DataError
        If a reference is missing or is no text, or a generated text is none.
    MissingDependencyError
        If sacrebleu is not installed.

    References
    ----------
    Popović (2015). chrF: character n-gram F-score for automatic MT evaluation. WMT.

    Examples
    --------
    >>> from mmensemble.metrics import chrf_score
    >>> round(chrf_score(["grüner Apfel", "rote Birne"], ["grüne Äpfel", "rote Birne"]), 1)
    68.0
    """
    if not isinstance(word_order, int) or word_order < 0:
        raise ConfigurationError(f"word_order must be an integer of at least 0, not {word_order!r}")
    references, texts = _checked(y_true, y_pred)
    metric = _module("sacrebleu").CHRF(word_order=word_order, lowercase=lowercase)
    return min(100.0, float(metric.corpus_score(texts, _by_number(references)).score))


def rouge_score(y_true: References, y_pred: Any, *, kind: str = "rougeL") -> float:
    """Mean ROUGE: the F-score of the words that a text shares with its reference.

    Case does not count. Words are runs of letters, their marks, and digits of any script; rouge-score's own words are
    of ASCII alone, and on English this agrees with them. Scripts without spaces, as Chinese, have no words by this.

    Parameters
    ----------
    y_true : sequence of str, or of sequences of str, length n_samples
        The reference of each row, or its references, of which the closest counts.
    y_pred : array-like of str, shape (n_samples,)
        The generated texts. A missing one (None) counts as an empty text.
    kind : {"rouge1", "rouge2", "rougeL", "rougeLsum"}, default="rougeL"
        What is shared: words, pairs of words, the longest common subsequence of words, or that line by line.

    Returns
    -------
    float
        In [0, 100].

    Raises
    ------
    ConfigurationError
        If `kind` is unknown.
    DataError
        If a reference is missing or is no text, or a generated text is none.
    MissingDependencyError
        If rouge-score is not installed.

    References
    ----------
    Lin (2004). ROUGE: a package for automatic evaluation of summaries. Text Summarization Branches Out.

    Examples
    --------
    >>> from mmensemble.metrics import rouge_score
    >>> round(rouge_score(["the cat sat on the mat"], ["a cat on the mat"]), 1)
    72.7
    """
    if kind not in ROUGES:
        raise ConfigurationError(f"kind must be one of {ROUGES}, not {kind!r}")
    references, texts = _checked(y_true, y_pred)
    scorer = _module("rouge_score.rouge_scorer").RougeScorer([kind], tokenizer=_Words())
    scores = [scorer.score_multi(own, text)[kind].fmeasure for own, text in zip(references, texts, strict=True)]
    return 100.0 * float(np.mean(scores))


bleu_scorer = make_scorer(bleu_score)
chrf_scorer = make_scorer(chrf_score)
rouge_scorer = make_scorer(rouge_score)


class _Words:
    """What rouge-score asks for the words of a text."""

    def tokenize(self, text: str) -> list[str]:
        # The vowels of Indic scripts, and accents that stand for themselves, are marks (M) and no letters (L).
        return "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower()).split()


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(name.partition(".")[0].replace("_", "-"), "generation") from error


def _checked(y_true: References, y_pred: Any) -> tuple[list[list[str]], list[str]]:
    """Return the references of each row, at least one, and its text."""
    y_true, y_pred = leaf_cells(y_true), leaf_cells(y_pred)
    check_consistent_length(y_true, y_pred)
    references = []
    for row, own in enumerate(y_true):
        listed = list(own) if isinstance(own, (list, tuple, np.ndarray)) else [own]
        if not listed or not all(isinstance(text, str) for text in listed):
            raise DataError(f"a reference is expected as str, or several as a list of str, not {own!r}", row=row)
        references.append(listed)
    if not references:
        raise DataError("there are 0 rows to score")
    texts = []
    for row, text in enumerate(y_pred):
        if not isinstance(text, str) and not is_missing(text):
            several = "; choose one of those that were generated" if isinstance(text, (list, np.ndarray)) else ""
            raise DataError(f"a generated text is expected as str, not {type(text).__name__}{several}", row=row)
        texts.append(text if isinstance(text, str) else "")
    return references, texts


def _by_number(references: list[list[str]]) -> list[list[str | None]]:
    """Return every row's first reference, then every row's second one, and so on; None where a row has fewer."""
    most = max(len(own) for own in references)
    return [[own[number] if number < len(own) else None for own in references] for number in range(most)]
