"""A person's view: a real browser opens every dashboard of a genuine Grafana, and every panel shows data and no error.

Pictures of them are left in the folder `screenshots` of the cache; those in docs/screenshots/ are some of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from panels import LOG_IN, ask_grafana, chosen, dashboard, questions
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from support import eventually, journal
from traffic import let_things_happen

PICTURES = Path(os.environ["LOGSTEAD_CACHE"]) / "screenshots"
WIDTH = 1600
PANEL = "section[data-testid^='data-testid Panel header ']"
ERROR = "[data-testid='data-testid Panel status error']"
# What has to be read in panels that name what they count, by dashboard and title.
NAMED = {
    ("logstead-fastapi", "Top endpoints"): "/trace/{item_id}",
    ("logstead-fastapi", "Top exceptions"): "RuntimeError",
    ("logstead-system", "Units with the most lines"): "loki",
    ("logstead-system", "Failed units"): "logstead-probe.service",
    ("logstead-system", "SSH logins by user"): "root",
    ("logstead-trace", "All lines of the trace"): "/error",
}
LOADING = "[aria-label='Panel loading bar']"


@pytest.fixture(scope="module")
def trace(host: Any) -> str:
    """Let things happen; return the id of a trace of it."""
    return let_things_happen(host)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Yield a browser without a window. Both come from Debian, so they fit one another."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = Chrome(options, Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def grafana(host: Any, browser: Chrome) -> str:
    """Return Grafana's address as this machine reaches it; the browser has logged in there."""
    address = f"http://{host.check_output('hostname -I').split()[0]}:3100"
    browser.get(f"{address}/login")
    user, password = LOG_IN[1].split(":")
    for name, value in (("user", user), ("password", password)):
        eventually(lambda: browser.find_elements(By.NAME, name), otherwise=lambda: browser.page_source)
        browser.find_element(By.NAME, name).send_keys(value)
    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    eventually(lambda: browser.get_cookie("grafana_session"), otherwise=lambda: browser.page_source)
    return address


def shown(browser: Chrome) -> dict[str, WebElement]:
    """Return the panels that the page has, by title."""
    panels = browser.find_elements(By.CSS_SELECTOR, PANEL)
    return {str(it.get_attribute("data-testid")).removeprefix("data-testid Panel header "): it for it in panels}


def problems(browser: Chrome, uid: str, panels: set[str]) -> list[str]:
    """Tell what keeps a dashboard from showing data in all of its panels, given as titles, or why there is none."""
    found = shown(browser)
    told = [f"{title}: isn't there" for title in panels if title not in found]
    for title, panel in found.items():
        if panel.find_elements(By.CSS_SELECTOR, ERROR):
            told.append(f"{title}: shows an error")
        elif panel.find_elements(By.CSS_SELECTOR, LOADING):
            told.append(f"{title}: is still loading")
        elif "No data" in panel.text:  # one that may be empty says something else
            told.append(f"{title}: no data")
        elif (name := NAMED.get((uid, title), "")) not in panel.text:
            told.append(f"{title}: doesn't name {name}, but {panel.text!r}")
    return told


def test_every_panel_of_every_dashboard_shows_data_and_no_error(
    host: Any, trace: str, browser: Chrome, grafana: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    opened = [it["uid"] for it in ask_grafana(host, "/api/search?type=dash-db")[1]]
    assert len(opened) >= 5
    for uid in opened:
        model = dashboard(host, uid)
        for question in questions(model):
            question.await_answer(host, chosen(model) | {"trace_id": trace})
        panels = {it["title"] for it in model["panels"] if it["type"] != "row"}
        # High enough for all panels: what isn't to be seen isn't loaded.
        height = 120 + 38 * max(it["gridPos"]["y"] + it["gridPos"]["h"] for it in model["panels"])
        browser.set_window_size(WIDTH, height)
        browser.get(f"{grafana}/d/{uid}?kiosk&from=now-15m&to=now&var-trace_id={trace}")
        eventually(
            lambda: shown(browser) and not problems(browser, uid, panels),
            otherwise=lambda: f"{uid}: {problems(browser, uid, panels)}\n{journal(host, 'grafana')}",
        )
        browser.save_screenshot(str(PICTURES / f"{uid}.png"))
