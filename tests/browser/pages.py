"""A headless Chromium, and a listener's hands in it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM = os.environ.get("POLYRES_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
NO_BROWSER = "no chromium found: install Debian's chromium or set POLYRES_CHROMIUM to its path"

DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
# A busy machine is slow; nothing waits longer than it must.
PATIENCE_MS = 60_000

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Tests run as root in containers, where Chromium has no sandbox of its own and /dev/shm is small.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def visitor(browser: Browser, viewport: dict[str, int] = DESKTOP, locale: str = "en-GB") -> Iterator[Page]:
    """A fresh visitor; any error on the page fails the test."""
    phone = viewport is PHONE
    context: BrowserContext = browser.new_context(viewport=viewport, locale=locale, has_touch=phone, is_mobile=phone)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if is_serious(message) else None)
    yield page
    context.close()
    assert errors == []


def is_serious(message: Any) -> bool:
    # A lost connection is part of the tests; the browser reports it by itself.
    return message.type == "error" and not re.search(r"net::ERR_|status of (4\d\d|503)", message.text)


def begin(page: Page, url: str, first: str = ".trial") -> None:
    """From the link to the first trial, or to what stands there instead."""
    page.goto(url)
    page.locator(".welcome").wait_for()
    if page.locator("#agree").count():
        page.check("#agree")
    page.get_by_role("button", name="Begin").click()
    page.get_by_role("heading", name="What to do").wait_for()
    if first:
        page.get_by_role("button", name="Next").click()
        page.locator(first).wait_for()


def trial_number(page: Page) -> str:
    return page.locator(".page-head h1").inner_text()


def hear_all(page: Page) -> None:
    """Play every sound until it counts as heard."""
    player = page.locator("button.play")
    for button in page.locator("button.sound").all():
        is_active = button.get_attribute("aria-pressed") == "true"
        if not is_active or player.get_attribute("aria-label") == "Play":
            button.click()
        expect(button).to_have_class(re.compile(r"\bheard\b"))
    player.click()


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_attribute("data-state", "saved")
