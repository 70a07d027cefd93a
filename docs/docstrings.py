"""Docstrings are plain text, for help() and for editors; this marks them up for Sphinx, before napoleon.

What stands between backquotes is code, and so is what is indented below a line that ends in a colon. An asterisk is an
asterisk.
"""
from __future__ import annotations

import re
from typing import Any

SECTION = re.compile(r"(Parameters|Returns|Raises|Yields|Keys|Example|Examples|Attributes):")


def marked_up(_app: Any, what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    if lines and what in ("attribute", "property"):
        lines.insert(0, "\\")  # nothing; in a first line napoleon takes what is before a colon for the type
    code_after = -1                         # what is indented deeper is code
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= code_after:
            code_after = -1
        if code_after >= 0:
            continue
        parts = line.split("`")
        parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
        lines[number] = "``".join(parts)
        following = lines[number + 1:number + 3]
        if line.endswith(":") and not SECTION.fullmatch(line.strip()) and len(following) == 2 and not following[0]:
            inner = len(following[1]) - len(following[1].lstrip())
            if inner > indent:
                lines[number] += ":"
                code_after = indent
