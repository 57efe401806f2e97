from __future__ import annotations

import itertools
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from mmensemble import ConfigurationError, EnsembleSelection, MultimodalClassifier, SoftVoting, Stacking
from mmensemble.cache import Store, is_active, is_storing, store
from mmensemble.learning.members import fit_member
from tests.mmensemble.cache.test_row_store import kill_three, squares, start

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


def test_a_fold_is_found_again_whoever_asks_for_it(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    clone(model).set_params(fusion=Stacking(cv=CV)).fit(X, y)
    fitted = n_fits(log)
    folds = list(StratifiedKFold(CV).split(X, y))
    for cv in (StratifiedKFold(CV), folds, folds[::-1]):
        clone(model).set_params(fusion=EnsembleSelection(cv=cv), b="drop").fit(X, y)
    assert n_fits(log) == fitted


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
    assert Store.of(memory) == Store(tmp_path, memory)
    assert Store.of(None).location is None
    assert Store.of(joblib.Memory(None)).location is None
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


def test_work_that_is_quick_is_not_kept(tmp_path: Path, X: Any, y: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WORTH_SECONDS", 60.0)
    model = MultimodalClassifier([("a", LogisticRegression(C=0.7), ["a"])], cache=tmp_path)
    clone(model).fit(X, y)
    kept = set(tmp_path.rglob("output.pkl"))
    assert len(kept) == 1, "the first time it is not known how long it takes"
    clone(model).fit(X + 1, y)
    assert set(tmp_path.rglob("output.pkl")) == kept


def test_another_version_misses_the_cache(
    model: MultimodalClassifier, log: Path, X: Any, y: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = store.versions()
    assert {"scikit-learn", "scipy", "numpy", "torch", "transformers"} <= {one.split("==")[0] for one in known}
    clone(model).fit(X, y)
    for number in range(len(known)):
        newer = tuple(f"{v}.1" if i == number else v for i, v in enumerate(known))
        monkeypatch.setattr(store, "versions", lambda newer=newer: newer)
        clone(model).fit(X, y)
        assert n_fits(log) == 2 * (number + 2)
    monkeypatch.setattr(store, "versions", lambda: known)
    monkeypatch.setattr(store, "PYTHON", "cpython-399")
    clone(model).fit(X, y)
    assert n_fits(log) == 2 * (len(known) + 2)


class SizeOfFile(ClassifierMixin, BaseEstimator):
    """Learns how large the last file is."""

    def fit(self, X: Any, y: Any) -> SizeOfFile:
        time.sleep(0.03)
        self.classes_ = np.unique(y)
        self.size_ = os.path.getsize(X.iloc[-1] if isinstance(X.iloc[-1], (str, Path)) else X.iloc[-1]["path"])
        return self

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))

    def predict(self, X: Any) -> Any:
        return self.classes_[np.zeros(len(X), dtype=int)]


@pytest.mark.parametrize("as_cell", [str, Path, lambda path: {"bytes": None, "path": str(path)}])
def test_a_file_that_was_changed_misses_the_cache(tmp_path: Path, as_cell: Callable[[Path], Any]) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        path.write_bytes(b"1")
    # Files are found wherever they stand.
    X = pd.DataFrame({"picture": [b"1", "a text"] * 20 + list(map(as_cell, paths))}, dtype=object)
    y = [0, 1] * (len(X) // 2)
    model = MultimodalClassifier([("picture", SizeOfFile(), "picture")], cache=tmp_path / "cache")
    for size in (1, 22):
        paths[-1].write_bytes(b"1" * size)
        assert clone(model).fit(X, y).named_estimators_.picture.size_ == size


class FileOfWords(SizeOfFile):
    """Learns how large the file of a parameter is."""

    def __init__(self, file: Any = None) -> None:
        self.file = file

    def fit(self, X: Any, y: Any) -> FileOfWords:
        return super().fit(pd.Series([self.file]), y)


def test_a_file_of_a_parameter_that_was_changed_misses_the_cache(tmp_path: Path, X: Any, y: Any) -> None:
    model = MultimodalClassifier([("a", FileOfWords(tmp_path / "words"), ["a"])], cache=tmp_path / "cache")
    for size in (1, 22):
        (tmp_path / "words").write_bytes(b"1" * size)
        assert clone(model).fit(X, y).named_estimators_.a.size_ == size


def test_settings_of_scikit_learn_miss_the_cache(model: MultimodalClassifier, log: Path, X: Any, y: Any) -> None:
    clone(model).fit(X, y)
    with config_context(transform_output="pandas"):
        clone(model).fit(X, y)
    assert n_fits(log) == 4


def test_what_cannot_be_pickled_is_fitted_anew(
    log: Path, tmp_path: Path, X: Any, y: Any, caplog: pytest.LogCaptureFixture
) -> None:
    member = Counted(str(log))
    member.set_params(C=Unpicklable(2.0))
    model = MultimodalClassifier([("a", member, ["a"])], cache=tmp_path / "cache")
    first = clone(model).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), first)
    assert n_fits(log) == 2
    assert "the cache cannot keep a fitted Counted" in caplog.text


