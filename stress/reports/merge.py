"""python -m stress merge: joins the JSON reports of a campaign's shards into the one of the whole.

A single report that is no shard is read and reported again: pages and pictures can be made of it later.
"""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from stress.arguments import Parser
from stress.reports import outputs, terminal
from stress.reports.document import Document, Part, checked, conclude


class Unmergeable(ValueError):
    """Says which file does not fit, and why, in one line."""


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="python -m stress merge", description="Join the JSON reports of a campaign's shards.",
        epilog="Exit status: 0 every run is there and held; 1 one is not or did not; 2 reports that cannot be read or "
               "do not belong together, or a file that cannot be written.",
    )
    parser.add_argument("report", nargs="+", type=Path, help="what --json wrote, one file a shard")
    outputs.add(parser)
    given = parser.parse_args(arguments)
    chosen = outputs.chosen(parser, given, given.report)
    try:
        document = merged([(str(path), load(path)) for path in given.report])
    except Unmergeable as error:
        parser.error(str(error))
    terminal.close(terminal.console(), document)
    outputs.write(chosen, document)
    return conclude(document)["status"]


def load(path: Path) -> Document:
    """Unmergeable: the file cannot be read, or is no report."""
    if path.exists() and not path.is_file():  # a device, say, that can be read for ever
        raise Unmergeable(f"{path} is no report that can be read: it is no regular file")
    try:
        return checked(json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant))
    except (OSError, ValueError, RecursionError) as error:
        raise Unmergeable(f"{path} is no report that can be read: {outputs.reason(error)}") from None


def merged(named: Sequence[tuple[str, Document]]) -> Document:
    """The whole of the parts, each with the name of its file, in any order. Shards may be missing; the document
    says which. Unmergeable: two do not belong to one campaign, or hold the same shard."""
    first_name, first = named[0]
    if len(named) == 1 and first["shard"] is None:
        return first
    parts: dict[int, Part] = {}
    whose: dict[int, str] = {}
    for name, document in named:
        for what in ("configuration", "planned"):
            if document[what] != first[what]:
                raise Unmergeable(f"{name} is of another campaign than {first_name}: {_difference(document, first)}")
        own = _parts(document)
        if not own:
            raise Unmergeable(f"{name} is of a whole campaign, and no shard")
        for part in own:
            index, _, of = part["shard"].partition("/")
            if of != _parts(first)[0]["shard"].partition("/")[2]:
                raise Unmergeable(f"{name} is shard {part['shard']}, but {first_name} is shard "
                                  f"{_parts(first)[0]['shard']}")
            if int(index) in parts:
                raise Unmergeable(f"{name} and {whose[int(index)]} are both shard {part['shard']}")
            parts[int(index)], whose[int(index)] = part, name
    runs = {run["number"]: run for _, document in named for run in document["runs"]}
    if len(runs) < sum(len(document["runs"]) for _, document in named):
        raise Unmergeable("some run is in more than one of the reports, although no shard is")
    heads = [parts[index] for index in sorted(parts)]
    return {
        "format": first["format"], "rerun": heads[0]["rerun"].removesuffix(f" --shard {heads[0]['shard']}"),
        "seed": first["seed"], "machine": _machines(heads), "started": min(part["started"] for part in heads),
        "seconds": round(sum(part["seconds"] for part in heads), 3), "shard": None, "parts": heads,
        "configuration": first["configuration"], "planned": first["planned"],
        "runs": [runs[number] for number in sorted(runs)],
    }


def _parts(document: Document) -> list[Part]:
    if document["shard"] is None:
        return document["parts"]
    return [{"shard": document["shard"], "rerun": document["rerun"], "machine": document["machine"],
             "started": document["started"], "seconds": document["seconds"]}]


def _machines(parts: Sequence[Part]) -> dict[str, str]:
    """Where the shards ran on different machines, all that each line has said."""
    names = dict.fromkeys(name for part in parts for name in part["machine"])
    return {name: " | ".join(dict.fromkeys(part["machine"].get(name, "unknown") for part in parts)) for name in names}


def _difference(one: Document, other: Document) -> str:
    mine, theirs = one["configuration"], other["configuration"]
    for name in dict.fromkeys([*mine, *theirs]):
        if mine.get(name) != theirs.get(name):
            return f"{name} is {mine.get(name)}, and not {theirs.get(name)}"
    return "the same options gave other runs"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
