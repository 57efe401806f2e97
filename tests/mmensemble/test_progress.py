"""Steps, who hears of them, and the line that shows them."""

from __future__ import annotations

import io
import logging
import pickle
from typing import Any

import pytest
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from mmensemble import (
    MultimodalClassifier,
    SoftVoting,
    Stacking,
    SuperLearner,
    missing_modality_curve,
    modality_importance,
    modality_shapley,
)
from mmensemble.progress import Display, Step, Work, display, listening, report, steps, work
from mmensemble.progress.display import clock, in_words
from tests.mmensemble.multimodal.test_multimodal import facts_member, items, text_member

X, Y = items()
MEMBERS = [("text", text_member(), "name"), ("facts", facts_member(), ["weight", "price"])]


class Stream(io.StringIO):
    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def lines(self) -> list[str]:
        """Without the time before each."""
        return [line.partition("  ")[2] for line in self.getvalue().splitlines()]


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    now = Clock()
    for module in (display, steps, work):
        monkeypatch.setattr(module, "time", now)
    return now


class Heard:
    """Keeps what it hears, indented by what it is inside."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def begin(self, step: Step) -> None:
        self.events.append("  " * (len(step.path) - 1) + step.text)

    def update(self, step: Step) -> None:
        pass

    def end(self, step: Step) -> None:
        self.events.append("  " * (len(step.path) - 1) + ("failed " if step.failed else "end ") + step.name)


class Callback:
    """As of scikit-learn 1.9; keeps the paths of what it hears."""

    max_propagation_depth = None

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.events.append(("setup", type(estimator).__name__))

    def teardown(self, estimator: Any, context: Any) -> None:
        self.events.append(("teardown", type(estimator).__name__))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.events.append(("begin", *path(context)))

    def on_fit_task_end(self, estimator: Any, context: Any, *, metadata: Any = None) -> None:
        self.events.append(("end", *path(context)))


def path(context: Any) -> list[str]:
    return [] if context is None else [*path(context.parent), context.task_name]


def composition(**parameters: Any) -> MultimodalClassifier:
    return MultimodalClassifier(MEMBERS, **parameters)


with_callbacks = pytest.mark.skipif(
    not hasattr(MultimodalClassifier, "set_callbacks"), reason="scikit-learn has callbacks from 1.9 on"
)


def test_steps_in_words() -> None:
    assert Step("member", 2, 4, "image").text == "member 2 of 4 (image)"
    assert Step("trial", 3).text == "trial 3"
    rows = Step("rows", size=1898)
    rows.advance(320)
    assert rows.text == "rows 320 of 1,898"
    assert [in_words(seconds) for seconds in (0.44, 41.2, 125)] == ["0.4 s", "41 s", "2:05"]
    assert [clock(seconds) for seconds in (0.4, 41, 3725)] == ["0:00", "0:41", "1:02:05"]


def test_on_a_terminal_one_line_is_written_anew(now: Clock) -> None:
    stream = Stream(terminal=True)
    with listening(Display(stream)), Work("fit", "SuperLearner"):
        with Step("member", 2, 4, "image"), Step("fold", 3, 5):
            assert stream.getvalue() == ""
            now.time += 4
            with Step("training", plan=[("epoch", 1.0)] * 20, shown=False) as training:
                for epoch in range(1, 4):
                    with Step("epoch", epoch, 20):
                        now.time += 2
                    training.facts["train_loss"] = 0.7123
                with Step("epoch", 4, 20):
                    pass
        last = stream.getvalue().rpartition("\r")[2]
        assert last.rstrip() == "SuperLearner: member 2 of 4 (image), fold 3 of 5, epoch 4 of 20, loss 0.712"
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r" + " " * len(last) + "\r")


def test_a_line_is_no_wider_than_the_terminal(now: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Stream(terminal=True)
    with listening(Display(stream, delay=0)), Work("fit", "SuperLearner"), Step("member", 1, 2, "x" * 50):
        pass
    assert max(map(len, stream.getvalue().split("\r"))) == 39
    assert "..." in stream.getvalue()


def test_in_a_file_there_is_a_line_for_each_stage_and_now_and_then(now: Clock) -> None:
    stream = Stream()
    with listening(Display(stream)), Work("fit", "Stacking"):
        for number, name in enumerate(("text", "image"), 1):
            with Step("member", number, 2, name):
                for epoch in range(1, 101):
                    with Step("epoch", epoch, 100):
                        now.time += 1
    # Three seconds in, then each half minute, then at the next member.
    assert stream.lines == [
        *(f"Stacking: member 1 of 2 (text), epoch {epoch} of 100" for epoch in (4, 34, 64, 94)),
        *(f"Stacking: member 2 of 2 (image){epoch}" for epoch in ("", ", epoch 31 of 100", ", epoch 61 of 100")),
        "Stacking: member 2 of 2 (image), epoch 91 of 100",
        "Stacking: fit took 3:20",
    ]


def test_what_is_left(now: Clock) -> None:
    with Step("jobs", plan=[("a", 100.0), ("b", 50.0), ("a", 80.0), ("b", 40.0)]) as jobs:
        assert jobs.left() is None
        with Step("member"):
            now.time += 10
        assert jobs.left() is None  # nothing is known of b
        with Step("member", size=4) as member:
            now.time += 5
            member.advance()
            assert member.left() == 15
            assert jobs.left() == 15 + 8 + 16
            now.time += 15
        assert jobs.left() == 8 + 16
        with Step("member"):
            now.time += 3
            assert jobs.left() == 5 + 16
    with Step("jobs", plan=[(kind, 1.0) for kind in ((0, "whole"), (1, "whole"), (0, "fold"), (1, "fold"))]) as jobs:
        for seconds in (0.5, 4.0):
            with Step("member"):
                now.time += seconds
        assert jobs.left() is None  # a fold may be much quicker, where the rows are embedded by now
        with Step("member"):
            now.time += 0.25
            assert jobs.left() is None
        with Step("member", size=2) as member:
            now.time += 0.125
            member.advance()
            assert jobs.left() == 0.125
    with Step("fit") as fit:
        with Step("reading"):
            assert fit.left() is None
        with Step("rows", size=100, last=True) as rows:
            rows.done = rows.done_before = 50
            now.time += 2
            rows.advance(25)
            assert fit.left() == 2


def test_quick_work_is_not_shown(capsys: pytest.CaptureFixture[str], now: Clock) -> None:
    with Work("fit", "SoftVoting"), Step("member", 1, 2):
        now.time += 2
    assert capsys.readouterr() == ("", "")
    with Work("fit", "SoftVoting"):
        now.time += 4
        with Step("member", 1, 2):
            pass
    told = capsys.readouterr()
    assert told.out == ""
    assert "SoftVoting: member 1 of 2" in told.err


@pytest.mark.parametrize(
    ("outer", "inner", "shown"), [(0, False, False), (0, 1, True), (1, 0, False), (1, False, True)]
)
def test_work_inside_is_shown_as_the_work_around_it(
    outer: int, inner: int, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with Work("fit", "Outer", outer):
        report("from without")
        capsys.readouterr()
        with Work("fit", "Inner", inner), Step("epoch", 1, 2):
            pass
        assert ("epoch 1 of 2" in capsys.readouterr().err) == shown


def test_a_closed_stream_does_not_end_the_work() -> None:
    stream = Stream()
    stream.close()
    with listening(Display(stream, delay=0)), Work("fit", "SoftVoting", True) as work, Step("epoch", 1, 2) as step:
        step.advance()
    assert step.done == 1
    assert not work.failed


def test_what_happened_is_logged(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.INFO, logger="mmensemble")
    model = composition(fusion=SoftVoting()).fit(X, Y)
    assert caplog.records[-2].getMessage() == str(model.fusion_)
    assert caplog.records[-1].getMessage().startswith("MultimodalClassifier: fit took 0.")
    assert caplog.records[-1].event["seconds"] < 10
    assert capsys.readouterr() == ("", "")


def test_the_steps_of_stacking() -> None:
    heard = Heard()
    with listening(heard):
        composition(fusion=Stacking(cv=2)).fit(X, Y)
    assert heard.events[:2] == ["fit", "  jobs"]
    assert heard.events[-2:] == ["  end jobs", "end fit"]
    begun = [event.strip() for event in heard.events[2:-2] if "end " not in event]
    one, other = "member 1 of 2 (text)", "member 2 of 2 (facts)"
    folds = ["fold 1 of 2", "fold 2 of 2"]
    assert begun == [one, other, *(step for member in (one, other) for fold in folds for step in (member, fold))]
    assert heard.events[heard.events.index("      fold 1 of 2") + 1] == "      end fold"


def test_the_steps_of_the_super_learner() -> None:
    heard = Heard()
    with listening(heard):
        composition(fusion=SuperLearner([SoftVoting(), Stacking()], cv=2)).fit(X, Y)
    outer = [event for event in heard.events if event.startswith("  ") and not event.startswith("   ")]
    assert outer[:2] == ["  members", "  end members"]
    assert [event for event in outer[2:] if "end " not in event][:4] == [
        "  candidate 1 of 4 (text)",
        "  candidate 2 of 4 (facts)",
        "  candidate 3 of 4 (SoftVoting)",
        "  candidate 4 of 4 (Stacking)",
    ]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_what_runs_elsewhere_is_counted(backend: str) -> None:
    heard = Heard()
    with listening(heard), parallel_config(backend, n_jobs=2):
        composition(fusion=Stacking(cv=2)).fit(X, Y)
    assert sorted(event for event in heard.events if event.startswith("    member")) == sorted(
        [*["    member 1 of 2 (text)"] * 3, *["    member 2 of 2 (facts)"] * 3]
    )
    assert heard.events[-2:] == ["  end jobs", "end fit"]


@pytest.mark.slow
def test_a_backend_that_gives_all_at_once() -> None:
    heard = Heard()
    with listening(heard), parallel_config("multiprocessing", n_jobs=2):
        composition().set_params(fusion=SoftVoting()).fit(X, Y)
    assert "    member 2 of 2 (facts)" in heard.events


def test_a_listener_that_fails_ends_the_work(now: Clock) -> None:
    class Failing(Heard):
        def begin(self, step: Step) -> None:
            if step.name == "fold":
                raise KeyError("of the listener")

    heard = Heard()
    with listening(heard, Failing()), pytest.raises(KeyError, match="of the listener"):
        composition(fusion=Stacking(cv=2)).fit(X, Y)
    assert heard.events[-1] == "failed fit"
    with listening(heard), Step("other"):
        pass
    assert heard.events[-2:] == ["other", "end other"], "nothing is left over"


def test_inspection_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    model = composition(fusion=SoftVoting()).fit(X, Y)
    heard = Heard()
    with listening(heard):
        missing_modality_curve(model, X, Y, fractions=[0, 1], n_repeats=1)
        modality_shapley(model, X)
        modality_importance(model, X, Y, n_repeats=1)
    assert "  modality 2 of 2 (facts)" in heard.events
    assert "coalition 0 of 4" in heard.events
    assert "    modality 2 of 2 (facts)" in heard.events
    assert capsys.readouterr() == ("", "")
    modality_shapley(model, X, verbose=1)
    told = capsys.readouterr()
    assert told.out == ""
    assert "modality_shapley: coalition 0 of 4" in told.err


def test_a_search_is_shown_as_one_work(now: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(LogisticRegression):
        def fit(self, *given: Any, **more: Any) -> Any:
            now.time += 2
            return super().fit(*given, **more)

    model = MultimodalClassifier([("facts", Slow(), ["weight", "price"])], fusion=SoftVoting())
    GridSearchCV(model, {"facts__C": [1, 2]}, cv=2, refit=False).fit(X, Y)
    told = capsys.readouterr()
    assert told.out == ""
    assert "SoftVoting: member 1 of 1 (facts)" in told.err
    if hasattr(GridSearchCV, "set_callbacks"):
        assert "GridSearchCV: fit 3 of 4: SoftVoting: member" in told.err


@with_callbacks
def test_callbacks_of_scikit_learn() -> None:
    callback = Callback()
    model = composition(fusion=Stacking(cv=2)).set_callbacks(callback)
    model.fit(X, Y)
    assert callback.events[0] == ("setup", "MultimodalClassifier")
    assert callback.events[-1] == ("teardown", "MultimodalClassifier")
    assert callback.events[1] == ("begin", "fit")
    assert ("begin", "fit", "jobs", "member text") in callback.events
    assert ("begin", "fit", "jobs", "member text", "fold") in callback.events
    # The pipeline and what is inside tell of their steps themselves.
    inside = [event for event in callback.events if event[:5] == ("begin", "fit", "jobs", "member text", "fold")]
    assert any("lbfgs-iter" in event for event in inside)
    assert callback.events[-2] == ("end", "fit")
    begun = [event[1:] for event in callback.events if event[0] == "begin"]
    assert sorted(begun) == sorted(event[1:] for event in callback.events if event[0] == "end")
    assert not {"_skl_callbacks", "_callback_fit_ctx", "_parent_callback_ctx"} & set(vars(model.estimators_[0]))


@with_callbacks
def test_callbacks_stay_with_clones_and_pickles() -> None:
    model = composition(fusion=SoftVoting()).set_callbacks(Callback())
    assert clone(model)._skl_callbacks == model._skl_callbacks
    again = pickle.loads(pickle.dumps(model.fit(X, Y)))
    assert (again.predict(X) == model.predict(X)).all()
    assert again.fit(X, Y)._skl_callbacks[0].events[-1] == ("teardown", "MultimodalClassifier")


@with_callbacks
@pytest.mark.parametrize("hook", ["setup", "on_fit_task_begin", "on_fit_task_end", "teardown"])
def test_an_error_of_a_callback_is_raised(hook: str) -> None:
    class Failing(Callback):
        pass

    def fail(self: Any, estimator: Any, context: Any) -> None:
        raise KeyError(hook)

    setattr(Failing, hook, fail)
    model = composition(fusion=SoftVoting()).set_callbacks(Failing())
    with pytest.raises(KeyError, match=hook):
        model.fit(X, Y)
    model.set_callbacks().fit(X, Y)


@with_callbacks
def test_scikit_learns_own_callbacks() -> None:
    from sklearn.callback import ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = composition(fusion=SoftVoting()).set_callbacks(monitor).fit(X, Y)
    scores = monitor.get_logs().data_as_pandas
    assert float(scores["accuracy"].iloc[0]) == model.score(X, Y)


@with_callbacks
def test_callbacks_do_not_touch_the_cache(tmp_path: Any) -> None:
    from mmensemble.cache.hashing import hash_of

    member = LogisticRegression()
    before = hash_of(member)
    assert hash_of(member.set_callbacks(Callback())) == before
