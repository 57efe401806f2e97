"""What one object needs of another has a public name: no module reads an underscored attribute of another one's."""

from __future__ import annotations

import ast

import pytest

from tests.test_layers import MODULES


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def is_own(owner):
    """Whether a class or an object reads what is its own, or its base class's."""
    if isinstance(owner, ast.Call):
        return isinstance(owner.func, ast.Name) and owner.func.id == "super"
    return isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def foreign_private_names(tree):
    """The underscored attributes that a module reads, and neither defines nor sets itself."""
    read, own = [], set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            own.add(node.attr)
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            read.append((node.lineno, node.attr))
    return [f"line {line}: {name}" for line, name in read if name not in own]


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("mmensemble_estimators")])
def test_no_module_reads_private_attributes_of_another(module):
    assert not foreign_private_names(ast.parse(MODULES[module].read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("estimator._encode(X)", ["line 1: _encode"]),
        ("estimators[0].network_._run", ["line 1: _run"]),
        ("self._encode(X), cls._fit, super()._fit(X), estimator.__class__", []),
        ("def _train(self): ...\nfusion._train()", []),
        ("model._ids = [1]\nmodel._ids", []),
    ],
)
def test_the_check_itself(code, found):
    assert foreign_private_names(ast.parse(code)) == found
