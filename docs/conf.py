"""How the documentation is built: `sphinx-build -W docs build/docs` (extra docs)."""

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
