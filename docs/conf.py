"""How Sphinx builds the site: Markdown pages beside this file, and reference pages from docstrings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "ext"))
os.environ.pop("PROBEGRID_PLUGINS", None)  # the site shows our own parts, whoever builds it

import probegrid
import probegrid.report
import probegrid.sweep

vars(probegrid).update(probegrid._CALLED)  # the functions of these names, not the rooms just imported

project = "probegrid"
author = "the authors of probegrid"
release = version = probegrid.__version__
copyright = f"{author}, Apache-2.0"  # noqa: A001  # Sphinx's name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "reference"]
exclude_patterns = ["_build", "ext", "real_figures"]
nitpicky = False  # docstrings name types of libraries whose pages are not at hand

myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "code"  # docstrings write `name` for code
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = "probegrid"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0a5c96", "color-brand-content": "#0a5c96"},
    "dark_css_variables": {"color-brand-primary": "#7fc1f0", "color-brand-content": "#7fc1f0"},
}
highlight_language = "none"  # what a block without a language holds is no program
