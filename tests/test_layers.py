"""The layers of both packages: a module names modules of lower layers, or of its own room, never higher ones."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the ground up, as in CONTRIBUTING.md. The rooms of one line stand side by side and do not name each other.
LAYERS = {
    "mmensemble": """
        _version _moved _sklearn exceptions
        frames datasets operations time_limits cores progress
        preprocessing files
        tasks linear
        learning cache scoring metrics
        graph inspection
        fusion converters plotting
        multimodal
        export publishing doctor command_options
        command_run
        __init__ cli
        __main__
    """,
    "mmensemble_estimators": """
        protocols training fusers
        backbones
        frozen storage
        base
        text image audio video language_model joint
        fusion zero_shot zero_shot_image captioning sequence_to_sequence inspection packaged
        onnx recommended
        __init__
    """,
}
FOLDERS = {"mmensemble": ROOT / "mmensemble", "mmensemble_estimators": ROOT / "estimators" / "mmensemble_estimators"}
LEVEL = {
    (package, room): level
    for package, text in LAYERS.items()
    for level, line in enumerate(text.strip().splitlines())
    for room in line.split()
}


def module_names():
    """Every module of both packages and its file."""
    modules = {}
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            modules[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return modules


MODULES = module_names()


def imported(path):
    """The modules of both packages that a file names, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def room_of(module):
    package, _, rest = module.partition(".")
    return package, rest.partition(".")[0] or "__init__"


@pytest.mark.parametrize("package", LAYERS)
def test_every_room_has_a_layer_and_every_layer_its_rooms(package):
    rooms = {room for owner, room in map(room_of, MODULES) if owner == package}
    assert rooms == {room for owner, room in LEVEL if owner == package}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_lower_layers_or_its_own_room(module):
    package, room = room_of(module)
    for other in imported(MODULES[module]):
        other_package, other_room = room_of(other)
        if package == other_package:
            below = LEVEL[other_package, other_room] < LEVEL[package, room]
            assert below or room == other_room, f"{module} names {other}, which is not below it"
        else:
            assert package == "mmensemble_estimators", f"{module} names {other}: the core knows no estimators"


def test_no_circle():
    graph = {module: set(imported(path)) - {module} for module, path in MODULES.items()}
    circle = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
    assert not circle, f"a circle of imports: {' -> '.join(circle)}"


def test_a_room_has_at_most_fifteen_files_and_a_file_four_hundred_lines():
    for folder in {path.parent for path in MODULES.values()}:
        assert len(list(folder.glob("*.py"))) <= 15, folder
    for module, path in MODULES.items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, module
