"""A headless Chromium on the live page, and what tests want to know of it."""

from __future__ import annotations

import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

WHY_NOT = "no chromium: apt-get install chromium chromium-driver"
DESKTOP = (1280, 900)
PHONE = (390, 844)


def installed() -> bool:
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def shape(self, size: tuple[int, int], *, dark: bool = False, phone: bool = False) -> None:
        """Be a screen of `size` CSS pixels, in light or dark mode."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def wait_for(self, selector: str, seconds: float = 20.0) -> None:
        """Wait until something matches."""
        found = expected_conditions.presence_of_element_located((By.CSS_SELECTOR, selector))
        WebDriverWait(self.driver, seconds).until(found)

    def height(self) -> int:
        return int(self.run("return document.documentElement.scrollHeight"))

    def forget(self) -> None:
        """Leave the page, which would go on asking a server that has gone, and its errors."""
        self.driver.get("about:blank")
        self.errors()

    def errors(self) -> list[str]:
        """What went wrong since the last look, as the console shows it."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]

    def screenshot(self, path: Path) -> None:
        """Keep what is to be seen as a WebP file."""
        asked = {"format": "webp", "quality": 80}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
        path.write_bytes(b64decode(taken["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; it keeps nothing and talks to nobody but the page."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--no-first-run",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
