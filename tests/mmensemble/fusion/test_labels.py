"""Members and meta-learners that learn nothing but 0, 1, ... take part, whatever the labels are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mmensemble import (
    EnsembleSelection,
    HardVoting,
    LogOpinionPool,
    MultimodalClassifier,
    OnnxPredictor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    export_onnx,
    member_disagreement,
)

N = 90
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.arange(N) % 3)
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - 2 * (KIND == 1)})
# No row of the second class has an a.
GAPS = X.where(np.column_stack([KIND != 1, RNG.random(N) > 0.2]))

LABELS = {
    "strings": np.array(["one", "three", "two"])[KIND],
    "booleans": KIND == 1,
    "gaps": np.array([-3, 4, 10])[KIND],
    "objects": pd.Series(np.array(["one", "three", "two"])[KIND], dtype=object),
}


class Picky(LogisticRegression):
    """A classifier that refuses labels other than 0, 1, ..., as those of some libraries do."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Picky:
        if not np.array_equal(np.unique(y), np.arange(len(np.unique(y)))):
            raise ValueError(f"Invalid classes: {np.unique(y)}")
        return super().fit(X, y, sample_weight)


STRATEGIES: dict[str, Any] = {
    "SoftVoting": SoftVoting(),
    "HardVoting": HardVoting(),
    "ProductOfExperts": ProductOfExperts(),
    "LogOpinionPool": LogOpinionPool(cv=3),
    "EnsembleSelection": EnsembleSelection(n_rounds=4, cv=3),
    "SuperLearner": SuperLearner(cv=3),
    "Stacking": Stacking(Picky(), cv=3),
}


def composition(fusion: Any, member: Any) -> MultimodalClassifier:
    return MultimodalClassifier([("a", member, ["a"]), ("b", member, ["b"])], fusion=fusion)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_picky_member_learns_any_labels(strategy: str, labels: str, tmp_path: Path) -> None:
    y = LABELS[labels]
    # Boolean labels leave a member of two classes with one where a class has no a.
    frame = X if labels == "booleans" else GAPS
    picky = composition(STRATEGIES[strategy], make_pipeline(StandardScaler(), Picky())).fit(frame, y)
    plain = composition(STRATEGIES[strategy], make_pipeline(StandardScaler(), LogisticRegression())).fit(frame, y)
    np.testing.assert_array_equal(picky.predict_proba(frame), plain.predict_proba(frame))
    assert set(picky.predict(frame)) <= set(y)
    assert picky.score(frame, y) > 0.5
    assert [m.labels[0].tolist() for m in picky.fusion_.members_][1] == np.unique(y).tolist()
    assert [m.labels[0].dtype for m in picky.fusion_.members_] == [np.unique(y).dtype] * 2
    if labels != "booleans":
        assert not picky.transform(frame)[:, 1].any(), "the class that no row with an a has"
    export_onnx(plain, tmp_path / "model.onnx", verify=frame)
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    assert predictor.predict(frame).tolist() == plain.predict(frame).tolist()
    alone = member_disagreement(plain, frame, np.asarray(y)).predictions
    assert set(alone["a"].dropna()) <= set(y)


def test_a_class_that_no_member_knows() -> None:
    """The meta-learner's numbers are consecutive too."""
    frame = X.where(np.column_stack([KIND != 1] * 2))
    model = composition(Stacking(Picky(), cv=3), Picky()).fit(frame, LABELS["strings"])
    assert model.fusion_.final_labels_[0].tolist() == ["one", "two"]
    assert not model.predict_proba(frame)[KIND != 1, 1].any()


