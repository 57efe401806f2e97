"""``mmensemble doctor``: what is installed here, what of it works, and why not. Runs where nothing but the base is.

Imports click and the standard library; all else is looked for when the command runs, for it may be broken.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mmensemble._version import __version__
from mmensemble.cores import affinity, cgroup_cores, cgroup_files
from mmensemble.exceptions import MissingDependencyError

__all__ = ["doctor", "examine"]

# Of no use to whoever does not work on mmensemble itself.
_DEVELOPERS_EXTRAS = {"test", "lint", "docs", "dev", "dev-large"}
# Distributions of one module, `onnxruntime`.
_RUNTIMES = {
    "onnxruntime",
    *(
        f"onnxruntime-{kind}"
        for kind in ("gpu", "directml", "openvino", "rocm", "migraphx", "qnn", "training", "vitisai")
    ),
}
# What does as well as what an extra names.
_INSTEAD = {"xgboost-cpu": "xgboost"}
_VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "MMENSEMBLE_DATA")
# y = x @ x of two rows and columns, which every device multiplies: an ONNX model of opset 17.
_PRODUCT = bytes.fromhex(
    "08083a400a110a01780a017812017922064d61744d756c1201675a130a0178120e0a0c080112080a0208020a02080262130a0179120e0a0c"
    "080112080a0208020a02080242040a001011"
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def doctor(as_json: bool) -> None:
    """Show versions, the devices that work here and why the others do not, threads, and extras.

    The exit code is 1 if there is a problem. Colours are left out where NO_COLOR is set.

    \b
    Examples:
      mmensemble doctor
      mmensemble doctor --json | jq .devices
    """  # noqa: D301 (click keeps the lines of a paragraph that a backspace begins)
    facts = examine()
    click.echo(json.dumps(facts, ensure_ascii=False, indent=2) if as_json else "\n".join(_lines(facts)))
    if facts["problems"]:
        raise click.exceptions.Exit(1)


def examine() -> dict[str, Any]:
    """Return what `doctor` shows, as JSON values."""
    runtime, devices = _runtime(), _devices()
    threads, extras = _threads(), _extras()
    return {
        "mmensemble": {"version": __version__, "folder": str(Path(__file__).parent)},
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "onnxruntime": runtime,
        "devices": devices,
        "threads": threads,
        "memory": _memory(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "extras": extras,
        "problems": [*_problems(runtime, devices, threads, extras), *_hidden_package()],
    }


def _runtime() -> dict[str, Any]:
    """Return ONNX Runtime's version, the distributions that brought it, and what it was built with."""
    found = {name: version for name, version in _installed().items() if name in _RUNTIMES}
    runtime: dict[str, Any] = {"version": None, "distributions": found, "providers": [], "error": None}
    try:
        import onnxruntime

        runtime |= {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}
    except (ImportError, AttributeError, OSError) as error:
        runtime["error"] = _one_line(error)
    return runtime


def _devices() -> dict[str, Any]:
    """Tell of each device whether it multiplies two matrices, and why not."""
    try:
        from mmensemble.scoring.providers import DEVICES
    except (ImportError, AttributeError, OSError) as error:
        return {"cpu": {"works": False, "reason": f"ONNX Runtime cannot be imported: {_one_line(error)}"}}
    reasons = {device: _why_not(device) for device in DEVICES}
    return {device: {"works": reason is None, "reason": reason} for device, reason in reasons.items()}


