"""The super learner: what it compares, how honestly, and what it takes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mmensemble import (
    EnsembleSelection,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    MultimodalRegressor,
    OnnxPredictor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    export_onnx,
)
from mmensemble.exceptions import ConfigurationError
from mmensemble.fusion import Fusion, LateFusion
from mmensemble.fusion.candidates import named_candidates
from mmensemble.graph import to_graph

N = 240
RNG = np.random.default_rng(0)
KIND = RNG.permutation(np.arange(N) % 3)
X = pd.DataFrame({"a": RNG.normal(size=N) + KIND, "b": RNG.normal(size=N) - 2 * (KIND == 1), "c": RNG.normal(size=N)})
GAPS = X.where(RNG.random(X.shape) > 0.25)
Y = np.array(["x", "y", "z"])[KIND]
CV = StratifiedKFold(4, shuffle=True, random_state=0)
MEMBERS = [
    ("a", LogisticRegression(), ["a"]),
    ("b", GaussianNB(), ["b"]),
    ("c", DecisionTreeClassifier(max_depth=2, random_state=0), ["c"]),
]


def fitted(candidates: Any = None, frame: pd.DataFrame = X, y: Any = Y, members: Any = MEMBERS, **fit: Any) -> Any:
    return MultimodalClassifier(members, fusion=SuperLearner(candidates, cv=CV)).fit(frame, y, **fit)


# The comparison


def test_losses_are_those_of_rows_that_nothing_was_fitted_on() -> None:
    scores = fitted([SoftVoting(), SoftVoting([3, 1, 0]), ProductOfExperts()]).fusion_.scores_
    held_out = [cross_val_predict(e, X[c], Y, cv=CV, method="predict_proba") for _, e, c in MEMBERS]
    product = np.prod(np.maximum(held_out, 1e-12), axis=0)
    expected = {
        **dict(zip("abc", held_out, strict=True)),
        "SoftVoting 1": np.mean(held_out, axis=0),
        "SoftVoting 2": (3 * held_out[0] + held_out[1]) / 4,
        "ProductOfExperts": product / product.sum(axis=1, keepdims=True),
    }
    assert [*scores.index] == [*expected, "mixture"]
    assert scores["kind"].tolist() == ["member"] * 3 + ["strategy"] * 3 + ["mixture"]
    losses = {name: -np.log(np.maximum(p[np.arange(N), KIND], 1e-12)) for name, p in expected.items()}
    for name, of_rows in losses.items():
        assert scores.loc[name, "loss"] == pytest.approx(of_rows.mean(), rel=1e-9)
        assert scores.loc[name, "loss_se"] == pytest.approx(of_rows.std() / np.sqrt(N), rel=1e-9)
    # The mixture, of all these, by plain search for the shares of the other folds.
    truth, mixed = np.stack([p[np.arange(N), KIND] for p in expected.values()]), np.zeros(N)
    for rows, rest in CV.split(X, Y):
        mixed[rest] = mixture_of(truth[:, rows]) @ truth[:, rest]
    losses["mixture"] = -np.log(mixed)
    assert scores.loc["mixture", "loss"] == pytest.approx(losses["mixture"].mean(), rel=1e-3)
    best = min(losses, key=lambda name: losses[name].mean())
    assert scores["loss"].idxmin() == best
    behind = losses["a"] - losses[best]
    assert scores.loc["a", "behind"] == pytest.approx(behind.mean(), rel=1e-2)
    assert scores.loc["a", "behind_se"] == pytest.approx(behind.std() / np.sqrt(N), rel=1e-2)


def mixture_of(truth: np.ndarray) -> np.ndarray:
    """Shares of the highest likelihood of the truth, whose probabilities are (n_candidates, n), by EM.

    Those below a twentieth are left out, and the others found anew.
    """
    among = np.ones(len(truth), dtype=bool)
    while True:
        shares = among / among.sum()
        for _ in range(20_000):
            shares = shares * (truth / (shares @ truth)).mean(axis=1)
        if shares[among].min() >= 0.05:
            return shares
        among = shares >= 0.05


class ByHeart(LateFusion):
    """Knows the class of each row that it has learned from, by the first member's output."""

    def __init__(self, cv: Any = 5) -> None:
        self.cv = cv

    def learns(self, task: Any) -> bool:
        return True

    def learn(self, outputs: np.ndarray, present: np.ndarray, y: np.ndarray, X: Any, sample_weight: Any) -> None:
        self.known_ = {tuple(row): label for row, label in zip(outputs[0].tolist(), y.tolist(), strict=True)}

    def combine(self, xp: Any, outputs: Sequence[Any], present: Sequence[Any], rows: Any) -> Any:
        labels = [self.known_.get(tuple(row)) for row in outputs[0].tolist()]
        return np.stack([np.full(3, 1 / 3) if label is None else np.eye(3)[label] for label in labels])


