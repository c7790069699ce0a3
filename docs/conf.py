"""How the documentation is built: `sphinx-build -W docs build/docs` (extra docs)."""

from importlib.util import find_spec

project = "dlsim"
author = "The dlsim developers"
copyright = "2026, The dlsim developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "dlsim"
myst_heading_anchors = 3
# Docstrings are plain prose with `names` in backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# What watches real loaders is described without what it needs to do so, too.
autodoc_mock_imports = [name for name in ("torch", "psutil") if find_spec(name) is None]
