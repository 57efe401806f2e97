"""Old names of modules, under which pickles of older versions still ask for their classes. Imports nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["MovedModules"]


@dataclass(frozen=True)
class MovedModules(MetaPathFinder, Loader):
    """Finds modules by their old names, and loads none before it is asked for.

    It is asked after Python's own finders, so a module that is there under its name is never taken for an old one.

    Parameters
    ----------
    package : str
        The package whose modules they are.
    new_names : dict of str to str
        Old name of a module → the module that has all of its classes that pickles may name; both without the package.
    """

    package: str
    new_names: Mapping[str, str]

    def install(self) -> None:
        """Let ``import`` ask it; doing it again, as a reload does, changes nothing."""
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == self.package and name in self.new_names else None

    def exec_module(self, module: ModuleType) -> None:
        # `import` returns what stands in `sys.modules` in the end, here the new module itself.
        _, _, name = module.__name__.partition(".")
        sys.modules[module.__name__] = importlib.import_module(f"{self.package}.{self.new_names[name]}")