def test_columns_of_labels(tmp_path: Path) -> None:
    y = pd.DataFrame({"kind": LABELS["strings"], "is": KIND == 1, "number": 10 * (KIND == 2) + 3})
    for strategy in (SoftVoting(), Stacking(MultiOutputClassifier(Picky()), cv=3)):
        model = composition(strategy, MultiOutputClassifier(Picky())).fit(X, y)
        assert [labels.tolist() for labels in model.classes_] == [["one", "three", "two"], [False, True], [3, 13]]
        assert [type(value) for value in model.predict(X)[0].tolist()] == [str, bool, int]
    plain = composition(SoftVoting(), MultiOutputClassifier(LogisticRegression())).fit(X, y)
    for column, other in zip(
        composition(SoftVoting(), MultiOutputClassifier(Picky())).fit(X, y).predict_proba(X),
        plain.predict_proba(X),
        strict=True,
    ):
        np.testing.assert_array_equal(column, other)
    export_onnx(plain, tmp_path / "model.onnx", verify=X)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_columns_of_two_labels_are_independent_labels_to_members(tmp_path: Path) -> None:
    """So classifiers that learn a 0/1 matrix and no other columns take part."""
    y = np.column_stack([np.where(KIND == 0, "x", "y"), np.where(KIND == 1, "u", "v")])
    network = MLPClassifier(max_iter=20, random_state=0)
    model = composition(SoftVoting(), network).fit(X, y)
    alone = [MLPClassifier(max_iter=20, random_state=0).fit(X[[c]], (y == ["y", "v"]).astype(int)) for c in "ab"]
    second = np.mean([member.predict_proba(X[[c]]) for member, c in zip(alone, "ab", strict=True)], axis=0)
    for column, p in zip(model.predict_proba(X), second.T, strict=True):
        np.testing.assert_allclose(column, np.column_stack([1 - p, p]), rtol=1e-6)


# Members that read the labels


def test_parameters_that_name_labels() -> None:
    y = LABELS["strings"]
    weights = {"one": 5.0, "two": 1.0, "three": 0.1}
    for member in (
        LogisticRegression(class_weight=weights),
        CalibratedClassifierCV(LogisticRegression(class_weight=weights)),
    ):
        model = composition(SoftVoting(), make_pipeline(StandardScaler(), member)).fit(X, y)
        alone = make_pipeline(StandardScaler(), member).fit(X[["a"]], y)
        np.testing.assert_array_equal(model.transform(X)[:, :3], alone.predict_proba(X[["a"]]))
        assert model.estimators_[0].classes_.tolist() == ["one", "three", "two"]
        assert model.fusion_.members_[0].labels is None
    nested = MultimodalClassifier(
        [("in", composition(None, LogisticRegression(class_weight=weights)), ["a", "b"])]
    ).fit(X, y)
    alone = composition(None, LogisticRegression(class_weight=weights)).fit(X, y)
    np.testing.assert_allclose(nested.predict_proba(X), alone.predict_proba(X))
    threshold = FixedThresholdClassifier(
        LogisticRegression(), threshold=0.9, pos_label="x", response_method="predict_proba"
    )
    two = np.where(KIND == 1, "x", "y")
    model = composition(SoftVoting(), threshold).fit(X, two)
    assert model.estimators_[0].predict(X[["a"]]).tolist() == threshold.fit(X[["a"]], two).predict(X[["a"]]).tolist()


def test_class_weights_of_columns() -> None:
    from sklearn.ensemble import RandomForestClassifier

    y = np.column_stack([LABELS["gaps"], np.where(KIND == 0, 5, 7)])
    forest = RandomForestClassifier(3, random_state=0, class_weight=[{-3: 9, 4: 1, 10: 1}, {5: 1, 7: 2}])
    model = composition(SoftVoting(), forest).fit(X, y)
    expected = np.hstack(forest.fit(X[["a"]], y).predict_proba(X[["a"]]))
    np.testing.assert_array_equal(model.transform(X)[:, :5], expected)


