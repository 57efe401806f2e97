from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils import murmurhash3_32

from mmensemble.datasets import load_tweets
from mmensemble.preprocessing import HashedTermsPreprocessor, preprocessor_from_dict, preprocessor_to_dict
from mmensemble.preprocessing.terms import murmur3

TEXTS = [*load_tweets().frame["text"].tolist()[:300], "", "Zwölf Größen", "漢字 и кириллица 🦊"]


def test_terms_are_hashed_as_scikit_learn_hashes_them() -> None:
    rng = np.random.default_rng(0)
    terms = ["".join(map(chr, rng.integers(32, 0xD7FF, size=size))) for size in rng.integers(0, 12, size=500)]
    assert [murmur3(term) for term in terms] == [murmurhash3_32(term, seed=0) for term in terms]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_features": 16},
        {"n_features": 16, "alternate_sign": False},
        {"n_features": 64, "binary": True},
        {"analyzer": "char_wb", "ngram_range": (2, 3), "lowercase": False},
        {"strip_accents": "ascii", "stop_words": ["the", "to"]},
    ],
)
def test_the_counts_are_the_vectorizers(parameters: dict[str, Any]) -> None:
    vectorizer = HashingVectorizer(norm=None, **{"n_features": 2**12, **parameters})
    hashed = HashedTermsPreprocessor(**{"n_features": 2**12, **parameters})
    hashed = preprocessor_from_dict(preprocessor_to_dict(hashed))
    batch = hashed.collate(hashed.encode(TEXTS), slice(None))
    dense = np.zeros((len(TEXTS), vectorizer.n_features))
    np.add.at(dense, (np.arange(len(TEXTS))[:, None], batch["terms"]), batch["counts"])
    np.testing.assert_array_equal(dense, vectorizer.transform(TEXTS).toarray())
