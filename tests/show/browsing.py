"""A real browser for tests and benchmarks; why there is none, where there is none."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "needs chromium and its chromedriver"
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60  # seconds; what is awaited takes less than one, on a machine that has time


class Browser:
    """Chromium, as far as the tests use it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, link: str) -> None:
        """Open a link."""
        self.driver.get(link)

    def run(self, script: str, *values: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *values)

    def wait_for(self, script: str) -> Any:
        """What a script hands to `done`."""
        return self.driver.execute_async_script(f"const done = arguments[0]; {script}")

    def until(self, condition: str) -> None:
        """Wait until an expression holds."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"return !!({condition})"):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def _element(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Click on what a selector finds first."""
        self._element(selector).click()

    def click_text(self, text: str) -> None:
        """Click on the button with this text."""
        self.driver.find_element("xpath", f"//button[text()='{text}']").click()

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self._element(selector).send_keys(text)

    def key(self, selector: str, name: str) -> None:
        """Press a key, by selenium's name for it."""
        from selenium.webdriver.common.keys import Keys

        self._element(selector).send_keys(getattr(Keys, name))

    def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """How large the window is, in pixels, and which colours are preferred."""
        scale = {"deviceScaleFactor": 1, "mobile": width < 600}
        metrics = {"width": width, "height": height, **scale}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    @contextlib.contextmanager
    def tab(self, link: str) -> Iterator[None]:
        """Another tab, open while this lasts."""
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.open(link)
        yield
        self.driver.close()
        self.driver.switch_to.window(first)

    def complaints(self) -> list[str]:
        """What was said on the console since it was last looked at."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        """All that the open page has asked, as host and port."""
        asked = self.run(
            "return performance.getEntries().map(e => e.name).filter(n => n.startsWith('http'))"
        )
        return {urlsplit(link).netloc for link in asked}


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser that nobody has used before."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(CHROMIUM)
    for each in (*OPTIONS, f"--user-data-dir={profile}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