def test_a_rule_is_judged_by_rows_that_it_has_not_learned_from() -> None:
    model = fitted([ByHeart(), LogOpinionPool()])
    scores = model.fusion_.scores_
    assert scores.loc["ByHeart", "loss"] == pytest.approx(np.log(3))
    assert scores.loc["ByHeart", "share"] == 0
    assert model.fusion_.chosen_ == "LogOpinionPool"
    # Learned from all rows in the end.
    alone = MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X), alone.predict_proba(X), rtol=1e-12)


def test_learned_rules_are_learned_again_for_each_fold() -> None:
    scores = fitted([EnsembleSelection(n_rounds=5), Stacking(LogisticRegression()), LogOpinionPool()]).fusion_.scores_
    held_out = np.stack([cross_val_predict(e, X[c], Y, cv=CV, method="predict_proba") for _, e, c in MEMBERS])
    features, made = np.hstack(list(held_out)), np.zeros((N, 3))
    for rows, rest in CV.split(X, Y):
        made[rest] = LogisticRegression().fit(features[rows], Y[rows]).predict_proba(features[rest])
    assert scores.loc["Stacking", "loss"] == pytest.approx(log_loss(Y, made), rel=1e-6)


class Counting(GaussianNB):
    """Counts how often one is fitted."""

    fits = 0

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Counting:
        Counting.fits += 1
        return super().fit(X, y, sample_weight)


def test_a_member_is_fitted_once_per_fold_whatever_the_candidates() -> None:
    Counting.fits = 0
    fitted(members=[("a", Counting(), ["a"]), ("b", Counting(), ["b"])])
    assert Counting.fits == 2 * (4 + 1)


# The choice


@pytest.mark.parametrize("seed", range(4))
def test_noise_beside_a_good_member_does_no_harm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    odds = rng.normal(scale=2.5, size=1200)
    frame = pd.DataFrame({"good": odds, "one": rng.normal(size=1200), "two": rng.normal(size=1200)})
    y = rng.random(1200) < expit(odds)
    members = [("good", LogisticRegression(), ["good"])]
    noise = [(name, DecisionTreeClassifier(max_depth=6, random_state=0), [name]) for name in ("one", "two")]
    fitting, new = slice(0, 600), slice(600, None)
    loss = {}
    for name, model in {
        "alone": MultimodalClassifier(members),
        "chosen": MultimodalClassifier([*members, *noise], fusion=SuperLearner()),
        "average": MultimodalClassifier([*members, *noise], fusion=SoftVoting()),
    }.items():
        loss[name] = log_loss(y[new], model.fit(frame[fitting], y[fitting]).predict_proba(frame[new]))
    assert loss["chosen"] < loss["alone"] + 0.01 < loss["average"] - 0.03


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    """Two members that say nearly the same: the mean may be a little better, and is not worth it."""
    frame = X.assign(d=X["b"] + 0.01 * X["c"])
    members = [("b", LogisticRegression(), ["b"]), ("d", LogisticRegression(), ["d"])]
    model = fitted([SoftVoting()], frame, members=members)
    scores = model.fusion_.scores_
    assert scores["kind"][model.fusion_.chosen_] == "member"
    assert scores.loc[model.fusion_.chosen_, "loss"] == scores["loss"][:2].min()
    assert scores["share"].iloc[:2].sum() == 1
    assert model.fusion_.shares_.tolist() == [1]
    number = ["b", "d"].index(model.fusion_.chosen_)
    alone = model.estimators_[number].predict_proba(frame[["bd"[number]]])
    np.testing.assert_array_equal(model.predict_proba(frame), alone)


