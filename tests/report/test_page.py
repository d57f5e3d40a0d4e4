"""Tests of the page of a run: in a browser, where there is one."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import chromium, opened, serious_faults

from eztorch_sce.report.page import write_page
from eztorch_sce.report.run_files import RunFiles

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")
VENDOR = Path(__file__).parents[2] / "eztorch_sce/report/template/vendor"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    report = {"command": "knn", "metrics": {"knn_top1": 0.5}, "protocol": {"records": 4}}
    (folder / "report.json").write_text(json.dumps(report))
    write_page(folder / "report.html", [RunFiles(folder, "run")])
    return folder / "report.html"


def test_the_vendored_charts_are_those_of_the_registry() -> None:
    stated = re.search(r"SHA-256: (\w+)", (VENDOR / "README.md").read_text())
    assert stated is not None
    assert hashlib.sha256((VENDOR / "echarts.common.min.js").read_bytes()).hexdigest() == stated[1]


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_has_no_serious_fault_of_accessibility_and_needs_no_sideways_scrolling(
    page_file: Path, browser: "Browser", size: str, theme: "str"
) -> None:
    with opened(browser, page_file, size, theme) as page:  # type: ignore[arg-type]
        assert serious_faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
