"""The page for people in a real browser: what there is to see, in light and dark, and nothing asked of any network."""
from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_reports import all_held, every_outcome, report

from stress.reports.merge import merged
from stress.shard import Shard

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("jinja2", reason="the page needs jinja2")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from stress.reports import html  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no chromium with its chromedriver here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(browser: Any, path: Path) -> None:
    requests(browser)
    browser.get_log("browser")
    browser.get(path.as_uri())


def requests(browser: Any) -> list[str]:
    """Addresses asked for since the last look, but for the page itself and what stands in it."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith(("data:", "about:")) and not url.endswith(".html")]


def prefer(browser: Any, colours: str) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": colours}]})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    html.write(tmp_path / "page.html", report(every_outcome()))
    return tmp_path / "page.html"


def test_the_page_is_whole_offline_and_quiet(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.emulateNetworkConditions",
                            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    open_page(browser, page)
    assert browser.title == "FAILURE: deferpool under stress"
    assert browser.find_element(By.ID, "verdicts").is_displayed()
    assert len(browser.find_elements(By.CSS_SELECTOR, "#verdicts tbody tr")) == 4
    charts = browser.find_elements(By.CSS_SELECTOR, "svg.chart")
    assert len(charts) == 4
    for chart in charts:
        assert chart.is_displayed()
        line = chart.find_element(By.CSS_SELECTOR, ".line").rect
        assert line["width"] > 200
        assert line["height"] > 3
        for bound in chart.find_elements(By.CSS_SELECTOR, ".bound"):
            assert chart.rect["y"] < bound.rect["y"] < chart.rect["y"] + chart.rect["height"]
    assert browser.find_element(By.ID, "rerun").text == "python -m stress --seed 7"
    assert requests(browser) == []
    assert browser.get_log("browser") == []


def test_a_page_that_asks_and_complains_would_be_seen(browser: Any, tmp_path: Path) -> None:
    """The two looks of the test above, at a page that is at fault."""
    (tmp_path / "fault.html").write_text("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>oops()</script>")
    open_page(browser, tmp_path / "fault.html")
    assert requests(browser) == ["http://127.0.0.1:9/x.png"]
    assert any("oops is not defined" in entry["message"] for entry in browser.get_log("browser"))


def test_the_policy_stops_what_gets_in(browser: Any, page: Path) -> None:
    """If text from a run ever became markup, it still could not load or run anything."""
    got_in = "<img src='http://127.0.0.1:9/x.png'><script>document.title = 'in'</script>"
    page.write_text(page.read_text().replace("<h2>", got_in + "<h2>"))
    open_page(browser, page)
    assert browser.title == "FAILURE: deferpool under stress"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))


def brightness(browser: Any, element: Any, what: str) -> float:
    """Of a colour, 0 to 1 (WCAG's relative luminance)."""
    colour = browser.execute_script("return getComputedStyle(arguments[0])[arguments[1]]", element, what)
    channels = [float(each) / 255 for each in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_light_and_dark_can_be_read(browser: Any, page: Path, colours: str) -> None:
    prefer(browser, colours)
    open_page(browser, page)
    body = browser.find_element(By.TAG_NAME, "body")
    assert (brightness(browser, body, "backgroundColor") > 0.5) == (colours == "light")
    card = browser.find_element(By.CSS_SELECTOR, ".card")
    for selector, ground in (("h1", body), (".soft", body), ("#verdicts th", card), ("#verdict b", card),
                             (".held", None), (".broken", None), (".not-checked", None), (".grows", None)):
        element = browser.find_element(By.CSS_SELECTOR, selector)
        ink, paper = brightness(browser, element, "color"), brightness(browser, ground or element, "backgroundColor")
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, (selector, contrast)


def test_a_cell_leads_to_its_evidence(browser: Any, page: Path) -> None:
    open_page(browser, page)
    cell = browser.find_element(By.CSS_SELECTOR, "#verdicts .broken")
    assert "1,700 items cached, the bound is 1,536" in cell.get_attribute("title")
    cell.click()
    run = browser.find_element(By.ID, "run-2")
    assert browser.current_url.endswith("#run-2")
    assert "1,700 items cached" in run.text
    assert abs(browser.execute_script("return arguments[0].getBoundingClientRect().top", run)) < 900


def test_a_narrow_window_does_not_scroll_sideways(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    try:
        open_page(browser, page)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_merged_report_shows_its_shards(browser: Any, tmp_path: Path) -> None:
    parts = [report(all_held(), Shard(index, 2), machine=f"machine {index}") for index in (1, 2)]
    html.write(tmp_path / "merged.html", merged([("a", parts[0]), ("b", parts[1])]))
    open_page(browser, tmp_path / "merged.html")
    assert browser.title == "SUCCESS: deferpool under stress"
    assert "machine 2" in browser.find_element(By.ID, "shards").text
    assert len(browser.find_elements(By.CSS_SELECTOR, "#verdicts tbody tr")) == 8
