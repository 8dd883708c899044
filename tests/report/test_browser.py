"""The page in a real browser: no console messages; sorting, search, copies, unfolding, print."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

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
    for name, value in (("Method", "DKD"), ("Verdict", "higher")):
        menus[name].find_element(By.XPATH, f"./option[text()='{value}']").click()
    assert visible_cells(browser, 0) == ["VGG-13 → MobileNetV2"]
    assert browser.find_element(By.CSS_SELECTOR, "#cells output").text == f"1 of {everything} rows"
    for name in ("Method", "Verdict"):
        menus[name].find_element(By.XPATH, "./option[1]").click()
    assert len(visible_cells(browser, 0)) == everything


def test_tables_are_searched_by_words(browser):
    everything = len(visible_cells(browser, 0))
    box = browser.find_element(By.CSS_SELECTOR, "#cells input[type=search]")
    box.send_keys("mobilenet skd")
    methods = visible_cells(browser, 1)
    assert set(methods) == {"SKD", "SKD + KD"}
    output = browser.find_element(By.CSS_SELECTOR, "#cells output")
    assert output.text == f"2 of {everything} rows"
    box.send_keys(" nothing")
    assert visible_cells(browser, 0) == []
    assert output.text == "no row matches"
    box.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(visible_cells(browser, 0)) == everything


def test_sortable_headings_show_that_they_are(browser):
    marks = [
        browser.execute_script(
            "return getComputedStyle(arguments[0], '::after').content",
            heading(browser, title)[1],
        )
        for title in ("Pair", "Best epoch")
    ]
    assert all(mark.strip('"').strip() in set("↕↑↓") for mark in marks)


def copied(browser: webdriver.Chrome, key: str, name: str) -> str:
    """Click the button that copies a table, wait for its answer, and return the clipboard."""
    button = browser.find_element(
        By.XPATH, f"//div[@id='{key}']//a[text()='{name}']/following-sibling::button[1]"
    )
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    WebDriverWait(browser, 5).until(lambda _: button.text == "Copied")
    browser.execute_script(
        "window.pasteHere ??= document.body.appendChild(document.createElement('textarea'))"
    )
    paste = browser.execute_script("pasteHere.value = ''; return pasteHere")
    paste.send_keys(Keys.CONTROL, "v")
    text = paste.get_property("value")
    browser.execute_script("pasteHere.remove(); delete window.pasteHere")
    return text


@pytest.mark.parametrize("with_clipboard", [True, False], ids=["clipboard", "fallback"])
def test_a_table_is_copied_in_each_format(browser, with_clipboard):
    folder = Path(unquote(urlsplit(browser.current_url).path)).parent / "tables"
    if not with_clipboard:
        browser.execute_script(
            "navigator.clipboard.writeText = () => Promise.reject(new Error('not allowed'))"
        )
    for name, suffix in (("Markdown", "md"), ("LaTeX", "tex"), ("CSV", "csv")):
        written = (folder / f"same-style.{suffix}").read_text(encoding="utf-8")
        assert copied(browser, "same-style", name).strip() == written.strip()


@pytest.mark.parametrize("section", ["teachers", "protocol"])
def test_a_table_that_is_wider_than_the_screen_says_that_it_scrolls(browser, section):
    def cue(width: int) -> bool:
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        place = browser.find_element(By.CSS_SELECTOR, f"#{section} .scroll")
        fits = browser.execute_script(
            "return arguments[0].scrollWidth <= arguments[0].clientWidth + 1", place
        )
        WebDriverWait(browser, 5).until(
            lambda _: ("wide-table" in place.get_attribute("class")) != fits
        )
        return not fits

    assert cue(400)
    assert not cue(2400)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


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
