"""The site, built by Sphinx from the Markdown pages here: `make docs` writes it to build/docs."""

project = "sharpen"
html_title = "sharpen"
html_theme = "furo"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # links to headings work as they do on the forge
html_show_sourcelink = False
html_copy_source = False
exclude_patterns = ["*.py"]
