"""Tests of the page of a run: in a browser, where there is one."""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import opened, serious_faults

from eztorch_sce.report.page import write_page
from eztorch_sce.report.run_files import RunFiles, open_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.xdist_group("browser")
VENDOR = Path(__file__).parents[2] / "eztorch_sce/report/template/vendor"


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


ARABIC = "\u0627\u0644\u0639\u0631\u0628\u064a\u0629"
HOSTILE = f"<script>alert('x')</script> \"'[]{{{{ 7*7 }}}} </script><!-- \u202eevil {ARABIC} \u00dcbung \u2028"


def test_texts_of_users_are_shown_as_they_are_and_run_nothing(tmp_path: Path, browser: "Browser") -> None:
    run = tmp_path / "<b>bold & 'run'"
    run.mkdir()
    classes = {"number": 2, "first": [HOSTILE], "smallest": [HOSTILE, 1], "largest": ["b", 2], "names": [HOSTILE, "b"]}
    summary = {"records": {"train": {"video": 3}}, "classes": {**classes, "train": [1, 2], "test": []}}
    summary |= {"origin": HOSTILE, "ignored": {HOSTILE: 2}, "notes": [HOSTILE]}
    protocol = {"records": 4, "data": HOSTILE, "data_summary": summary, HOSTILE: HOSTILE}
    report = {"command": "knn", "metrics": {"knn_top1": 0.5, HOSTILE: 0.25}, "protocol": protocol}
    (run / "report.json").write_text(json.dumps(report))
    (run / "config.yaml").write_text(f"# eztorch-sce knn\ndata:\n  root: {json.dumps(HOSTILE)}\n")
    (run / "unreadable.csv").write_text(f'path,reason\n"{HOSTILE.replace(chr(34), chr(34) * 2)}",{"x" * 300}\n')
    runs, problems = open_runs([str(run)])
    assert not problems
    write_page(tmp_path / "page.html", runs)
    with opened(browser, tmp_path / "page.html", "phone") as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        shown = page.evaluate("document.body.textContent")
        assert "<script>alert('x')</script>" in shown
        assert "{{ 7*7 }}" in shown
        assert "\u202e" not in shown
        assert page.evaluate("document.querySelector('h1').textContent") == "<b>bold & 'run'"
        assert page.evaluate("document.querySelectorAll('main script, h1 b').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_settings_are_found_by_words_and_the_theme_is_switched_by_keyboard(tmp_path: Path, browser: "Browser") -> None:
    (tmp_path / "config.yaml").write_text("# eztorch-sce knn\nk: 5\ndata:\n  root: videos\ntemperature: 0.07\n")
    write_page(tmp_path / "page.html", [RunFiles(tmp_path, "run")])
    with opened(browser, tmp_path / "page.html") as page:
        rows = page.locator("#settings tbody tr:visible")
        assert rows.all_inner_texts()[0].startswith("k\t5")
        assert rows.count() == 2  # what differs from the defaults
        page.locator("#settings-search").fill("temperature")
        assert rows.count() == 1
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme button[data-choice=dark]").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper
        assert page.locator("#theme button[data-choice=dark]").get_attribute("aria-pressed") == "true"


def test_the_command_of_a_study_is_copied_by_keyboard(tmp_path: Path, browser: "Browser") -> None:
    command = "eztorch-sce pretrain config='it''s <here>' trainer.max_epochs=100"
    interval = {"metric": "linear_top1", "mean": 0.25, "low": 0.1, "high": 0.4, "needed": None}
    conclusion = {"headline": "Pretraining helps.", "sentences": ["By much."], "command": command, "time": "50 min"}
    network = {"metrics": {"linear_top1": 0.75}, "intervals": {"linear_top1": [0.5, 1.0]}, "chance": {}}
    study = {
        "conclusion": {**conclusion, "is_supported": True},
        "records": {"kind": "video", "train": 8, "test": 4, "classes": ["a", "b"], "notes": []},
        "networks": {"motion": network},
        "comparisons": [{"first": "motion", "second": "untrained", "differences": [interval], "verdict": "better"}],
        "stages": {"look at the data": {"took_s": 3.0}},
        "settings": {"minutes": 0.5},
        "spent_s": 30.0,
    }
    (tmp_path / "study.json").write_text(json.dumps(study))
    (tmp_path / "config.yaml").write_text("# eztorch-sce study\n")
    write_page(tmp_path / "page.html", [RunFiles(tmp_path, "study")])
    with opened(browser, tmp_path / "page.html", "phone", "dark") as page:
        assert serious_faults(page) == []
        button = page.get_by_role("button", name="Copy the command")
        button.focus()
        page.keyboard.press("Enter")
        page.locator("[data-copied]:not(:empty)").wait_for()
        selected = page.evaluate("getSelection().toString()")
        assert page.locator("[data-copied]").inner_text() == "copied" or selected == command


def test_a_dark_page_prints_in_light_colors_with_its_details_open(page_file: Path, browser: "Browser") -> None:
    with opened(browser, page_file, "desktop", "dark") as page:
        is_light = "getComputedStyle(document.documentElement).colorScheme === 'light'"
        assert not page.evaluate(is_light)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(is_light)
        assert page.locator("details:not([open])").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert not page.evaluate(is_light)
        assert page.locator("details:not([open])").count() > 0
