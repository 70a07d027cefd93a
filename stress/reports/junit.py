"""A report for continuous integration, in the XML that came from JUnit: a suite for each run, a case for each check.

The case "run" of each suite says whether the run was there and came to its end; one that never came is an error.
"""
from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from stress.reports.document import Document, Run, missing

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(path: Path, document: Document) -> None:
    tree = ElementTree.ElementTree(suites(document))
    ElementTree.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def suites(document: Document) -> Element:
    root = Element("testsuites", name="deferpool under stress", time=f"{document['seconds']:.3f}")
    for run in document["runs"]:
        _suite(root, document, run)
    for number in missing(document):
        title = document["planned"][number - 1]
        suite = _empty_suite(root, title, 0.0, document)
        case = SubElement(suite, "testcase", classname=_class(title), name="run", time="0")
        SubElement(case, "error", type="missing", message=f"run {number} of {len(document['planned'])} is not there")
    for element in (*root, root):
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            element.set(name, str(sum(1 for _ in element.iter(tag))))
    del root.attrib["skipped"]  # the whole has no such attribute
    return root


def _suite(root: Element, document: Document, run: Run) -> None:
    suite = _empty_suite(root, run["title"], run["seconds"], document)
    properties = SubElement(suite, "properties")
    facts = {"rerun": document["rerun"], **document["machine"], **{
        name: run[name] for name in ("seed", "threads", "procs", "cap", "limit", "bound", "operations", "peak_cached")
    }}
    for name, value in facts.items():
        SubElement(properties, "property", name=name, value=_text("none" if value is None else str(value)))
    whole = SubElement(suite, "testcase", classname=_class(run["title"]), name="run", time=f"{run['seconds']:.3f}")
    if run["verdict"] == "interrupted":
        SubElement(whole, "error", type="interrupted", message="the run was interrupted; nothing was broken so far")
    for check in run["checks"]:
        case = SubElement(suite, "testcase", classname=_class(run["title"]), name=_text(check["check"]), time="0")
        if check["outcome"] == "broken":
            first = check["evidence"][0] if check["evidence"] else "broken"
            failure = SubElement(case, "failure", type=_text(check["check"]), message=_text(first))
            failure.text = _text("\n".join([check["reason"], *check["evidence"], f"run it again: {document['rerun']}"]))
        elif check["outcome"] == "not checked":
            SubElement(case, "skipped", message=_text("; ".join(check["evidence"]) or "not checked"))
    if run["notes"]:
        SubElement(suite, "system-out").text = _text("\n".join(run["notes"]))


def _empty_suite(root: Element, title: str, seconds: float, document: Document) -> Element:
    started = datetime.fromisoformat(document["started"]).astimezone(timezone.utc)
    stamp = started.replace(tzinfo=None).isoformat(timespec="seconds")  # the schema has no time zones
    return SubElement(root, "testsuite", name=_text(title), time=f"{seconds:.3f}", timestamp=stamp)


def _class(title: str) -> str:
    """Readers make a tree of the dots in it."""
    return _text("stress." + title.replace(".", "_"))


def _text(text: str) -> str:
    """Without the characters that no XML file may hold, not even escaped."""
    return NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
