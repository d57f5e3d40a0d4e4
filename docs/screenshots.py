"""Screenshots of a run's page for the README and the guides: `python docs/screenshots.py RUN/report.html`.

Needs Playwright and a Chromium: `--chromium` names one that is installed, such as /usr/bin/chromium.
"""

import argparse
import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent / "images"
MAX_BYTES = 150_000
SECTIONS = ("curves", "map", "gallery")


def main() -> None:
    """Write report.webp and report-dark.webp, the top of the page, and one file per section in SECTIONS."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="report.html of a run or a demo")
    parser.add_argument("--chromium", help="browser to use instead of Playwright's own")
    arguments = parser.parse_args()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        for theme, suffix in (("light", ""), ("dark", "-dark")):
            page = browser.new_page(
                viewport={"width": 1280, "height": 800},
                color_scheme="dark" if theme == "dark" else "light",
            )
            page.goto(arguments.page.resolve().as_uri())
            page.wait_for_load_state("load")
            page.wait_for_timeout(2000)  # the charts are drawn
            _write(f"report{suffix}", page.screenshot())
            if theme == "light":
                _write_sections(page)
        browser.close()


def _write_sections(page: Page) -> None:
    page.evaluate("document.querySelector('header').style.position = 'static'")  # else it covers the sections
    for name in SECTIONS:
        section = page.locator(f"#{name}")
        if section.count():
            section.scroll_into_view_if_needed()
            page.wait_for_timeout(1500)
            box = section.bounding_box()
            assert box is not None
            top = page.evaluate("window.scrollY") + box["y"]
            clip = {"x": box["x"], "y": top, "width": box["width"], "height": min(box["height"], 720)}
            _write(f"report-{name}", page.screenshot(clip=clip, full_page=True))  # type: ignore[arg-type]


def _write(name: str, png: bytes) -> None:
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for quality in range(90, 30, -10):
        data = io.BytesIO()
        image.save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= MAX_BYTES:
            break
    path = FOLDER / f"{name}.webp"
    path.write_bytes(data.getvalue())
    print(f"{path}: {image.width} x {image.height}, {data.tell() / 1000:.0f} kB")


if __name__ == "__main__":
    main()
