"""Tests of the sections about records, in a browser: map, gallery, confusion and near duplicates."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import opened, serious_faults
from PIL import Image

from eztorch_sce import DataConfig, EvaluationViewsConfig, KnnConfig, RunConfig
from eztorch_sce.api import knn
from eztorch_sce.pages import report_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.xdist_group("browser")

HOSTILE = "<img src=x onerror=window.hacked=1>"
CLASSES = (HOSTILE, 'it\'s "two" & [1]', "Übung 猫")
PER_CLASS = {"train": 6, "val": 3}
NUM_RECORDS = len(CLASSES) * sum(PER_CLASS.values())


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a real evaluation of frame folders, one of which is in both splits."""
    folder = tmp_path_factory.mktemp("records")
    draw = np.random.default_rng(0)
    for split, count in PER_CLASS.items():
        for number, name in enumerate(CLASSES):
            for record in range(count):
                frames = folder / "data" / split / name / f"{split}'{record}'&<b>"
                frames.mkdir(parents=True)
                background = draw.integers(0, 255, (8, 8, 3))
                for frame in range(3):
                    pixels = background.copy()
                    pixels[:, (frame * (number + 1)) % 8] = 255  # the class is the motion of a column
                    Image.fromarray(pixels.astype(np.uint8)).resize((32, 32)).save(frames / f"{frame}.png")
    copied = folder / "data/val" / CLASSES[1] / "val'0'&<b>"
    shutil.rmtree(copied)
    shutil.copytree(folder / "data/train" / CLASSES[1] / "train'2'&<b>", copied)
    data = DataConfig(root=str(folder / "data"), num_frames=3, clip_s=0.2, num_workers=0)
    one = EvaluationViewsConfig(num_clips=1, num_crops=1)
    knn(KnnConfig(backbone="r2plus1d_small", data=data, test=one, run=RunConfig(dir=str(folder / "run"))))
    return report_page([folder / "run"])


def selected_number(page: "Page") -> int:
    text = page.locator("#map .map-selection h3").inner_text()
    return int(re.sub(r"\D", "", text) or 0)


def canvas_of(page: "Page") -> "Locator":
    canvas = page.locator("#map .map-stage canvas")
    canvas.scroll_into_view_if_needed()
    return canvas


