"""The document: all that is known of a campaign, as plain data. Its types here are the schema of the JSON report."""
from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from stress import machine
from stress.plan import Options, Result
from stress.shard import Shard

FORMAT = 1  # another number for any change that readers of the file would notice


class Check(TypedDict):
    """What one check says of one run."""

    check: str
    reason: str
    outcome: Literal["held", "broken", "not checked"]
    evidence: list[str]


class Point(TypedDict):
    seconds: float
    cached: int
    given_back: int


class Run(TypedDict):
    number: int  # its place in the campaign, from 1
    scenario: str
    title: str
    design: str
    mode: str  # as it was at the start; empty for a baseline
    calls: str
    threads: int
    procs: int
    cap: int
    limit: int | None
    bound: int | None
    seed: int
    seconds: float
    operations: int
    ops_per_second: float
    samples: int
    restarts: int
    peak_cached: int
    verdict: Literal["held", "grows", "interrupted", "FAILED"]
    checks: list[Check]
    decisions: list[int]  # by thread: a hash of what it decided to do
    notes: list[str]
    books: dict[str, int]
    stats: dict[str, Any]
    resident: list[int]
    curve: list[Point]


class Part(TypedDict):
    """A shard that was merged into this document."""

    shard: str
    rerun: str
    machine: dict[str, str]
    started: str
    seconds: float


class Document(TypedDict):
    format: int
    rerun: str
    seed: int
    machine: dict[str, str]
    started: str  # ISO 8601, with its time zone
    seconds: float
    shard: str | None  # "1/3"; None for a whole campaign, and for one that was merged
    parts: list[Part]  # empty if nothing was merged
    configuration: dict[str, Any]  # the options, the same in every shard
    planned: list[str]  # titles of all runs of the campaign, in order: run n is the n-th
    runs: list[Run]


def campaign(
    options: Options, rerun: str, shard: Shard | None, planned: Sequence[str], results: Sequence[tuple[int, Result]],
    started: datetime, seconds: float,
) -> Document:
    """`results`: with the number of each run. `started` has a time zone."""
    return {
        "format": FORMAT, "rerun": rerun, "seed": options.seed, "machine": machine.describe(),
        "started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 3),
        "shard": None if shard is None else str(shard), "parts": [],
        "configuration": {name: list(value) if isinstance(value, tuple) else value
                          for name, value in asdict(options).items()},
        "planned": list(planned), "runs": [of_run(number, result) for number, result in results],
    }


def of_run(number: int, result: Result) -> Run:
    plan = result.plan
    return {
        "number": number, "scenario": plan.scenario, "title": plan.title, "design": plan.design,
        "mode": result.mode_at_start, "calls": plan.calls, "threads": plan.threads, "procs": result.procs,
        "cap": plan.options.cap, "limit": plan.limit, "bound": result.bound, "seed": plan.options.seed,
        "seconds": result.seconds, "operations": result.operations,
        "ops_per_second": round(result.operations / max(result.seconds, 1e-9), 1),
        "samples": result.books["samples"], "restarts": result.restarts, "peak_cached": result.books["peak_cached"],
        "verdict": result.verdict,
        "checks": [{"check": verdict.check, "reason": verdict.reason, "outcome": verdict.outcome,
                    "evidence": list(verdict.evidence)} for verdict in result.verdicts],
        "decisions": list(result.decisions), "notes": list(result.notes),
        "books": dict(result.books), "stats": dict(result.stats), "resident": list(result.resident),
        "curve": [{"seconds": s, "cached": c, "given_back": g} for s, c, g in result.curve],
    }


# ---- what follows from a document ---------------------------------------------------------------------

class Conclusion(TypedDict):
    word: Literal["SUCCESS", "FAILURE", "interrupted", "nothing"]
    sentence: str  # goes on after the word
    status: int  # of the process


