from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from mmensemble import ConfigurationError, MultimodalClassifier, SoftVoting, Stacking
from mmensemble.caching import Store

CV = 2


class Counted(ClassifierMixin, BaseEstimator):
    """A logistic regression that leaves a file in `log` at every fit, for workers have no variables in common."""

    def __init__(self, log: str, C: float = 1.0) -> None:
        self.log = log
        self.C = C

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Counted:
        time.sleep(0.03)  # work that is worth keeping
        log = Path(self.log)
        (log / joblib.hash((len(list(log.iterdir())), id(self), np.asarray(X), y))).touch()
        self.model_ = LogisticRegression(C=self.C).fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: Any) -> Any:
        return self.model_.predict_proba(X)

    def predict(self, X: Any) -> Any:
        return self.model_.predict(X)


@pytest.fixture(scope="module")
def X() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])


@pytest.fixture(scope="module")
def y(X: pd.DataFrame) -> np.ndarray:
    return (X["a"] + X["b"] > 0).to_numpy()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def model(log: Path, tmp_path: Path) -> MultimodalClassifier:
    return MultimodalClassifier(
        [("a", Counted(str(log)), ["a"]), ("b", Counted(str(log)), ["b"])],
        fusion=SoftVoting(),
        cache=tmp_path / "cache",
    )


def n_fits(log: Path) -> int:
    return len(list(log.iterdir()))


def test_without_a_cache_every_fit_fits(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    model.set_params(cache=None)
    model.fit(X, y).fit(X, y)
    assert n_fits(log) == 4


def test_a_second_fit_fits_no_member(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    first = clone(model).fit(X, y).predict_proba(X)
    assert n_fits(log) == 2
    second = clone(model).fit(X, y).predict_proba(X)
    assert n_fits(log) == 2
    np.testing.assert_array_equal(first, second)


def test_strategies_share_members_and_folds(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    clone(model).fit(X, y)
    stacking = clone(model).set_params(fusion=Stacking(cv=CV)).fit(X, y)
    assert n_fits(log) == 2 + 2 * CV, "two members for both strategies, and their folds"
    again = clone(model).set_params(fusion=Stacking(LogisticRegression(C=0.1), cv=CV)).fit(X, y)
    assert n_fits(log) == 2 + 2 * CV, "another meta-learner needs no other folds"
    assert not np.array_equal(stacking.predict_proba(X), again.predict_proba(X))
    clone(model).set_params(fusion=Stacking(cv=CV + 1)).fit(X, y)
    assert n_fits(log) == 2 + 2 * CV + 2 * (CV + 1)


def test_a_search_fits_each_member_once_per_fold(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    strategies = [SoftVoting(), SoftVoting(weights=[1, 2]), Stacking(cv=CV), Stacking(LogisticRegression(C=9), cv=CV)]
    search = GridSearchCV(model, {"fusion": strategies}, cv=2, refit=False).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert n_fits(log) == 2 * (2 + 2 * CV)


@pytest.mark.parametrize("fusion", [SoftVoting(), Stacking(cv=CV)], ids=["SoftVoting", "Stacking"])
@pytest.mark.parametrize("weighted", [False, True])
def test_results_are_the_same_with_and_without(
    model: MultimodalClassifier, X: Any, y: Any, fusion: Any, weighted: bool
) -> None:
    weight = np.linspace(0.1, 2, len(y)) if weighted else None
    model.set_params(fusion=fusion)
    without = clone(model).set_params(cache=None).fit(X, y, weight).predict_proba(X)
    for _ in range(2):
        np.testing.assert_array_equal(clone(model).fit(X, y, weight).predict_proba(X), without)


def test_what_changes_a_member_misses_the_cache(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    clone(model).fit(X, y)
    clone(model).set_params(a__C=0.5).fit(X, y)
    assert n_fits(log) == 3, "the other member is the same"
    changed = X.copy()
    changed.loc[0, "b"] += 1e-9
    clone(model).fit(changed, y)
    assert n_fits(log) == 4, "the other column is the same"
    clone(model).fit(X, ~y)
    assert n_fits(log) == 6
    clone(model).fit(X, y, np.ones(len(y)))
    assert n_fits(log) == 8


def test_fitted_members_are_copies(model: MultimodalClassifier, X: Any, y: Any) -> None:
    first = clone(model).fit(X, y)
    expected = first.predict_proba(X)
    first.named_estimators_.a.model_.coef_[:] = 0
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), expected)


def test_two_jobs(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    model.set_params(fusion=Stacking(cv=CV))
    alone = clone(model).set_params(cache=None, n_jobs=1).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clone(model).set_params(cache=None, n_jobs=2).fit(X, y).predict_proba(X), alone)
    before = n_fits(log)
    np.testing.assert_array_equal(clone(model).set_params(n_jobs=2).fit(X, y).predict_proba(X), alone)
    assert n_fits(log) == before + 2 + 2 * CV
    np.testing.assert_array_equal(clone(model).set_params(n_jobs=2).fit(X, y).predict_proba(X), alone)
    assert n_fits(log) == before + 2 + 2 * CV


def test_a_memory_is_taken_as_it_is_and_none_stores_nothing(tmp_path: Path) -> None:
    memory = joblib.Memory(tmp_path, verbose=0)
    assert Store.of(memory) == Store(memory, owned=False)
    assert Store.of(None).memory is None
    assert Store.of(joblib.Memory(None)).memory is None
    with pytest.raises(ConfigurationError, match=r"cache must be a folder, a joblib\.Memory or None, not 3"):
        Store.of(3)


def test_a_folder_is_one_store_however_it_is_written(
    model: MultimodalClassifier, log: Path, X: Any, y: Any, tmp_path: Path
) -> None:
    folder = str(tmp_path / "store")
    for cache in (folder, Path(folder), joblib.Memory(folder, verbose=0)):
        clone(model).set_params(cache=cache).fit(X, y)
        assert n_fits(log) == 2, f"{cache!r} did not find what the first one stored"


def test_folds_drawn_at_random_are_not_shared(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    for seed in (0, 1):
        cv = StratifiedKFold(CV, shuffle=True, random_state=seed)
        clone(model).set_params(fusion=Stacking(cv=cv)).fit(X, y)
    assert n_fits(log) == 2 + 2 * 2 * CV
