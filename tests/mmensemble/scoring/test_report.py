from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmensemble.exceptions import ConfigurationError, DataError, ModelFileError
from mmensemble.export.profile import profile_of
from mmensemble.preprocessing import AudioPreprocessor, CategoryPreprocessor, ImagePreprocessor, TabularPreprocessor
from mmensemble.scoring import Feed, Manifest, score_dataset, score_file
from mmensemble.scoring import progress as following
from mmensemble.scoring.report.measures import measured_columns
from mmensemble.scoring.report.profile import (
    Distribution,
    Measure,
    Profile,
    categories_of,
    chance_index,
    numbers_of,
    stability_index,
)
from mmensemble.scoring.report.tally import kind_of
from mmensemble.tasks import Multilabel

Rows = dict[str, list[Any]]


@pytest.fixture(scope="module")
def profiled(
    manifest: Manifest,
    model_path: Path,
    rows: Rows,
    write_model: Callable[[Path, str | None], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The small model with a profile of the 1,500 rows."""
    profile = profile_of(pa.table(rows), "verify", manifest.feeds, model_path)
    path = tmp_path_factory.mktemp("profiled") / "profiled.onnx"
    return write_model(path, replace(manifest, profile=profile).to_json())


def write_rows(folder: Path, rows: Rows, **changed: list[Any]) -> Path:
    pq.write_table(pa.table({**rows, **changed}), folder / "rows.parquet", row_group_size=300)
    return folder / "rows.parquet"


def drift_of(summary: dict[str, Any] | None) -> dict[str, float]:
    assert summary is not None
    return {each["name"]: each["psi"] for each in summary["drift"]["distributions"]}


# Profiles


def test_bins_hold_about_as_many_rows_each_and_frequent_numbers_get_their_own() -> None:
    values = np.random.default_rng(0).normal(size=2000)
    even = numbers_of(values, 7)
    below, *bins, above, missing = even.counts
    assert (below, above, missing, sum(bins)) == (0, 0, 7, 2000)
    assert len(bins) == 10
    assert max(bins) <= 201
    assert np.array_equal(even.quantiles, np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]))
    of_zeros = numbers_of(np.r_[np.zeros(900), np.arange(1, 101)], 0)
    assert 900 in of_zeros.counts
    assert numbers_of(np.array([0.0, 1.0] * 50), 0).counts == (0, 50, 50, 0, 0)
    # A constant is told from what is below and above it, and is itself as a float32.
    constant = numbers_of(np.full(50, 0.1), 0)
    assert constant.count(np.array([0.0999, np.float32(0.1), 0.1001, np.inf]), 0).tolist() == [1, 1, 2, 0]
    assert numbers_of(np.zeros(0), 3).counts == (0, 3)


def test_rare_categories_are_not_named() -> None:
    found = categories_of(Counter(red=6, green=5, Ann=1, Bob=1), 2)
    assert (found.categories, found.counts) == (("red", "green"), (6, 5, 2, 2))
    assert found.count(Counter(green=1, blue=1), 1).tolist() == [0, 1, 1, 1]
    assert found.labels() == ["red", "green", "(others)", "(missing)"]


def test_the_index_and_what_chance_makes_of_it() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    by_hand = float(((q - p) * np.log(q / p)).sum())
    assert stability_index(p * 1e7, q * 1e7) == pytest.approx(by_hand, rel=1e-5)
    assert stability_index([0, 0], [1, 2]) == chance_index([0, 0], [1, 2]) == 0
    # Samples of one distribution exceed the second number in one case of twenty.
    rng = np.random.default_rng(0)
    samples = rng.multinomial([[100]] * 4000, [0.1] * 10), rng.multinomial([[400]] * 4000, [0.1] * 10)
    above = [stability_index(one, other) > chance_index(one, other) for one, other in zip(*samples, strict=True)]
    assert 0.03 < np.mean(above) < 0.07


def test_what_is_measured(rows: Rows) -> None:
    sound = {"array": np.zeros(8000, dtype=np.float32), "sampling_rate": 16000}
    feeds = [
        Feed("image", ("picture",), ImagePreprocessor(size=8)),
        Feed("audio", ("sound",), AudioPreprocessor(sampling_rate=16000)),
        Feed("facts", ("weight",), TabularPreprocessor({"weight": "float"})),
        Feed("kinds", ("kind",), CategoryPreprocessor({"kind": [1, 2]})),
        Feed("again", ("kind",), CategoryPreprocessor({"kind": [1, 2, 3]})),
    ]
    measured = measured_columns(feeds)
    assert list(measured) == [
        ("picture", "width"),
        ("picture", "height"),
        ("sound", "seconds"),
        ("weight", "number"),
        ("kind", "category"),
    ]
    pictures = [rows["picture"][0], None, b"no image", np.zeros((3, 5, 3), dtype=np.uint8)]
    width, height = (measured[Measure("picture", what)](pictures) for what in ("width", "height"))
    assert (width.values.tolist(), width.n_missing, width.n_bad) == ([10, 5], 1, 1)
    assert height.values.tolist() == [12, 3]
    assert measured[Measure("sound", "seconds")]([sound, np.zeros(16000)]).values.tolist() == [0.5, 1]
    facts = measured[Measure("weight", "number")](["1.5", "nan", None, "four"])
    assert (facts.values.tolist(), facts.n_missing, facts.n_bad) == ([1.5], 2, 1)
    assert measured[Measure("kind", "category")]([1, 1.0, np.int64(2), "1", None]).values == {"1": 3, "2": 1}
    # Of many pictures some are looked at.
    assert len(measured[Measure("picture", "width")]([pictures[0]] * 500).values) == 32


def test_a_profile_is_part_of_the_file(manifest: Manifest, profiled: Path, model_path: Path, rows: Rows) -> None:
    profile = profile_of(rows, "profile", manifest.feeds, model_path)
    assert (profile.source, profile.n_rows, profile.n_scored) == ("profile", 1500, 1500)
    assert {tuple(each) for each in profile.inputs} == {
        ("title", "length"),
        ("picture", "width"),
        ("picture", "height"),
        ("weight", "number"),
        ("price", "number"),
    }
    assert profile.inputs[Measure("price", "number")].counts[-1] == 100
    assert sum(profile.predictions[Measure("prediction", "category")].counts) == 1500
    read = Manifest.from_json(replace(manifest, profile=profile).to_json())
    assert read.profile == profile
    assert Manifest.from_json(manifest.to_json()).profile is None


@pytest.mark.parametrize(
    "changed",
    [
        {"edges": [2.0, 1.0], "counts": [1, 1, 1, 0]},
        {"edges": [float("nan")], "counts": [1, 1, 0]},
        {"edges": [1.0], "counts": [1]},
        {"edges": [1.0], "counts": [-1, 1, 0]},
        {"edges": [1.0], "counts": [0.5, 1, 0]},
        {"edges": list(range(400)), "counts": [0] * 402},
        {"categories": [1], "counts": [1, 1, 0]},
        {"categories": ["a"], "counts": [1, 1, 0]},
        {"edges": [1.0], "categories": ["a"], "counts": [1, 1, 0]},
        {"counts": [1, 1, 0]},
    ],
)
def test_a_damaged_profile_is_refused(manifest: Manifest, changed: dict[str, Any]) -> None:
    state = json.loads(manifest.to_json())
    inputs = [{"column": "price", "what": "number", **changed}]
    state["profile"] = {"source": "verify", "n_rows": 1, "n_scored": 0, "inputs": inputs, "predictions": []}
    with pytest.raises(ModelFileError):
        Manifest.from_json(json.dumps(state))


# Reports


def test_rows_like_those_of_the_profile_have_not_drifted(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    source = write_rows(tmp_path, rows)
    reports = [tmp_path / "report.json", tmp_path / "report.html"]
    done = score_file(profiled, source, tmp_path / "out.csv", device="cpu", report=reports, max_drift=0.01)
    assert done.drifted == ()
    drift = drift_of(done.summary)
    assert max(psi for name, psi in drift.items() if "picture" not in name) < 1e-9
    assert max(drift.values()) < 1e-2  # of pictures some are looked at
    written = json.loads(reports[0].read_text())
    assert written == json.loads(json.dumps(done.summary))
    counts = {name: written[name] for name in ("n_rows", "n_scored", "n_errors", "n_resumed", "n_unobserved")}
    assert counts == {"n_rows": 1500, "n_scored": 1500, "n_errors": 0, "n_resumed": 0, "n_unobserved": 0}
    assert {each["stage"] for each in written["stages"]} == {"read", "encode", "graph", "write"}
    classes, confidence = written["predictions"]
    assert sum(classes["classes"].values()) == sum(n for _, n in confidence["histogram"]) == 1500
    assert "0.9 to" not in reports[1].read_text()
    assert "<h2>Drift</h2>" in reports[1].read_text()


def test_what_drifts_is_named(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    prices = [None if price is None else price + 1.5 for price in rows["price"]]
    titles = [title if row % 3 else None for row, title in enumerate(rows["title"])]
    source = write_rows(tmp_path, rows, price=prices, title=titles)
    done = score_file(profiled, source, tmp_path / "out.parquet", device="cpu", max_drift=0.2)
    assert "price (number)" in done.drifted
    assert "title (length)" in done.drifted
    assert "weight (number)" not in done.drifted
    assert "picture (width)" not in done.drifted
    assert done.summary is not None
    found = {each["name"]: each for each in done.summary["drift"]["distributions"]}
    assert found["title (length)"]["bins"][-1]["rows"] == pytest.approx(0.37, abs=0.02)
    # A few rows prove nothing.
    few = {name: cells[:8] for name, cells in rows.items()}
    few_done = score_file(
        profiled, write_rows(tmp_path, few), tmp_path / "few.parquet", device="cpu", max_drift=0.01, overwrite=True
    )
    assert few_done.drifted == ()
    assert max(drift_of(few_done.summary).values()) > 0.01


def test_errors_by_kind(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    pictures: list[Any] = [b"no image" if row % 100 == 7 else cell for row, cell in enumerate(rows["picture"])]
    source = write_rows(tmp_path, rows, picture=pictures)
    done = score_file(profiled, source, tmp_path / "out.parquet", device="cpu", report=tmp_path / "report.html")
    assert done.summary is not None
    (kind,) = done.summary["errors"]
    assert (kind["count"], done.summary["n_errors"], done.summary["n_scored"]) == (15, 15, 1485)
    assert [one["row"] for one in kind["examples"]] == [7, 107, 207]
    assert kind["kind"].startswith("column 'picture': ")
    noted = score_file(
        profiled,
        source,
        tmp_path / "noted.parquet",
        device="cpu",
        on_error="missing",
        report=tmp_path / "report.json",
    )
    assert noted.summary is not None
    assert (noted.summary["n_noted"], noted.summary["n_scored"]) == (15, 1500)


def test_kinds_of_messages() -> None:
    one, other = "column 'a': 'x' is not a number", "column 'a': 'what else' is not a number"
    assert kind_of(one) == kind_of(other) != kind_of(one.replace("'a'", "'b'"))
    assert kind_of("it breaks off after 1.5 of 3.0 seconds") == "it breaks off after … of … seconds"


def test_a_report_is_escaped(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    source = write_rows(tmp_path, rows, picture=["<script>alert(1)</script>.png"] * 1500)
    score_file(profiled, source, tmp_path / "out.parquet", device="cpu", report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script" in page


def test_a_job_that_goes_on_counts_all_rows(
    profiled: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path, rows, picture=[b"bad", *rows["picture"][1:]])
    whole = score_file(profiled, source, tmp_path / "whole.parquet", device="cpu", max_drift=1, batch_size=32)
    from mmensemble.files.parts import Parts

    write, written = Parts.write, []

    def interrupted(self: Parts, table: pa.Table) -> None:
        write(self, table)
        written.append(table.num_rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(Parts, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_file(profiled, source, tmp_path / "out.parquet", device="cpu", batch_size=32)
    monkeypatch.undo()
    done = score_file(profiled, source, tmp_path / "out.parquet", device="cpu", max_drift=1, batch_size=32)
    assert (done.n_resumed, sum(written) > 0) == (sum(written), True)
    assert done.summary is not None
    assert whole.summary is not None
    for name in ("n_rows", "n_scored", "n_errors", "errors", "predictions", "inputs", "drift"):
        assert done.summary[name] == whole.summary[name], name


def test_too_many_errors_leave_a_report(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    source = write_rows(tmp_path, rows, picture=[b"bad"] * 1500)
    options: dict[str, Any] = {"device": "cpu", "max_errors": 10, "report": tmp_path / "report.json"}
    for target in ("out.parquet", "folder"):
        with pytest.raises(DataError, match="more than max_errors"):
            score_dataset(profiled, source, tmp_path / target, **options)
        summary = json.loads((tmp_path / "report.json").read_text())
        assert not summary["finished"]
        assert summary["errors"][0]["count"] > 10


def test_fragments_are_added_up(profiled: Path, rows: Rows, tmp_path: Path) -> None:
    source = write_rows(
        tmp_path, rows, picture=[b"bad" if row == 900 else cell for row, cell in enumerate(rows["picture"])]
    )
    whole = score_file(profiled, source, tmp_path / "whole.parquet", device="cpu", max_drift=0.2)
    options: dict[str, Any] = {"device": "cpu", "fragment_rows": 300, "max_drift": 0.2}
    done = score_dataset(profiled, source, tmp_path / "scores", report=tmp_path / "report.json", **options)
    assert done.summary is not None
    assert whole.summary is not None
    for name in ("n_rows", "n_scored", "n_errors", "n_unobserved", "task"):
        assert done.summary[name] == whole.summary[name], name
    assert drift_of(done.summary)["price (number)"] == drift_of(whole.summary)["price (number)"]
    (example,) = done.summary["errors"][0]["examples"]
    assert (example["row"], Path(example["source"]).name) == (900, "rows.parquet")
    assert "tally" not in (tmp_path / "scores" / "_manifest.json").read_text() or all(
        each["tally"] is None for each in json.loads((tmp_path / "scores" / "_manifest.json").read_text())["fragments"]
    )
    # What is finished is not read again, and the report says so.
    again = score_dataset(profiled, source, tmp_path / "scores", **options)
    assert again.summary is not None
    assert (again.summary["n_rows"], again.summary["n_unobserved"], again.drifted) == (1500, 1500, ())
    one = score_dataset(profiled, [source], tmp_path / "one.parquet", **options)
    assert one.summary is not None
    assert one.summary["n_scored"] == 1499
    top = score_dataset(profiled, source, tmp_path / "top.parquet", top_k=1, **options)
    assert top.summary is not None
    assert top.summary["predictions"] == whole.summary["predictions"]


def test_what_cannot_be_asked_for(model_path: Path, profiled: Path, rows: Rows, tmp_path: Path) -> None:
    source, out = write_rows(tmp_path, rows), tmp_path / "out.parquet"
    with pytest.raises(ConfigurationError, match="no profile that rows could drift from"):
        score_file(model_path, source, out, max_drift=0.2)
    with pytest.raises(ConfigurationError, match="no profile that rows could drift from"):
        score_dataset(model_path, source, tmp_path / "folder", max_drift=0.2)
    with pytest.raises(ConfigurationError, match="max_drift must be at least 0"):
        score_file(profiled, source, out, max_drift=-1)
    with pytest.raises(ConfigurationError, match=r"a report is a \.json or \.html file"):
        score_file(profiled, source, out, report=tmp_path / "report.txt")
    with pytest.raises(ConfigurationError, match="in none that exists"):
        score_file(profiled, source, out, report=tmp_path / "nowhere" / "report.json")
    # Without a profile a report has all but drift.
    done = score_file(model_path, source, out, report=tmp_path / "report.html", device="cpu")
    assert done.summary is not None
    assert done.summary["drift"] is None
    assert "no profile to compare with" in (tmp_path / "report.html").read_text()


def test_each_label_has_its_own_confidence(
    manifest: Manifest, rows: Rows, write_model: Callable[[Path, str | None], Path], tmp_path: Path
) -> None:
    labels = replace(manifest, task=Multilabel(3, ["red", "ripe", "round"]))
    path = write_model(tmp_path / "labels.onnx", labels.to_json())
    profile = profile_of(rows, "verify", manifest.feeds, path)
    assert Measure("prediction_ripe", "confidence") in profile.predictions
    path = write_model(tmp_path / "labels.onnx", replace(labels, profile=profile).to_json())
    done = score_file(path, write_rows(tmp_path, rows), tmp_path / "out.parquet", device="cpu", max_drift=0.1)
    assert done.drifted == ()
    assert done.summary is not None
    found = {(each["column"], each["what"]): each for each in done.summary["predictions"]}
    assert found["prediction_red", "confidence"]["least"] >= 0.5


def test_records_of_the_progress(
    profiled: Path, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(following, "_EVERY", 0.0)
    caplog.set_level(logging.INFO, logger="mmensemble.scoring")
    score_file(profiled, write_rows(tmp_path, rows), tmp_path / "out.parquet", device="cpu")
    events = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert [events[0]["event"], events[-1]["event"]] == ["start", "end"]
    assert {each["event"] for each in events[1:-1]} == {"progress"}
    assert events[0]["total"] == events[-2]["n_rows"] == events[-1]["n_rows"] == 1500
    assert events[-2]["share"] == 1
    assert events[1]["rows_per_second"] > 0
    assert "1,500 rows of 1,500 (100%)" in caplog.records[-2].getMessage()


def test_a_profile_without_rows() -> None:
    empty = Profile("verify", 0, 0, {Measure("price", "number"): Distribution((), None, (0, 0))}, {})
    assert Profile.from_dict(json.loads(json.dumps(empty.to_dict()))) == empty
