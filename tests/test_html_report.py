"""The page for people, as text: that all is in it, escaped, and that it asks nothing of anyone."""
from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from made_reports import BROKEN, HELD, NOT_CHECKED, all_held, every_outcome, report, result

pytest.importorskip("jinja2", reason="the page needs jinja2")

from stress.reports.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, compact, steps  # noqa: E402
from stress.reports.html import page  # noqa: E402

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Elements in order, with their attributes and text; complains of those that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.words))

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if name in (attributes.get("class") or "").split()]


def test_every_outcome_is_there() -> None:
    read = Reader(page(report(every_outcome())))
    assert "FAILURE : 1 of 4 runs did not hold" in read.text
    cells = read.of_class("cell")
    assert [cell["aria-label"] for cell in cells] == [
        "held", "not checked", "held", "broken", "not checked", "held", "held", "held"]
    broken = next(cell for cell in cells if cell["aria-label"] == "broken")
    assert broken["href"] == "#run-2"
    assert (broken["title"] or "").splitlines()[:3] == ["total-bound: broken", BROKEN.reason, BROKEN.evidence[0]]
    assert any(attributes.get("id") == "run-2" and "open" in attributes for _, attributes in read.elements)
    assert f"reuse {NOT_CHECKED.evidence[0]} churn, sections; churn, portable" in read.text
    assert "python -m stress --seed 7" in read.text
    assert "5 things happened" in read.text


def test_what_runs_say_is_text_and_nothing_else() -> None:
    read = Reader(page(report(every_outcome())))
    assert "script" not in [tag for tag, _ in read.elements]
    assert "<script>alert(1)</script> & [red]\"quoted\"" in read.text
    assert [name for _, attributes in read.elements for name in attributes if name.startswith("on")] == []


def test_nothing_points_outside() -> None:
    text = page(report(every_outcome()))
    read = Reader(text)
    links = [value for _, attributes in read.elements for name, value in attributes.items()
             if name in ("href", "src", "xlink:href", "action", "poster", "data", "srcset")]
    assert [link for link in links if link and not link.startswith(("#", "data:"))] == []
    assert re.findall(r"url\(|@import|https?://", text) == []
    policy = next(attributes["content"] for tag, attributes in read.elements
                  if attributes.get("http-equiv") == "Content-Security-Policy")
    assert (policy or "").startswith("default-src 'none';")


def test_a_chart_for_each_run_and_a_bound_where_there_is_one() -> None:
    read = Reader(page(report(every_outcome())))
    assert len(read.of_class("chart")) == 4
    assert len(read.of_class("over")) == 1
    assert len(read.of_class("bound")) == 3


def test_geometry() -> None:
    runs = report(every_outcome())["runs"]
    for run in runs:
        drawn = chart(run)
        assert drawn is not None
        points = [tuple(map(float, point.split(","))) for point in drawn.line.removeprefix("M").split(" L")]
        assert points[0][0] == LEFT
        assert points[-1][0] == WIDTH - RIGHT
        assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in points)
        assert all(LEFT <= tick.at <= WIDTH - RIGHT for tick in drawn.across)
        assert len(drawn.across) >= 3
        highest = min(y for _, y in points)
        if drawn.bound is not None:
            assert (highest < drawn.bound) == drawn.over == (run["verdict"] == "FAILED")


def test_a_run_without_samples_has_no_chart() -> None:
    made = report(all_held())
    made["runs"][0]["curve"] = []
    read = Reader(page(made))
    assert len(read.of_class("chart")) == 7
    assert chart(made["runs"][0]) is None


def test_a_run_with_one_sample_and_nothing_cached_is_drawn() -> None:
    made = report([result("churn", "portable", HELD)])
    made["runs"][0]["curve"] = [{"seconds": 0.0, "cached": 0, "given_back": 0}]
    made["runs"][0]["bound"] = 0
    drawn = chart(made["runs"][0])
    assert drawn is not None
    assert not drawn.over
    assert "nan" not in page(made)


@pytest.mark.parametrize(
    ("low", "high", "about", "found"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0, 1659, 4, [0, 500, 1000, 1500]), (0.1, 0.4, 3, [0.1, 0.2, 0.3, 0.4]),
     (0, 1.08, 4, [0, 0.5, 1])],
)
def test_round_figures(low: float, high: float, about: int, found: list[float]) -> None:
    assert steps(low, high, about) == found


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (0.5, "0.5"), (5440, "5,440"), (240_000, "240 k"),
                                         (4_777_408, "4.78 M"), (2e9, "2 G")])
def test_compact(n: float, text: str) -> None:
    assert compact(n) == text