class Unpicklable(float):
    """A number that cannot be pickled, as a lambda cannot."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("not for a pickle")

    def __deepcopy__(self, memo: Any) -> Unpicklable:
        return self


def test_members_stay_below_their_bound(tmp_path: Path, X: Any, y: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MEMBER_BYTES", 600_000)
    monkeypatch.setattr(store, "WALKING_SHARE", np.inf)  # it looks after every fit
    owned = Store.of(tmp_path / "owned")
    for seed in range(8):
        owned.call(fit_member, Heavy(seed, 200_000), X, y, [])
    written = [path for path in (tmp_path / "owned").rglob("*") if path.is_file()]
    assert 200_000 < sum(path.stat().st_size for path in written) < 800_000
    monkeypatch.setattr(store, "MEMBER_BYTES", 0)
    memory = joblib.Memory(tmp_path / "own", verbose=0)
    Store.of(memory).call(fit_member, Heavy(0, 200_000), X, y, [])
    assert list((tmp_path / "own").rglob("output.pkl")), "a Memory is its user's to bound"


class Heavy(ClassifierMixin, BaseEstimator):
    """Learns many numbers, which take a while to write."""

    def __init__(self, seed: int = 0, n_bytes: int = 20_000_000) -> None:
        self.seed = seed
        self.n_bytes = n_bytes

    def fit(self, X: Any, y: Any) -> Heavy:
        time.sleep(0.021)
        self.numbers_ = np.random.default_rng(self.seed).random(self.n_bytes // 8)
        return self


# The folder's life


def test_the_folder_may_be_deleted_any_time(
    model: MultimodalClassifier, log: Path, tmp_path: Path, X: Any, y: Any
) -> None:
    for cache in (tmp_path / "cache", joblib.Memory(tmp_path / "cache", verbose=0)):
        model.set_params(cache=cache)
        before = n_fits(log)
        fitted = clone(model).fit(X, y)
        with Store.of(cache).active():
            squares(0, 3)
        assert n_fits(log) == before + 2
        shutil.rmtree(tmp_path / "cache")
        expected = fitted.predict_proba(X)
        assert not (tmp_path / "cache").exists(), "predict makes no folder"
        np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), expected)
        assert n_fits(log) == before + 4
        with Store.of(cache).active():
            assert squares(0, 3) == [0, 1, 2]
            assert squares(0, 3) == []
        shutil.rmtree(tmp_path / "cache")


def test_a_store_is_active_inside_alone(tmp_path: Path) -> None:
    outer = Store.of(tmp_path)
    assert not is_active()
    with outer.active():
        assert is_active()
        with Store.of(None).active():
            assert is_active(), "a composition without a cache inside another one uses the other one's"
        with Store.of(tmp_path / "nowhere").active():
            assert not is_active()
        assert is_active()
    assert not is_active()


def test_work_in_the_store_is_not_being_pickled_for_it(tmp_path: Path, X: Any, y: Any) -> None:
    assert Store.of(tmp_path).call(tells_whether_it_is_stored, LogisticRegression(), X) is False


def tells_whether_it_is_stored(estimator: Any, X: Any) -> bool:
    return is_storing()


def test_a_search_where_all_strategies_learn_shares_the_folds(
    model: MultimodalClassifier, log: Path, X: Any, y: Any
) -> None:
    strategies = [Stacking(cv=CV), EnsembleSelection(cv=CV), EnsembleSelection(n_rounds=3, cv=CV)]
    GridSearchCV(model, {"fusion": strategies}, cv=3, refit=False).fit(X, y)
    assert n_fits(log) == 3 * (2 + 2 * CV)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs_of_a_search_give_the_same(model: MultimodalClassifier, X: Any, y: Any, backend: str) -> None:
    grid = {"fusion": [SoftVoting(), Stacking(cv=CV)], "a__C": [0.1, 1.0]}
    expected = GridSearchCV(clone(model).set_params(cache=None), grid, cv=2).fit(X, y)
    with joblib.parallel_backend(backend, n_jobs=2):
        for _ in range(2):
            found = GridSearchCV(model, grid, cv=2).fit(X, y)
            np.testing.assert_array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
            np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))


def test_a_cache_that_cannot_be_written_keeps_no_members(
    model: MultimodalClassifier, tmp_path: Path, X: Any, y: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = clone(model).set_params(cache=None).fit(X, y).predict_proba(X)
    (tmp_path / "joblib").write_bytes(b"")
    again = clone(model).set_params(cache=tmp_path).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    assert "cannot be used" in caplog.text


# Damage


def damage(file: Path, how: str) -> None:
    whole = file.read_bytes()
    if how == "cut":
        os.truncate(file, len(whole) // 2)
    elif how == "emptied":
        os.truncate(file, 0)
    elif how == "another's":
        joblib.dump(("not", "ours", 3), file)
    else:
        place = {"first byte": 0, "middle": len(whole) // 2, "end": len(whole) - 8}[how]
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])


CACHES: dict[str, Callable[[Path], Any]] = {
    "folder": lambda folder: folder,
    "memory": lambda folder: joblib.Memory(folder, verbose=0),
    "mapped": lambda folder: joblib.Memory(folder, verbose=0, mmap_mode="r"),
    "compressed": lambda folder: joblib.Memory(folder, verbose=0, compress=True),
}


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("how", ["cut", "emptied", "another's", "first byte", "middle", "end"])
def test_damaged_members_are_fitted_anew(
    model: MultimodalClassifier, log: Path, tmp_path: Path, X: Any, y: Any, cache: str, how: str
) -> None:
    model.set_params(cache=CACHES[cache](tmp_path / "cache"))
    expected = clone(model).fit(X, y).predict_proba(X)
    for file in (tmp_path / "cache").rglob("output.pkl"):
        damage(file, how)
    for _ in range(2):
        np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), expected)
        assert n_fits(log) == 4, "fitted anew, and kept again"


def test_a_full_disk_keeps_no_members(tmp_path: Path) -> None:
    process, steps = start(fit_on_a_full_disk, tmp_path)
    said = steps.recv()
    process.join()
    assert process.exitcode == 0
    assert len(said) == 1
    assert "cannot be used: a result could not be written" in said[0]
    assert Store.of(tmp_path).call(fit_member, Heavy(0), *small(), [])[0].numbers_.nbytes == 20_000_000


def fit_on_a_full_disk(folder: Path, steps: Connection) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    for seed in (0, 1, 0):
        fitted, _ = Store.of(folder).call(fit_member, Heavy(seed), *small(), [])
        np.testing.assert_array_equal(fitted.numbers_, Heavy(seed).fit(*small()).numbers_)
    steps.send(said)


def test_a_cache_must_be_a_folder(model: MultimodalClassifier, tmp_path: Path, X: Any, y: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"cache must be a folder, and .*notes\.txt is a file"):
        clone(model).set_params(cache=tmp_path / "notes.txt").fit(X, y)


def test_errors_of_a_member_are_not_taken_for_the_stores(tmp_path: Path, X: Any, y: Any) -> None:
    with pytest.raises(FileNotFoundError, match="of the member"):
        Store.of(tmp_path).call(fails_to_read, LogisticRegression(), X, y)


def fails_to_read(estimator: Any, X: Any, y: Any) -> Any:
    raise FileNotFoundError("of the member")


# Processes that are killed


def fit(folder: Path, steps: Connection) -> None:
    X, y = small()
    for i in itertools.count():
        Store.of(folder).call(fit_member, Heavy(i), X, y, [])
        steps.send(i)


def small() -> tuple[pd.DataFrame, np.ndarray]:
    return pd.DataFrame({"a": np.arange(4.0)}), np.asarray([0, 1, 0, 1])


def test_members_survive_a_kill(tmp_path: Path) -> None:
    X, y = small()
    kill_three(fit, tmp_path, n_steps=1, delay=0.03)  # a fit and its 20 MB take about 0.1 s
    for seed in range(3):
        fitted, _ = Store.of(tmp_path).call(fit_member, Heavy(seed), X, y, [])
        np.testing.assert_array_equal(fitted.numbers_, Heavy(seed).fit(X, y).numbers_)
    assert Store.of(tmp_path).call(fit_member, Heavy(0), X, y, [])[0].numbers_.nbytes == 20_000_000
