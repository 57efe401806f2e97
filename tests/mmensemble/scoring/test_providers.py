from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmensemble.exceptions import ConfigurationError, DeviceError, ModelFileError
from mmensemble.scoring import OnnxPredictor
from mmensemble.scoring.providers import cuda_device_count, open_session, providers_for, why_not

ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
PROVIDER = dict(zip(("tensorrt", "cuda", "cpu"), ALL, strict=True))


class FakeSession:
    def __init__(self, provider: str) -> None:
        self.provider = provider

    def get_providers(self) -> list[str]:
        return [self.provider]


class FakeRuntime:
    """Opens sessions on the devices that work, and fails or falls back on the others."""

    def __init__(self, works: set[str], falls_back: bool = True) -> None:
        self.works = works
        self.falls_back = falls_back
        self.asked: list[str] = []

    def __call__(self, path: Path, device: str, n_threads: int) -> FakeSession:
        self.asked.append(device)
        if device in self.works:
            return FakeSession(PROVIDER[device])
        if not self.falls_back:
            raise RuntimeError(f"no {device}")
        return FakeSession(PROVIDER["cpu"])


class FakeDriver:
    def __init__(self, n_gpus: int, init: int = 0) -> None:
        self.n_gpus = n_gpus
        self.init = init

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self.n_gpus
        return 0


def nothing(session: Any, device: str) -> None:
    """A row that scores."""


def opened(
    path: Path, device: Any, runtime: FakeRuntime, n_gpus: int = 1, try_out: Callable[[Any, Any], object] = nothing
) -> tuple[Any, str]:
    return open_session(path, device, 1, try_out=try_out, available=lambda: ALL, n_gpus=lambda: n_gpus, create=runtime)