def conclude(document: Document) -> Conclusion:
    """The last word on a campaign. All went well only if every run that was planned is there, and held."""
    runs = document["runs"]
    failed = sum(run["verdict"] == "FAILED" for run in runs)
    lost, rest = missing_shards(document), missing(document)
    if failed:
        return {"word": "FAILURE", "sentence": f": {failed} of {len(runs)} runs did not hold", "status": 1}
    if lost:
        names = f"shard {lost[0]} is" if len(lost) == 1 else f"shards {', '.join(lost)} are"
        return {"word": "FAILURE", "status": 1,
                "sentence": f": {names} missing, {len(rest)} of {len(document['planned'])} runs"}
    if not runs:
        return {"word": "nothing", "sentence": " was run", "status": 1}
    if rest or any(run["verdict"] == "interrupted" for run in runs):
        return {"word": "interrupted", "sentence": f" after {len(runs)} runs; nothing was broken so far", "status": 1}
    lists = any(run["verdict"] == "grows" for run in runs)
    held = "every invariant held" + (" in deferpool; only the unbounded lists grew" if lists else "")
    return {"word": "SUCCESS", "sentence": f": {len(runs)} runs, {held}", "status": 0}


def check_names(runs: Sequence[Run]) -> list[str]:
    """Of all checks, in the order of the run that has most of them."""
    most_first = sorted(runs, key=lambda run: -len(run["checks"]))
    return list(dict.fromkeys(check["check"] for run in most_first for check in run["checks"]))


def missing(document: Document) -> list[int]:
    """Numbers of the runs that should be in it and are not."""
    total = len(document["planned"])
    own = Shard.parse(document["shard"]).numbers(total) if document["shard"] else range(1, total + 1)
    return sorted(set(own) - {run["number"] for run in document["runs"]})


def missing_shards(document: Document) -> list[str]:
    """Of a merged document."""
    there = [Shard.parse(part["shard"]) for part in document["parts"]]
    if not there:
        return []
    every = (Shard(index, there[0].of) for index in range(1, there[0].of + 1))
    return [str(shard) for shard in every if shard not in there]


# ---- a document that comes from elsewhere -------------------------------------------------------------

def checked(value: object) -> Document:
    """The same, if it is a document. ValueError names the first thing that is not as the types above say."""
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        raise ValueError(f"format is {value['format']!r}, and this program reads {FORMAT}")
    _check(value, Document, "the report")
    document: Document = value  # type: ignore[assignment]
    shards = [document["shard"], *(part["shard"] for part in document["parts"])]
    total, seen = len(document["planned"]), set()
    for shard in filter(None, shards):
        Shard.parse(shard)
    for run in document["runs"]:
        if not 1 <= run["number"] <= total or run["number"] in seen:
            raise ValueError(f"run number {run['number']} is there twice, or not one of the {total} planned")
        seen.add(run["number"])
    datetime.fromisoformat(document["started"])
    return document


def _check(value: object, hint: Any, where: str) -> None:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin in (types.UnionType, Union):
        if value is not None:
            _check(value, next(each for each in inner if each is not type(None)), where)
    elif origin is Literal:
        if value not in inner:
            raise _misfit(where, f"is {value!r}, and not one of {', '.join(inner)}")
    elif origin is list:
        if not isinstance(value, list):
            raise _misfit(where, "is not a list")
        for at, each in enumerate(value):
            _check(each, inner[0], f"{where}[{at}]")
    elif is_typeddict(hint) or origin is dict:
        if not isinstance(value, dict):
            raise _misfit(where, "is not an object")
        hints = _hints(hint) if origin is None else dict.fromkeys(value, inner[1])
        for name, of in hints.items():
            if name not in value:
                raise _misfit(where, f"has no {name!r}")
            _check(value[name], of, f"{where}.{name}")
    else:
        if not isinstance(value, (int, float) if hint is float else hint) or isinstance(value, bool):
            raise _misfit(where, f"is not of type {hint.__name__}")
        if isinstance(value, str) and not value.isascii():
            value.encode()  # half a surrogate pair is a ValueError here, and not where it is written


def _misfit(where: str, what: str) -> ValueError:
    return ValueError(f"{where.removeprefix('the report.')} {what}")


_KNOWN: dict[Any, dict[str, Any]] = {}


def _hints(hint: Any) -> dict[str, Any]:
    """A campaign has some ten thousand points, and reading annotations is slow."""
    if hint not in _KNOWN:
        _KNOWN[hint] = get_type_hints(hint)
    return _KNOWN[hint]
