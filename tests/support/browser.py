"""A headless Chromium for tests, by Selenium and Debian's driver, and axe-core in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from collections.abc import Callable

AXE = Path(__file__).parents[1] / "vendor" / "axe.min.js"
#: Waited for the page to show something, in seconds.
PATIENCE_S = 60


class Browser:
    """One window. *width* in CSS pixels."""

    def __init__(self) -> None:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        driver = shutil.which("chromedriver")
        if chromium is None or driver is None:
            reason = "There is no Chromium with its driver: apt install chromium chromium-driver"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # Root (a container) can't have Chromium's sandbox; /dev/shm is small there.
        for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu",
                         "no-proxy-server", "disable-background-networking"):  # fmt: skip
            options.add_argument(f"--{argument}")
        self.driver = webdriver.Chrome(options=options, service=Service(driver))

    def open(self, url: str, *, width: int = 1200, dark: bool = False) -> None:
        """Opens *url* in a window of that width, in that colour scheme."""
        self.driver.get("about:blank")
        self.driver.get_log("browser")  # what the last page complained of
        scheme = "dark" if dark else "light"
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(url)

    def text(self, name: str) -> str:
        """The text of the element with that id, as it stands in the document."""
        return str(self.script("return document.getElementById(arguments[0]).textContent", name))

    def script(self, code: str, *args: Any) -> Any:
        return self.driver.execute_script(code, *args)

    def wait(
        self, condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S
    ) -> None:
        """Until *condition* holds; *what* says it in the failure."""
        WebDriverWait(self.driver, timeout_s, 0.1).until(lambda _: condition(), message=what)

    def wait_text(self, name: str, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Until the element's text is *text*."""
        self.wait(lambda: self.text(name) == text, f"#{name} never said {text!r}", timeout_s)

    def violations(self) -> list[str]:
        """What axe-core finds fault with (WCAG 2.2 A, AA and its best practices)."""
        self.driver.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")}
        )
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((result) => done(result.violations), done)"
        )
        return [
            f"{fault['id']}: {node['html'][:200]}" for fault in found for node in fault["nodes"]
        ]

    def complaints(self) -> list[str]:
        """What the console holds: errors, and whatever the content security policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def close(self) -> None:
        self.driver.quit()
