"""The files that a campaign is reported to: chosen on the command line, tried before the runs, written after."""
from __future__ import annotations

import argparse
import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stress.arguments import Parser


@dataclass(frozen=True)
class Kind:
    """One option, and who writes its file. What a writer imports is waited for only by those who ask for it."""

    option: str
    endings: tuple[str, ...]
    writer: str  # module:function, called with a path and the document: what a command reports, whatever that is
    help: str
    needs: str = ""  # a library that may be missing


KINDS = (
    Kind("json", (".json",), "stress.reports.outputs:write_json", "write all figures; `merge` reads them"),
    Kind("junit", (".xml",), "stress.reports.junit:write", "write a test report, a test case for each run and check"),
    Kind("html", (".html",), "stress.reports.html:write", "write a page for people, in one file", needs="jinja2"),
    Kind("plot", (".png", ".svg"), "stress.reports.plot:write", "draw cached items over time: .png or .svg",
         needs="matplotlib"),
)
Outputs = tuple[tuple[Kind, Path], ...]


class Unwritten(Exception):
    """Files could not be written; says which, and why, in one line."""


def add(parser: Parser, kinds: Sequence[Kind] = KINDS) -> None:
    for kind in kinds:
        parser.add_argument(f"--{kind.option}", type=Path, metavar="FILE", help=kind.help)


def chosen(
    parser: Parser, given: argparse.Namespace, inputs: Sequence[Path] = (), kinds: Sequence[Kind] = KINDS
) -> Outputs:
    """The files asked for. Complains through the parser of one that cannot be written, or would overwrite another.

    `inputs`: files that are read, and so not written.
    """
    found = [(kind, path) for kind in kinds if (path := getattr(given, kind.option)) is not None]
    taken = {os.path.realpath(path): f"{path} is read" for path in inputs}
    for kind, path in found:
        if path.suffix.lower() not in kind.endings:
            parser.error(f"--{kind.option} {path}: must end in {' or '.join(kind.endings)}")
        real = os.path.realpath(path)
        if real in taken:
            parser.error(f"--{kind.option} {path} is the same file: {taken[real]}")
        taken[real] = f"--{kind.option} {path} is written"
        if kind.needs and find_spec(kind.needs) is None:
            parser.error(f"--{kind.option} needs {kind.needs}, which is not installed here")
        check_writable(parser, path)
    return tuple(found)


def check_writable(parser: Parser, path: Path) -> None:
    """Ends the process with one line when it cannot be."""
    existed = path.exists()
    try:
        with path.open("a"):
            pass
        if not existed:
            Path(os.path.realpath(path)).unlink()  # what a dangling link names, and not the link
    except (OSError, ValueError) as error:
        parser.error(f"{path} cannot be written: {reason(error)}")


def write(outputs: Outputs, document: object) -> None:
    """Writes each. One that fails does not keep the others from being written; Unwritten names those that failed."""
    failed = list(_failures(outputs, document))
    if failed:
        raise Unwritten("; ".join(failed))


def _failures(outputs: Outputs, document: object) -> Iterable[str]:
    for kind, path in outputs:
        module, _, name = kind.writer.partition(":")
        writer: Callable[[Path, object], None] = getattr(importlib.import_module(module), name)
        try:
            writer(path, document)
        except OSError as error:
            yield f"cannot write {path}: {reason(error)}"


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
