"""`eztorch-sce watch`: the page of a run that is still going on, served to browsers of this machine."""

import hmac
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterable
from difflib import get_close_matches
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from eztorch_sce.errors import ConfigError, first_line
from eztorch_sce.printing import print_line, visible
from eztorch_sce.report.health import METRICS, SILENCE_S, progress_of, silence_s, state_of
from eztorch_sce.report.page import news_of, page_of, sections_of
from eztorch_sce.report.run_files import RunFiles, all_runs, open_runs
from eztorch_sce.report.section import Section
from eztorch_sce.report.sections.curves import trainings
from eztorch_sce.report.settings import WatchConfig
from eztorch_sce.report.training_log import TrainingLog
from eztorch_sce.thumbnails import cached_media

_LOCAL_NAMES = ("127.0.0.1", "localhost")  # hosts that a browser may ask for: a name of another site is a DNS trick
_WRITTEN_FIRST = ("multirun.yaml", "study.json", "versions.json")  # before the config.yaml of a run
_NEAR = 0.8  # similarity above which a name is probably a misspelling of another
_NUMBERING = "-_.0123456789"
_FRESH_S = 1.0  # in which all pages get the same answer
_FILES = (
    *(
        "config.yaml",
        "history.json",
        METRICS,
        "report.json",
        "views.json",
        "evaluations.json",
        "sample.pt",
        "unreadable.csv",
    ),
    "report/images.zip",
)
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def watch(run: str, config: WatchConfig) -> None:
    """Serve the page of a run until the user interrupts; the run need not exist yet.

    Raises:
        ConfigError: If `run` is a file, a folder of other things or probably misspelled, or the port is taken.
    """
    directory = Path(run)
    if message := _mistake_in(run):
        raise ConfigError([message])
    try:
        server = WatchServer(directory, config.port)
    except OSError as error:
        raise ConfigError(
            [f"port={config.port} cannot be used ({error.strerror}): leave it out for a free one"]
        ) from None
    with server:
        print_line(f"watching {run}{_waits_for(directory)}")
        print_line(f"open {server.address}")
        print_line(
            f"only this machine can; from another one: ssh -L {server.server_port}:127.0.0.1:{server.server_port} HOST"
        )
        print_line("stop with Ctrl-C; the run goes on")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print_line("\nended; the run goes on")


def _mistake_in(run: str) -> str | None:
    """Return the message for a path that no run will write to, or None."""
    path = Path(run)
    if path.is_file():
        return f"RUN={run} is a file: name the directory of a run"
    if not path.is_dir():
        meant = _misspelled(path)
        return (
            None
            if meant is None
            else f"RUN={run} does not exist; did you mean {meant}? To watch a new run, start it first"
        )
    if any(path.iterdir()) and not any((path / name).exists() for name in _WRITTEN_FIRST):
        return next(iter(open_runs([run])[1]), None)
    return None


def _misspelled(path: Path) -> Path | None:
    """Return the folder that a path was probably meant for. The next number, such as runs/knn-3, is no mistake."""
    absent = path
    while absent.parent != absent and not absent.parent.is_dir():
        absent = absent.parent
    folders = {each.name.rstrip(_NUMBERING): each for each in absent.parent.iterdir() if each.is_dir()}
    name = absent.name.rstrip(_NUMBERING)
    near = [] if name in folders else get_close_matches(name, folders, n=1, cutoff=_NEAR)
    return folders[near[0]] / path.relative_to(absent) if near else None


def _waits_for(directory: Path) -> str:
    """Return what the page waits for, if there is nothing to show yet."""
    if not directory.is_dir():
        return ", which does not exist yet: the page waits for a run that writes there"
    return "" if any(directory.iterdir()) else ", which is empty: the page waits for a run that writes there"