def drag_around(page: "Page", canvas: "Locator") -> None:
    """Draw a rectangle along the border of the map."""
    box = canvas.bounding_box()
    assert box is not None
    left, top, right, bottom = box["x"] + 3, box["y"] + 3, box["x"] + box["width"] - 3, box["y"] + box["height"] - 3
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def test_the_lasso_selects_what_it_surrounds_and_lists_it_with_thumbnails(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        canvas = canvas_of(page)
        page.get_by_role("button", name="Lasso").click()
        drag_around(page, canvas)
        assert selected_number(page) == NUM_RECORDS
        assert page.locator("#map .map-list .tile.shown").count() == NUM_RECORDS
        page.get_by_role("button", name=f"Show only {CLASSES[2]}").click()
        drag_around(page, canvas)
        assert selected_number(page) == sum(PER_CLASS.values())
        assert page.locator("#map .map-list li", has_text=CLASSES[2]).count() == sum(PER_CLASS.values())


def test_the_map_works_by_keyboard_alone(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        canvas_of(page).focus()
        spoken = page.locator("#map [aria-live=polite]")
        page.keyboard.press("ArrowRight")
        first = spoken.inner_text()
        assert any(name in first for name in CLASSES)
        page.keyboard.press("ArrowDown")
        if spoken.inner_text() == first:  # it was the lowest
            page.keyboard.press("ArrowUp")
        assert spoken.inner_text() != first
        assert page.locator("#map .map-tip .tile.shown").is_visible()
        page.keyboard.press("Space")
        assert selected_number(page) == 1
        page.keyboard.press("Escape")
        assert selected_number(page) == 0
        page.get_by_label("Search").first.fill("val'1'")
        page.get_by_role("button", name=f"Select these {len(CLASSES)}").press("Enter")
        assert selected_number(page) == len(CLASSES)
        assert page.locator("#map .map-list .path").all_inner_texts() == [
            f"val/{name}/val'1'&<b>" for name in sorted(CLASSES)
        ]


FIND_POINT = """canvas => {
  const box = canvas.getBoundingClientRect(), tip = document.querySelector("#map .map-tip");
  for (let y = box.top + 8; y < box.bottom; y += 10) {
    for (let x = box.left + 8; x < box.right; x += 10) {
      canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, pointerId: 1 }));
      if (!tip.hidden) return [x, y];
    }
  }
}"""


def test_hovering_shows_the_thumbnail_of_the_record_under_the_mouse(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        canvas = canvas_of(page)
        page.get_by_label("Color by").select_option("split")
        assert page.locator("#map .map-legend li").count() == 2
        x, y = canvas.evaluate(FIND_POINT)
        tip = page.locator("#map .map-tip")
        page.mouse.move(x, y)
        names = page.evaluate("JSON.parse(document.getElementById('data-map').textContent).maps[0].paths.names")
        row = names.index(tip.locator(".path").inner_text())
        place = tip.locator(".tile.shown").evaluate(
            "tile => [tile.style.getPropertyValue('--column'), tile.style.getPropertyValue('--row')].map(Number)"
        )
        assert place == [row % 32, row // 32]
        page.mouse.click(x, y)
        assert selected_number(page) == 1
        page.mouse.move(1, 1)
        assert tip.is_hidden()


def test_the_gallery_filters_and_marks_hits_in_words(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        cards = page.locator("#gallery .gallery-card")
        assert cards.count() == len(CLASSES) * PER_CLASS["val"]
        words = page.locator("#gallery .badge").all_inner_texts()
        assert set(words) <= {"✓ hit", "✗ miss"}
        assert len(words) == 5 * cards.count()
        show = page.locator("#gallery").get_by_label("Show")
        show.select_option("miss")
        misses = cards.count()
        for first in page.locator("#gallery .gallery-near li:first-child .badge").all_inner_texts():
            assert first == "✗ miss"
        show.select_option("hit")
        assert misses + cards.count() == len(CLASSES) * PER_CLASS["val"]
        show.select_option("")
        page.locator("#gallery").get_by_label("Class").select_option(index=1)
        assert cards.count() == PER_CLASS["val"]


def playing(page: "Page") -> list[str]:
    script = "all => all.map((each) => getComputedStyle(each).animationName)"
    names: list[str] = page.locator("#gallery .strip.moving").evaluate_all(script)
    return names


def test_animations_play_on_demand_and_never_where_motion_is_unwanted(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        page.wait_for_selector("#gallery .strip.moving")
        assert set(playing(page)) == {"none"}
        page.locator("#gallery .gallery-card").first.focus()
        assert set(playing(page)[:6]) == {"frames"}
        page.get_by_role("button", name="Play all").click()
        assert set(playing(page)) == {"frames"}
        page.emulate_media(reduced_motion="reduce")
        assert set(playing(page)) == {"none"}
        assert page.get_by_role("button", name="your system asks for less motion").is_disabled()


def test_names_from_the_data_do_no_harm(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        page.get_by_role("button", name=f"Select all {NUM_RECORDS}").click()
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main script").count() == 0
        headers = page.locator("#confusion table.confusion thead th").all_inner_texts()
        assert sorted(headers) == sorted(CLASSES)
        assert serious_faults(page) == []


def test_confusion_is_a_table_with_headers_that_adds_up(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file, "phone", "dark") as page:
        table = page.locator("#confusion table.confusion")
        assert table.locator("caption").count() == 1
        assert table.locator("th[scope=row]").count() == table.locator("th[scope=col]").count() == len(CLASSES)
        cells = [int(text) for text in table.locator("tbody td").all_inner_texts()]
        assert sum(cells) == len(CLASSES) * PER_CLASS["val"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious_faults(page) == []


def test_a_record_in_both_splits_is_named_as_the_same_image(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        pair = page.locator("#duplicates .duplicates-list li").filter(has_text="same image")
        assert pair.count() == 1
        assert pair.locator(".path").all_inner_texts() == [
            f"val/{CLASSES[1]}/val'0'&<b>",
            f"train/{CLASSES[1]}/train'2'&<b>",
        ]
        assert pair.locator(".tile.shown").count() == 2
