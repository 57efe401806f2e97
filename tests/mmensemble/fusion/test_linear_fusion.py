"""One linear model over all members' representations."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import random_array
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mmensemble import (
    ConfigurationError,
    DataError,
    LinearFusion,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    Stacking,
    export_onnx,
)
from mmensemble.graph import Graph
from tests.mmensemble.fusion.test_tasks import GAPS, NUMBERS, TARGETS, composition, prior, scores
from tests.mmensemble.multimodal.test_multimodal import facts_member, items, text_member

X, Y = items(90)
MEMBERS = [("text", text_member(), "name"), ("facts", facts_member(), ["weight", "price"])]


def model(**params: Any) -> MultimodalClassifier:
    return MultimodalClassifier(MEMBERS, fusion=LinearFusion(**params))


def alone(name: str) -> MultimodalClassifier:
    return MultimodalClassifier([member for member in MEMBERS if member[0] == name], fusion=LinearFusion())


@pytest.mark.parametrize("kind", TARGETS)
def test_every_kind_of_target_with_gaps(kind: str, tmp_path: Path) -> None:
    y = TARGETS[kind]
    fitted = composition(kind, LinearFusion(cv=3), StandardScaler()).fit(GAPS, y)
    made, missing = scores(fitted, GAPS), GAPS.isna().all(axis=1).to_numpy()
    np.testing.assert_allclose(made[missing], np.tile(prior(kind, y), (missing.sum(), 1)))
    assert np.isfinite(made).all()
    assert fitted.transform(GAPS).shape == (len(GAPS), len(fitted.get_feature_names_out()))
    again = clone(fitted).fit(GAPS, y)
    np.testing.assert_array_equal(scores(again, GAPS), made)
    export_onnx(fitted, tmp_path / "model.onnx", verify=GAPS)
    exported = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    np.testing.assert_array_equal(exported.predict(GAPS[:9]).shape, fitted.predict(GAPS[:9]).shape)
    if kind not in NUMBERS:
        assert fitted.score(GAPS, y) > 0.2


def test_it_is_as_good_as_its_members_and_better() -> None:
    test, y = items(90, seed=1)
    together = model().fit(X, Y).score(test, y)
    assert together > max(alone(name).fit(X, Y).score(test, y) for name in ("text", "facts")) - 0.02
    assert together > 0.95


def test_what_members_add_adds_up() -> None:
    fitted = model().fit(X, Y)
    proba = fitted.predict_proba(X)
    width = len(fitted.classes_)
    raw = fitted.transform(X).reshape(len(X), 2, width).sum(axis=1) + fitted.fusion_.patterns_[-1].intercept
    odds = np.exp(raw - raw.max(axis=1, keepdims=True))
    np.testing.assert_allclose(odds / odds.sum(axis=1, keepdims=True), proba, atol=1e-12)
    assert fitted.get_feature_names_out()[0] == "multimodalclassifier_text_fruit"


def test_final_estimators_are_not_fitted_and_steps_are() -> None:
    fitted = model().fit(X, Y)
    assert [step for step, _ in fitted.named_estimators_["text"].steps] == ["tfidfvectorizer"]
    bare = MultimodalClassifier(
        [("text", TfidfVectorizer(), "name"), ("facts", StandardScaler(), ["weight", "price"])], fusion=LinearFusion()
    ).fit(X, Y)
    np.testing.assert_array_equal(bare.predict_proba(X), fitted.predict_proba(X))


def test_a_member_that_says_nothing_is_turned_off() -> None:
    frame = X.assign(**{f"n{i}": np.random.default_rng(i).normal(size=len(X)) for i in range(60)})
    noise = [f"n{i}" for i in range(60)]
    members = [*MEMBERS, ("noise", StandardScaler(), noise)]
    fitted = MultimodalClassifier(members, fusion=LinearFusion()).fit(frame, Y)
    assert fitted.fusion_.penalties_["noise"] == np.inf
    assert any(np.isfinite(fitted.fusion_.penalties_[name]) for name in ("text", "facts"))


@pytest.mark.parametrize(("gone", "left"), [(["name"], "facts"), (["weight", "price"], "text")])
def test_a_row_without_a_modality_is_predicted_as_by_the_other_alone(gone: list[str], left: str) -> None:
    test, y = items(90, seed=2)
    fitted = model().fit(X, Y)
    for column in gone:
        test[column] = None if column == "name" else np.nan
    assert fitted.score(test, y) >= alone(left).fit(X, Y).score(test, y) - 0.05
    dropped = fitted.transform(test).reshape(len(test), 2, 3)[:, ["facts", "text"].index(left)]
    np.testing.assert_array_equal(dropped, 0)


def test_that_a_modality_is_missing_may_tell_something() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    told = rng.random(200) < 0.9
    frame = pd.DataFrame({"a": np.where((y == 1) & told, np.nan, rng.normal(size=200)), "b": rng.normal(size=200)})
    members = [(name, StandardScaler(), [name]) for name in "ab"]
    fitted = MultimodalClassifier(members, fusion=LinearFusion()).fit(frame, y)
    without = fitted.predict_proba(frame[frame["a"].isna()])[:, 1]
    assert without.mean() > 0.8


def test_weights_count_by_their_share() -> None:
    weight = 1.0 + (np.arange(len(X)) % 3 == 0)
    one, other = (clone(model()).fit(X, Y, sample_weight=factor * weight) for factor in (1, 5))
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-6)
    plain = model().fit(X, Y)
    assert np.abs(one.predict_proba(X) - plain.predict_proba(X)).max() > 1e-5


def test_a_weight_of_0_is_no_row() -> None:
    weight = np.where(np.arange(len(X)) < 80, 2.0, 0.0)
    splits = [(np.flatnonzero(np.arange(90) % 4 != k), np.flatnonzero(np.arange(90) % 4 == k)) for k in range(4)]
    fewer = [(a[a < 80], b[b < 80]) for a, b in splits]
    members = [("facts", StandardScaler(with_mean=False, with_std=False), ["weight", "price"])]
    one = MultimodalClassifier(members, fusion=LinearFusion(cv=splits)).fit(X, Y, sample_weight=weight)
    other = MultimodalClassifier(members, fusion=LinearFusion(cv=fewer)).fit(X[:80], Y[:80])
    assert one.fusion_.penalties_["facts"] == pytest.approx(other.fusion_.penalties_["facts"])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-6)


def test_groups_are_held_out_together() -> None:
    frame = pd.concat([X.assign(name=[f"unique{i}" for i in range(len(X))])] * 3, ignore_index=True)
    y, groups = np.tile(Y, 3), np.tile(np.arange(len(X)), 3)
    members = [("text", TfidfVectorizer(), "name"), ("facts", StandardScaler(), ["weight", "price"])]
    made = MultimodalClassifier(members, fusion=LinearFusion())
    by_group = clone(made).fit(frame, y, groups=groups).fusion_
    with pytest.warns(UserWarning, match="names? ?d? ?groups|related rows"):
        by_row = clone(made).fit(frame, y).fusion_
    assert by_group.held_out_loss_ > 1.2 * by_row.held_out_loss_
    split = made.set_params(fusion__cv=GroupKFold(5)).fit(frame, y, groups=groups).fusion_
    assert split.penalties_ == by_group.penalties_
    column = made.set_params(fusion__cv="id").fit(frame, y).fusion_
    assert column.held_out_loss_ > 1.2 * by_row.held_out_loss_


class Guess(TransformerMixin, BaseEstimator):
    """Remembers the class of each number: all there is to know of old rows, and nothing of new ones."""

    def fit(self, X: Any, y: Any) -> Guess:
        self.known_ = dict(zip(np.asarray(X)[:, 0].tolist(), np.asarray(y).tolist(), strict=True))
        return self

    def transform(self, X: Any) -> np.ndarray:
        return np.eye(4)[[self.known_.get(number, 3) for number in np.asarray(X)[:, 0].tolist()]]


def test_what_reads_y_does_so_inside_the_folds() -> None:
    fitted = MultimodalClassifier(
        [("guess", Guess(), ["id"]), ("facts", facts_member(), ["weight", "price"])], fusion=LinearFusion()
    ).fit(X, Y)
    assert fitted.fusion_.held_out_loss_ > 0.2  # known rows alone would make it 0
    selected = make_pipeline(StandardScaler(), SelectKBest(k=1), LogisticRegression())
    members = [("text", text_member(), "name"), ("facts", selected, ["weight", "price"])]
    assert MultimodalClassifier(members, fusion=LinearFusion()).fit(X, Y).score(X, Y) > 0.9


def test_one_hot_and_numbers_of_a_regression() -> None:
    frame = X.assign(word=[name.split()[1] for name in X["name"]])
    number = np.where(Y == "tool", 100.0, 0.0) + frame["price"]
    members = [("kind", OneHotEncoder(handle_unknown="ignore"), ["word"]), ("facts", make_pipeline(Ridge()), ["price"])]
    fitted = MultimodalRegressor(members, fusion=LinearFusion()).fit(frame, number)
    assert fitted.score(frame, number) > 0.99


def test_a_search_over_strategies_and_inside() -> None:
    grid = [{"fusion": [LinearFusion(), Stacking(cv=2)]}, {"fusion": [LinearFusion()], "fusion__cv": [2, 3]}]
    search = GridSearchCV(model(), grid, cv=2).fit(X, Y)
    assert search.best_score_ > 0.8
    assert LinearFusion(cv=7).get_params() == {"cv": 7}


def test_text_without_numbers_is_refused() -> None:
    members = [("name", FunctionTransformer(), "name")]
    with pytest.raises(ConfigurationError, match="gives the fusion no numbers"):
        MultimodalClassifier(members, fusion=LinearFusion()).fit(X, Y)


def test_not_finite_numbers_are_named_by_their_row() -> None:
    frame = X.assign(weight=X["weight"].mask(X.index == 33))
    with pytest.raises(DataError, match="SimpleImputer") as caught:
        model().fit(frame, Y)
    assert caught.value.row == 33
    with pytest.raises(DataError) as caught:
        model().fit(X, Y).predict(frame)
    assert caught.value.row == 33


def test_terms_are_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fitted = model().fit(X, Y)
    written: list[str] = []
    op = Graph.op

    def noted(self: Graph, op_type: str, *args: Any, **kwargs: Any) -> Any:
        written.append(op_type)
        return op(self, op_type, *args, **kwargs)

    monkeypatch.setattr(Graph, "op", noted)
    export_onnx(fitted, tmp_path / "model.onnx", verify=X)
    assert {"Gather", "Gemm", "Softmax"} <= set(written)


class Wide(TransformerMixin, BaseEstimator):
    """A sparse block of 200,000 columns, of which the first ones tell the class."""

    def fit(self, X: Any, y: Any = None) -> Wide:
        self.n_features_in_ = 1
        return self

    def transform(self, X: Any) -> Any:
        numbers = np.asarray(X)[:, 0].astype(int)
        noise = random_array((len(numbers), 200_000), density=1e-4, format="lil", rng=np.random.default_rng(0))
        noise[np.arange(len(numbers)), numbers % 2] = 1.0
        return noise.tocsr()


def test_a_wide_sparse_block_is_never_made_dense() -> None:
    frame = pd.DataFrame({"n": np.arange(5_000.0), "m": np.arange(5_000.0) % 7})
    members = [("wide", Wide(), ["n"]), ("numbers", StandardScaler(), ["m"])]
    made = MultimodalClassifier(members, fusion=LinearFusion(cv=2))
    tracemalloc.start()
    try:
        made.fit(frame, (np.arange(5_000) % 2).astype(int))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 600e6  # dense, it is 8 GB
    assert made.score(frame[:500], np.arange(500) % 2) > 0.9
