"""Page of a run with 5000 clips: its size, and the time to make it, to open it and to use its map.

    python benchmarks/report.py GESTURES [--clips 5000] [--runs runs/report] [--json FILE]

GESTURES contains train.csv and test.csv (path, class); their videos are divided into segments until there are enough
clips. Features are those of a network without training, which cost what others cost.
"""

import csv
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
from common import arguments, finish, row

from eztorch_sce import DataConfig, EvaluationViewsConfig, KnnConfig, RunConfig
from eztorch_sce.api import knn
from eztorch_sce.pages import report_page
from eztorch_sce.report.page import render
from eztorch_sce.report.run_files import RunFiles
from eztorch_sce.thumbnails import prepare_media

US = "eztorch_sce"
_DRAWN = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    parser = arguments(str(__doc__))
    parser.add_argument("gestures", type=Path)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--runs", type=Path, default=Path("runs/report"))
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    run_dir = options.runs / "knn"
    if not run_dir.exists():
        evaluate(options.gestures, options.clips, options.runs)

    shutil.rmtree(run_dir / "report", ignore_errors=True)
    what = f"page of {options.clips} clips"
    started = time.perf_counter()
    page = report_page([run_dir])
    made = time.perf_counter()
    report_page([run_dir])
    rows = [
        row(f"{what}: made", US, made - started, "s"),
        row(f"{what}: made again, images from the cache", US, time.perf_counter() - made, "s"),
    ]
    runs = [RunFiles(run_dir, "knn")]
    media = prepare_media(runs)
    num_strips = len(media.images[0].strips)
    started = time.perf_counter()
    render(runs, media)
    rows += [
        row(f"{what}: rendered, images in memory", US, time.perf_counter() - started, "s"),
        row(f"{what}: thumbnails", US, sum(map(len, media.images[0].atlases)) / 1e6, "MB"),
        row(f"{what}: thumbnails and animations ({num_strips})", US, media.images[0].num_bytes / 1e6, "MB"),
        row(f"{what}: size", US, page.stat().st_size / 1e6, "MB"),
    ]
    rows += [row(f"{what}: {name}", US, seconds, "s") for name, seconds in in_browser(page)]
    finish(rows, ["torch", "eztorch-sce"], options.json, [])


def evaluate(gestures: Path, num_clips: int, runs: Path) -> None:
    """Evaluate a small network on segments of the videos."""
    for split, share in (("train", 0.7), ("test", 0.3)):
        with (gestures / f"{split}.csv").open() as stream:
            videos = list(csv.DictReader(stream))
        count = round(num_clips * share)
        each = -(-count // len(videos))
        rows = []
        for video in videos:
            path = gestures / video["path"]
            with av.open(str(path)) as container:
                duration_s = (container.duration or 0) / av.time_base
            step_s = duration_s * 0.9 / each
            rows += [
                (path.resolve(), video["class"], f"{part * step_s:.3f}", f"{(part + 1) * step_s:.3f}")
                for part in range(each)
            ]
        with (runs / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "class", "start", "end"])
            writer.writerows(rows[:: max(1, len(rows) // count)][:count])
    data = DataConfig(
        list=str(runs / "train.csv"), test_list=str(runs / "test.csv"), num_frames=4, clip_s=0.3, group=r"([^/]+)\.mp4"
    )
    one = EvaluationViewsConfig(num_clips=1, num_crops=1)
    knn(KnnConfig(backbone="r2plus1d_small", data=data, test=one, run=RunConfig(dir=str(runs / "knn"))))


def in_browser(page: Path) -> Iterator[tuple[str, float]]:
    """Yield the seconds until the page has drawn everything, and those of actions, in a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        started = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("html[data-ready]", state="attached")
        tab.evaluate(_DRAWN)
        yield "opened and drawn", time.perf_counter() - started
        map_section = tab.locator("#map")
        actions: dict[str, Callable[[], object]] = {
            "map colored by cluster": lambda: map_section.get_by_label("Color by").select_option("cluster"),
            "map searched": lambda: map_section.get_by_label("Search").fill("video_1"),
            "gallery filtered": lambda: tab.locator("#gallery").get_by_label("Show").select_option("miss"),
        }
        for name, act in actions.items():
            started = time.perf_counter()
            act()
            tab.evaluate(_DRAWN)
            yield name, time.perf_counter() - started
        browser.close()


if __name__ == "__main__":
    main()
