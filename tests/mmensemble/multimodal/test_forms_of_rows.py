"""Rows in forms that people have: one alone, a category that nobody filled in, groups by name, broken pictures."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from mmensemble import (
    DataError,
    EnsembleSelection,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    OnnxPredictor,
    SoftVoting,
    Stacking,
    export_onnx,
    modality_shapley,
    on_column,
)
from mmensemble.preprocessing.decoding.cells import why_unreadable
from mmensemble_estimators import ImageClassifier

N = 120
RNG = np.random.default_rng(0)
Y = RNG.choice(["a", "b"], N)
FRAME = pd.DataFrame(
    {
        "price": RNG.normal(size=N) + (Y == "a"),
        "state": np.where(RNG.random(N) < 0.8, RNG.choice(["new", "good", "worn"], N), None),
        "item": RNG.integers(0, 30, N).astype(str),
    }
)


def facts() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def category(encoder: Any = None) -> Any:
    return make_pipeline(OneHotEncoder(handle_unknown="ignore") if encoder is None else encoder, LogisticRegression())


def two(**parameters: Any) -> MultimodalClassifier:
    return MultimodalClassifier([("facts", facts(), ["price"]), ("state", category(), ["state"])], **parameters)


# Columns without a type

MODELS: dict[str, Any] = {
    "composition": lambda: two(fusion=SoftVoting()),
    "auto": lambda: MultimodalClassifier("auto"),
    "together": lambda: MultimodalClassifier(
        [("both", category(OneHotEncoder(handle_unknown="ignore")), ["price", "state"])]
    ),
    "ordinal": lambda: MultimodalClassifier(
        [("state", category(OrdinalEncoder(encoded_missing_value=-1)), ["state"]), ("facts", facts(), ["price"])],
        fusion=SoftVoting(),
    ),
    "on_column": lambda: on_column(["state"], category()),
}
KINDS: dict[str, Any] = {
    "inferred": lambda: pd.DataFrame({name: FRAME[name].tolist() for name in FRAME}),  # pandas 3: a type for texts
    "object": lambda: FRAME.astype({"state": object}),
    "category": lambda: FRAME.astype({"state": "category"}),
    "polars": lambda: pl.from_pandas(FRAME),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_category_that_no_row_has(name: str, kind: str, tmp_path: Path) -> None:
    X = KINDS[kind]()
    model = MODELS[name]().fit(X, Y)
    row = int(np.flatnonzero(FRAME["state"].isna())[0])
    expected = model.predict_proba(X[row : row + 2])[:1]
    # As it comes out of a CSV file, of JSON, and of a frame of polars.
    alone = pd.DataFrame({"price": [FRAME["price"][row]], "state": [np.nan], "item": ["0"]})
    assert alone["state"].dtype == float
    forms = [pl.from_pandas(alone), pl.DataFrame({**alone.to_dict("list"), "state": [None]})]
    if kind != "polars":  # scikit-learn's encoders take no frames of another library with numbers in them
        forms += [alone, alone.assign(state=None), alone.astype({"state": "string"})]
    for form in forms:
        np.testing.assert_allclose(model.predict_proba(form), expected)
    # Rows that the export makes have such columns.
    export_onnx(model, tmp_path / "model.onnx")
    np.testing.assert_allclose(OnnxPredictor(tmp_path / "model.onnx").predict_proba(alone), expected, atol=1e-6)


def test_a_row_by_itself_is_a_series() -> None:
    model = two(fusion=SoftVoting()).fit(FRAME, Y)
    with pytest.raises(DataError, match=r"not Series: one row of a frame is X\.iloc\[\[number\]\]"):
        model.predict(FRAME.iloc[3])
    with pytest.raises(DataError, match=r"not Series: one row of a frame is X\.iloc\[\[number\]\]"):
        modality_shapley(model, FRAME.iloc[3])


# Groups


def test_groups_by_the_name_of_a_column() -> None:
    named = two(fusion=Stacking(cv=3)).fit(FRAME, Y, groups="item")
    given = two(fusion=Stacking(cv=3)).fit(FRAME, Y, groups=FRAME["item"])
    np.testing.assert_array_equal(named.predict_proba(FRAME), given.predict_proba(FRAME))
    with pytest.raises(DataError, match="'thing': there is no such column"):
        two().fit(FRAME, Y, groups="thing")


def test_a_group_that_is_missing() -> None:
    groups = FRAME["item"].astype(object).where(FRAME.index != 7, np.nan)
    with pytest.raises(DataError, match="row 7: the group of the row is missing"):
        two().fit(FRAME, Y, groups=groups)


# Cells that cannot be read, in fit


def png(seed: int) -> bytes:
    sink = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def pictures() -> pd.DataFrame:
    frame = FRAME.head(60).assign(picture=[png(row) for row in range(60)])
    for row in (5, 17, 33):
        frame.at[row, "picture"] = b"no picture"
    return frame


def with_pictures(**parameters: Any) -> MultimodalClassifier:
    image = ImageClassifier(image_size=32, max_epochs=1, random_state=0)
    return MultimodalClassifier(
        [("image", image, "picture"), ("facts", facts(), ["price"])], fusion=Stacking(cv=2), **parameters
    )


def test_all_that_cannot_be_read_is_counted(pictures: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"^row 5, column 'picture': the image cannot be read.*; 2 more rows of it"):
        with_pictures().fit(pictures, Y[:60])


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_broken_pictures_count_as_missing_in_fit(pictures: pd.DataFrame, n_jobs: int | None) -> None:
    model = with_pictures(on_error="missing", n_jobs=n_jobs)
    said = r"'picture': \d cells? that cannot be read counts? as missing; the first: the image"
    # Threads know as little of what is around the fit as other processes do, and start sooner.
    with joblib.parallel_config("threading"), pytest.warns(UserWarning, match=said):
        model.fit(pictures, Y[:60])
    model.set_params(on_error="raise")
    with pytest.raises(DataError, match="the image cannot be read"):
        model.predict(pictures)


def test_a_mistake_of_a_quick_member_shows_before_a_network_is_trained(pictures: pd.DataFrame) -> None:
    X = pictures.assign(price_2=np.arange(60.0), picture=[png(row) for row in range(60)])
    X.loc[7, "price"] = np.nan
    image = ImageClassifier(image_size=32, max_epochs=10_000)
    members = [("image", image, "picture"), ("facts", facts(), ["price", "price_2"])]
    with pytest.raises(DataError, match=r"member 'facts' .* takes no NaN"):
        MultimodalClassifier(members, fusion=Stacking(cv=2)).fit(X, Y[:60])


# What is said


def test_too_few_rows_to_compare_are_told(caplog: pytest.LogCaptureFixture) -> None:
    y = np.array(["a"] * (N - 1) + ["b"])
    for X, labels, reason in (
        (FRAME, y, "a class has 1 rows, too few to compare strategies; it is LinearFusion"),
        (FRAME.head(20), Y[:20], "member 'state' has 17 rows, too few"),
    ):
        caplog.clear()
        two().fit(X, labels)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert reason in record.getMessage()
        caplog.clear()
        two(verbose=0).fit(X, labels)
        two(fusion=SoftVoting()).fit(X, labels)
        assert not caplog.records


def test_fitted_strategies_say_what_they_have_learned() -> None:
    def said(fusion: Any) -> str:
        assert repr(fusion) == f"{type(fusion).__name__}()"
        return repr(two(fusion=fusion).fit(FRAME, Y).fusion_)

    assert said(LogOpinionPool()).startswith("LogOpinionPool(), powers: facts ")
    assert said(EnsembleSelection()).startswith("EnsembleSelection(), shares: facts ")
    linear = MultimodalClassifier(
        [("facts", StandardScaler(), ["price"]), ("state", OneHotEncoder(handle_unknown="ignore"), ["state"])],
        fusion=LinearFusion(),
    ).fit(FRAME, Y)
    assert repr(linear.fusion_).startswith("LinearFusion(), penalties (inf: turned off): facts ")


def test_bytes_that_were_written_as_text() -> None:
    for text, hint in ((str(png(0)), "looks like bytes that were written as text"), ("x" * 5000, "and no path")):
        with pytest.raises(OSError) as raised:  # noqa: PT011 (of which kind, the system says)
            Path(text).read_bytes()
        said = why_unreadable(text, raised.value)
        assert len(said) < 200
        assert hint in said
