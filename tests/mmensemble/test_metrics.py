"""Scores of generated texts: what sacrebleu and rouge-score say of the same texts, and what happens to others."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV

from mmensemble import ConfigurationError, DataError, MissingDependencyError
from mmensemble.metrics import bleu_score, bleu_scorer, chrf_score, chrf_scorer, rouge_score, rouge_scorer

TRUE = ["the cat sat on the mat", "a dog barks at the moon", "two birds fly south in the winter"]
PREDICTED = ["the cat sat on a mat", "the dog barks at a red moon", "two birds fly south"]

METRICS: list[Callable[..., float]] = [bleu_score, chrf_score, rouge_score]
of_each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)


def test_bleu_is_that_of_the_corpus() -> None:
    expected = sacrebleu.corpus_bleu(PREDICTED, [TRUE]).score
    assert bleu_score(TRUE, PREDICTED) == pytest.approx(expected)
    by_row = [bleu_score([true], [text]) for true, text in zip(TRUE, PREDICTED, strict=True)]
    assert expected != pytest.approx(np.mean(by_row))


def test_chrf_is_that_of_the_corpus() -> None:
    assert chrf_score(TRUE, PREDICTED) == pytest.approx(sacrebleu.corpus_chrf(PREDICTED, [TRUE]).score)
    assert chrf_score(TRUE, PREDICTED, word_order=2) == pytest.approx(
        sacrebleu.corpus_chrf(PREDICTED, [TRUE], word_order=2).score
    )


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_the_mean_of_the_rows(kind: str) -> None:
    scorer = RougeScorer([kind])
    expected = np.mean([scorer.score(t, p)[kind].fmeasure for t, p in zip(TRUE, PREDICTED, strict=True)])
    assert rouge_score(TRUE, PREDICTED, kind=kind) == pytest.approx(100 * expected)


def test_rouge_reads_every_alphabet() -> None:
    assert rouge_score(["красная груша"], ["красная слива"], kind="rouge1") == pytest.approx(50.0)
    # rouge-score's own words are of ASCII: it finds none here.
    assert RougeScorer(["rouge1"]).score("красная груша", "красная слива")["rouge1"].fmeasure == 0


@of_each_metric
def test_perfect_and_worst(metric: Callable[..., float]) -> None:
    assert metric(TRUE, TRUE) == pytest.approx(100.0)
    assert metric(TRUE, TRUE) <= 100.0
    assert metric(TRUE, ["zzz"] * 3) == pytest.approx(0.0)


@of_each_metric
def test_the_closest_reference_counts(metric: Callable[..., float]) -> None:
    several = [["something else entirely", TRUE[0]], [TRUE[1]], [TRUE[2], "no", "nothing of it"]]
    assert metric(several, TRUE) == pytest.approx(100.0)


@of_each_metric
def test_a_missing_text_counts_as_an_empty_one(metric: Callable[..., float]) -> None:
    missing = np.array([None, *PREDICTED[1:]], dtype=object)
    assert metric(TRUE, missing) == metric(TRUE, ["", *PREDICTED[1:]]) < metric(TRUE, PREDICTED)


@of_each_metric
def test_bad_rows(metric: Callable[..., float]) -> None:
    for bad in (None, 3.5, [], ["text", None]):
        with pytest.raises(DataError, match="row 1: a reference is expected") as caught:
            metric([TRUE[0], bad, TRUE[2]], PREDICTED)
        assert caught.value.row == 1
    with pytest.raises(DataError, match="row 2: a generated text is expected as str, not int"):
        metric(TRUE, [*PREDICTED[:2], 5])
    with pytest.raises(DataError, match="0 rows"):
        metric([], [])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        metric(TRUE, PREDICTED[:2])


@of_each_metric
def test_texts_in_whatever_holds_them(metric: Callable[..., float]) -> None:
    expected = metric(TRUE, PREDICTED)
    for holder in (pd.Series, pl.Series, np.array, lambda texts: pd.DataFrame({"text": texts})):
        assert metric(holder(TRUE), holder(PREDICTED)) == expected
    # What generate returns.
    assert metric(TRUE, np.array(PREDICTED, dtype=object)[:, None]) == expected
    with pytest.raises(DataError, match=r"row 0: .* not ndarray; choose one of those that were generated"):
        metric(TRUE, np.array([PREDICTED, PREDICTED], dtype=object).T)


@of_each_metric
def test_one_text_is_no_sequence_of_texts(metric: Callable[..., float]) -> None:
    for texts in ((TRUE[0], PREDICTED[0]), ([TRUE[0]], PREDICTED[0]), (TRUE[0], [PREDICTED[0]])):
        with pytest.raises(DataError, match="not one str; wrap it in a list"):
            metric(*texts)


@pytest.mark.parametrize("word", ["नमस्ते", "e\u0301te\u0301", "கல்வி"])
def test_a_word_for_rouge_is_whole(word: str) -> None:
    assert rouge_score([f"{word} a"], [f"a {word}"], kind="rouge2") == 0.0
    assert rouge_score([word], [word], kind="rouge2") == 0.0, "it is one word, and no pair"
    assert rouge_score([word], [word], kind="rouge1") == pytest.approx(100.0)


def test_unknown_settings() -> None:
    with pytest.raises(ConfigurationError, match=r"tokenize must be one of .*'13a'.*, not 'words'"):
        bleu_score(TRUE, PREDICTED, tokenize="words")
    for order in (-1, "2", 1.5):
        with pytest.raises(ConfigurationError, match="word_order must be an integer of at least 0"):
            chrf_score(TRUE, PREDICTED, word_order=order)  # type: ignore[arg-type]


def test_unknown_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"kind must be one of .*'rougeL'.*, not 'rouge'"):
        rouge_score(TRUE, PREDICTED, kind="rouge")


@pytest.mark.parametrize(
    ("metric", "module", "package"),
    [
        (bleu_score, "sacrebleu", "sacrebleu"),
        (chrf_score, "sacrebleu", "sacrebleu"),
        (rouge_score, "rouge_score.rouge_scorer", "rouge-score"),
    ],
)
def test_missing_package(
    metric: Callable[..., float], module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{package} is not installed.*\[generation\]"):
        metric(TRUE, PREDICTED)


class Repeat(BaseEstimator):
    """Gives each source back, so many times."""

    def __init__(self, *, times: int = 1) -> None:
        self.times = times

    def fit(self, X: Any, y: Any) -> Self:
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.array([" ".join([text] * self.times) for text in X], dtype=object)


@pytest.mark.parametrize("scorer", [bleu_scorer, chrf_scorer, rouge_scorer], ids=str)
def test_scorers_choose_in_a_search(scorer: Any) -> None:
    texts = np.array(TRUE * 2, dtype=object)
    search = GridSearchCV(Repeat(), {"times": [3, 1, 2]}, scoring=scorer, cv=2).fit(texts, texts)
    assert search.best_params_ == {"times": 1}
    assert search.best_score_ == pytest.approx(100.0)