def _why_not(device: Any) -> str | None:
    """Say why a device does not work here; None where it does."""
    import numpy as np

    from mmensemble.exceptions import MmensembleError
    from mmensemble.scoring.providers import open_session, providers_for, quiet_runtime, why_not

    reason = why_not(device)
    if reason is not None:
        return reason

    def try_out(session: Any, _: Any) -> None:
        (product,) = session.run(None, {"x": np.ones((2, 2), dtype=np.float32)})
        if not (product == 2).all():
            raise RuntimeError(f"it multiplies wrongly: {product.tolist()}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        path.write_bytes(_PRODUCT)
        try:
            with quiet_runtime():
                session, _ = open_session(path, device, 1, try_out=try_out)
                try_out(session, device)
        except (MmensembleError, RuntimeError) as error:
            return _one_line(error)
        finally:
            if device == "tensorrt":  # engines of a model that nobody has
                shutil.rmtree(providers_for(path, device)[0][1]["trt_engine_cache_path"], ignore_errors=True)
    return None


def _threads() -> dict[str, Any]:
    """Return the cores of the host, those that this process may use, and what its control group may use of them."""
    quota = cgroup_cores()
    return {"cores": os.cpu_count(), "usable": affinity(), "quota": None if math.isinf(quota) else quota}


def _memory() -> dict[str, Any]:
    """Return the bytes of memory of the host, and what the control group may use of it."""
    total = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = ("memory.max", "memory.limit_in_bytes")
    limits = [int(text) for name in files for (text,) in cgroup_files("memory", (name,)) if text != "max"]
    limit = min(limits, default=None)
    return {"bytes": total, "limit": None if limit is None or (total and limit >= total) else limit}


def _extras() -> dict[str, Any]:
    """Return each extra with the versions of what it needs, and what is missing or too old of it."""
    try:
        requires = metadata.distribution("mmensemble").requires or []
        names = metadata.distribution("mmensemble").metadata.get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    installed, extras = _installed(), {}
    for extra in names:
        needed = _needed(extra, requires)
        missing = [
            f"{name}{wanted}" + (f" (there is {installed[name]})" if name in installed else "")
            for name, wanted in needed.items()
            if name not in installed or not wanted.contains(installed[name], prereleases=True)
        ]
        versions = {name: installed[name] for name in needed if name in installed}
        extras[extra] = {"complete": not missing, "missing": missing, "versions": versions}
    return extras


def _needed(extra: str, requires: Iterable[str]) -> dict[str, SpecifierSet]:
    """Return what an extra brings, by distribution and range of versions, that of extras that it names included."""
    found: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, requires):
        marker = requirement.marker
        if marker is None or not marker.evaluate({"extra": extra}) or marker.evaluate({"extra": ""}):
            continue
        if requirement.name == "mmensemble":
            for other in sorted(requirement.extras):
                found |= _needed(other, requires)
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def _installed() -> dict[str, str]:
    """Return the version of every distribution, by its normalised name; the first one on the path counts."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), distribution.version)
    for name, other in _INSTEAD.items():
        if name in found:
            found.setdefault(other, found[name])
    return found


def _problems(
    runtime: Mapping[str, Any], devices: Mapping[str, Any], threads: Mapping[str, Any], extras: Mapping[str, Any]
) -> list[str]:
    """Return what stands in the way, each with what to do."""
    problems = []
    names = list(runtime["distributions"])
    if len(names) > 1:
        problems.append(
            f"{' and '.join(names)} are one module and overwrite each other: pip uninstall -y {' '.join(names)}, then "
            "install the one that you want"
        )
    if runtime["error"] is not None:
        problems.append(f"ONNX Runtime cannot be imported, and nothing can be scored: {runtime['error']}")
    elif not devices["cpu"]["works"]:
        problems.append(f"the CPU cannot score: {devices['cpu']['reason']}")
    quota, usable = threads["quota"], threads["usable"]
    if quota is not None and usable is not None and quota < usable:
        n = max(1, int(quota))
        problems.append(
            f"the control group may use {quota:g} cores at a time and {usable} are seen: a library that starts a "
            f"thread for each lets them wait for each other; set OMP_NUM_THREADS={n}, and n_threads={n} to score"
        )
    if not extras:
        problems.append("mmensemble is imported from a folder and not installed, so its extras are not known here")
    return problems


def _hidden_package() -> list[str]:
    folder = Path.cwd() / "mmensemble"
    if not folder.is_dir() or (folder / "__init__.py").exists():
        return []
    return [f"Python that is started here takes the folder {folder} for the package: start it elsewhere, or rename it"]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _lines(facts: Mapping[str, Any]) -> Iterable[str]:
    """Yield what is shown to a person."""
    python, runtime, threads, memory = (facts[name] for name in ("python", "onnxruntime", "threads", "memory"))
    yield f"mmensemble    {facts['mmensemble']['version']}  {facts['mmensemble']['folder']}"
    yield f"Python        {python['version']}  {python['executable']}  {python['platform']}"
    brought = ", ".join(f"{name} {version}" for name, version in runtime["distributions"].items())
    yield f"ONNX Runtime  {runtime['version'] or 'none'}  {brought}"
    quota = "no quota" if threads["quota"] is None else f"a quota of {threads['quota']:g}"
    yield f"cores         {threads['usable']} of {threads['cores']} usable, {quota}"
    if memory["bytes"] is not None:
        limit = "no limit" if memory["limit"] is None else f"a limit of {memory['limit'] / 2**30:.1f} GiB"
        yield f"memory        {memory['bytes'] / 2**30:.1f} GiB, {limit}"
    for name, value in facts["variables"].items():
        yield f"              {name}={value}"
    yield "devices"
    for name, device in facts["devices"].items():
        yield f"  {_mark(device['works'])} {name:<11} {device['reason'] or ''}".rstrip()
    yield "extras"
    of_train = facts["extras"].get("train", {"missing": []})["missing"]
    for name, extra in facts["extras"].items():
        if name not in _DEVELOPERS_EXTRAS:
            own = [package for package in extra["missing"] if name == "train" or package not in of_train]
            lacks = own if len(own) == len(extra["missing"]) else ["train", *own]
            needs = f"needs {', '.join(lacks)}" if lacks else ""
            yield f"  {_mark(extra['complete'])} {name:<11} {needs}".rstrip()
    if any(extra["missing"] for name, extra in facts["extras"].items() if name not in _DEVELOPERS_EXTRAS):
        yield f"              install one by: {MissingDependencyError('', 'EXTRA').how_to_install}"
    yield "problems" if facts["problems"] else "problems      none"
    for problem in facts["problems"]:
        yield f"  {_mark(False)} {problem}"


def _mark(good: bool) -> str:
    return click.style("ok", fg="green") if good else click.style("no", fg="red")
