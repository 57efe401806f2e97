"""Which device runs the graph, and the ONNX Runtime session on it. Imports onnxruntime.

ONNX Runtime lists the providers that it was *built* with. Asked for one whose GPU or libraries are missing, it writes
errors to stderr and runs on the CPU. So nothing is asked for before a cheap look at the driver, and nothing is believed
before a session says which provider it got and has scored a row.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import onnxruntime

from mmensemble.exceptions import ConfigurationError, DeviceError, ModelFileError
from mmensemble.scoring.manifest import model_stamp

__all__ = [
    "DEVICES",
    "Device",
    "ResolvedDevice",
    "cuda_device_count",
    "open_session",
    "providers_for",
    "quiet_runtime",
    "why_not",
]

# "auto", "cpu", "cuda", "tensorrt", or one of several GPUs by its number: "cuda:1".
Device = str
ResolvedDevice = Literal["cpu", "cuda", "tensorrt"]
Create = Callable[[Path, ResolvedDevice, int], Any]

DEVICES: tuple[ResolvedDevice, ...] = ("cpu", "cuda", "tensorrt")

_PROVIDER: dict[ResolvedDevice, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# By default the arena grows by powers of two and takes up to twice the GPU memory that it needs.
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested"}
_WARNING, _FATAL = 2, 4  # ONNX Runtime's log levels

logger = logging.getLogger(__name__)


def cuda_device_count(load: Callable[[str], Any] = ctypes.CDLL) -> int:
    """Ask NVIDIA's driver for the number of GPUs; 0 where there is no driver.

    Parameters
    ----------
    load : callable, default=ctypes.CDLL
        Opens a shared library by its name, or raises ``OSError``.
    """
    try:
        driver = load("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def why_not(
    device: ResolvedDevice,
    *,
    number: int = 0,
    available: Callable[[], Sequence[str]] = onnxruntime.get_available_providers,
    n_gpus: Callable[[], int] = cuda_device_count,
) -> str | None:
    """Say why a device cannot work on this machine; None if nothing speaks against it.

    Parameters
    ----------
    device : {"cpu", "cuda", "tensorrt"}
        The device.
    number : int, default=0
        Which one of several GPUs.
    available, n_gpus : callable
        Where to look: the providers that ONNX Runtime was built with, and the number of GPUs.
    """
    if device == "cpu":
        return None
    if _PROVIDER[device] not in available():
        return f"the installed ONNX Runtime has no {_PROVIDER[device]}; install onnxruntime-gpu in place of onnxruntime"
    found = n_gpus()
    if found == 0:
        return "the NVIDIA driver reports no GPU"
    if number >= found:
        return f"the NVIDIA driver reports {found} GPU{'' if found == 1 else 's'}, which are numbered from 0"
    return None


def _named(device: Device) -> tuple[str, int]:
    """Split ``"cuda:1"`` into the kind of device and the number among several GPUs."""
    kind, colon, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    numbered = kind in ("cuda", "tensorrt") and number.isdecimal()
    if kind not in ("auto", *DEVICES) or (colon and not numbered):
        raise ConfigurationError(
            f"device must be one of 'auto', 'cpu', 'cuda', 'tensorrt', not {device!r}; 'cuda:1' is one of several GPUs"
        )
    return kind, int(number or 0)


def open_session(
    path: Path,
    device: Device,
    n_threads: int,
    *,
    try_out: Callable[[Any, ResolvedDevice], object],
    available: Callable[[], Sequence[str]] = onnxruntime.get_available_providers,
    n_gpus: Callable[[], int] = cuda_device_count,
    create: Create | None = None,
) -> tuple[Any, ResolvedDevice]:
    """Open a model file on a device that works.

    Parameters
    ----------
    path : Path
        The ONNX file.
    device : {"auto", "cpu", "cuda", "tensorrt"}
        ``"auto"`` takes CUDA if a row can be scored there, else, silently, the CPU. One of several GPUs has its number
        behind a colon.
    n_threads : int
        Threads within an operator on the CPU.
    try_out : callable
        Scores a row with a session on a device; whatever it raises on a GPU says that the GPU does not work.
    available, n_gpus, create : callable
        Stand-ins for ONNX Runtime and the driver, for tests.

    Returns
    -------
    session : onnxruntime.InferenceSession
    device : {"cpu", "cuda", "tensorrt"}

    Raises
    ------
    ConfigurationError
        If the device is unknown.
    DeviceError
        If a device was asked for by name and does not work.
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is no ONNX model that can be opened.
    """
    kind, number = _named(device)
    if not path.is_file():
        raise FileNotFoundError(f"there is no model file {path}")
    create = create or partial(_create, number=number)
    if kind == "auto":
        if why_not("cuda", available=available, n_gpus=n_gpus) is None:
            try:
                with quiet_runtime():
                    return _open_on_gpu(path, "cuda", n_threads, try_out, create), "cuda"
            except DeviceError as error:
                logger.info("running on the CPU: %s", error)
        return _open_on_cpu(path, n_threads, create), "cpu"
    named = cast(ResolvedDevice, kind)
    reason = why_not(named, number=number, available=available, n_gpus=n_gpus)
    if reason is not None:
        raise DeviceError(f"device {device!r} does not work here: {reason}")
    if named == "cpu":
        return _open_on_cpu(path, n_threads, create), named
    return _open_on_gpu(path, named, n_threads, try_out, create), named


def _open_on_cpu(path: Path, n_threads: int, create: Create) -> Any:
    try:
        return create(path, "cpu", n_threads)
    except Exception as error:  # ONNX Runtime's errors have no other base class in common
        weights = Path(f"{path}.data")
        if weights.name in str(error) and not weights.exists():
            raise ModelFileError(
                f"{path} has its weights in {weights.name}, which is not beside it; copy both files to one folder"
            ) from error
        raise ModelFileError(
            f"{path} cannot be opened: it is damaged, is not an ONNX model, or needs a newer ONNX Runtime than "
            f"{onnxruntime.__version__} ({error})"
        ) from error


def _open_on_gpu(
    path: Path,
    device: ResolvedDevice,
    n_threads: int,
    try_out: Callable[[Any, ResolvedDevice], object],
    create: Create,
) -> Any:
    notes = _load_cuda_libraries()
    try:
        session = create(path, device, n_threads)
    except Exception as error:  # as above
        # What opens on the CPU is not damaged, so the device is to blame.
        _open_on_cpu(path, n_threads, create)
        raise DeviceError(f"device {device!r} does not work here: {error} {notes}".strip()) from error
    running = session.get_providers()[0]
    if running != _PROVIDER[device]:
        raise DeviceError(f"device {device!r} does not work here: ONNX Runtime fell back to {running}. {notes}".strip())
    try:
        try_out(session, device)
    except ModelFileError:
        raise
    except Exception as error:  # as above
        raise DeviceError(f"device {device!r} cannot score a row: {error} {notes}".strip()) from error
    return session


def _create(path: Path, device: ResolvedDevice, n_threads: int, number: int = 0) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = n_threads
    providers = providers_for(path, device, number)
    return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def providers_for(path: Path, device: ResolvedDevice, number: int = 0) -> list[Any]:
    """Return the execution providers to ask for, the preferred one first, with their options and the GPU's number."""
    gpu = {"device_id": str(number)} if number else {}
    cuda = (_PROVIDER["cuda"], {**_CUDA_OPTIONS, **gpu})
    if device == "cpu":
        return [_PROVIDER["cpu"]]
    if device == "cuda":
        return [cuda, _PROVIDER["cpu"]]
    folder = str(_engine_folder(path))
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        **gpu,
    }
    return [(_PROVIDER["tensorrt"], options), cuda, _PROVIDER["cpu"]]


def _engine_folder(path: Path) -> Path:
    """Return where TensorRT keeps a model's engines, which take minutes to build.

    ONNX Runtime names them by the graph and not by its weights, so every file has a folder of its own.
    """
    folder = Path(os.environ.get("MMENSEMBLE_DATA") or "~/.cache/mmensemble").expanduser() / "tensorrt"
    folder = folder / model_stamp(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load_cuda_libraries() -> str:
    """Let ONNX Runtime find the CUDA libraries that pip installed; return what it prints about missing ones."""
    printed = io.StringIO()
    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(printed):
            onnxruntime.preload_dlls()
    return " ".join(printed.getvalue().split())


@contextlib.contextmanager
def quiet_runtime() -> Iterator[None]:
    """Let ONNX Runtime, and sessions that are opened in the block, print nothing but what ends the process."""
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
