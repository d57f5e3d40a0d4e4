"""Tests of the curves, the verdict and the views on the page, in a browser, with odd runs side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import opened, serious_faults
from PIL import Image

from eztorch_sce.report.page import write_page
from eztorch_sce.report.run_files import open_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")
_RUNS = {
    "fine": "step,loss,uniformity,epoch\n" + "".join(f"{i},{5 - i / 50},{-i / 30},{i // 10}\n" for i in range(100)),
    "nan": "step,loss,epoch\n0,5,0\n1,nan,0\n2,inf,0\n",
    "one": "step,loss,epoch\n4,5,0\n",
    "resumed": "step,loss,epoch\n" + "".join(f"{i},{5 + i % 3},{i // 4}\n" for i in [*range(9), *range(4, 12)]),
    "none": "",
    "<script>alert(1)</script> ${x} ü": "step,loss,<b>odd</b>,epoch\n0,5,1,0\n1,4,2,0\n",
}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for number, (name, rows) in enumerate(_RUNS.items()):
        run = folder / (name.replace("/", "_"))
        run.mkdir()
        (run / "config.yaml").write_text("# eztorch-sce pretrain\nseed: 0\ntrainer:\n  max_epochs: 10\n")
        if rows:
            (run / "metrics.csv").write_text(rows)
        if number == 0:
            Image.new("RGB", (4 * 112, 2 * 112), "red").save(run / "views_tiles.webp")
            record = {"path": "</script><img src=x onerror=alert(1)>", "size": None, "views": [["a", "<b>"], ["b"]]}
            views = {"tile_px": 112, "frames": 4, "frame_ms": 80, "records": [record]}
            (run / "views.json").write_text(json.dumps(views))
    runs, problems = open_runs([str(each) for each in folder.iterdir()])
    assert problems == []
    write_page(folder / "report.html", runs)
    return folder / "report.html"


def test_odd_runs_are_drawn_together_hovered_and_switched(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file) as page:
        assert page.locator("figure[data-curve=loss] canvas").count() == 1
        assert page.locator("#curves .curves-legend button").count() == len(_RUNS) - 1
        page.locator("figure[data-curve=loss] .curves-frame").hover()
        assert page.locator("figure[data-curve=uniformity] .curves-line").is_visible()  # the same step, everywhere
        before = page.locator("figure[data-curve=loss]").screenshot()
        page.get_by_label("Logarithmic").check()
        page.get_by_label("Horizontal axis").select_option("epoch")
        page.locator(".curves-legend button", has_text="fine").click()
        assert page.locator("figure[data-curve=loss]").screenshot() != before
        page.locator("#curves summary").click()
        row = page.locator("#curves tbody tr", has_text="uniformity").inner_text().split("\t")
        assert [float(value) for value in row[2:]] == pytest.approx([0, -3.3, -3.3, 0])
        assert "the loss is NaN or infinite in 2 of 3 logged steps" in page.locator("#verdict").inner_text()
        shown = page.locator(".views-tile").first
        shown.scroll_into_view_if_needed()
        assert shown.evaluate("element => element.style.backgroundImage").startswith('url("blob:')


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_curves_have_no_serious_fault_and_fit_a_phone(page_file: Path, browser: "Browser", theme: str) -> None:
    with opened(browser, page_file, "phone", theme) as page:  # type: ignore[arg-type]
        assert serious_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
