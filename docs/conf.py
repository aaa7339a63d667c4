"""The site of these pages: `sphinx-build -W -q docs build/site`."""

project = "ptune"
author = "the ptune authors"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "ptune"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["*.json"]
suppress_warnings = ["myst.header"]