def test_a_strategy_that_is_clearly_better_than_each_member_is_taken() -> None:
    model = fitted()
    scores = model.fusion_.scores_
    strategies = scores[scores["kind"] == "strategy"]
    assert (scores["behind"] > scores["behind_se"])[scores["kind"] == "member"].all()
    assert model.fusion_.chosen_ == strategies["loss"].idxmin()
    assert scores["share"][model.fusion_.chosen_] == 1


class Says(ClassifierMixin, BaseEstimator):
    """Takes a column for the probability of the second class."""

    def fit(self, X: Any, y: Any) -> Says:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        p = np.asarray(X)[:, 0]
        return np.column_stack([1 - p, p])


def test_a_mixture_is_found_where_the_truth_is_one() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.choice([0.05, 0.95], size=(3000, 3)), columns=["a", "b", "c"])
    y = rng.random(3000) < 0.7 * frame["a"] + 0.3 * frame["b"]
    model = fitted([], frame, y, [(name, Says(), [name]) for name in "abc"])
    fusion = model.fusion_
    assert fusion.chosen_ == "mixture"
    assert [name for name, _ in fusion.candidates_] == ["a", "b"]
    np.testing.assert_allclose(fusion.shares_, [0.7, 0.3], atol=0.04)
    assert fusion.shares_.sum() == pytest.approx(1)
    assert fusion.scores_["share"].iloc[:3].tolist() == [*fusion.shares_, 0]
    np.testing.assert_allclose(model.predict_proba(frame)[:, 1], frame[["a", "b"]] @ fusion.shares_)


def test_the_mixture_is_judged_by_shares_of_other_folds() -> None:
    """Members that know one fold each: shares that were learned from it would be believed."""
    folds = [(np.flatnonzero(np.arange(N) % 2 != k), np.flatnonzero(np.arange(N) % 2 == k)) for k in (0, 1)]
    y = RNG.random(N) < 0.5
    knows = [np.where(np.arange(N) % 2 == k, np.where(y, 0.9, 0.1), np.where(y, 0.1, 0.9)) for k in (0, 1)]
    frame = pd.DataFrame({"a": knows[0], "b": knows[1]})
    members = [(name, Says(), [name]) for name in "ab"]
    model = MultimodalClassifier(members, fusion=SuperLearner([], cv=folds)).fit(frame, y)
    # On the rows of one fold the other member is right, so that the shares mislead.
    assert model.fusion_.scores_.loc["mixture", "loss"] == pytest.approx(-np.log(0.1), rel=0.02)


def test_related_rows_count_as_one() -> None:
    frame, y, groups = X[:60].loc[np.arange(60).repeat(4)], Y[:60].repeat(4), np.arange(60).repeat(4)
    frame = frame.reset_index(drop=True).assign(item=groups)
    members = [MEMBERS[0], ("prior", DummyClassifier(strategy="prior"), ["b"])]

    def errors(cv: Any, **fit: Any) -> np.ndarray:
        model = MultimodalClassifier(members, fusion=SuperLearner([SoftVoting()], cv=cv)).fit(frame, y, **fit)
        return model.fusion_.scores_[["loss_se", "behind_se"]].to_numpy()

    known = errors(5, groups=groups)
    np.testing.assert_allclose(errors("item"), known)
    unknown = errors(list(GroupKFold(5).split(frame, y, groups)))
    np.testing.assert_allclose(known, 2 * unknown, rtol=1e-6)  # four rows say what one does


def test_rows_that_have_no_member_or_no_weight_do_not_count() -> None:
    frame, weight = X.copy(), np.ones(N)
    frame.loc[:19, :] = np.nan
    weight[20:40] = 0
    scores = fitted([SoftVoting()], frame, sample_weight=weight, members=MEMBERS[:2]).fusion_.scores_
    y = np.where(np.arange(N) < 40, np.roll(Y, 1), Y)
    others = fitted([SoftVoting()], frame, y, sample_weight=weight, members=MEMBERS[:2]).fusion_.scores_
    assert scores["loss_se"].between(0, 0.2).all()
    assert abs(scores["loss"] - others["loss"]).max() < 0.2


