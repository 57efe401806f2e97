"""What is heard of a training and an export, and callbacks that write what a network learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmensemble import MultimodalClassifier, SoftVoting, export_onnx
from mmensemble.progress import Step, listening
from mmensemble_estimators import ConcatFusion, TextClassifier
from tests.mmensemble.test_progress import Heard, with_callbacks

TEXTS = [f"{word} {number}" for number in range(12) for word in ("apple pear", "car bus")]
KINDS = np.array(["fruit", "vehicle"] * 12)
X = pd.DataFrame({"text": TEXTS, "weight": [float(number % 7) for number in range(24)]})


def classifier(**parameters: Any) -> TextClassifier:
    return TextClassifier(max_epochs=3, batch_size=8, random_state=0, **parameters)


class JsonLines:
    """A callback that writes a line for each epoch, as one for MLflow, W&B or TensorBoard would log it."""

    max_propagation_depth = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def setup(self, estimator: Any, context: Any) -> None:
        self.path.write_text("")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        pass

    def on_fit_task_end(self, estimator: Any, context: Any, *, metadata: Any = None) -> None:
        if context.task_name == "epoch":
            with self.path.open("a") as file:
                file.write(json.dumps({"estimator": type(estimator).__name__, **metadata}) + "\n")

    def teardown(self, estimator: Any, context: Any) -> None:
        pass


class Losses(Heard):
    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def end(self, step: Step) -> None:
        super().end(step)
        if step.name == "epoch":
            self.losses.append(step.facts["train_loss"])


def test_the_steps_of_a_training() -> None:
    heard = Losses()
    with listening(heard):
        model = classifier().fit(TEXTS, KINDS)
    assert heard.events == [
        "fit",
        "  reading (24 rows)",
        "  end reading",
        "  training",
        *(line for epoch in (1, 2, 3) for line in (f"    epoch {epoch} of 3", "    end epoch")),
        "  end training",
        "end fit",
    ]
    assert heard.losses == model.history_["train_loss"].tolist()


def test_the_last_epoch_of_early_stopping_is_heard_of() -> None:
    heard = Losses()
    with listening(heard):
        model = classifier(early_stopping=True, validation_fraction=0.25).set_params(max_epochs=30).fit(TEXTS, KINDS)
    assert heard.losses == model.history_["train_loss"].tolist()


def test_the_steps_of_a_joint_fusion() -> None:
    heard = Losses()
    members = [("one", classifier(), "text"), ("other", classifier(), "text")]
    with listening(heard):
        model = MultimodalClassifier(members, fusion=ConcatFusion(max_epochs=2, random_state=0)).fit(X, KINDS)
    assert "    member 2 of 2 (other)" in heard.events
    assert heard.losses == model.fusion_.history_["train_loss"].tolist()


def test_the_steps_of_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = MultimodalClassifier([("text", classifier(), "text")], fusion=SoftVoting()).fit(X, KINDS)
    heard = Heard()
    with listening(heard):
        export_onnx(model, tmp_path / "model.onnx", verify=X)
    steps = [event for event in heard.events if "end " not in event and "rows" not in event]
    assert steps == [
        "export",
        "  exporting",
        "    member 1 of 1 (text)",
        "  asking the estimator",
        "  checking",
        "  profiling",
        "  comparing",
        "  writing",
    ]
    assert heard.events[-1] == "end export"
    capsys.readouterr()
    export_onnx(model, tmp_path / "model.onnx", verify=False, verbose=1)
    told = capsys.readouterr()
    assert told.out == ""
    assert "export_onnx: exporting" in told.err
    assert "export_onnx: export took" in told.err
    heard = Heard()
    with listening(heard):
        export_onnx(model, tmp_path / "model.onnx", precision="int8", verify=X)
    assert "    trial 1" in heard.events


@with_callbacks
def test_a_callback_that_logs_the_losses(tmp_path: Path) -> None:
    callback = JsonLines(tmp_path / "losses.jsonl")
    model = MultimodalClassifier([("text", classifier(), "text")], fusion=SoftVoting()).set_callbacks(callback)
    history = model.fit(X, KINDS).estimators_[0].history_
    lines = [json.loads(line) for line in callback.path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["train_loss"] for line in lines] == history["train_loss"].tolist()
    assert {line["estimator"] for line in lines} == {"TextClassifier"}


@with_callbacks
def test_a_callback_can_stop_a_training(tmp_path: Path) -> None:
    class AtTwo(JsonLines):
        def on_fit_task_end(self, estimator: Any, context: Any, *, metadata: Any = None) -> bool:
            return context.task_name == "epoch" and metadata["epoch"] == 2

    model = classifier().set_callbacks(AtTwo(tmp_path / "nothing")).fit(TEXTS, KINDS)
    assert model.history_["epoch"].tolist() == [1, 2]
    assert model.predict(TEXTS[:2]).shape == (2,)


@with_callbacks
def test_weights_and_files_hold_no_callbacks(tmp_path: Path) -> None:
    model = classifier().set_callbacks(JsonLines(tmp_path / "losses.jsonl")).fit(TEXTS, KINDS)
    model.save(tmp_path / "saved")
    again = TextClassifier.load(tmp_path / "saved")
    assert not hasattr(again, "_skl_callbacks")
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
