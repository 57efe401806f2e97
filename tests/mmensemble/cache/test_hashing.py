"""What a key holds: code outside installed packages, versions of what was installed, and values."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from mmensemble.cache import UNHASHABLE, hash_of, versions
from mmensemble.cache.versions import version_of
from tests.mmensemble.cache.kinds_of_code import KINDS

ROOT = Path(__file__).parents[3]


def write(folder: Path, name: str, source: str) -> None:
    """Write a module, and the one that it imports."""
    main, _, helpers = source.replace("{helpers}", f"{name}_helpers").partition("--\n")
    (folder / f"{name}.py").write_text(main)
    (folder / f"{name}_helpers.py").write_text(helpers)


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Run a source as a module of a user, always of the same name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(source: str) -> Any:
        write(tmp_path, "of_a_user", source)
        for name in ("of_a_user", "of_a_user_helpers"):
            sys.modules.pop(name, None)
        namespace = types.ModuleType("of_a_user")
        sys.modules["of_a_user"] = namespace
        exec(compile((tmp_path / "of_a_user.py").read_text(), "of_a_user.py", "exec"), vars(namespace))
        return namespace.subject

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_changed_code_changes_the_hash(kind: str, subject: Callable[[str], Any]) -> None:
    source, old, new = KINDS[kind]
    assert source.count(old) >= 1
    first = hash_of(subject(source))
    value = subject(source)
    assert hash_of(value) == first, "the same code, run again"
    assert hash_of(value) == first, "the same objects, hashed again"
    assert hash_of(subject(source.replace(old, new))) != first


@pytest.mark.parametrize("kind", KINDS)
def test_what_decides_nothing_leaves_the_hash(kind: str, subject: Callable[[str], Any]) -> None:
    source = KINDS[kind][0]
    moved = "# A comment.\nunused = [1]\n\ndef beside(x):\n    return x + unused\n\n" + source
    assert hash_of(subject(moved)) == hash_of(subject(source))


PROGRAM = """
import importlib, json, sys
from mmensemble.cache import hash_of
print(json.dumps({name: hash_of(importlib.import_module(name).subject) for name in sys.argv[1:]}))
"""


def run(program: str, *arguments: str, folder: Path, seed: int) -> Any:
    """Run a program in another process, and return what its last line says in JSON."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "estimators"), str(folder)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    (folder / "program.py").write_text(program)
    command = [sys.executable, str(folder / "program.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "no warning"
    return json.loads(done.stdout.splitlines()[-1])


def test_hashes_are_those_of_other_processes(tmp_path: Path) -> None:
    names = [f"kind_{number}" for number in range(len(KINDS))]
    for name, (source, _, _) in zip(names, KINDS.values(), strict=True):
        write(tmp_path, name, source)
    first = run(PROGRAM, *names, folder=tmp_path, seed=1)  # from the sources
    assert len(set(first.values())) == len(KINDS)
    assert list(tmp_path.rglob("kind_0.*.pyc"))
    assert run(PROGRAM, *names, folder=tmp_path, seed=2) == first, "from the bytecode that the first one wrote"
    assert run(PROGRAM, *names[::-1], folder=tmp_path, seed=3) == first


MAIN = """
import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from mmensemble import MultimodalClassifier, Stacking

SCALE = 0.5
STOP = {"a", "the", "of", "and"}


def squared(X):
    return np.square(X) + 1


class Logged(ClassifierMixin, BaseEstimator):
    '''Leaves a file at every fit.'''

    def fit(self, X, y):
        import time, uuid
        time.sleep(0.03 + 0 * len(STOP))
        Path("log", uuid.uuid4().hex).touch()
        self.model_ = LogisticRegression().fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X):
        return self.model_.predict_proba(X)

    def predict(self, X):
        return self.model_.predict(X)


if __name__ == "__main__":
    Path("log").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])
    squares = FunctionTransformer(squared)
    model = MultimodalClassifier(
        [
            ("a", make_pipeline(squares, FunctionTransformer(lambda X: X * SCALE), Logged()), ["a"]),
            ("b", Logged(), ["b"]),
        ],
        fusion=Stacking(cv=2),
        cache="cache",
        n_jobs=N_JOBS,
        verbose=0,
    )
    model.fit(X, (X["a"] > 0).to_numpy())
    assert type(model.named_estimators_.b) is Logged
    print(json.dumps(len(list(Path("log").iterdir()))))
"""


def test_a_program_that_runs_again_fits_nothing(tmp_path: Path) -> None:
    assert run(MAIN.replace("N_JOBS", "1"), folder=tmp_path, seed=1) == 6
    assert run(MAIN.replace("N_JOBS", "1"), folder=tmp_path, seed=2) == 6
    assert run(MAIN.replace("N_JOBS", "2"), folder=tmp_path, seed=3) == 6, "the workers find what was kept"
    changed = MAIN.replace("N_JOBS", "1").replace("+ 1", "+ 2")
    assert run(changed, folder=tmp_path, seed=4) == 9, "one member has a changed function"
    changed = changed.replace("SCALE = 0.5", "SCALE = 0.25")
    assert run(changed, folder=tmp_path, seed=5) == 12, "its lambda reads a changed constant"
    assert run(changed.replace('"of"', '"off"'), folder=tmp_path, seed=6) == 18, "both read a changed set"


# Versions


def test_code_of_installed_packages_counts_by_version(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = [LogisticRegression(), np.sin, np.einsum, joblib.Parallel, FunctionTransformer(np.log), ROOT]
    before = [hash_of(subject) for subject in subjects]
    known = versions.version_of
    with monkeypatch.context() as newer:
        newer.setattr(
            "mmensemble.cache.hashing.version_of",
            lambda name: (
                f"newer {known(name)}" if name.split(".")[0] in {"numpy", "sklearn", "joblib"} else known(name)
            ),
        )
        after = [hash_of(subject) for subject in subjects]
    assert [one != other for one, other in zip(before, after, strict=True)] == [True] * 5 + [False]


def test_a_version_names_the_distribution_and_what_it_needs() -> None:
    numpy, sklearn = f"numpy=={np.__version__}", version_of("sklearn.linear_model")
    assert version_of("numpy.linalg") == numpy
    assert sklearn is not None
    assert {"scikit-learn", "numpy", "scipy", "joblib"} <= {one.split("==")[0] for one in sklearn.split()}
    assert numpy in sklearn.split()
    assert version_of("json.decoder") == version_of("itertools") == "standard"
    assert version_of(__name__) is None
    assert version_of("__main__") is None
    assert version_of("of_nobody") is None


def test_this_package_counts_by_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mmensemble").mkdir()
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path / "mmensemble")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    found = []
    for source in ("a = 1", "a = 2", "a = 1"):
        (tmp_path / "mmensemble" / "module.py").write_text(source)
        found.append(versions._sources.__wrapped__("mmensemble"))
    assert found[0] == found[2] != found[1]


# Values


def test_equal_values_have_one_hash() -> None:
    for make in (
        lambda: TfidfVectorizer(stop_words=frozenset(ENGLISH_STOP_WORDS), ngram_range=(1, 2)),
        lambda: pd.DataFrame({"text": ["a", None], "n": [1.0, np.nan]}),
        lambda: {"a": np.arange(3), 2: {"x", 3, (1, 2)}},
        lambda: [np.dtype("f4"), np.float32(1), np.random.RandomState(3)],
    ):
        assert hash_of(make()) == hash_of(make())
    assert hash_of((1, 2), (1, 2)) == hash_of(*[(1, 2)] * 2)


def test_different_values_have_different_hashes() -> None:
    values = [
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        (1,),
        [1],
        {1},
        {1: 1},
        np.asarray([1]),
        np.asarray([1.0]),
        {"1"},
        0.0,
        -0.0,
    ]
    values += [
        len,
        np.sin,
        np.cos,
        LogisticRegression,
        LogisticRegression(),
        LogisticRegression(C=2),
        "abc".upper,
        "ab".upper,
    ]
    assert len({hash_of(value) for value in values}) == len(values)


def test_what_no_process_can_tell_from_another_has_no_hash() -> None:
    lock = threading.Lock()
    for value in (lock, lambda: lock, functools.partial(print, lock), (one for one in ())):
        with pytest.raises(UNHASHABLE):
            hash_of(value)


def test_a_long_chain_of_calls_is_followed(subject: Callable[[str], Any]) -> None:
    source = "def f0(x):\n    return x\n"
    source += "".join(f"def f{i}(x):\n    return f{i - 1}(x)\n" for i in range(1, 2000)) + "subject = f1999"
    assert hash_of(subject(source)) != hash_of(subject(source.replace("return x\n", "return -x\n", 1)))
