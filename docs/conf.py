"""Sphinx: the pages of this folder as they are, and the reference from docstrings. `make docs` builds it."""
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import docstrings  # noqa: E402
import stubs  # noqa: E402

project = "deferpool"
try:
    release = metadata.version("deferpool")
except metadata.PackageNotFoundError:  # built in place
    release = ""
html_title = "deferpool"
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!deferpool\.).*"),                # other projects: this builds without a network
    ("py:.*", r"deferpool\..*\b(_\w+\.\w+|[A-Z])"),  # type variables, and names that the public ones are made of
]


def setup(app):  # type: ignore[no-untyped-def]
    app.connect("autodoc-process-docstring", docstrings.marked_up, priority=100)
    app.connect("autodoc-process-signature", stubs.signature)
