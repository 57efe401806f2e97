from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import mmensemble
from mmensemble.cli import main
from mmensemble.exceptions import MissingDependencyError, ParityError
from mmensemble.export.profile import profile_of
from mmensemble.scoring import Manifest

Rows = dict[str, list[Any]]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def assert_one_line_error(result: Result, text: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.fixture
def items(tmp_path: Path, rows: Rows) -> Path:
    few = {name: cells[:20] for name, cells in rows.items()}
    pq.write_table(pa.table({**few, "picture": [b"no image", *few["picture"][1:]]}), tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def test_version_and_help() -> None:
    assert run("--version").output == f"mmensemble, version {mmensemble.__version__}\n"
    for command in ([], ["score"], ["generate"], ["inspect"], ["export"], ["doctor"]):
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Examples:\n" in result.output
        assert result.output.count("  mmensemble ") >= 2
    assert "runs the code in it" in run("export", "--help").output


def test_help_is_cheap() -> None:
    program = (
        "import sys; from mmensemble.cli import main\n"
        "assert main(['--help'], standalone_mode=False) == 0\n"
        "print({'numpy', 'onnxruntime', 'pyarrow', 'tokenizers', 'sklearn'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mmensemble.cli", "--version"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert mmensemble.__version__ in done.stdout


def test_score(model_path: Path, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    result = run("score", model_path, items, "-o", out, "--device", "cpu", "--batch-size", 4, "--threads", 1,
                 "--keep", "id", "--keep", "title")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("20 rows (1 error) in ")
    assert result.stdout.endswith(" rows/s on cpu\n")
    assert result.stderr == f"Warning: 1 error in 20 rows; see the column 'error' of {out}\n"
    table = pq.read_table(out)
    assert table.column_names[:3] == ["id", "title", "prediction"]
    assert table["error"].null_count == 19

    assert_one_line_error(run("score", model_path, items, "-o", out), "exists")
    again = run("score", model_path, items, "-o", out, "--overwrite", "--quiet")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", result.stderr)
    pq.write_table(pq.read_table(items).slice(1), tmp_path / "good.parquet")
    good = run("score", model_path, tmp_path / "good.parquet", "-o", out, "--overwrite", "--quiet")
    assert (good.exit_code, good.output) == (0, "")


def test_score_of_bad_rows_alone(model_path: Path, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    pq.write_table(pq.read_table(items).slice(0, 1), tmp_path / "bad.parquet")
    result = run("score", model_path, tmp_path / "bad.parquet", "-o", out, "--device", "cpu")
    assert (result.exit_code, result.stderr) == (1, f"Warning: 1 error in 1 rows; see the column 'error' of {out}\n")
    assert pq.read_table(out)["error"].null_count == 0
    pq.write_table(pq.read_table(items).slice(0, 0), tmp_path / "none.parquet")
    assert run("score", model_path, tmp_path / "none.parquet", "-o", out, "--overwrite").exit_code == 0


def test_an_interrupt(model_path: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmensemble.scoring.score_dataset", interrupted)
    result = run("score", model_path, items, "-o", tmp_path / "scores.parquet")
    assert result.exit_code == 130
    assert result.stderr.startswith("Error: interrupted; the same command goes on where it stopped")


def test_sigterm_ends_as_ctrl_c_does(
    model_path: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmensemble.scoring.score_dataset", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    result = run("score", model_path, items, "-o", tmp_path / "scores.parquet")
    assert (result.exit_code, signal.getsignal(signal.SIGTERM)) == (130, before)


def test_the_digest_that_is_asked_for(model_path: Path, items: Path, tmp_path: Path) -> None:
    job = ("score", model_path, items, "-o", tmp_path / "scores.csv", "--quiet", "--sha256")
    assert_one_line_error(run(*job, "0" * 64), "is another file than the one that was asked for: its SHA-256 is ")
    assert run(*job, hashlib.sha256(model_path.read_bytes()).hexdigest()).exit_code == 0


def test_bad_lines_and_too_many_errors(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("title,picture,weight,price\na,,1,2\nb,c\nd,,1,2\n")
    job = ("score", model_path, tmp_path / "in.csv", "-o", tmp_path / "out.csv", "--quiet", "--overwrite")
    told = run(*job)
    assert (told.exit_code, told.stderr.startswith("Warning: 1 error in 3 rows")) == (0, True)
    dropped = run(*job, "--on-bad-line", "skip")
    assert dropped.stderr == f"Warning: 1 lines of {tmp_path / 'in.csv'} cannot be read and were dropped\n"
    assert_one_line_error(run(*job, "--on-bad-line", "raise"), "Row #3")
    assert_one_line_error(run(*job, "--max-errors", "0"), "1 rows are bad, more than max_errors=0 allows")
    assert_one_line_error(run(*job, "--max-errors", "30%"), "1 rows are bad, more than max_errors=0.3 allows")
    assert run(*job, "--max-errors", "1").exit_code == run(*job, "--max-errors", "34%").exit_code == 0
    for wrong in ("-1", "101%", "many", "0.5"):
        assert run(*job, "--max-errors", wrong).exit_code == 2


def test_score_of_a_folder(model_path: Path, items: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "rows", tmp_path / "scores"
    source.mkdir()
    n_rows = pq.read_metadata(items).num_rows
    for name in ("a", "b"):
        (source / f"{name}.parquet").write_bytes(items.read_bytes())
    options = ("-o", out, "--device", "cpu", "--format", "csv", "--top-k", 1)
    result = run("score", model_path, source, *options)
    assert result.stdout.startswith(f"{2 * n_rows} rows ("), result.output
    assert [path.suffix for path in sorted(out.glob("part-*"))] == [".csv", ".csv"]
    again = run("score", model_path, f"{source}/*.parquet", *options)
    assert f"{2 * n_rows} rows, {2 * n_rows} of them by an earlier" in again.stdout
    assert_one_line_error(run("score", model_path, source, "-o", out, "--engine", "none"), "engine must be one of")
    assert_one_line_error(run("score", model_path, source, *options, "--workers", 2), "workers=2 needs an engine")
    assert_one_line_error(run("score", "nothing://a", source, *options), "nothing://a cannot be opened")
    assert run("score", model_path, tmp_path / "nowhere", "-o", out).exit_code == 2
    for device in ("cuda:1", "cuda:x"):
        assert run("score", model_path, items, "-o", tmp_path / "out.csv", "--device", device).exit_code in (1, 2)


def test_score_that_fails(model_path: Path, foreign_path: Path, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    stopped = run("score", model_path, items, "-o", out, "--on-error", "raise", "--device", "cpu")
    assert_one_line_error(stopped, "row 0, column 'picture': the image cannot be read")
    assert_one_line_error(run("score", foreign_path, items, "-o", out), "was not written by mmensemble.export_onnx")
    assert_one_line_error(run("score", model_path, items, "-o", out, "--keep", "none"), "column 'none'")
    assert run("score", model_path, tmp_path / "none.csv", "-o", out).exit_code == 2
    assert run("score", model_path, items, "-o", out, "--device", "tpu").exit_code == 2
    assert_one_line_error(run("generate", model_path, items, "-o", out), "use score_file (mmensemble score)")
    assert not out.exists()


def test_reports_and_drift(
    manifest: Manifest, model_path: Path, rows: Rows, write_model: Callable[..., Path], tmp_path: Path
) -> None:
    profile = profile_of(rows, "verify", manifest.feeds, model_path)
    model = write_model(tmp_path / "model.onnx", replace(manifest, profile=profile).to_json())
    pq.write_table(pa.table({**rows, "price": [9.0] * 1500}), tmp_path / "items.parquet")
    reports = [tmp_path / "night.json", tmp_path / "night.html"]
    asked = [argument for path in reports for argument in ("--report", path)]
    arguments = ["score", model, tmp_path / "items.parquet", "--device", "cpu"]
    result = run(*arguments, "-o", tmp_path / "scores.parquet", *asked, "--max-drift", 0.25)
    assert result.exit_code == 3
    assert "1500 rows (0 errors)" in result.stdout
    assert result.stderr.startswith("Warning: drifted from the training profile: price (number)")
    summary = json.loads(reports[0].read_text())
    assert summary["drift"]["distributions"][0]["name"] == "price (number)"
    assert (summary["model"], summary["engine"]) == (str(model), "local")
    assert "price (number)" in reports[1].read_text()
    assert pq.read_metadata(tmp_path / "scores.parquet").num_rows == 1500
    assert "profile: 1500 rows (verify), of title (length), " in run("inspect", model).stdout
    again = run(*arguments, "-o", tmp_path / "again.parquet", "--max-drift", 50)
    assert again.exit_code == 0
    assert_one_line_error(
        run("score", model_path, *arguments[2:], "-o", tmp_path / "out.csv", "--max-drift", 1), "has no profile"
    )


def test_a_log_of_json(model_path: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmensemble.scoring.progress._EVERY", 0.0)
    log = tmp_path / "night.jsonl"
    options = ["--device", "cpu", "--batch-size", 8, "--log-json"]
    done = run("score", model_path, items, "-o", tmp_path / "scores.csv", *options, log)
    assert done.exit_code == 0
    assert "20 rows of 20 (100%), " in done.stderr  # a line for people, as stderr is no terminal
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [events[0]["event"], *(each["event"] for each in events[-2:])] == ["start", "end", "warning"]
    assert {each["event"] for each in events[1:-2]} == {"progress"}
    assert events[-3]["n_errors"] == 1
    assert {"time", "level", "message", "n_rows", "share", "rows_per_second", "seconds_left"} <= events[-3].keys()
    assert events[-1] == {**events[-1], "level": "warning", "message": events[-1]["message"]}
    assert "1 error in 20 rows" in events[-1]["message"]
    # On stderr there is nothing else then, whatever happens.
    for arguments, code in (
        (["score", model_path, items, "-o", tmp_path / "again.csv"], 0),
        (["score", model_path, items, "-o", tmp_path / "again.csv"], 1),
        (["score", model_path, items, "-o", tmp_path / "raised.csv", "--on-error", "raise"], 1),
    ):
        result = run(*arguments, *options, "-")
        assert result.exit_code == code
        lines = [json.loads(line) for line in result.stderr.splitlines()]
        assert lines[-1]["event"] == ("warning" if code == 0 else "error")
    assert "exists; choose another name" in lines[-1]["message"] or "row 0" in lines[-1]["message"]
    assert_one_line_error(
        run("score", model_path, items, "-o", tmp_path / "x.csv", *options, tmp_path / "no" / "log"), "No such file"
    )


def test_warnings_are_logged(model_path: Path, items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score_dataset(*arguments: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("an odd picture", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("mmensemble.scoring.score_dataset", score_dataset)
    result = run("score", model_path, items, "-o", tmp_path / "scores.csv", "--log-json", "-")
    odd, interrupted = (json.loads(line) for line in result.stderr.splitlines())
    assert (odd["event"], odd["level"], interrupted["event"]) == ("warning", "warning", "interrupted")
    assert "an odd picture" in odd["message"]
    assert result.exit_code == 130


def test_generate(generator_path: Path, items: Path, tmp_path: Path) -> None:
    command: list[object] = ["generate", generator_path, items, "-o", tmp_path / "texts.parquet", "--device", "cpu"]
    settings: list[object] = ["--max-new-tokens", 5, "--num-return-sequences", 2, "--temperature", 0.7, "--top-k", 20,
                              "--top-p", 0.9, "--random-state", 1]  # fmt: skip
    result = run(*command, "--keep", "id", *settings)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("20 rows (0 errors) in ")
    assert result.stderr == ""
    table = pq.read_table(tmp_path / "texts.parquet")
    assert table.column_names == ["id", "generated_0", "generated_1", "error"]
    expected = mmensemble.OnnxPredictor(generator_path, device="cpu").generate(
        pq.read_table(items), 5, 2, temperature=0.7, top_k=20, top_p=0.9, random_state=1
    )
    assert [table["generated_0"].to_pylist(), table["generated_1"].to_pylist()] == expected.T.tolist()
    assert_one_line_error(run(*command), "exists")
    assert run(*command, "--overwrite", "--num-beams", 2, "--quiet").output == ""
    assert_one_line_error(run(*command, "--overwrite", "--num-beams", 2, "--top-k", 3), "beam search draws nothing")
    for wrong in (["--top-p", 0], ["--top-k", 0], ["--temperature", -1], ["--random-state", -1], ["--num-beams", 0]):
        assert run(*command, *wrong).exit_code == 2
    out = tmp_path / "scores.csv"
    assert_one_line_error(run("score", generator_path, items, "-o", out), "use generate_file (mmensemble generate)")
    assert not out.exists()


def test_inspect(model_path: Path) -> None:
    text = run("inspect", model_path).output
    for line in (
        "task:     classification",
        "classes:  apple, pear, plum",
        "  facts: tabular from weight, price",
        "    image.pixels  uint8  (batch, 8, 8, 3)",
        "    text.input_ids  int64  (batch, length)",
        "  precision: fp32",
        "  max_abs_difference: 1e-07",
    ):
        assert f"\n{line}\n" in text
    assert "devices here: cpu" in text


def test_inspect_json(model_path: Path, foreign_path: Path) -> None:
    facts = json.loads(run("inspect", model_path, "--json").output)
    assert facts["classes"] == ["apple", "pear", "plum"]
    assert facts["bytes"] == model_path.stat().st_size
    assert facts["inputs"][1]["tensors"] == {"image.pixels": {"dtype": "uint8", "shape": ["batch", 8, 8, 3]}}
    assert_one_line_error(run("inspect", foreign_path), "without mmensemble's metadata")


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for `mmensemble.export_onnx` and remembers what it was given."""
    seen = SimpleNamespace(error=None)

    def export_onnx(estimator: Any, path: Path, **options: Any) -> SimpleNamespace:
        if seen.error is not None:
            raise seen.error
        seen.estimator, seen.options = estimator, options
        path.write_bytes(b"onnx")
        return SimpleNamespace(parity={"n_rows": 2, "equal_labels": 0.987654, "float_layers": []})

    monkeypatch.setattr("mmensemble.export.export_onnx", export_onnx)
    return seen


def test_export(exported: SimpleNamespace, tmp_path: Path) -> None:
    joblib.dump({"an": "estimator"}, tmp_path / "model.joblib")
    frame = pd.DataFrame({"title": ["a", "b"], "kind": ["x", "y"]})
    frame.to_csv(tmp_path / "holdout.csv", index=False)
    frame.to_parquet(tmp_path / "holdout.parquet")
    frame.to_json(tmp_path / "holdout.jsonl", orient="records", lines=True)

    result = run("export", tmp_path / "model.joblib", tmp_path / "model.onnx")
    compared = "compared on 2 rows made by the export, equal_labels 0.988"
    assert (result.exit_code, result.output) == (0, f"{tmp_path / 'model.onnx'}  0.0 MiB, {compared}\n")
    assert exported.estimator == {"an": "estimator"}
    assert exported.options == {
        "precision": "fp32",
        "verify": None,
        "verify_y": None,
        "calibrate": None,
        "profile": None,
    }
    arguments = ["export", tmp_path / "model.joblib", tmp_path / "model.onnx"]
    assert_one_line_error(run(*arguments), "choose another name, or replace it by --overwrite")
    for suffix in ("csv", "jsonl", "parquet"):
        holdout = tmp_path / f"holdout.{suffix}"
        result = run(*arguments, "--overwrite", "--verify", holdout)
        assert (result.exit_code, result.output.split(" MiB")[1]) == (
            0,
            ", compared on 2 given rows, equal_labels 0.988\n",
        )
        assert exported.options["verify"]["title"].tolist() == ["a", "b"]
    options = ["--overwrite", "--precision", "int8", "--verify", holdout, "--target", "kind", "--calibrate", holdout]
    assert run(*arguments, *options).exit_code == 0
    assert exported.options["precision"] == "int8"
    assert exported.options["verify"].columns.tolist() == ["title"]
    assert exported.options["verify_y"].tolist() == ["x", "y"]
    assert exported.options["calibrate"].columns.tolist() == ["title", "kind"]
    result = run(*arguments, "--overwrite", "--verify", holdout, "--target", "sort")
    assert_one_line_error(result, "--target sort names no column")
    assert run(*arguments, "--overwrite", "--precision", "int4").exit_code == 2


def test_export_reads_cells_of_csv_as_scoring_does(exported: SimpleNamespace, tmp_path: Path) -> None:
    joblib.dump({}, tmp_path / "model.joblib")
    (tmp_path / "rows.csv").write_text('title,weight,share\nNA,1,0.5\n"",2,\nnull,,x\n', encoding="utf-8")
    path = tmp_path / "rows.csv"
    assert run("export", tmp_path / "model.joblib", tmp_path / "m.onnx", "--verify", path, "--calibrate", path).output
    for rows in (exported.options["verify"], exported.options["calibrate"]):
        assert rows["title"].tolist() == ["NA", "", "null"]
        np.testing.assert_array_equal(rows["weight"], [1, 2, np.nan])
        assert rows["share"].tolist()[::2] == ["0.5", "x"]


def test_export_verifies_the_rows_that_are_scored(exported: SimpleNamespace, model_path: Path, tmp_path: Path) -> None:
    joblib.dump({}, tmp_path / "model.joblib")
    lines = [
        {"title": "007", "picture": None, "weight": 1, "price": 0.5, "date": "2020-01-01", "made_at": 1262304000},
        {"title": "8", "picture": None, "weight": 2, "price": None, "date": "never", "made_at": None},
    ]
    items = tmp_path / "items.jsonl"
    items.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8-sig")
    arguments = ["export", tmp_path / "model.joblib", tmp_path / "model.onnx", "--overwrite", "--verify"]
    assert run(*arguments, items).exit_code == 0
    verified = exported.options["verify"]
    assert verified.columns.tolist() == list(lines[0])
    assert verified["title"].tolist() == ["007", "8"]
    assert verified["date"].tolist() == ["2020-01-01", "never"]
    assert verified["made_at"].tolist()[0] == 1262304000
    assert verified["made_at"].isna().tolist() == [False, True]

    out, columns = tmp_path / "scores.parquet", ["probability_apple", "probability_pear", "probability_plum"]
    assert run("score", model_path, items, "-o", out, "--device", "cpu").exit_code == 0
    scored = pq.read_table(out).select(columns).to_pandas().to_numpy()
    predictor = mmensemble.OnnxPredictor(model_path, device="cpu")
    assert predictor.predict_proba(verified).tolist() == scored.tolist()

    items.write_text("")
    assert run(*arguments, items).exit_code == 0
    assert len(exported.options["verify"]) == 0


def test_export_that_fails(exported: SimpleNamespace, tmp_path: Path) -> None:
    joblib.dump({}, tmp_path / "model.joblib")
    exported.error = ParityError("off by 1.0\non row 3")
    result = run("export", tmp_path / "model.joblib", tmp_path / "model.onnx")
    assert_one_line_error(result, "off by 1.0 on row 3")
    (tmp_path / "damaged.joblib").write_bytes(b"nothing of the kind")
    assert_one_line_error(run("export", tmp_path / "damaged.joblib", tmp_path / "m.onnx"), "cannot be loaded")
    (tmp_path / "elsewhere.joblib").write_bytes(b"\x80\x04cnot_installed_here\nEstimator\n.")
    result = run("export", tmp_path / "elsewhere.joblib", tmp_path / "m.onnx")
    assert_one_line_error(result, "needs not_installed_here, which is not installed here")


@pytest.mark.parametrize("package", ["joblib", "pandas"])
def test_export_without_the_training_side(
    exported: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    joblib.dump({}, tmp_path / "model.joblib")
    (tmp_path / "holdout.csv").write_text("a\n1\n")
    monkeypatch.setitem(sys.modules, package, None)
    result = run("export", tmp_path / "model.joblib", tmp_path / "m.onnx", "--verify", tmp_path / "holdout.csv")
    assert_one_line_error(result, str(MissingDependencyError(package, "train")))
