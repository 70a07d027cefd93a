"""What is written for users is true: the snippets run, the links lead somewhere, and the reference is complete."""
from __future__ import annotations

import io
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import ROOT

import deferpool
import deferpool.testing

PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Parser:
    def __init__(self) -> None:
        self.fed: list[str] = []

    def feed(self, text: str) -> None:
        self.fed.append(text)

    def clear(self) -> None:
        self.fed.clear()


class MyPool:
    def acquire(self) -> object:
        return object()

    def release(self, obj: object) -> None:
        pass


def stand_ins() -> dict[str, Any]:
    """What snippets take for granted."""
    ours, theirs = socket.socketpair()
    theirs.sendall(b"received")
    theirs.close()
    return {"Parser": Parser, "MyPool": MyPool, "compile_rules": list, "connection": ours, "data": "data",
            "deferpool": deferpool, "handle": bytes, "log": print, "names": ["data"], "sock": ours, "text": "text"}


def snippets(page: Path) -> list[Any]:
    found = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [pytest.param(code, id=f"{page.stem}-{number}") for number, code in enumerate(found)]


@pytest.mark.parametrize("code", [snippet for page in PAGES for snippet in snippets(page)])
def test_snippets_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    names = stand_ins()
    with names["connection"]:
        exec(compile(code, "snippet", "exec"), names)
        if "copy" in names:
            source, target = io.StringIO("text"), SimpleNamespace(write=print, close=print)
            names["copy"](source, target)
            assert source.closed
        if "test_nobody_shares_a_connection" in names:
            names["test_nobody_shares_a_connection"]()


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            file, _, anchor = target.partition("#")
            found = page.parent / file if file else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("module", [deferpool, deferpool.testing], ids=lambda module: str(module.__name__))
def test_the_reference_has_every_public_name(module: Any) -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    told = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)", page, re.MULTILINE)
    assert set(module.__all__) <= set(told)


def test_the_pages_name_every_option_of_a_pool() -> None:
    stub = (ROOT / "deferpool" / "objects.pyi").read_text()
    (arguments,) = re.findall(r"class Pool\(.*?def __init__\((.*?)\) -> None", stub, re.DOTALL)
    told = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "faces.md").read_text(), re.MULTILINE))
    assert set(re.findall(r"(\w+): ", arguments)) == told
