from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mmensemble
from mmensemble import doctor
from mmensemble.cli import main
from mmensemble.exceptions import DeviceError
from mmensemble.scoring import providers


@pytest.fixture(autouse=True)
def _usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "cgroup_cores", lambda: math.inf)


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], **options)


def facts(exit_code: int = 0) -> dict[str, Any]:
    result = run("--json")
    assert result.exit_code == exit_code, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def install(folder: Path, name: str, version: str, *requires: str, extras: tuple[str, ...] = ()) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {what}" for what in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_a_sound_installation() -> None:
    found = facts()
    assert found["problems"] == []
    assert found["mmensemble"] == {
        "version": mmensemble.__version__,
        "folder": str(Path(mmensemble.__file__).parent),
    }
    assert found["python"]["executable"] == sys.executable
    assert list(found["devices"]) == list(providers.DEVICES)
    assert found["devices"]["cpu"] == {"works": True, "reason": None}
    for device, state in found["devices"].items():
        assert state["works"] == (state["reason"] is None)
        if providers.why_not(device) is not None:
            assert state["reason"] == providers.why_not(device)
    assert len(found["onnxruntime"]["distributions"]) == 1
    assert found["onnxruntime"]["version"] in found["onnxruntime"]["distributions"].values()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert found["threads"] == {"cores": os.cpu_count(), "usable": usable, "quota": None}
    train = found["extras"]["train"]
    assert train["complete"]
    assert {"torch", "scikit-learn", "skl2onnx", "onnx"} <= set(train["versions"])
    assert {"torch", "peft"} <= set(found["extras"]["lora"]["versions"]), "what an extra names of others is its own"


def test_it_fits_on_one_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    lines = run().output.splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith(f"mmensemble    {mmensemble.__version__}  ")
    assert "  ok cpu" in lines
    assert "  ok train" in lines
    assert "              OMP_NUM_THREADS=3" in lines
    assert lines[-1] == "problems      none"
    assert not any(line.startswith(("  ok docs", "  ok test")) for line in lines)


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mok\x1b[0m cpu" in run(color=True).output
    for value, coloured in (("1", False), ("", True)):  # https://no-color.org: set, and not empty
        monkeypatch.setenv("NO_COLOR", value)
        assert ("\x1b[" in run(color=True).output) == coloured


def test_a_device_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_session(path: Path, device: str, n_threads: int, **looks: Any) -> Any:
        if device == "cuda":
            raise DeviceError("device 'cuda' does not work here: libcudnn.so.9 is\nmissing")
        return real(path, "cpu", n_threads, **looks)

    real = providers.open_session
    monkeypatch.setattr(providers, "why_not", lambda device, **looks: "no engine" if device == "tensorrt" else None)
    monkeypatch.setattr(providers, "open_session", open_session)
    assert facts()["devices"] == {
        "cpu": {"works": True, "reason": None},
        "cuda": {"works": False, "reason": "device 'cuda' does not work here: libcudnn.so.9 is missing"},
        "tensorrt": {"works": False, "reason": "no engine"},
    }


def test_two_distributions_of_one_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = list(facts()["onnxruntime"]["distributions"])
    other = "onnxruntime" if there == ["onnxruntime-gpu"] else "onnxruntime-gpu"
    install(tmp_path / "more", other, "1.2.3")
    monkeypatch.syspath_prepend(tmp_path / "more")
    (problem,) = facts(exit_code=1)["problems"]
    assert "are one module and overwrite each other: pip uninstall -y" in problem
    assert {other, *there} <= set(problem.split())


def test_a_runtime_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "mmensemble.scoring.providers")
    found = facts(exit_code=1)
    assert found["onnxruntime"]["version"] is None
    assert not found["devices"]["cpu"]["works"]
    assert "ONNX Runtime cannot be imported, and nothing can be scored" in found["problems"][0]


def test_what_an_extra_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        tmp_path,
        "mmensemble",
        "9.0",
        "Some.Thing>=1.4; extra == 'fit'",
        'present<6,>=5.23; extra == "fit"',
        "mmensemble[fit]; extra == 'more'",
        "absent; extra == 'more'",
        "always>=1",
        extras=("fit", "more"),
    )
    install(tmp_path, "some_thing", "1.10.0")
    install(tmp_path, "present", "6.0.0.post1")
    monkeypatch.syspath_prepend(tmp_path)
    assert facts()["extras"] == {
        "fit": {
            "complete": False,
            "missing": ["present<6,>=5.23 (there is 6.0.0.post1)"],
            "versions": {"some-thing": "1.10.0", "present": "6.0.0.post1"},
        },
        "more": {
            "complete": False,
            "missing": ["present<6,>=5.23 (there is 6.0.0.post1)", "absent"],
            "versions": {"some-thing": "1.10.0", "present": "6.0.0.post1"},
        },
    }
    shown = run().output
    assert "no more        needs present<6,>=5.23 (there is 6.0.0.post1), absent" in shown
    assert "install one by: pip install" in shown


def test_fewer_cores_than_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cgroup_cores", lambda: 0.5)
    (problem,) = facts(exit_code=1)["problems"]
    assert problem.startswith("the control group may use 0.5 cores at a time and ")
    assert "set OMP_NUM_THREADS=1, and n_threads=1" in problem
    assert run().exit_code == 1


def test_a_folder_that_hides_the_package(tmp_path: Path) -> None:
    (tmp_path / "mmensemble").mkdir()
    (problem,) = facts(exit_code=1)["problems"]
    assert problem.startswith(f"Python that is started here takes the folder {tmp_path / 'mmensemble'} for the package")
