"""A model file is scored without any of the packages that trained it.

Here these packages are hidden from an interpreter; `.ci/run` does the same in an environment that really lacks them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import MissingDependencyError

HIDDEN = ["torch", "transformers", "sklearn", "joblib", "onnx", "skorch", "mmensemble_estimators", "pandas"]
# These need not be refused, for other packages may look for them, but scoring has no use for them either.
UNUSED = [*HIDDEN, "scipy", "onnx_ir", "onnxscript", "skl2onnx", "matplotlib", "polars", "safetensors"]

HIDE = f"""
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}, it is hidden", name=name)

sys.meta_path.insert(0, Hide())
"""

LOADED = """
import json
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture(scope="module")
def run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run a program where the packages are hidden; return what it printed."""
    folder = tmp_path_factory.mktemp("elsewhere")

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", HIDE + program, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def assert_same_scores(path: Path, expected: Path) -> None:
    ours, theirs = pq.read_table(path), pq.read_table(expected)
    assert ours.schema.equals(theirs.schema)
    assert ours.num_rows == theirs.num_rows > 0
    for name in theirs.column_names:
        if name.startswith("probability_"):
            np.testing.assert_allclose(ours[name].to_numpy(), theirs[name].to_numpy(), rtol=0, atol=1e-6)
        else:
            assert ours[name].equals(theirs[name]), name


def test_the_packages_are_hidden(run: Any) -> None:
    program = """
for name in %r:
    try:
        __import__(name)
    except ModuleNotFoundError:
        print(name)
"""
    assert run(program % HIDDEN).split() == HIDDEN


def test_import_loads_none_of_them(run: Any) -> None:
    loaded = json.loads(run("import mmensemble, mmensemble.cli, mmensemble.exceptions" + LOADED))
    assert "mmensemble" in loaded
    assert not set(loaded) & {*UNUSED, "onnxruntime", "pyarrow", "numpy"}


def test_score_file(run: Any, quickstart: Any, tmp_path: Path) -> None:
    program = """
from mmensemble import score_file
model, items, scores = sys.argv[1:]
report = score_file(model, items, scores, device="cpu", keep=["id"])
assert report.n_rows == 150 and report.n_errors == 0, report
"""
    folder = quickstart.folder
    printed = run(
        program + LOADED, str(folder / "model.onnx"), str(folder / "items.parquet"), str(tmp_path / "scores.parquet")
    )
    assert_same_scores(tmp_path / "scores.parquet", folder / "scores.parquet")
    loaded = json.loads(printed)
    assert {"onnxruntime", "pyarrow", "tokenizers", "PIL"} <= set(loaded)
    assert not set(loaded) & set(UNUSED)


def test_command_line(run: Any, quickstart: Any, tmp_path: Path) -> None:
    program = "from mmensemble.cli import main\nmain()"
    folder = quickstart.folder
    scores = tmp_path / "scores.parquet"
    printed = run(
        program, "score", str(folder / "model.onnx"), str(folder / "items.parquet"),
        "--output", str(scores), "--keep", "id", "--device", "cpu",
    )  # fmt: skip
    assert printed.startswith("150 rows (0 errors) in ")
    assert_same_scores(scores, folder / "scores.parquet")
    facts = json.loads(run(program, "inspect", str(folder / "model.onnx"), "--json"))
    assert facts["parity"]["max_abs_difference"] <= 1e-4
    assert {name for feed in facts["inputs"] for name in feed["columns"]} == {"name", "picture"}


def test_score_sounds(run: Any, tmp_path: Path) -> None:
    from mmensemble import export_onnx, score_file
    from mmensemble_estimators import AudioClassifier
    from tests.conftest import tone

    sounds = [tone(pitch, 0.2 + 0.0001 * pitch) for pitch in range(300, 2700, 200)]
    model = AudioClassifier(max_epochs=1, random_state=0).fit(sounds, ["low", "high"] * 6)
    export_onnx(model, tmp_path / "model.onnx")
    (tmp_path / "sound.wav").write_bytes(sounds[0])
    cells = [*({"bytes": data, "path": None} for data in sounds), {"bytes": None, "path": str(tmp_path / "sound.wav")}]
    pq.write_table(pa.table({"audio": [*cells, None]}), tmp_path / "sounds.parquet")
    score_file(tmp_path / "model.onnx", tmp_path / "sounds.parquet", tmp_path / "expected.parquet", device="cpu")
    program = """
