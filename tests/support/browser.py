"""A real browser for tests of pages: Chromium by Playwright, from the system or from Playwright's own download."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = {"desktop": (1440, 900), "phone": (390, 844)}
Theme = Literal["light", "dark"]


@contextmanager
def chromium() -> "Iterator[Browser]":
    """Yield a headless Chromium; skip the test, with the reason, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", file: Path, size: str = "desktop", theme: Theme = "light") -> "Iterator[Page]":
    """Yield a page that has drawn all its sections, and check that it neither failed nor asked for anything outside.

    Args:
        browser: The browser.
        file: HTML file.
        size: A name of `WIDTHS`.
        theme: The color scheme that the system prefers.
    """
    width, height = WIDTHS[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
    page = context.new_page()
    faults: list[str] = []
    outside: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: outside.append(request.url))
    page.goto(file.resolve().as_uri())
    page.wait_for_selector("html[data-ready]", state="attached", timeout=30_000)
    yield page
    assert not faults
    assert [url for url in outside if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def serious_faults(page: "Page") -> list[str]:
    """Return the faults of accessibility that axe-core calls serious or critical, with the first element of each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['help']} ({each['nodes'][0]['target']})"
        for each in violations
        if each["impact"] in ("serious", "critical")
    ]
