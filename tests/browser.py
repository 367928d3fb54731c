"""A headless Chromium from the operating system, where there is one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = "chromium", "chromedriver"
WHY_NOT = "no Chromium with its driver: apt-get install chromium chromium-driver"


@contextmanager
def chromium(profile: Path, *, width: int = 1440, height: int = 1000, dark: bool = False) -> Iterator[Any]:
    """A browser that reaches nothing but files; skips the test where there is none."""
    browser, driver = shutil.which(CHROMIUM), shutil.which(DRIVER)
    if browser is None or driver is None:
        pytest.skip(WHY_NOT)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"),
    ):
        options.add_argument(switch)
    if dark:
        options.add_argument("--force-dark-mode")
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        resize(found, width, height)
        yield found
    finally:
        found.quit()


def resize(browser: Any, width: int, height: int = 1000) -> None:
    """Set the size of what a page sees; a window would not be made as narrow as a telephone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def load(browser: Any, page: Path) -> None:
    """Open a report's page and wait until its scripts have run."""
    browser.get(page.as_uri())
    deadline = time.monotonic() + 60
    while browser.execute_script("return document.documentElement.dataset.ready") != "true":
        assert time.monotonic() < deadline, browser.get_log("browser")
        time.sleep(0.05)
