"""With ``on_error="missing"`` a cell that cannot be read is as one that is not there."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from mmensemble import MultimodalClassifier, MultimodalRegressor, SoftVoting, Stacking
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble_estimators import ConcatFusion, ImageClassifier, TextClassifier

N = 40
RNG = np.random.default_rng(0)
LABELS = np.array(["a", "b"])[np.arange(N) % 2]
X = pd.DataFrame(
    {
        "text": [f"{'red' if label == 'a' else 'blue'} {i % 7}" for i, label in enumerate(LABELS)],
        "picture": [np.full((8, 8, 3), 30 if label == "a" else 200, dtype=np.uint8) for label in LABELS],
        "weight": RNG.normal(size=N) + (LABELS == "a"),
        "price": RNG.normal(size=N),
    },
    index=[f"row {i}" for i in range(N)],
)


def composition(fusion: Any, on_error: Any = "missing") -> MultimodalClassifier:
    facts = make_pipeline(SimpleImputer(), LogisticRegression())
    return MultimodalClassifier(
        [
            ("text", make_pipeline(TfidfVectorizer(), LogisticRegression()), "text"),
            ("picture", ImageClassifier(image_size=32, max_epochs=1, random_state=0), "picture"),
            ("facts", facts, ["weight", "price"]),
        ],
        fusion=fusion,
        on_error=on_error,
    )


@pytest.fixture(scope="module", params=[SoftVoting(), Stacking(cv=2)], ids=["voting", "stacking"])
def fitted(request: pytest.FixtureRequest) -> MultimodalClassifier:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return composition(request.param).fit(X, LABELS)


BAD = {(1, "picture"): b"no image", (4, "weight"): "four", (4, "text"): 7.5, (9, "price"): "much"}


def spoiled(cells: dict[tuple[int, str], Any]) -> pd.DataFrame:
    rows = X.astype({"weight": object, "price": object, "text": object})
    for (row, column), cell in cells.items():
        rows.iat[row, rows.columns.get_loc(column)] = cell
    return rows


def test_such_rows_are_predicted_from_what_is_left(fitted: MultimodalClassifier) -> None:
    rows, without = spoiled(BAD), spoiled(dict.fromkeys(BAD, None))
    with pytest.warns(UserWarning, match=r"4 cells that cannot be read count as missing; the first: row 1, .*picture"):
        found = fitted.predict_proba(rows)
    np.testing.assert_allclose(found, fitted.predict_proba(without))
    with pytest.warns(UserWarning, match="4 cells"):
        assert fitted.transform(rows).shape[0] == N
    with pytest.warns(UserWarning, match="4 cells"):
        assert (fitted.predict(rows) == fitted.classes_[found.argmax(axis=1)]).all()
    assert rows.iat[1, 1] == b"no image"  # the caller's frame stays
    fitted.predict(X)  # without a warning, as warnings are errors


def test_polars_and_infinite_numbers(fitted: MultimodalClassifier) -> None:
    facts = X.drop(columns="picture").reset_index(drop=True).assign(picture=None)
    rows = pl.from_pandas(facts.drop(columns="picture")).with_columns(
        picture=pl.Series([b"no image", *[None] * (N - 1)], dtype=pl.Binary),
        price=pl.Series([np.inf, *X["price"].tolist()[1:]]),
    )
    facts["price"] = [None, *X["price"].tolist()[1:]]
    with pytest.warns(UserWarning, match="1 cell that") as told:
        found = fitted.predict_proba(rows)
    assert {str(each.message).partition(";")[0] for each in told} == {"1 cell that cannot be read counts as missing"}
    assert len(told) == 2  # the picture, and the number that its estimator does not take
    np.testing.assert_allclose(found, fitted.predict_proba(facts))


def test_it_is_an_error_by_default_and_in_fit(fitted: MultimodalClassifier) -> None:
    raising = pickle.loads(pickle.dumps(fitted)).set_params(on_error="raise")
    with pytest.raises(DataError, match="row 1, column 'picture'"):
        raising.predict(spoiled({(1, "picture"): b"no image"}))
    with pytest.raises(DataError, match="the image cannot be read"):
        composition(SoftVoting(), on_error="raise").fit(spoiled({(1, "picture"): b"no image"}), LABELS)
    with pytest.raises(ValueError, match="'four'"):  # what others read is an error in fit, always
        composition(SoftVoting()).fit(spoiled({(4, "weight"): "four"}), LABELS)
    with pytest.raises(ConfigurationError, match="on_error must be 'raise' or 'missing'"):
        composition(SoftVoting(), on_error="column").fit(X, LABELS)
    with pytest.raises(DataError, match="no such column"):
        fitted.predict(X.drop(columns="text"))


def test_a_pickle_without_the_parameter_raises(fitted: MultimodalClassifier) -> None:
    state = {name: value for name, value in fitted.__getstate__().items() if name != "on_error"}
    older = MultimodalClassifier.__new__(MultimodalClassifier)
    older.__setstate__(state)
    assert older.on_error == "raise"


def test_numbers_and_joint_fusions() -> None:
    model = MultimodalRegressor(
        [("weight", LinearRegression(), ["weight"]), ("price", LinearRegression(), ["price"])],
        fusion=SoftVoting(),
        on_error="missing",
    ).fit(X, np.arange(N, dtype=float))
    with pytest.warns(UserWarning, match="1 cell that"):
        found = model.predict(spoiled({(3, "price"): "much"}))
    np.testing.assert_allclose(found, model.predict(spoiled({(3, "price"): None})))
    options: Any = {"max_epochs": 1, "random_state": 0}
    joint = MultimodalClassifier(
        [
            ("text", TextClassifier(**options), "text"),
            ("picture", ImageClassifier(image_size=32, **options), "picture"),
        ],
        fusion=ConcatFusion(max_epochs=1, random_state=0),
        on_error="missing",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joint.fit(X, LABELS)
    with pytest.warns(UserWarning, match="1 cell that"):
        found = joint.predict_proba(spoiled({(2, "picture"): b"no image"}))
    np.testing.assert_allclose(found, joint.predict_proba(spoiled({(2, "picture"): None})), atol=1e-6)