class WatchServer(ThreadingHTTPServer):
    """Server of the page of one run, on 127.0.0.1, for those who know its token.

    Args:
        directory: The run directory, or a folder of runs.
        port: Its port; 0 takes a free one.
    """

    daemon_threads = True  # a page that stays open does not keep the command from ending

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.token = secrets.token_urlsafe(24)
        self.follower = Follower(directory)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore browsers that have gone away; report anything else."""
        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, socket.timeout)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:  # named by http.server
        """Answer with the page or its news."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        token = query.get("token", [""])[0]
        if host not in _LOCAL_NAMES or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(403, "text/plain", "open the address that eztorch-sce watch has printed, token included\n")
        elif url.path == "/":
            self._answer(200, "text/html", self.server.follower.page())
        elif url.path == "/data.json":
            known = dict(part.split(":", 1) for part in query.get("known", [""])[0].split(",") if ":" in part)
            self._answer(200, "application/json", json.dumps(self.server.follower.news(known)))
        else:
            self._answer(404, "text/plain", "there is nothing here\n")

    def _refuse(self) -> None:
        self.close_connection = True  # a body that nobody reads may follow
        self._answer(405, "text/plain", "this server only answers GET\n")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, status: int, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: pages ask every two seconds."""


class _Shown(NamedTuple):
    """What all pages get until the run has changed.

    Attributes:
        order: Names of the sections.
        sections: What `news_of` returns, by name.
        run: State of the run.
    """

    order: list[str]
    sections: dict[str, dict[str, Any]]
    run: dict[str, Any]


class Follower:
    """What there is to say of a run, made again when its files change. It only reads.

    Args:
        directory: The run directory, or a folder of runs, which need not exist yet.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._shown = _Shown([], {}, {})
        self._checked_s, self._signature = float("-inf"), ""

    def page(self) -> str:
        """Return the page, without sections; they come with its first request for news."""
        return page_of([], [str(self.directory)], live=True)

    def news(self, known: dict[str, str]) -> dict[str, Any]:
        """Return the state of the run, and the sections that have changed.

        Args:
            known: Digests of the sections that the page has, by name.
        """
        with self._lock:
            if time.monotonic() - self._checked_s > _FRESH_S:
                self._look()
                self._checked_s = time.monotonic()
            shown = self._shown
        changed = [news for name, news in shown.sections.items() if known.get(name) != news["digest"]]
        return {"run": shown.run, "order": shown.order, "sections": changed}

    def _look(self) -> None:
        run = RunFiles(self.directory, str(self.directory))
        try:
            runs = [each for each in all_runs([run]) if each.directory.is_dir()]
            found = trainings([run])
            signature = _signature(each.directory for each in runs) + str([state_of(each) for each, _ in found])
            if signature != self._signature:
                news = [news_of(section) for section in _sections(run)]
                self._shown = _Shown([each["name"] for each in news], {each["name"]: each for each in news}, {})
                self._signature = signature
            self._shown = self._shown._replace(run=_state(run, found))
        except (ConfigError, OSError, ValueError) as error:  # a file that is being written, or is broken
            self._shown = self._shown._replace(
                run=_in_words("waiting", f"cannot be read: {visible(first_line(error))}")
            )


def _sections(run: RunFiles) -> list[Section]:
    return sections_of([run], cached_media([run])) if run.directory.is_dir() else []


def _signature(directories: Iterable[Path]) -> str:
    """Return what changes whenever a run has written a file."""
    parts = []
    for directory in directories:
        for name in _FILES:
            try:
                status = (directory / name).stat()
            except OSError:
                continue
            parts.append(f"{directory}/{name} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(parts)


def _state(run: RunFiles, found: list[tuple[RunFiles, TrainingLog]]) -> dict[str, Any]:
    """Return how the training is getting on, of several the one that has written last."""
    if not run.directory.is_dir():
        return _in_words("waiting", "waiting for the run directory to appear")
    if not found:
        words = "finished" if run.is_finished else "waiting for the first logged step"
        return _in_words("finished" if run.is_finished else "waiting", words) | {"silence_s": silence_s(run.directory)}
    latest, log = min(found, key=lambda each: silence_s(each[0].directory) or 0.0)
    state, progress, silence = state_of(latest), progress_of(latest.settings, log), silence_s(latest.directory)
    words = {
        "running": "running",
        "finished": "finished",
        "interrupted": f"no update for {SILENCE_S / 60:g} minutes: the process may be gone",
    }[state]
    epochs = latest.settings.get("trainer.max_epochs")
    return _in_words(state, words) | {
        "progress": 1.0 if state == "finished" else progress,
        "epoch": None if log.epoch is None else log.epoch + 1,
        "epochs": epochs if isinstance(epochs, int) else None,
        "step": log.num_steps,
        "left_s": _left_s(latest, log, progress) if state == "running" else None,
        "silence_s": silence,
    }


def _in_words(state: str, words: str) -> dict[str, Any]:
    nothing = dict.fromkeys(("progress", "epoch", "epochs", "step", "left_s", "silence_s"))
    return {"state": state, "words": words, **nothing}


def _left_s(run: RunFiles, log: TrainingLog, progress: float | None) -> float | None:
    """Return the seconds that a training has left at its mean speed since it was started or resumed."""
    started, start = run.history.last_start or ((run.directory / "config.yaml").stat().st_mtime, 0)
    took_s = (run.directory / METRICS).stat().st_mtime - started
    if not progress or took_s <= 0 or log.num_steps <= start:
        return None
    return (log.num_steps / progress - log.num_steps) * took_s / (log.num_steps - start)
