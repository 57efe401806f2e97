"""`transform` as a pandas or polars frame, of every estimator over every kind of X."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import StandardScaler

from mmensemble import ColumnSelector, on_column
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from tests.instances import Convolution, WordVectors

TEXTS = ["red apple", "green car", "ripe pear", "big bus"] * 2
PICTURES = [np.full((32, 32), grey, dtype=np.uint8) for grey in range(0, 240, 30)]
INDEX = [f"row {i}" for i in range(8)]
FRAME = pd.DataFrame({"name": TEXTS, "picture": PICTURES, "length": [float(len(text)) for text in TEXTS]}, index=INDEX)
FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}

TEXT: dict[str, Any] = {"backbone": WordVectors, "vocab_size": 280, "max_epochs": 1, "random_state": 0}
IMAGE: dict[str, Any] = {"backbone": Convolution, "image_size": 32, "max_epochs": 1, "random_state": 0}

LEAVES = [
    ("name", TextClassifier(**TEXT), 12),
    ("name", TextRegressor(**TEXT), 12),
    ("picture", ImageClassifier(**IMAGE), 24),
    ("picture", ImageRegressor(**IMAGE), 24),
]
leaves = pytest.mark.parametrize(("column", "leaf", "size"), LEAVES, ids=[type(leaf).__name__ for _, leaf, _ in LEAVES])
library = pytest.mark.parametrize("library", FRAMES)


def names_of(leaf: Any, size: int) -> list[str]:
    return [f"{type(leaf).__name__.lower()}{i}" for i in range(size)]


@leaves
@library
@pytest.mark.parametrize("given", ["list", "series", "frame"])
def test_leaf(column: str, leaf: Any, size: int, library: str, given: str) -> None:
    X = {"list": list(FRAME[column]), "series": FRAME[column], "frame": FRAME[[column]]}[given]
    leaf = sklearn.clone(leaf).fit(X, [0, 1] * 4)
    expected = leaf.transform(X)
    made = leaf.set_output(transform=library).transform(X)
    assert type(made) is FRAMES[library]
    assert list(made.columns) == names_of(leaf, size) == leaf.get_feature_names_out().tolist()
    assert {str(dtype).lower() for dtype in made.dtypes} == {"float32"}
    np.testing.assert_array_equal(made.to_numpy(), expected)
    if library == "pandas" and given != "list":
        assert list(made.index) == INDEX
    assert type(leaf.predict(X)) is np.ndarray
    assert leaf.transform(X[:0]).shape == (0, size)
    assert type(leaf.set_output(transform="default").transform(X)) is np.ndarray


@leaves
@library
def test_pipeline(column: str, leaf: Any, size: int, library: str) -> None:
    pipeline = on_column(column, sklearn.clone(leaf)).set_output(transform=library).fit(FRAME, [0, 1] * 4)
    made = pipeline.transform(FRAME)
    assert type(made) is FRAMES[library]
    assert list(made.columns) == names_of(leaf, size) == pipeline.get_feature_names_out().tolist()
    assert len(pipeline.predict(FRAME)) == 8


@library
def test_polars_in(library: str) -> None:
    X = pl.from_pandas(FRAME[["name", "length"]])
    pipeline = on_column("name", TextClassifier(**TEXT)).set_output(transform=library).fit(X, [0, 1] * 4)
    made = pipeline.transform(X)
    assert type(made) is FRAMES[library]
    assert made.shape == (8, 12)


@library
def test_set_for_all_of_scikit_learn(library: str) -> None:
    columns = ColumnTransformer(
        [
            ("text", TextClassifier(**TEXT), "name"),
            ("image", ImageRegressor(**IMAGE), "picture"),
            ("length", StandardScaler(), ["length"]),
        ]
    )
    with sklearn.config_context(transform_output=library):
        made = columns.fit(FRAME, [0, 1] * 4).transform(FRAME)
        assert type(made) is FRAMES[library]
        assert list(made.columns) == [
            *(f"text__textclassifier{i}" for i in range(12)),
            *(f"image__imageregressor{i}" for i in range(24)),
            "length__length",
        ]


@library
def test_selected_columns_stay_in_their_container(library: str) -> None:
    selector = ColumnSelector("name").set_output(transform=library).fit(FRAME)
    pd.testing.assert_series_equal(selector.transform(FRAME), FRAME["name"])