# Missing modalities


def test_a_member_that_is_chosen_leaves_its_gaps_to_the_others() -> None:
    frame = X.assign(b=KIND + 0.1 * X["c"], same=1.0)
    members = [("b", LogisticRegression(C=100), ["b"]), *[(name, LogisticRegression(), [name]) for name in "ac"]]
    model = fitted([SoftVoting()], frame, members=members)
    assert model.fusion_.chosen_ == "b"
    gone = frame.assign(b=np.nan)
    others = [e.predict_proba(frame[[name]]) for e, name in zip(model.estimators_[1:], "ac", strict=True)]
    np.testing.assert_allclose(model.predict_proba(gone), np.mean(others, axis=0))
    np.testing.assert_allclose(model.predict_proba(gone.assign(c=np.nan)), others[0])
    np.testing.assert_allclose(model.predict_proba(gone.assign(a=np.nan, c=np.nan)), [model.fusion_.prior_] * N)


def test_a_row_that_misses_modalities_is_as_in_the_chosen_strategy() -> None:
    for strategy in (LogOpinionPool(cv=CV), Stacking(cv=CV)):
        model = fitted([strategy], GAPS)
        assert model.fusion_.chosen_ == type(strategy).__name__
        alone = MultimodalClassifier(MEMBERS, fusion=strategy).fit(GAPS, Y)
        np.testing.assert_allclose(model.predict_proba(GAPS), alone.predict_proba(GAPS), rtol=1e-9)


# Numbers


def test_numbers_are_compared_by_squared_error() -> None:
    y = np.column_stack([3 * X["a"] + X["b"] + RNG.normal(size=N), 1e-3 * X["b"]])
    members = [("a", LinearRegression(), ["a"]), ("b", Ridge(), ["b"])]
    cv = KFold(4, shuffle=True, random_state=0)
    model = MultimodalRegressor(members, fusion=SuperLearner([SoftVoting(), Stacking()], cv=cv)).fit(X, y)
    for name, (_, estimator, columns) in zip("ab", members, strict=True):
        away = (cross_val_predict(estimator, X[columns], y, cv=cv) - y) ** 2 / y.var(axis=0)
        assert model.fusion_.scores_.loc[name, "loss"] == pytest.approx(away.mean(), rel=1e-9)
    assert model.fusion_.chosen_ == "Stacking", "of which alone each target takes what it needs of both members"
    assert model.score(X, y) > 0.8


# Strategies with members of their own


def linear_members() -> list[Any]:
    return [
        ("a", make_pipeline(StandardScaler(), LogisticRegression()), ["a"]),
        ("b", make_pipeline(StandardScaler(), GaussianNB()), ["b"]),
    ]


def test_a_linear_fusion_is_fitted_by_the_folds_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    monkeypatch.setattr(LinearFusion, "fit", lambda *args, **kwargs: fits.append(args))
    model = MultimodalClassifier(linear_members(), fusion=SuperLearner([LinearFusion(cv=2)], cv=CV)).fit(X, Y)
    fusion = model.fusion_
    assert fusion.chosen_ == "LinearFusion", fusion
    assert not fits, "it was fitted to all rows when it predicted those that were held out"
    [(_, linear)] = fusion.candidates_
    monkeypatch.undo()
    alone = MultimodalClassifier(linear_members(), fusion=LinearFusion(cv=CV)).fit(X, Y)
    assert linear.penalties_ == alone.fusion_.penalties_
    np.testing.assert_allclose(model.predict_proba(GAPS), alone.predict_proba(GAPS), rtol=1e-9)
    # What it says of held-out rows is what models of the other rows say, by the same penalties.
    made = np.zeros((N, 3))
    for fitting, held_out in CV.split(X, Y):
        scaled = [StandardScaler().fit(X[[c]]) for c in "ab"]
        one, other = (
            np.hstack([s.transform(X[[c]].iloc[rows]) for s, c in zip(scaled, "ab", strict=True)])
            for rows in (fitting, held_out)
        )
        size = np.sqrt([linear.penalties_[c] for c in "ab"])
        classifier = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(one / size, Y[fitting])
        made[held_out] = classifier.predict_proba(other / size)
    assert fusion.scores_.loc["LinearFusion", "loss"] == pytest.approx(log_loss(Y, made), rel=1e-4)


