"""Debian's Chromium without a window, asked as a person would ask: by what the page says."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 60
FLAGS = (
    "headless=new",
    "no-sandbox",  # tests may run as root
    "disable-dev-shm-usage",
    "disable-background-networking",
    "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "hide-scrollbars",
    "window-size=1700,1250",
)


@dataclass(frozen=True)
class Browser:
    """A page, and what can be done with it; everything waits until it is there."""

    driver: webdriver.Chrome
    screenshots: Path

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until something holds; what the page does meanwhile is no error."""

        def holds(_: object) -> bool:
            try:
                return bool(condition())
            except WebDriverException:
                return False

        WebDriverWait(self.driver, WAIT_S).until(holds, f"waited in vain for {what}")

    def all(self, xpath: str) -> list[WebElement]:
        """Every element there is now."""
        return self.driver.find_elements(By.XPATH, xpath)

    def find(self, xpath: str) -> WebElement:
        """The first element, waited for."""
        found: list[WebElement] = []
        self.wait(lambda: found.extend(self.all(xpath)[:1]) or found, xpath)
        return found[0]

    def click(self, xpath: str) -> None:
        """Click the first element as soon as it can be clicked."""
        self.wait(
            lambda: self.all(xpath)[0].click() is None if self.all(xpath) else False, f"a click on {xpath}"
        )

    def turn_wheel(self, element: WebElement, pixels: int) -> None:
        """Scroll down with the mouse over an element."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).scroll_from_origin(ScrollOrigin.from_element(element), 0, pixels).perform()

    def text(self) -> str:
        """All the page says."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def see(self, *texts: str) -> None:
        """Wait until the page says all of these."""
        self.wait(lambda: all(text in self.text() for text in texts), " and ".join(texts))

    def keep(self, name: str) -> None:
        """Keep a picture of the page."""
        self.screenshots.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))


@contextmanager
def open_browser(screenshots: Path) -> Iterator[Browser]:
    """A fresh profile, with nothing but loopback in its reach; skips where there is no Chromium."""
    chromium, driver_program = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver_program is None:
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        yield Browser(driver, screenshots)
    finally:
        driver.quit()
