"""The page in a real browser: no console messages; sorting, filters, unfolding, printing."""

import base64
import re
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from report.output.write import write_report
from tests.builders.reported_study import EVIL, filled

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="Debian's chromium and chromium-driver are not installed"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    folder = tmp_path_factory.mktemp("results")
    page = write_report(filled(folder), folder)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage",
        "force-prefers-reduced-motion",
    ):  # fmt: skip
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get(page.as_uri())
    yield driver
    driver.quit()


def visible_cells(browser: webdriver.Chrome, column: int) -> list[str]:
    """Return the first line of a column's visible entries in the table of cells."""
    rows = browser.find_elements(By.CSS_SELECTOR, "#cells tbody tr")
    entries = [row.find_elements(By.XPATH, "./*")[column] for row in rows if row.is_displayed()]
    return [entry.text.split("\n")[0] for entry in entries]


def heading(browser: webdriver.Chrome, title: str) -> tuple[int, object]:
    headings = browser.find_elements(By.CSS_SELECTOR, "#cells thead th")
    place = [part.text.replace("\n", " ") for part in headings].index(title)
    return place, headings[place].find_element(By.TAG_NAME, "button")


def test_data_is_shown_as_text_and_never_run(browser):
    assert EVIL in browser.execute_script("return document.body.textContent")
    scripts = browser.execute_script("return [...document.scripts].map(s => s.textContent)")
    assert not any("alert" in script for script in scripts)


def test_the_console_is_empty(browser):
    assert browser.get_log("browser") == []


def test_every_drawing_is_there_and_has_a_size(browser):
    drawings = browser.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(drawings) == len(browser.find_elements(By.TAG_NAME, "figure")) > 0
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert all(drawing.size["width"] > 200 and drawing.size["height"] > 60 for drawing in drawings)
    images = (
        "return [...document.querySelectorAll('image')].every(i => i.href.baseVal.length > 100)"
    )
    assert browser.execute_script(images)


def test_tables_sort_by_number_with_what_has_none_last(browser):
    place, button = heading(browser, "Last epoch")
    for descending in (False, True):
        button.click()
        entries = visible_cells(browser, place)
        known = [float(text.split()[0]) for text in entries if text[0].isdigit()]
        assert known == sorted(known, reverse=descending)
        assert not any(text[0].isdigit() for text in entries[len(known) :])
    verdict, button = heading(browser, "Verdict")
    button.click()
    kinds = [kind for kind in visible_cells(browser, verdict) if kind[0].isalpha()]
    assert kinds == sorted(kinds)


def test_tables_filter(browser):
    everything = len(visible_cells(browser, 0))
    menus = {
        menu.find_element(By.XPATH, "..").text.split()[0]: menu
        for menu in browser.find_elements(By.CSS_SELECTOR, "#cells select")
    }
    assert set(menus) == {"Pair", "Method", "Verdict"}
    for name, value in (("Method", "dkd"), ("Verdict", "higher")):
        menus[name].find_element(By.XPATH, f"./option[text()='{value}']").click()
    assert visible_cells(browser, 0) == ["vgg13 → MobileNetV2"]
    assert browser.find_element(By.CSS_SELECTOR, "#cells output").text == f"1 of {everything}"
    for name in ("Method", "Verdict"):
        menus[name].find_element(By.XPATH, "./option[1]").click()
    assert len(visible_cells(browser, 0)) == everything


def test_a_cells_runs_are_one_click_away(browser):
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = false)")
    link = browser.find_element(By.CSS_SELECTOR, "#same-style td a[href^='#cell-']")
    browser.execute_script("arguments[0].click()", link)
    target = browser.find_element(By.ID, link.get_attribute("href").split("#")[1])
    assert target.get_attribute("open") is not None
    assert "record" in target.text


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_not_wider_than_the_screen(browser, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_it_prints_as_a_pdf_of_several_pages(browser):
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 1
