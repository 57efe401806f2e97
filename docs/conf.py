"""Sphinx configuration; `make docs` builds with warnings as errors and without a network."""

from __future__ import annotations

from typing import Any

# sphinx-gallery looks up what examples import, and scikit-learn hides HalvingGridSearchCV until this is imported.
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

import mmensemble

project = "mmensemble"
author = "The mmensemble developers"
copyright = f"2026, {author}"
version = release = mmensemble.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "sg_execution_times.rst", "gallery/sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "literal"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's Parameters have the types
numpydoc_show_class_members = False

# The example trains networks for minutes, so its page shows the code; `make demo` runs it.
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "mmensemble"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}


def skip_scikit_learn(_app: Any, _what: str, _name: str, obj: Any, skip: bool, _options: Any) -> bool:
    """Leave out what classes inherit from scikit-learn; its own documentation has it, and its links end there."""
    module = getattr(obj, "__module__", None) or type(obj).__module__
    return skip or module.startswith("sklearn.")


def setup(app: Any) -> None:
    """Connect the hook."""
    app.connect("autodoc-skip-member", skip_scikit_learn)