from mmensemble import score_file
folder = sys.argv[1]
report = score_file(folder + "/model.onnx", folder + "/sounds.parquet", folder + "/scores.parquet", device="cpu")
assert report.n_rows == 14 and report.n_errors == 0, report
"""
    loaded = json.loads(run(program + LOADED, str(tmp_path)))
    assert_same_scores(tmp_path / "scores.parquet", tmp_path / "expected.parquet")
    assert {"soundfile", "av"} <= set(loaded)
    assert not set(loaded) & set(UNUSED)


def test_score_clips(run: Any, tmp_path: Path) -> None:
    from mmensemble import export_onnx, score_file
    from mmensemble_estimators import VideoClassifier
    from tests.estimators.test_video import as_animation, as_film

    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (12, 4, 32, 32, 3), dtype=np.uint8)
    clips = [written(array) for written, array in zip([as_film, as_animation] * 6, arrays, strict=True)]
    model = VideoClassifier(image_size=32, n_frames=2, max_epochs=1, random_state=0).fit(clips, ["a", "b"] * 6)
    export_onnx(model, tmp_path / "model.onnx")
    (tmp_path / "clip.mp4").write_bytes(clips[0])
    cells = [*({"bytes": data, "path": None} for data in clips), {"bytes": None, "path": str(tmp_path / "clip.mp4")}]
    pq.write_table(pa.table({"video": [*cells, None]}), tmp_path / "clips.parquet")
    score_file(tmp_path / "model.onnx", tmp_path / "clips.parquet", tmp_path / "expected.parquet", device="cpu")
    program = """
from mmensemble.cli import main
main()
"""
    printed = run(
        program, "score", str(tmp_path / "model.onnx"), str(tmp_path / "clips.parquet"),
        "--output", str(tmp_path / "scores.parquet"), "--device", "cpu",
    )  # fmt: skip
    assert printed.startswith("14 rows (0 errors) in ")
    assert_same_scores(tmp_path / "scores.parquet", tmp_path / "expected.parquet")


def test_predictor_on_plain_columns(run: Any, quickstart: Any) -> None:
    program = """
import json
import pyarrow.parquet as pq
from mmensemble import OnnxPredictor
folder = sys.argv[1]
table = pq.read_table(folder + "/items.parquet").select(["name", "picture"])
predictor = OnnxPredictor(folder + "/model.onnx", device="cpu")
assert (predictor.predict_proba(table.to_pydict()) == predictor.predict_proba(table)).all()
print(json.dumps(predictor.predict(table).tolist()))
"""
    expected = pq.read_table(quickstart.folder / "scores.parquet")["prediction"].to_pylist()
    assert json.loads(run(program, str(quickstart.folder))) == expected


@pytest.mark.parametrize("name", ["MultimodalClassifier", "export_onnx", "on_column"])
def test_the_training_side_says_what_to_install(run: Any, name: str) -> None:
    program = f"""
import mmensemble
try:
    mmensemble.{name}
except mmensemble.MissingDependencyError as error:
    print(error)
"""
    assert run(program).strip() in {
        str(MissingDependencyError(package, "train")) for package in ("sklearn", "joblib", "onnx")
    }


def test_the_doctor_comes_to_a_bare_installation(run: Any) -> None:
    program = """
import json
from mmensemble.doctor import examine
print(json.dumps(examine()))
"""
    found = json.loads(run(program))
    assert found["devices"]["cpu"]["works"]
    assert found["onnxruntime"]["error"] is None
    assert "train" in found["extras"]