def test_linear_fusion_is_a_candidate_where_members_make_features() -> None:
    assert "LinearFusion" in fitted(members=linear_members()).fusion_.scores_.index
    learned = [("a", LinearDiscriminantAnalysis(), ["a"]), *linear_members()[1:]]
    assert "LinearFusion" not in fitted(members=learned).fusion_.scores_.index, "its features are learned from y"
    words = X.assign(name=np.where(KIND == 1, "red", "blue"))
    picky = [*linear_members(), ("trees", WordTree(), ["name"])]
    fusion = fitted(members=picky, frame=words).fusion_
    assert [*fusion.left_out_] == ["LinearFusion"]
    assert "'trees' gives the fusion no numbers" in fusion.left_out_["LinearFusion"]
    assert "without LinearFusion: member 'trees'" in repr(fusion)
    with pytest.raises(ConfigurationError, match="'trees' gives the fusion no numbers"):
        fitted([LinearFusion()], members=picky, frame=words)


class WordTree(DecisionTreeClassifier):
    """Reads words itself."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> WordTree:
        return super().fit(X == "red", y, sample_weight)

    def predict_proba(self, X: Any) -> Any:
        return super().predict_proba(X == "red")


def test_a_linear_fusion_beside_late_ones_is_exported(tmp_path: Path) -> None:
    model = fitted([LinearFusion(), Stacking()], GAPS, members=linear_members())
    fusion = model.fusion_
    named = dict(named_candidates([LinearFusion(), Stacking()]))
    fusion.candidates_ = [
        (name, MultimodalClassifier(linear_members(), fusion=strategy).fit(GAPS, Y).fusion_)
        for name, strategy in named.items()
    ]
    fusion.shares_ = np.array([0.25, 0.75])
    parts = [strategy.outputs(GAPS) for _, strategy in fusion.candidates_]
    expected = 0.25 * parts[0] + 0.75 * parts[1]
    np.testing.assert_allclose(model.predict_proba(GAPS), expected, rtol=1e-9)
    export_onnx(model, tmp_path / "mixed.onnx", verify=GAPS)
    np.testing.assert_allclose(OnnxPredictor(tmp_path / "mixed.onnx").predict_proba(GAPS), expected, atol=1e-5)


class Together(Fusion):
    """One linear model of all columns, in place of one for each member."""

    fits = 0

    def fit(self, members: Any, X: Any, target: Any, **metadata: Any) -> Together:
        Together.fits += 1
        self.members_, self.task_, self.prior_ = list(members), target.task, target.prior
        columns = [column for member in members for column in member.columns]
        linear = make_pipeline(StandardScaler(), LogisticRegression())
        self.model_ = MultimodalClassifier([("all", linear, columns)], fusion=SoftVoting()).fit(X, target.y)
        return self

    def outputs(self, X: Any) -> np.ndarray:
        return self.model_.predict_proba(X)

    def transform(self, X: Any) -> np.ndarray:
        return self.model_.transform(X)

    def get_feature_names_out(self) -> list[str]:
        return list(self.model_.get_feature_names_out())

    def __onnx_graph__(self, source: Any) -> Any:
        return to_graph(self.model_, source)


@pytest.mark.parametrize("kind", ["alone", "in a mixture"])
def test_a_strategy_with_members_of_its_own(kind: str, tmp_path: Path) -> None:
    Together.fits = 0
    model = fitted([Together(), LogOpinionPool()])
    fusion = model.fusion_
    assert Together.fits == 4 + 1
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    held_out = cross_val_predict(linear, X, Y, cv=CV, method="predict_proba")
    assert fusion.scores_.loc["Together", "loss"] == pytest.approx(log_loss(Y, held_out), rel=1e-6)
    expected = linear.fit(X, Y).predict_proba(X)
    if kind == "in a mixture":
        pool = MultimodalClassifier(MEMBERS, fusion=LogOpinionPool(cv=CV)).fit(X, Y)
        fusion.candidates_ = [("LogOpinionPool", pool.fusion_), *fusion.candidates_]
        fusion.shares_ = np.array([0.25, 0.75])
        expected = 0.75 * expected + 0.25 * pool.predict_proba(X)
    else:
        assert fusion.chosen_ == "Together"
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-6)
    export_onnx(model, tmp_path / "model.onnx", verify=X)
    made = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(X)
    np.testing.assert_allclose(made, expected, atol=1e-5)


# As an estimator


def test_only_what_the_choice_needs_is_exported(tmp_path: Path) -> None:
    members = [*MEMBERS[:2], ("c", LogisticRegression(), ["c"])]
    model = fitted([SoftVoting([1, 1, 0])], members=members)
    assert model.fusion_.chosen_ == "SoftVoting"
    assert export_onnx(model, tmp_path / "model.onnx", verify=X).columns == ["a", "b"]


def test_a_mixture_is_exported(tmp_path: Path) -> None:
    model = fitted(frame=GAPS)
    stacking = MultimodalClassifier(MEMBERS, fusion=Stacking(cv=CV)).fit(GAPS, Y)
    chosen = model.fusion_
    chosen.candidates_ = [("LogOpinionPool", fitted([LogOpinionPool()], GAPS).fusion_), ("Stacking", stacking.fusion_)]
    chosen.shares_ = np.array([0.4, 0.6])
    export_onnx(model, tmp_path / "model.onnx", verify=GAPS)
    made = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(GAPS)
    np.testing.assert_allclose(made, model.predict_proba(GAPS), atol=1e-5)


def test_search_and_clone() -> None:
    model = MultimodalClassifier(MEMBERS)
    grid = [{"fusion": [SuperLearner(), Stacking()], "fusion__cv": [2, 3]}]
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    fusion = SuperLearner([SoftVoting([1, 2]), Stacking()], cv=3)
    assert clone(fusion).candidates[0].weights == [1, 2]
    assert clone(fusion).candidates[0] is not fusion.candidates[0]


def test_dropped_members_are_dropped_from_the_candidates() -> None:
    fusion = SuperLearner([SoftVoting([1, 5, 2])], cv=CV)
    model = MultimodalClassifier(MEMBERS, fusion=fusion).set_params(a="drop").fit(X, Y)
    without = fitted([SoftVoting([5, 2])], members=MEMBERS[1:])
    pd.testing.assert_frame_equal(model.fusion_.scores_, without.fusion_.scores_)
    assert fusion.candidates[0].weights == [1, 5, 2]


def test_it_tells_what_it_chose(capsys: pytest.CaptureFixture[str]) -> None:
    model = MultimodalClassifier(MEMBERS, fusion=SuperLearner(cv=CV), verbose=True).fit(X, Y)
    told = capsys.readouterr().err
    assert f"chose {model.fusion_.chosen_!r}" in told
    for name in model.fusion_.scores_.index:
        assert name in repr(model.fusion_)
    assert repr(SuperLearner(cv=3)) == "SuperLearner(cv=3)"
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    pd.testing.assert_frame_equal(again.fusion_.scores_, model.fusion_.scores_)


@pytest.mark.parametrize("candidates", ["all", SoftVoting(), [LogisticRegression()], [SoftVoting]])
def test_candidates_that_cannot_be(candidates: Any) -> None:
    with pytest.raises(ConfigurationError, match="candidates must be a list of strategies"):
        fitted(candidates)


def test_parameters_of_candidates_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="SuperLearner is no candidate of another one"):
        fitted([SuperLearner()])
    with pytest.raises(ConfigurationError, match="SoftVoting has 2 weights for 3 members"):
        fitted([SoftVoting([1, 2])])
