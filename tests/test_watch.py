"""Tests of `watch`: a browser follows a run that starts, is killed and goes on; others are refused."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from browser import chromium
from own_sources import Arrays, noise

from eztorch_sce import api
from eztorch_sce.augment.view import ViewConfig
from eztorch_sce.config.schema import PretrainConfig
from eztorch_sce.data.config import DataConfig
from eztorch_sce.models.backbones.small import SmallR2Plus1DConfig
from eztorch_sce.watch import Follower, WatchServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.xdist_group("browser")
_TRAINS = """
import sys
from test_watch import training
training(sys.argv[1], 2000)
"""


def training(run_dir: str, epochs: int) -> None:
    config = PretrainConfig(
        data=DataConfig(batch_size=8, num_workers=0),
        views=[ViewConfig(size=16), ViewConfig(size=16)],
        backbone=SmallR2Plus1DConfig(width=4, num_blocks=1),
    )
    config.run.dir, config.run.log_every_n_steps, config.run.save_every_n_steps = run_dir, 1, 1
    config.trainer.max_epochs, config.trainer.accelerator = epochs, "cpu"
    api.pretrain(config, data=Arrays(noise(20, 3, 24, 24)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Yield the address that the command prints, and check that Ctrl-C ends it quietly."""
    command = [sys.executable, "-m", "eztorch_sce", "watch", str(folder / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    assert "does not exist yet" in lines[0]
    yield lines[1].split()[-1]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    complaints = [
        line for line in errors.splitlines() if not line.startswith("loading")
    ]  # printed on slow machines only
    assert (process.returncode, complaints) == (0, [])


def status_of(address: str, method: str = "GET", host: str | None = None) -> int:
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.netloc)
    connection.request(method, f"{url.path}?{url.query}", headers={"Host": host or url.netloc})
    status = connection.getresponse().status
    connection.close()
    return status


def test_only_those_who_know_the_address_may_read(address: str) -> None:
    data = address.replace("/?", "/data.json?")
    without_token = re.sub("token=.*", "token=", address)
    assert [status_of(each) for each in (address, data)] == [200, 200]
    assert [status_of(each) for each in (without_token, without_token.split("?")[0], data + "x")] == [403, 403, 403]
    assert status_of(address, host="evil.example") == 403
    assert status_of(address.replace("/?", "/../config.yaml?")) == 404
    assert [status_of(address, method) for method in ("POST", "PUT", "DELETE", "HEAD")] == [405, 405, 405, 405]


def test_a_page_follows_a_run_that_starts_is_killed_and_goes_on(address: str, folder: Path) -> None:
    words = "document.getElementById('live-words').textContent"
    steps = f"Number(({words}.match(/step ([0-9,]+)/) || [0, '0'])[1].replace(',', ''))"
    with chromium() as browser:
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        _until(page, f"{words}.includes('waiting for the run')")
        command = [sys.executable, "-c", _TRAINS, str(folder / "run")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, env=_environment(), stdout=log, stderr=log)
        try:
            page.wait_for_selector("figure[data-curve=loss] canvas", timeout=60_000)
            page.wait_for_selector(".views-tile")
            page.click("#curves summary")
            page.evaluate("document.getElementById('curves').dataset.kept = 'yes'")
            seen = page.evaluate(steps)
            _until(page, f"{steps} > {seen}")
            _until(page, f"{steps} > {seen + 4}")  # by then, a checkpoint is durable
        finally:
            process.kill()
            process.wait()
        before = sorted(file.name for file in (folder / "run").iterdir())
        rows = (folder / "run/metrics.csv").read_text().splitlines()
        epochs = int(rows[-1].split(",")[rows[0].split(",").index("epoch")]) + 3
        training(str(folder / "run"), epochs)
        _until(page, f"{words}.startsWith('finished')")
        assert page.evaluate(steps) == 2 * epochs  # two batches of eight from 16 records
        assert page.evaluate("document.getElementById('curves').dataset.kept") == "yes"  # never loaded again
        assert page.evaluate("document.querySelector('#curves details').open")
        assert faults == []
        assert {*before, "backbone.safetensors", "report.json"} == {file.name for file in (folder / "run").iterdir()}


def _until(page: "Page", expression: str) -> None:
    """Wait for a page; Playwright's own way evaluates texts in it, which its policy forbids."""
    until = time.monotonic() + 60
    while not page.evaluate(expression) and time.monotonic() < until:
        time.sleep(0.1)
    assert page.evaluate(expression), page.evaluate("document.getElementById('live-words').textContent")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent / 'support'}"}


def test_data_are_sent_once(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("command: pretrain\n")
    (tmp_path / "metrics.csv").write_text("step,loss\n0,2.0\n1,1.0\n")
    with WatchServer(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = urlsplit(server.address.replace("/?", "/data.json?"))

        def news_of(known: str = "") -> dict[str, Any]:
            with closing(http.client.HTTPConnection(url.netloc)) as connection:
                connection.request("GET", f"{url.path}?{url.query}&known={known}")
                news: dict[str, Any] = json.loads(connection.getresponse().read())
                return news

        sections = news_of()["sections"]
        known = {section["name"]: f"{section['name']}:{section['digest']}" for section in sections}
        again = news_of(",".join(known.values()))["sections"]
        without_verdict = news_of(known["verdict"])["sections"]
        server.shutdown()
    assert {"verdict", "curves"} <= known.keys()
    assert again == []
    assert {section["name"] for section in without_verdict} == known.keys() - {"verdict"}


def test_the_time_left_and_the_marks_follow_the_sessions_of_a_run(tmp_path: Path) -> None:
    """Ten of twenty steps: four in a first process, and six in a minute of a second one, a day later."""
    rows = [f"{step},2.0,{step // 5}\n" for step in range(10)]
    (tmp_path / "config.yaml").write_text("# eztorch-sce pretrain\ntrainer:\n  max_epochs: 4\n")
    (tmp_path / "metrics.csv").write_text("step,loss,epoch\n" + "".join(rows))
    started = time.time() - 60
    times = [time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(each)) for each in (started - 86_400, started)]
    sessions = [{"started": each, "from_step": step} for each, step in zip(times, (0, 4), strict=True)]
    (tmp_path / "history.json").write_text(json.dumps({"sessions": sessions}))
    os.utime(tmp_path / "config.yaml", (started - 86_400,) * 2)
    news = Follower(tmp_path).news({})
    assert news["run"]["left_s"] == pytest.approx(100, rel=0.1)
    (curves,) = (section for section in news["sections"] if section["name"] == "curves")
    assert curves["data"]["groups"][0]["runs"][0]["resumed_at"] == [4]
