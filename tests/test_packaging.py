"""The promises of the packaging: extras, pins, public names, and what an import may load."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mmensemble
import mmensemble_estimators
from mmensemble._moved import MovedModules

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines]
SOURCES = sorted([*(ROOT / "mmensemble").rglob("*.py"), *(ROOT / "estimators").rglob("*.py")])


def names_of(requirements):
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def loaded_by(code):
    """Top-level modules that an interpreter of its own holds after `code`."""
    code += "\nimport sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_extra_that_an_error_names_exists():
    named = set(mmensemble._EXTRA_OF.values())
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "MissingDependencyError":
                named |= {argument.value for argument in call.args[1:] if isinstance(argument, ast.Constant)}
        named |= set(re.findall(r"mmensemble\[(\w+)\]", path.read_text(encoding="utf-8")))
    assert "examples" in named
    assert named - {"EXTRA"} <= set(EXTRAS)  # which stands for any of them


def test_extras_that_extras_name_exist():
    for requirement in DIRECT:
        assert requirement.name != "mmensemble" or requirement.extras <= set(EXTRAS)


def pins_in(file):
    pins = {}
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "=="
            assert "+" not in specifier.version, "a local version exists on one machine only"
            pins[canonicalize_name(pin.name)] = specifier.version
    return pins


def test_constraints_pin_every_direct_dependency():
    pins = pins_in("constraints.txt")
    for requirement in DIRECT:
        if requirement.name != "mmensemble":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_lowest_constraints_are_the_lower_bounds():
    bounds = {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in DIRECT
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    pins = pins_in("constraints-lowest.txt")
    assert {name: Version(pin) for name, pin in pins.items()} == {name: bounds[name] for name in pins}
    assert names_of([*PROJECT["dependencies"], *EXTRAS["train"]]) & bounds.keys() <= pins.keys()


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("win32", "ARM64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
    ],
)
def test_exactly_one_onnxruntime_on_every_platform(system, machine, expected):
    platform = {"sys_platform": system, "platform_machine": machine}
    chosen = [
        requirement.name
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.name.startswith("onnxruntime")
        and (requirement.marker or Marker("python_version > '0'")).evaluate(platform)
    ]
    assert chosen == [expected]


def test_base_install_is_the_scoring_side():
    heavy = {"torch", "transformers", "scikit-learn", "joblib", "skorch", "pandas", "onnx", "skl2onnx", "onnxscript"}
    assert not names_of(PROJECT["dependencies"]) & heavy


def test_what_is_large_is_installed_for_tests_alone():
    def reached(extra):
        for requirement in map(Requirement, EXTRAS[extra]):
            yield canonicalize_name(requirement.name)
            for inner in requirement.extras if requirement.name == "mmensemble" else ():
                yield from reached(inner)

    assert not set(reached("dev")) & names_of(EXTRAS["dev-large"])
    # One module in two distributions that overwrite each other.
    assert "xgboost" not in names_of(EXTRAS["dev-large"])


def test_export_knows_boosters_without_importing_them():
    assert not loaded_by("import mmensemble.export") & {"xgboost", "lightgbm", "catboost", "imblearn"}


def test_public_names_can_be_imported():
    for name in mmensemble.__all__:
        assert getattr(mmensemble, name).__name__ == name
        assert name in dir(mmensemble)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mmensemble.nothing


@pytest.mark.slow
def test_type_checkers_see_every_public_name(tmp_path):
    pytest.importorskip("mypy")
    uses = [
        f"import {package.__name__}\n" + "\n".join(f"{package.__name__}.{name}" for name in package.__all__)
        for package in (mmensemble, mmensemble_estimators)
    ]
    (tmp_path / "user.py").write_text("\n".join(uses), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", tmp_path, tmp_path / "user.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", ["mmensemble", "mmensemble_estimators"])
def test_packages_are_walkable_typed_and_import_without_side_effects(package):
    module = importlib.import_module(package)
    assert (Path(module.__file__).parent / "py.typed").exists()
    for found in pkgutil.walk_packages(module.__path__, f"{package}."):
        importlib.import_module(found.name)


@pytest.mark.parametrize("package", ["mmensemble", "mmensemble_estimators", "mmensemble.export", "mmensemble.scoring"])
def test_every_public_name_is_in_the_api_reference(package):
    reference = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    _, *sections = reference.split(".. currentmodule:: ")
    # What mmensemble gives is listed there, wherever it lives.
    homes = {package, package.partition(".")[0]}
    listed = {line.strip() for section in sections if section.split()[0] in homes for line in section.splitlines()}
    missing = set(importlib.import_module(package).__all__) - listed
    assert not missing


# The roots come first: a class is theirs, where a subpackage lists it as well. mmensemble.export has classes of graphs
# only, which are not pickled.
PUBLIC = [
    "mmensemble",
    "mmensemble_estimators",
    "mmensemble.datasets",
    "mmensemble.fusion",
    "mmensemble.inspection",
    "mmensemble.metrics",
    "mmensemble.preprocessing",
    "mmensemble.scoring",
    "mmensemble_estimators.inspection",
    "mmensemble_estimators.packaged",
]


def test_a_public_class_names_its_package_as_its_module():
    owners = {}
    for package in PUBLIC:
        module = importlib.import_module(package)
        for value in (getattr(module, name) for name in module.__all__):
            # A protocol has no instances that could be pickled.
            if inspect.isclass(value) and not getattr(value, "_is_protocol", False):
                owners.setdefault(value, package)
    assert {value: value.__module__ for value in owners} == owners


OLD_MODULES = {
    f"{finder.package}.{old}": f"{finder.package}.{new}"
    for finder in sys.meta_path
    if isinstance(finder, MovedModules)
    for old, new in finder.new_names.items()
}


@pytest.mark.parametrize("old", OLD_MODULES)
def test_a_module_that_moved_is_found_by_its_old_name(old):
    assert importlib.import_module(old) is importlib.import_module(OLD_MODULES[old])


def test_no_finder_is_installed_twice():
    finders = [finder for finder in sys.meta_path if isinstance(finder, MovedModules)]
    for package in (mmensemble, mmensemble_estimators):
        importlib.reload(package)
    assert [finder for finder in sys.meta_path if isinstance(finder, MovedModules)] == finders


def test_importing_mmensemble_is_cheap():
    loaded = loaded_by("import mmensemble")
    assert not loaded & {"torch", "transformers", "sklearn", "joblib", "pandas", "onnx", "onnxruntime", "numpy"}


@pytest.mark.parametrize("path", sorted((ROOT / "mmensemble").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_mmensemble_never_imports_torch(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packages = {module.partition(".")[0] for module in imported_modules(tree)}
    assert not packages & {"torch", "transformers", "skorch", "safetensors", "mmensemble_estimators"}


@pytest.mark.parametrize("path", sorted((ROOT / "mmensemble" / "scoring").glob("*.py")), ids=lambda p: p.name)
def test_scoring_imports_no_training_package(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    packages = {module.partition(".")[0] for module in imported_modules(tree)}
    assert not packages & {"sklearn", "joblib", "scipy", "pandas", "onnx"}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_private_in_scikit_learn_stands_in_one_file(path):
    if path == ROOT / "mmensemble" / "_sklearn.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        private = [name for name in names if name.startswith("sklearn.") and any(map(is_private, name.split(".")))]
        assert not private


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_private_attributes_are_read_where_they_are_set(path):
    if path == ROOT / "mmensemble" / "_sklearn.py":
        return
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    read = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        if is_private(node.attr) and getattr(node.value, "id", None) not in {"self", "cls"}
        if not (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", None) == "super")
    }
    set_here = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    set_here |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert read <= set_here