def test_a_member_that_was_fitted_before() -> None:
    y = LABELS["strings"]
    before = LogisticRegression().fit(X[["a"]], y)
    members = [("a", FrozenEstimator(before), ["a"]), ("b", Picky(), ["b"])]
    for strategy in (SoftVoting(), Stacking(cv=3)):
        model = MultimodalClassifier(members, fusion=strategy).fit(X, y)
        np.testing.assert_array_equal(model.transform(X)[:, :3], before.predict_proba(X[["a"]]))


# Of other libraries


def boosted(library: str) -> Any:
    if library == "catboost":
        catboost = pytest.importorskip("catboost")
        return catboost.CatBoostClassifier(n_estimators=5, verbose=0, allow_writing_files=False, thread_count=1)
    if library == "skorch":
        torch, skorch = pytest.importorskip("torch"), pytest.importorskip("skorch")
        network = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Softmax(dim=-1))
        net = skorch.NeuralNetClassifier(network, max_epochs=3, train_split=None, verbose=0)
        return make_pipeline(StandardScaler(), AsSinglePrecision(), net)
    xgboost = pytest.importorskip("xgboost")
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=1)


class AsSinglePrecision(StandardScaler):
    """Gives float32."""

    def transform(self, X: Any, copy: Any = None) -> np.ndarray:
        return super().transform(X).astype(np.float32)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("library", ["xgboost", "catboost", "skorch"])
def test_members_of_other_libraries(library: str, labels: str) -> None:
    member, y = boosted(library), LABELS[labels]
    frame = X if labels == "booleans" else GAPS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        final = LogisticRegression() if library == "skorch" else member
        model = composition(Stacking(final, cv=3), member).fit(frame, y)
        assert set(model.predict(frame)) <= set(y)
        np.testing.assert_allclose(model.predict_proba(frame).sum(axis=1), 1)
        if library == "skorch":
            return  # a network as small predicts outputs that it has for no class
        assert set(member_disagreement(model, frame).predictions["b"].dropna()) <= set(y)


@pytest.mark.parametrize("strategy", ["SoftVoting", "LogOpinionPool", "EnsembleSelection", "SuperLearner"])
def test_a_composition_within_another_learns_what_it_learns_alone(strategy: str, tmp_path: Path) -> None:
    """Two columns of two labels each are numbered 0 and 1, and are no labels that need not be one of two."""
    y = np.column_stack([np.array(["no", "yes"])[(KIND > 0).astype(int)], np.array(["even", "odd"])[np.arange(N) % 2]])
    alone = composition(STRATEGIES[strategy], DecisionTreeClassifier(max_depth=2)).fit(X, y)
    outer = MultimodalClassifier(
        [("inner", composition(STRATEGIES[strategy], DecisionTreeClassifier(max_depth=2)), ["a", "b"])]
    )
    outer.fit(X, y)
    inner = outer.named_estimators_["inner"]
    assert inner.fusion_.task_.label_sets, "each column is a choice of one label"
    np.testing.assert_allclose(outer.predict_proba(X), alone.predict_proba(X), rtol=1e-12)
    assert (outer.predict(X) == alone.predict(X)).all()
    export_onnx(outer, tmp_path / "model.onnx", verify=X)


def test_a_composition_within_another_whose_rows_have_one_label_of_a_column() -> None:
    y = np.column_stack([np.where(KIND > 0, "yes", "no"), np.where(np.arange(N) % 2, "odd", "even")])
    inner = composition(SoftVoting(), DecisionTreeClassifier(max_depth=2))
    frame = X.where(np.column_stack([KIND > 0] * 2)).assign(c=RNG.normal(size=N))
    members = [("inner", inner, ["a", "b"]), ("c", DecisionTreeClassifier(max_depth=2), ["c"])]
    model = MultimodalClassifier(members, fusion=SoftVoting()).fit(frame, y)
    np.testing.assert_allclose(np.hstack(model.predict_proba(frame)).sum(axis=1), 2)
    assert (model.transform(frame)[KIND > 0, 1] == 1).all(), "all its rows are yes"