def test_providers_that_are_asked_for(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMENSEMBLE_DATA", str(tmp_path / "data"))
    cuda = ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"})
    assert providers_for(model_path, "cpu") == ["CPUExecutionProvider"]
    assert providers_for(model_path, "cuda") == [cuda, "CPUExecutionProvider"]
    assert not (tmp_path / "data").exists()
    (name, options), *others = providers_for(model_path, "tensorrt")
    assert (name, others) == ("TensorrtExecutionProvider", [cuda, "CPUExecutionProvider"])
    assert options["trt_engine_cache_enable"] == "1"
    assert Path(options["trt_engine_cache_path"]).parent == tmp_path / "data" / "tensorrt"
    assert Path(options["trt_engine_cache_path"]).is_dir()


def test_each_model_file_has_engines_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMENSEMBLE_DATA", str(tmp_path / "data"))

    def folder() -> str:
        return str(providers_for(tmp_path / "model.onnx", "tensorrt")[0][1]["trt_engine_cache_path"])

    (tmp_path / "model.onnx").write_bytes(b"one graph")
    first = folder()
    assert folder() == first
    (tmp_path / "model.onnx.data").write_bytes(b"its weights")
    with_weights = folder()
    (tmp_path / "model.onnx").write_bytes(b"other one")
    assert len({first, with_weights, folder()}) == 3


def test_the_driver_counts_gpus() -> None:
    def absent(name: str) -> Any:
        raise OSError(name)

    assert cuda_device_count(absent) == 0
    assert cuda_device_count(lambda name: FakeDriver(2)) == 2
    assert cuda_device_count(lambda name: FakeDriver(2, init=100)) == 0


def test_why_not() -> None:
    assert why_not("cpu", available=list, n_gpus=lambda: 0) is None
    assert why_not("cuda", available=lambda: ALL, n_gpus=lambda: 1) is None
    assert "onnxruntime-gpu" in str(why_not("cuda", available=lambda: ALL[2:], n_gpus=lambda: 1))
    assert "no GPU" in str(why_not("tensorrt", available=lambda: ALL, n_gpus=lambda: 0))
    assert "2 GPUs, which are numbered from 0" in str(
        why_not("cuda", number=2, available=lambda: ALL, n_gpus=lambda: 2)
    )


def test_one_of_several_gpus(model_path: Path) -> None:
    assert opened(model_path, "cuda:1", FakeRuntime({"cuda"}), n_gpus=2)[1] == "cuda"
    with pytest.raises(DeviceError, match=r"'cuda:1' does not work here: the NVIDIA driver reports 1 GPU,"):
        opened(model_path, "cuda:1", FakeRuntime({"cuda"}))
    (_, options), _ = providers_for(model_path, "cuda", 1)
    assert options["device_id"] == "1"
    for device in ("cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1", ":1", 1):
        with pytest.raises(ConfigurationError, match="device must be one of"):
            opened(model_path, device, FakeRuntime({"cuda", "cpu"}))


@pytest.mark.parametrize("falls_back", [True, False])
def test_auto_takes_a_gpu_that_works_and_else_the_cpu(model_path: Path, falls_back: bool) -> None:
    assert opened(model_path, "auto", FakeRuntime({"cpu", "cuda"}))[1] == "cuda"

    without_gpu = FakeRuntime({"cpu"}, falls_back)
    assert opened(model_path, "auto", without_gpu, n_gpus=0)[1] == "cpu"
    assert without_gpu.asked == ["cpu"]

    broken_gpu = FakeRuntime({"cpu"}, falls_back)
    session, device = opened(model_path, "auto", broken_gpu)
    assert (device, session.get_providers()) == ("cpu", ["CPUExecutionProvider"])
    assert broken_gpu.asked[0] == "cuda"


def test_auto_leaves_a_gpu_that_cannot_score(model_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails_on_gpu(session: Any, device: str) -> None:
        if device != "cpu":
            raise RuntimeError("no kernel image for this GPU")

    runtime = FakeRuntime({"cpu", "cuda"})
    with caplog.at_level(logging.INFO, "mmensemble"):
        assert opened(model_path, "auto", runtime, try_out=fails_on_gpu)[1] == "cpu"
    assert "no kernel image" in caplog.text
    with pytest.raises(DeviceError, match="'cuda' cannot score a row: no kernel image"):
        opened(model_path, "cuda", runtime, try_out=fails_on_gpu)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_named_device_is_used_or_refused(model_path: Path, device: str) -> None:
    assert opened(model_path, device, FakeRuntime({"cpu", device}))[1] == device
    with pytest.raises(DeviceError, match=f"'{device}' does not work here: the NVIDIA driver reports no GPU"):
        opened(model_path, device, FakeRuntime({"cpu"}), n_gpus=0)
    with pytest.raises(DeviceError, match=f"'{device}' does not work here: ONNX Runtime fell back to CPU"):
        opened(model_path, device, FakeRuntime({"cpu"}))
    with pytest.raises(DeviceError, match=f"'{device}' does not work here: no {device}"):
        opened(model_path, device, FakeRuntime({"cpu"}, falls_back=False))


def test_a_damaged_file_is_not_blamed_on_the_device(model_path: Path) -> None:
    for device in ("auto", "cpu", "cuda"):
        with pytest.raises(ModelFileError, match="cannot be opened"):
            opened(model_path, device, FakeRuntime(set(), falls_back=False))


def test_an_unknown_device(model_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="device must be one of 'auto', 'cpu', 'cuda', 'tensorrt', not 'gpu'"):
        opened(model_path, "gpu", FakeRuntime({"cpu"}))


@pytest.mark.skipif(cuda_device_count() > 0, reason="there is a GPU")
def test_without_a_gpu_nothing_is_printed(model_path: Path) -> None:
    program = (
        "import sys; from mmensemble import OnnxPredictor, DeviceError\n"
        "print(OnnxPredictor(sys.argv[1]).device)\n"
        "for device in ('cuda', 'tensorrt'):\n"
        "    try: OnnxPredictor(sys.argv[1], device=device)\n"
        "    except DeviceError as error: print(device, 'refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(model_path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout == "cpu\ncuda refused\ntensorrt refused\n"


@pytest.mark.gpu
@pytest.mark.skipif(why_not("cuda") is not None, reason="no CUDA device")
def test_cuda_scores_as_the_cpu_does(model_path: Path, rows: dict[str, list[Any]]) -> None:
    on_gpu = OnnxPredictor(model_path, device="cuda")
    assert on_gpu.device == OnnxPredictor(model_path).device == "cuda"
    on_cpu = OnnxPredictor(model_path, device="cpu")
    assert on_gpu.predict_proba(rows) == pytest.approx(on_cpu.predict_proba(rows), abs=1e-4)


@pytest.mark.parametrize("module", ["mmensemble", "mmensemble.scoring", "mmensemble.cli"])
def test_a_fresh_home_stays_empty(module: str, model_path: Path, tmp_path: Path) -> None:
    program = f"import {module}; from mmensemble import OnnxPredictor; OnnxPredictor({str(model_path)!r}, device='cpu')"
    unset = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    subprocess.run([sys.executable, "-c", program], check=True, env={**environment, "HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_telemetry_that_a_user_has_asked_for_is_left_alone() -> None:
    program = "import os, mmensemble; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout == "0\n"
